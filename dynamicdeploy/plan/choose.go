package plan

import (
	"cmp"
	"slices"
	"time"
)

// outdated slots run another version than the wanted one, or were started before the wanted restart.
func (r *Role) outdated(s *slot) bool {
	if s.version != r.wanted.Version {
		return true
	}
	return s.current != nil && s.current.grantedAt.Before(r.wanted.RestartBefore)
}

// evicted slots are to be moved: their node is drained, or their container will be taken away.
func (r *Role) evicted(s *slot) bool {
	return s.current != nil && (r.node(s.current.node).state == Draining || !s.current.preemptBy.IsZero())
}

// leaveBy is when a container that will be taken away must begin to leave, replaced or not; zero is never.
func (r *Role) leaveBy(s *slot) time.Time {
	if s.current == nil || s.current.preemptBy.IsZero() {
		return time.Time{}
	}
	return s.current.preemptBy.Add(-r.wanted.Drain - time.Second)
}

// replace has the wanted version take the place of every other.
//
// Surplus slots leave first. One that nobody has seen yet may be the only one that serves: it is judged later. Outdated
// and evicted ones leave when they serve nobody, or when enough that count remain without them: count−MaxUnavailable
// for outdated ones, the whole count for evicted ones. Then slots are opened until there are count new ones, but never
// more than count+MaxSurge of all kinds.
func (r *Role) replace(now time.Time) {
	r.light(r.wanted.Version)
	count := r.wanted.Count
	surge := r.wanted.Update.MaxSurge
	if r.rollout.state == Failed {
		surge = 0
	}
	var fresh, stale []*slot
	available := 0
	for _, s := range r.sorted() {
		if s.leaving {
			continue
		}
		if r.counts(s, now) && !s.dark {
			available++
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

	available -= r.shrink(fresh, count, now)
	if r.rollout.state == Failed {
		fresh = r.withdrawSurge(fresh, len(fresh)+len(stale)-count-surge, now)
	}

	slices.SortStableFunc(stale, func(a, b *slot) int {
		return cmp.Or(cmp.Compare(a.version, b.version), cmp.Compare(a.number, b.number))
	})
	for _, s := range stale {
		floor := count
		if r.outdated(s) {
			floor -= r.wanted.Update.MaxUnavailable
		}
		by := r.leaveBy(s)
		forced := count == 0 || !by.IsZero() && !now.Before(by)
		switch r.phase(s, now) {
		case healthy, proving:
			if forced || s.dark || available > floor {
				s.leaving = true
				if !s.dark {
					available--
				}
			}
		case unseen, returned:
			s.leaving = forced
		default:
			s.leaving = true
		}
	}

	for missing := count - len(fresh); missing > 0 && len(r.slots) < count+surge; missing-- {
		r.open(r.lowestFree(), r.wanted.Version)
	}
}

// withdrawSurge gives up so many slots of a failed rollout that still wait for a container, the highest numbers first: what
// is kept for them others may need more. It gives the slots that stay.
func (r *Role) withdrawSurge(fresh []*slot, surplus int, now time.Time) []*slot {
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

// shrink has the least worthy of too many slots leave, and tells how many that count were among them.
func (r *Role) shrink(slots []*slot, count int, now time.Time) (counted int) {
	surplus := len(slots) - count
	if surplus <= 0 {
		return 0
	}
	slots = slices.Clone(slots)
	slices.SortStableFunc(slots, func(a, b *slot) int {
		return cmp.Or(cmp.Compare(r.worth(a, now), r.worth(b, now)), cmp.Compare(b.number, a.number))
	})
	for _, s := range slots[:surplus] {
		switch r.phase(s, now) {
		case healthy, proving:
			s.leaving = true
			if r.available(s, now) {
				counted++
			}
		case unseen, returned:
			s.leaving = count == 0
		default:
			s.leaving = true
		}
	}
	return counted
}

// worth orders slots for scale-in: those that serve nobody go first.
func (r *Role) worth(s *slot, now time.Time) int {
	switch r.phase(s, now) {
	case healthy:
		return 4
	case proving:
		return 3
	case unseen, returned:
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
