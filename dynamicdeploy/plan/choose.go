package plan

import (
	"cmp"
	"slices"
	"time"
)

// outdated slots run another version than the desired one, or were granted before RestartBefore.
func (r *Role) outdated(s *slot) bool {
	if s.version != r.desired.Version {
		return true
	}
	return s.container != nil && s.container.grantedAt.Before(r.desired.RestartBefore)
}

// evicted slots are to be moved: their node is drained, or their container is to be preempted.
func (r *Role) evicted(s *slot) bool {
	return s.container != nil && (r.node(s.container.node).state == NodeDraining || !s.container.preemptBy.IsZero())
}

// leaveBy is when a container that is to be preempted must be withdrawn, replaced or not; zero if it is not to be preempted.
func (r *Role) leaveBy(s *slot) time.Time {
	if s.container == nil || s.container.preemptBy.IsZero() {
		return time.Time{}
	}
	return s.container.preemptBy.Add(-r.desired.Drain - time.Second)
}

// replace replaces all other versions with the desired one, a few instances at a time.
//
// Surplus slots leave first. A slot that no node has reported may be the only one that serves, so it is not touched.
// Outdated and evicted slots leave if they do not serve, or if enough counting ones remain without them:
// count−MaxUnavailable for outdated slots, the whole count for evicted ones. Then slots are opened until there are count new
// ones, but never more than count+MaxSurge of all versions.
func (r *Role) replace(now time.Time) {
	r.route(r.desired.Version)
	count := r.desired.Count
	surge := r.desired.Update.MaxSurge
	if r.rollout.state == Failed {
		surge = 0
	}
	var fresh, stale []*slot
	counting := 0
	for _, s := range r.sorted() {
		if s.leaving {
			continue
		}
		if r.countsTowardMinimum(s, now) && !s.notRouted {
			counting++
		}
		switch {
		case r.outdated(s):
			stale = append(stale, s)
		case r.evicted(s):
			stale = append(stale, s)
			surge = max(surge, 1)
		default:
			fresh = append(fresh, s)
		}
	}

	counting -= r.shrink(fresh, count, now)
	if r.rollout.state == Failed {
		fresh = r.withdrawSurplusAsks(fresh, len(fresh)+len(stale)-count-surge, now)
	}

	slices.SortStableFunc(stale, func(a, b *slot) int {
		return cmp.Or(cmp.Compare(a.version, b.version), cmp.Compare(a.number, b.number))
	})
	for _, s := range stale {
		floor := count
		if r.outdated(s) {
			floor -= r.desired.Update.MaxUnavailable
		}
		by := r.leaveBy(s)
		forced := count == 0 || !by.IsZero() && !now.Before(by)
		switch r.phase(s, now) {
		case healthy, proving:
			if forced || s.notRouted || counting > floor {
				s.leaving = true
				if !s.notRouted {
					counting--
				}
			}
		case unreported, returned:
			s.leaving = forced
		default:
			s.leaving = true
		}
	}

	for missing := count - len(fresh); missing > 0 && len(r.slots) < count+surge; missing-- {
		r.openSlot(r.lowestFree(), r.desired.Version)
	}
}

// withdrawSurplusAsks lets so many slots of a failed rollout leave that still wait for a container, the highest numbers
// first, so that no capacity is reserved for them. It returns the slots that stay.
func (r *Role) withdrawSurplusAsks(fresh []*slot, surplus int, now time.Time) []*slot {
	fresh = slices.Clone(fresh)
	for i := len(fresh) - 1; i >= 0 && surplus > 0; i-- {
		if phase := r.phase(fresh[i], now); phase == asked || phase == empty && r.goal(fresh[i], now) != hold {
			fresh[i].leaving = true
			fresh = slices.Delete(fresh, i, i+1)
			surplus--
		}
	}
	return fresh
}

// shrink lets the surplus of slots leave, those that serve last. It returns how many of them counted.
func (r *Role) shrink(slots []*slot, count int, now time.Time) (counted int) {
	surplus := len(slots) - count
	if surplus <= 0 {
		return 0
	}
	slots = slices.Clone(slots)
	slices.SortStableFunc(slots, func(a, b *slot) int {
		return cmp.Or(cmp.Compare(r.scaleInRank(a, now), r.scaleInRank(b, now)), cmp.Compare(b.number, a.number))
	})
	for _, s := range slots[:surplus] {
		switch r.phase(s, now) {
		case healthy, proving:
			s.leaving = true
			if r.counts(s, now) {
				counted++
			}
		case unreported, returned:
			s.leaving = count == 0
		default:
			s.leaving = true
		}
	}
	return counted
}

// scaleInRank orders slots for a scale-in: those that do not serve leave first.
func (r *Role) scaleInRank(s *slot, now time.Time) int {
	switch r.phase(s, now) {
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

func (r *Role) lowestFree() int {
	number := 1
	for r.slots[number] != nil {
		number++
	}
	return number
}
