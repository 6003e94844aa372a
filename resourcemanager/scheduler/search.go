package scheduler

import (
	"math/bits"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler/grid"
)

// candidates is how many nodes that fit are compared before the best of them is taken.
const candidates = 16

// scanBudget is how many words of the grid a search from the emptiest nodes examines.
const scanBudget = 32

// fewWords is up to how many words of nodes are examined one by one instead of by the grid.
const fewWords = 4 * scanBudget

// search is the scratch space of a search for a node.
type search struct {
	// conditions are those of the shape.
	conditions []condition
	// allow and deny are bitmaps of nodes: those in all of the former and in none of the latter may be taken.
	allow, deny []grid.Bitmap
	// within are the nodes to which the search is restricted; nil is all.
	within *grid.Span
	// budget is how many words the search may still examine.
	budget int
}

// begin collects the masks of a shape: its conditions, and nodes that are known to have no room.
func (s *search) begin(of *shape) {
	s.allow, s.deny = s.allow[:0], s.deny[:0]
	if of.hasConditions() {
		s.conditions = of.conditions(s.conditions[:0])
		for i := range s.conditions {
			if each := &s.conditions[i]; each.passes {
				s.allow = append(s.allow, each.nodes)
			} else {
				s.deny = append(s.deny, each.nodes)
			}
		}
	}
	if of.misfits > 0 {
		s.deny = append(s.deny, of.misfit)
	}
}

// hasFewWords reports whether the search is restricted to few enough nodes to examine them one by one.
func (s *search) hasFewWords() bool {
	from, to := s.within.Range()
	return to-from <= fewWords
}

// find is the slot of the node where one container of an ask goes, or -1.
func (fl *fleet) find(k *ask) int32 {
	s := k.shape
	fl.search.begin(s)
	if k.spec.Policy == Pack {
		return fl.scanUp(s)
	}
	if k.tally != nil {
		return fl.findSpreadOver(k)
	}
	g, first := k.group, 0
	known := &s.lastSpreads[g.app.order%int64(len(s.lastSpreads))]
	if known.group == g && known.changes == fl.changes {
		first = known.level
	}
	slot, level := fl.findSpread(s, g, first)
	*known = spreadResult{group: g, level: level, changes: fl.changes}
	return slot
}

// findSpread returns a node with as few containers of the group as possible, but at least level, and among those one with much
// free. found is the number of containers of the group there.
func (fl *fleet) findSpread(s *shape, g *group, level int) (slot int32, found int) {
	deny := len(fl.search.deny)
	for ; ; level++ {
		fl.search.deny = fl.search.deny[:deny]
		if level < len(g.levels) {
			fl.search.deny = append(fl.search.deny, g.levels[level])
		}
		slot = -1
		switch {
		case !fl.anyPasses():
		case fl.search.within != nil && fl.search.hasFewWords():
			slot = fl.scanAll(s, int(g.app.order), 1)
		default:
			slot = fl.scanDown(s, int(g.app.order))
		}
		if slot >= 0 || level >= len(g.levels) {
			return slot, level
		}
	}
}

// anyPasses reports whether any node passes the masks, whatever it has left.
func (fl *fleet) anyPasses() bool {
	from, to := fl.searched()
	for i := from; i < to; i++ {
		if fl.passing(i, fl.open.Word(i)) != 0 {
			return true
		}
	}
	return false
}

// searched is the range of words of nodes that a search has to examine.
func (fl *fleet) searched() (from, to int) {
	if fl.search.within == nil {
		return 0, len(fl.open)
	}
	from, to = fl.search.within.Range()
	return from, min(to, len(fl.open))
}

// passing returns the nodes of a word that pass the masks.
func (fl *fleet) passing(i int, word uint64) uint64 {
	if fl.search.within != nil {
		word &= fl.search.within.Word(i)
	}
	for _, b := range fl.search.allow {
		word &= b.Word(i)
	}
	for _, b := range fl.search.deny {
		word &^= b.Word(i)
	}
	return word
}

