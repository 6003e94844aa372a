package scheduler

import (
	"math/bits"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// candidates is how many nodes that fit are compared before the best of them is taken.
const candidates = 16

// scanBudget is how many words of the grid a search from the emptiest nodes looks at.
const scanBudget = 32

// fewWords is how many words of nodes are looked at one by one, rather than where they stand in the grid.
const fewWords = 4 * scanBudget

// find is the slot of the node where one container of an ask goes, or -1.
func (c *Core) find(k *ask) int32 {
	s := k.shape
	c.allow, c.deny = s.masks(c.allow[:0], c.deny[:0])
	if k.spec.Policy == Pack {
		return c.scanUp(s)
	}
	if k.tally != nil {
		return c.findOverLabel(k)
	}
	g, first := k.group, 0
	known := &s.evens[g.app.order%int64(len(s.evens))]
	if known.group == g && known.wakes == c.wakes {
		first = known.level
	}
	slot, level := c.findEven(s, g, first)
	*known = even{group: g, level: level, wakes: c.wakes}
	return slot
}

// findEven takes a node with as few containers of the group as can be, and among those one with much left. The
// level is how many the group has there.
func (c *Core) findEven(s *shape, g *group, level int) (slot int32, found int) {
	deny := len(c.deny)
	for ; ; level++ {
		c.deny = c.deny[:deny]
		if level < len(g.levels) {
			c.deny = append(c.deny, g.levels[level])
		}
		slot = -1
		switch {
		case !c.anyPasses():
		case c.within != nil && len(c.within.words) <= fewWords:
			slot = c.scanAll(s, int(g.app.order), 1)
		default:
			slot = c.scanDown(s, int(g.app.order))
		}
		if slot >= 0 || level >= len(g.levels) {
			return slot, level
		}
	}
}

// anyPasses reports whether any node passes the masks, whatever it has left.
func (c *Core) anyPasses() bool {
	from, to := c.searched()
	for i := from; i < to; i++ {
		if c.passing(i, c.open.word(i)) != 0 {
			return true
		}
	}
	return false
}

// searched is which words of nodes a search has to look at.
func (c *Core) searched() (from, to int) {
	if c.within == nil {
		return 0, len(c.open)
	}
	return c.within.first, min(c.within.first+len(c.within.words), len(c.open))
}

// passing is what passes the masks of a word of nodes.
func (c *Core) passing(i int, word uint64) uint64 {
	if c.within != nil {
		word &= c.within.word(i)
	}
	for _, b := range c.allow {
		word &= b.word(i)
	}
	for _, b := range c.deny {
		word &^= b.word(i)
	}
	return word
}

// findOverLabel takes a node of the value with the fewest containers of the group.
func (c *Core) findOverLabel(k *ask) int32 {
	t := k.tally
	clear(t.tried)
	deny := len(c.deny)
	defer func() { c.within = nil }()
	for value := t.lowest(); value >= 0; value = t.lowestUntried() {
		t.tried.set(value, (len(t.counts)+63)/64)
		c.within, c.deny = &t.label.nodes[value], c.deny[:deny]
		if slot, _ := c.findEven(k.shape, k.group, 0); slot >= 0 {
			return slot
		}
	}
	return -1
}

// scanUp searches from the fullest nodes that may fit. Where only few nodes pass the masks it takes the fullest of them
// instead, for the same reason as scanDown.
func (c *Core) scanUp(s *shape) int32 {
	c.budget = max(fewWords, len(c.open)/4)
	for diagonal := int(s.floor.cpu) + int(s.floor.memory); diagonal < len(c.grid.diagonals); diagonal++ {
		for mask := c.grid.atLeast(diagonal, s.floor); mask != 0; mask &= mask - 1 {
			cpu := bits.TrailingZeros64(mask)
			if slot := c.scanCell(s, c.grid.cells[cpu][diagonal-cpu], 0, -1); slot >= 0 {
				return slot
			}
			if c.budget <= 0 {
				return c.scanAll(s, 0, -1)
			}
		}
	}
	return -1
}

// scanDown searches from the emptiest nodes. turn makes different apps begin with different ones. Where only few
// nodes pass the masks it would look at most of the grid; then it takes one from all of them instead.
func (c *Core) scanDown(s *shape, turn int) int32 {
	c.budget = scanBudget
	for diagonal := len(c.grid.diagonals) - 1; diagonal >= int(s.floor.cpu)+int(s.floor.memory); diagonal-- {
		for mask := c.grid.atLeast(diagonal, s.floor); mask != 0; mask &= mask - 1 {
			cpu := bits.TrailingZeros64(mask)
			if slot := c.scanCell(s, c.grid.cells[cpu][diagonal-cpu], turn, 1); slot >= 0 {
				return slot
			}
			if c.budget <= 0 {
				return c.scanAll(s, turn, 1)
			}
		}
	}
	return -1
}

// choice is the best node so far of those that a search has looked at.
type choice struct {
	slot  int32
	score float64
	seen  int
}

// scanCell takes from a cell the node that has the least left (sign -1) or the most (sign 1), of the first
// candidates that pass the masks and have room for everything.
func (c *Core) scanCell(s *shape, set *nodeSet, turn int, sign float64) int32 {
	best := choice{slot: -1}
	first := 0
	if len(set.words) > 0 {
		first = turn % len(set.words)
	}
	for pass := range 2 {
		from, to := first, len(set.words)
		if pass == 1 {
			from, to = 0, first
		}
		for i := set.next(from); i >= 0 && i < to; i = set.next(i + 1) {
			c.consider(s, i, set.words[i], sign, &best)
			if c.budget--; best.seen == candidates || c.budget <= 0 {
				return best.slot
			}
		}
	}
	return best.slot
}

// scanAll takes of the first candidates among all nodes the one that has the most left (sign 1) or the least (sign -1).
func (c *Core) scanAll(s *shape, turn int, sign float64) int32 {
	best := choice{slot: -1}
	from, to := c.searched()
	for i := range to - from {
		word := from + (i+turn)%(to-from)
		if c.open[word] == 0 {
			continue
		}
		c.consider(s, word, c.open[word], sign, &best)
		if best.seen == candidates {
			break
		}
	}
	return best.slot
}

// consider looks at the nodes of a word that pass the masks.
func (c *Core) consider(s *shape, i int, word uint64, sign float64, best *choice) {
	for word = c.passing(i, word); word != 0; word &= word - 1 {
		slot := int32(i<<6 + bits.TrailingZeros64(word))
		free := &c.avail[slot]
		if !fits(&s.need, free) {
			c.unfit(s, slot)
			continue
		}
		score := sign * (float64(free[resource.CPU])*c.cpuWeight + float64(free[resource.Memory])*c.memoryWeight)
		if best.slot < 0 || score > best.score {
			best.slot, best.score = slot, score
		}
		if best.seen++; best.seen == candidates {
			return
		}
	}
}

// fits reports whether a node has what is needed left. Being over-committed in what is not needed does not matter.
func fits(need, free *resource.Vector) bool {
	for i := range need {
		if need[i] > free[i] && need[i] > 0 {
			return false
		}
	}
	return true
}
