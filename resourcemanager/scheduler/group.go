package scheduler

import "github.com/mammoth-os/mammoth/resourcemanager/scheduler/grid"

// group is the containers of an app that spread and MaxPerNode count together.
type group struct {
	app  *app
	name string
	// levels[i] has the nodes with more than i containers of the group, if tracked.
	levels  []grid.Bitmap
	tracked bool
	tallies []*tally
}

// tally counts a group's containers by the values of a label.
type tally struct {
	label *label
	// counts is by value.
	counts []int32
	// least is the smallest count of any value. In the order of their texts, all values before from have more. Both hold for the
	// label at version.
	least         int32
	from, version int
	// tried has the values that the present search has tried.
	tried grid.Bitmap
}

func (a *app) group(name string) *group {
	for _, g := range a.groups {
		if g.name == name {
			return g
		}
	}
	g := &group{app: a, name: name}
	a.groups = append(a.groups, g)
	return g
}

// track makes a group count its containers by nodes.
func (g *group) track(words int) {
	if g.tracked {
		return
	}
	g.tracked = true
	for ctr := g.app.containers; ctr != nil; ctr = ctr.nextOfApp {
		if ctr.group == g {
			g.levelUp(ctr.node.slot, words)
		}
	}
}

// count is the group's containers on a node.
func (g *group) count(slot int32) int {
	low, high := 0, len(g.levels)
	for low < high {
		if middle := (low + high) / 2; g.levels[middle].Has(slot) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

func (g *group) levelUp(slot int32, words int) {
	n := g.count(slot)
	if n == len(g.levels) {
		g.levels = append(g.levels, nil)
	}
	g.levels[n].Set(slot, words)
}

func (g *group) add(slot int32, words int) {
	if g.tracked {
		g.levelUp(slot, words)
	}
	for _, t := range g.tallies {
		t.grow()
		t.counts[t.label.of[slot]]++
	}
}

func (g *group) remove(slot int32) {
	if g.tracked {
		g.levels[g.count(slot)-1].Clear(slot)
	}
	for _, t := range g.tallies {
		t.remove(t.label.of[slot])
	}
}

// tally finds or makes the group's count over a label.
func (g *group) tally(l *label) *tally {
	for _, t := range g.tallies {
		if t.label == l {
			return t
		}
	}
	t := &tally{label: l}
	t.recount(g)
	g.tallies = append(g.tallies, t)
	return t
}

func (t *tally) recount(g *group) {
	t.grow()
	clear(t.counts)
	t.version = -1
	for ctr := g.app.containers; ctr != nil; ctr = ctr.nextOfApp {
		if ctr.group == g {
			t.counts[t.label.of[ctr.node.slot]]++
		}
	}
}

// move counts a container at another value, because its node has that now.
func (t *tally) move(from, to int32) {
	t.grow()
	t.counts[from]--
	t.counts[to]++
	t.version = -1
}

func (t *tally) grow() {
	for len(t.counts) < len(t.label.nodes) {
		t.counts = append(t.counts, 0)
	}
}

func (t *tally) remove(value int32) {
	t.counts[value]--
	switch n := t.counts[value]; {
	case t.version != t.label.version || t.label.members[value] == 0:
	case n < t.least:
		t.least, t.from = n, int(t.label.rank[value])
	case n == t.least:
		t.from = min(t.from, int(t.label.rank[value]))
	}
}

// lowest is the value with the fewest containers. Among equals it is the one whose text comes first, since the numbers of values
// depend on the order in which they were seen.
func (t *tally) lowest() int32 {
	t.grow()
	t.label.sort()
	sorted := t.label.sorted
	if t.version == t.label.sortedAt {
		for ; t.from < len(sorted); t.from++ {
			if t.counts[sorted[t.from]] == t.least {
				return sorted[t.from]
			}
		}
	}
	t.version, t.from = t.label.sortedAt, 0
	for i, value := range sorted {
		if i == 0 || t.counts[value] < t.least {
			t.least, t.from = t.counts[value], i
		}
	}
	if len(sorted) == 0 {
		return -1
	}
	return sorted[t.from]
}

// lowestUntried is lowest among the values that were not tried, or -1.
func (t *tally) lowestUntried() int32 {
	best := int32(-1)
	for _, value := range t.label.sorted {
		if !t.tried.Has(value) && (best < 0 || t.counts[value] < t.counts[best]) {
			best = value
		}
	}
	return best
}