// findSpreadOver returns a node of the label's value with the fewest containers of the group.
func (fl *fleet) findSpreadOver(k *ask) int32 {
	t := k.tally
	clear(t.tried)
	deny := len(fl.search.deny)
	defer func() { fl.search.within = nil }()
	for value := t.lowest(); value >= 0; value = t.lowestUntried() {
		t.tried.Set(value, (len(t.counts)+63)/64)
		fl.search.within, fl.search.deny = &t.label.nodes[value], fl.search.deny[:deny]
		if slot, _ := fl.findSpread(k.shape, k.group, 0); slot >= 0 {
			return slot
		}
	}
	return -1
}

// scanUp searches from the fullest nodes that may fit. If only few nodes pass the masks, it chooses the fullest of them instead,
// for the same reason as scanDown.
func (fl *fleet) scanUp(s *shape) int32 {
	fl.search.budget = max(fewWords, len(fl.open)/4)
	for diagonal := int(s.floor.CPU) + int(s.floor.Memory); diagonal < grid.Diagonals; diagonal++ {
		for mask := fl.grid.AtLeast(diagonal, s.floor); mask != 0; mask &= mask - 1 {
			cpu := bits.TrailingZeros64(mask)
			if slot := fl.scanCell(s, fl.grid.At(cpu, diagonal-cpu), 0, -1); slot >= 0 {
				return slot
			}
			if fl.search.budget <= 0 {
				return fl.scanAll(s, 0, -1)
			}
		}
	}
	return -1
}

// scanDown searches from the emptiest nodes. turn makes different apps begin with different nodes. If only few nodes pass the
// masks, it would examine most of the grid; then it chooses among all of them instead.
func (fl *fleet) scanDown(s *shape, turn int) int32 {
	fl.search.budget = scanBudget
	for diagonal := grid.Diagonals - 1; diagonal >= int(s.floor.CPU)+int(s.floor.Memory); diagonal-- {
		for mask := fl.grid.AtLeast(diagonal, s.floor); mask != 0; mask &= mask - 1 {
			cpu := bits.TrailingZeros64(mask)
			if slot := fl.scanCell(s, fl.grid.At(cpu, diagonal-cpu), turn, 1); slot >= 0 {
				return slot
			}
			if fl.search.budget <= 0 {
				return fl.scanAll(s, turn, 1)
			}
		}
	}
	return -1
}

// choice is the best node that a search has found so far, and how many it has compared.
type choice struct {
	slot  int32
	score float64
	seen  int
}

// scanCell returns the node of a cell with the least free (sign -1) or the most (sign 1), of the first candidates that pass the
// masks and have room.
func (fl *fleet) scanCell(s *shape, set *grid.Set, turn int, sign float64) int32 {
	best := choice{slot: -1}
	first := 0
	if set.Words() > 0 {
		first = turn % set.Words()
	}
	for pass := range 2 {
		from, to := first, set.Words()
		if pass == 1 {
			from, to = 0, first
		}
		for i := set.Next(from); i >= 0 && i < to; i = set.Next(i + 1) {
			fl.consider(s, i, set.Word(i), sign, &best)
			if fl.search.budget--; best.seen == candidates || fl.search.budget <= 0 {
				return best.slot
			}
		}
	}
	return best.slot
}

// scanAll returns the node with the most free (sign 1) or the least (sign -1) of the first candidates among all nodes.
func (fl *fleet) scanAll(s *shape, turn int, sign float64) int32 {
	best := choice{slot: -1}
	from, to := fl.searched()
	for i := range to - from {
		word := from + (i+turn)%(to-from)
		if fl.open[word] == 0 {
			continue
		}
		fl.consider(s, word, fl.open[word], sign, &best)
		if best.seen == candidates {
			break
		}
	}
	return best.slot
}

// consider compares the nodes of a word that pass the masks.
func (fl *fleet) consider(s *shape, i int, word uint64, sign float64, best *choice) {
	for word = fl.passing(i, word); word != 0; word &= word - 1 {
		slot := int32(i<<6 + bits.TrailingZeros64(word))
		free := &fl.avail[slot]
		if !fits(&s.need, free) {
			s.exclude(slot, fl.grid.Words())
			continue
		}
		score := sign * fl.weights.of(free)
		if best.slot < 0 || score > best.score {
			best.slot, best.score = slot, score
		}
		if best.seen++; best.seen == candidates {
			return
		}
	}
}

// fits reports whether a node has what is needed left.
func fits(need, free *resource.Vector) bool { return lacks(need, free) < 0 }
