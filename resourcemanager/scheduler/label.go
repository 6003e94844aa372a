package scheduler

import (
	"cmp"
	"slices"

	"github.com/mammoth-os/mammoth/internal/id"
)

// label is a node attribute over whose values some ask spreads.
type label struct {
	name string
	// values numbers the values seen; 0 is the nodes without the attribute. texts is the reverse.
	values map[string]int32
	texts  []string
	// of is each node's value by slot, nodes are the known nodes of each value.
	of    []int32
	nodes []span
	// members is how many nodes each value has; version rises when a value gets its first.
	members []int32
	version int
	// sorted has the values that have nodes, by their texts, rank where each is in it, as of sortedAt.
	sorted, rank []int32
	sortedAt     int
}

// sort brings sorted and rank up to date. A value that has lost its last node stays.
func (l *label) sort() {
	if l.sortedAt == l.version {
		return
	}
	l.sorted, l.rank, l.sortedAt = l.sorted[:0], make([]int32, len(l.texts)), l.version
	for value := range l.texts {
		if l.members[value] > 0 {
			l.sorted = append(l.sorted, int32(value))
		}
	}
	slices.SortFunc(l.sorted, func(x, y int32) int { return cmp.Compare(l.texts[x], l.texts[y]) })
	for i, value := range l.sorted {
		l.rank[value] = int32(i)
	}
}

func (c *Core) labelNamed(name string) *label {
	for _, l := range c.labelList {
		if l.name == name {
			return l
		}
	}
	l := &label{name: name, values: map[string]int32{}, texts: make([]string, 1), nodes: make([]span, 1), members: make([]int32, 1)}
	c.labelList = append(c.labelList, l)
	for _, n := range c.nodes {
		l.look(n)
	}
	return l
}

// look notes a node's value, and reports whether it is another than before.
func (l *label) look(n *node) bool {
	number := int32(0)
	if value, ok := n.spec.Attributes[l.name]; ok && n.known {
		text := value.String()
		number, ok = l.values[text]
		if !ok {
			number = int32(len(l.nodes))
			l.values[text] = number
			l.texts, l.nodes = append(l.texts, text), append(l.nodes, span{})
			l.members = append(l.members, 0)
		}
	}
	return l.assign(n.slot, number, n.known)
}

// assign notes a slot's value; only nodes that are known are among that value's.
func (l *label) assign(slot, number int32, known bool) bool {
	for int(slot) >= len(l.of) {
		l.of = append(l.of, 0)
	}
	old := l.of[slot]
	if l.nodes[old].has(slot) {
		l.nodes[old].clear(slot)
		l.members[old]--
	}
	l.of[slot] = number
	if known {
		l.nodes[number].set(slot)
		if l.members[number]++; l.members[number] == 1 {
			l.version++
		}
	}
	return old != number
}

// recount brings what groups know of a label up to date after a node with containers changed its value.
func (c *Core) recount(l *label) {
	for _, a := range c.apps {
		for _, g := range a.groups {
			for _, t := range g.tallies {
				if t.label == l {
					t.recount(g)
				}
			}
		}
	}
}

// filter is a set of constraints and nodes to avoid, shared by all asks that have the same.
type filter struct {
	key         string
	constraints []Constraint
	avoid       []id.Node
	allowed     bitmap
	shapes      int
}

func (f *filter) judge(n *node, words int) {
	if f.allows(n) {
		f.allowed.set(n.slot, words)
	} else {
		f.allowed.clear(n.slot)
	}
}

func (f *filter) allows(n *node) bool {
	for i := range f.constraints {
		if !f.constraints[i].Matches(n.spec.Attributes) {
			return false
		}
	}
	for _, name := range f.avoid {
		if name == n.spec.Name {
			return false
		}
	}
	return true
}

// filterFor finds the filter of an ask, nil if it takes any node.
func (c *Core) filterFor(spec *Ask) *filter {
	if len(spec.Constraints) == 0 && len(spec.Avoid) == 0 {
		return nil
	}
	c.text = c.text[:0]
	for i := range spec.Constraints {
		c.text = append(append(c.text, spec.Constraints[i].String()...), 0)
	}
	c.text = append(c.text, 1)
	for _, name := range spec.Avoid {
		c.text = append(append(c.text, name...), 0)
	}
	if f := c.filters[string(c.text)]; f != nil {
		return f
	}
	f := &filter{key: string(c.text), constraints: spec.Constraints, avoid: spec.Avoid}
	c.filters[f.key] = f
	c.filterList = append(c.filterList, f)
	for _, n := range c.nodes {
		f.judge(n, c.grid.words)
	}
	return f
}

// named is all that the zone has of apps with one name: what affinity and anti-affinity are about.
type named struct {
	name string
	apps int
	held int
	// nodes is kept only when some ask names it.
	tracked bool
	nodes   bitmap
	// repelledBy are those whose asks declared anti-affinity to this one; it holds in both directions.
	repelledBy []*named
}

func (c *Core) nameOf(name string) *named {
	m := c.names[name]
	if m == nil {
		m = &named{name: name}
		c.names[name] = m
	}
	return m
}

// tracked makes a name's nodes known.
func (c *Core) trackName(name string) *named {
	m := c.nameOf(name)
	if m.tracked {
		return m
	}
	m.tracked = true
	for _, a := range c.sortedApps() {
		for k := a.containers; a.named == m && k != nil; k = k.nextOfApp {
			m.nodes.set(k.node.slot, c.grid.words)
		}
	}
	return m
}

// repel notes that apps named by are never to share a node with apps named name, and gives the asks of the
// latter their new shapes.
func (c *Core) repel(name string, by *named) {
	m := c.trackName(name)
	for _, known := range m.repelledBy {
		if known == by {
			return
		}
	}
	c.trackName(by.name)
	m.repelledBy = append(m.repelledBy, by)
	if m != by {
		c.reshape(m)
	}
}

func (c *Core) reshape(m *named) {
	for _, a := range c.sortedApps() {
		if a.named != m {
			continue
		}
		for _, k := range a.sortedAsks() {
			c.leave(k)
			c.enter(k)
		}
	}
}

// leaveName takes an app that is forgotten off its name.
func (c *Core) leaveName(m *named) {
	m.apps--
	if m.apps > 0 {
		return
	}
	if m.tracked {
		for _, other := range c.sortedNames() {
			for i, by := range other.repelledBy {
				if by == m {
					other.repelledBy = append(other.repelledBy[:i:i], other.repelledBy[i+1:]...)
					c.reshape(other)
					break
				}
			}
		}
	}
	// Others may still name it, or be named by it; only a name that means nothing to anybody is dropped.
	if !m.tracked {
		delete(c.names, m.name)
	}
}
