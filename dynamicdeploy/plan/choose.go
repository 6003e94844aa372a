package plan

import (
	"cmp"
	"slices"
)

// replace replaces all other versions with the desired one, a few instances at a time.
//
// Surplus slots leave first. A slot that no node has reported may be the only one that serves, so it stays unless it must leave.
// Outdated and evicted slots leave if they do not serve, or if enough counting ones remain without them:
// count−MaxUnavailable for outdated slots, the whole count for evicted ones. Then slots are opened until there are count new
// ones, but never more than count+MaxSurge of all versions; the surge is at least one for evicted slots, and none once the rollout has failed.
func (c *chooser) replace() {
	c.slots.route(c.desired.Version)
	count := c.desired.Count
	surge := c.desired.Update.MaxSurge
	if c.rollout.failed() {
		surge = 0
	}
	var fresh, stale []*slot
	counting := 0
	for _, s := range c.slots.sorted() {
		if s.leaving {
			continue
		}
		if c.at.countsTowardMinimum(s) && !s.notRouted {
			counting++
		}
		switch {
		case c.at.outdated(s):
			stale = append(stale, s)
		case c.at.evicted(s):
			stale = append(stale, s)
			surge = max(surge, 1)
		default:
			fresh = append(fresh, s)
		}
	}

	counting -= c.shrink(fresh, count)
	if c.rollout.failed() {
		fresh = c.withdrawSurplusAsks(fresh, len(fresh)+len(stale)-count-surge)
	}

	slices.SortStableFunc(stale, func(a, b *slot) int {
		return cmp.Or(cmp.Compare(a.version, b.version), cmp.Compare(a.number, b.number))
	})
	for _, s := range stale {
		floor := count
		if c.at.outdated(s) {
			floor -= c.desired.Update.MaxUnavailable
		}
		forced := count == 0 || c.at.mustLeave(s)
		switch c.at.phase(s) {
		case healthy, proving:
			if forced || s.notRouted || counting > floor {
				s.leave()
				if !s.notRouted {
					counting--
				}
			}
		case unreported, returned:
			if forced {
				s.leave()
			}
		default:
			s.leave()
		}
	}

	for missing := count - len(fresh); missing > 0 && c.slots.len() < count+surge; missing-- {
		c.slots.openNext(c.desired.Version)
	}
}

// withdrawSurplusAsks lets so many slots of a failed rollout leave that still wait for a container, the highest numbers
// first, so that no capacity is reserved for them. It returns the slots that stay.
func (c *chooser) withdrawSurplusAsks(fresh []*slot, surplus int) []*slot {
	fresh = slices.Clone(fresh)
	for i := len(fresh) - 1; i >= 0 && surplus > 0; i-- {
		if phase := c.at.phase(fresh[i]); phase == asked || phase == empty && c.at.goal(fresh[i]) != hold {
			fresh[i].leave()
			fresh = slices.Delete(fresh, i, i+1)
			surplus--
		}
	}
	return fresh
}

// shrink lets the surplus of slots leave, those that serve last. It returns how many of them counted.
func (c *chooser) shrink(slots []*slot, count int) (counted int) {
	surplus := len(slots) - count
	if surplus <= 0 {
		return 0
	}
	slots = slices.Clone(slots)
	slices.SortStableFunc(slots, func(a, b *slot) int {
		return cmp.Or(cmp.Compare(c.scaleInRank(a), c.scaleInRank(b)), cmp.Compare(b.number, a.number))
	})
	for _, s := range slots[:surplus] {
		switch c.at.phase(s) {
		case healthy, proving:
			s.leave()
			if c.at.counts(s) {
				counted++
			}
		case unreported, returned:
			if count == 0 {
				s.leave()
			}
		default:
			s.leave()
		}
	}
	return counted
}

// scaleInRank orders slots for a scale-in: those that do not serve leave first.
func (c *chooser) scaleInRank(s *slot) int {
	switch c.at.phase(s) {
	case healthy:
		return 4
	case proving:
		return 3
	case unreported, returned:
		return 2
	case starting:
		return 1
	}
	return 0
}
