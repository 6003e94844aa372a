package plan

import (
	"fmt"
	"slices"
	"time"
)

// course is what is done about instances of other versions at present.
type course uint8

const (
	// replacing: they make room for the wanted version, a few at a time.
	replacingOld course = iota
	// sharing: they serve beside a canary.
	sharing
	// preparing: they serve while as many of the wanted version are made ready in the dark.
	preparing
	// closing: they go, and only then the wanted version serves.
	closing
	// holding: people have paused the rollout.
	holding
)

// course follows from the strategy and from how far the rollout is.
func (r *Role) course() course {
	update := r.wanted.Update
	old := r.base()
	switch {
	case r.wanted.Count == 0:
		return replacingOld
	case old != 0 && update.Strategy == Canary && update.Percent < 100:
		return sharing
	case old != 0 && update.Strategy == BlueGreen && !r.rollout.switched:
		return preparing
	case old != 0 && update.Strategy == BlueGreen && update.Exclusive && r.othersLeft():
		return closing
	case r.wanted.Paused && !r.rollout.settled() && !r.noWayBack():
		return holding
	}
	return replacingOld
}

// noWayBack reports whether the last old instance of an exclusive change has gone: to hold still would bring old ones back
// beside the new ones.
func (r *Role) noWayBack() bool {
	return r.wanted.Update.Strategy == BlueGreen && r.wanted.Update.Exclusive && r.rollout.switched
}

// base is the version that serves until the wanted one has proven itself, zero if there is none or it has: the last that
// came up whole, or else the newest that there is.
func (r *Role) base() int32 {
	if base := r.rollout.base; base != 0 {
		if base == r.wanted.Version {
			return 0
		}
		return base
	}
	if r.rollout.settled() || r.rollout.proven {
		return 0
	}
	var newest int32
	for _, s := range r.slots {
		if s.version != r.wanted.Version && !s.dark {
			newest = max(newest, s.version)
		}
	}
	return newest
}

func (r *Role) othersLeft() bool {
	for _, s := range r.slots {
		if s.version != r.wanted.Version {
			return true
		}
	}
	return false
}

// choose says which slots leave and opens new ones.
func (r *Role) choose(now time.Time) {
	switch r.course() {
	case sharing:
		r.sideBySide(r.canaries(), false, now)
	case preparing:
		ready := r.sideBySide(r.wanted.Count, true, now)
		if ready >= r.wanted.Count && !r.wanted.Paused {
			r.rollout.switched = true
			r.choose(now)
		}
	case closing:
		for _, s := range r.slots {
			s.leaving = s.leaving || s.version != r.wanted.Version
		}
		r.tend(r.of(r.wanted.Version), r.wanted.Version, r.wanted.Count, true, now)
	case holding:
		r.holdStill(now)
	default:
		r.replace(now)
	}
}

// canaries is how many instances a canary has: its share of the count, at least one.
func (r *Role) canaries() int {
	count := r.wanted.Count
	return min(count, max(1, (count*r.wanted.Update.Percent+99)/100))
}

// sideBySide keeps the whole count of the version before and some of the wanted one; every other leaves once it is not
// missed. It tells how many of the wanted one count.
func (r *Role) sideBySide(count int, dark bool, now time.Time) (ready int) {
	base := r.base()
	others := slices.DeleteFunc(r.sorted(), func(s *slot) bool { return s.version == base || s.version == r.wanted.Version })
	if len(others) == 0 {
		r.light(base)
	}
	if !dark {
		r.light(r.wanted.Version)
	}
	r.tend(r.of(base), base, r.wanted.Count, false, now)
	fresh := r.of(r.wanted.Version)
	if r.rollout.state == Failed {
		fresh, count = r.giveUp(fresh, now)
	}
	ready = r.tend(fresh, r.wanted.Version, count, dark, now)
	serving, waiting := 0, false
	for _, s := range r.sorted() {
		waiting = waiting || s.version == base && s.dark && !s.leaving
		if s.version != r.wanted.Version && !s.dark && !s.leaving && r.serves(s, now) {
			serving++
		}
	}
	for _, s := range others {
		switch phase := r.phase(s, now); {
		case s.leaving:
		case waiting:
			// The version before was about to serve alone.
			s.leaving = true
		case phase == unseen || phase == returned:
		case !r.serves(s, now) || s.dark:
			s.leaving = true
		case serving > r.wanted.Count:
			s.leaving = true
			serving--
		}
	}
	return ready
}

// giveUp has the slots of a failed version leave that wait for a container: the version before has the whole count, and what is
// kept for them others may need more. It gives the slots that stay, and how many of them are to: no other one is opened, nor
// stands in for one that must move.
func (r *Role) giveUp(fresh []*slot, now time.Time) (staying []*slot, count int) {
	for _, s := range fresh {
		switch phase := r.phase(s, now); {
		case phase == empty && r.goal(s, now) != hold, phase == asked, phase == lost, phase == replacing:
			s.leaving = true
		default:
			staying = append(staying, s)
			if !r.evicted(s) {
				count++
			}
		}
	}
	return staying, count
}

// of are the slots of a version that do not leave, by number.
func (r *Role) of(version int32) []*slot {
	var slots []*slot
	for _, s := range r.sorted() {
		if s.version == version && !s.leaving {
			slots = append(slots, s)
		}
	}
	return slots
}

// tend brings the slots of a version to a count, and moves those that are evicted: they leave when another one stands in
// for them. It tells how many count.
func (r *Role) tend(slots []*slot, version int32, count int, dark bool, now time.Time) (available int) {
	var staying, moving []*slot
	for _, s := range slots {
		if r.available(s, now) {
			available++
		}
		if r.evicted(s) {
			moving = append(moving, s)
		} else {
			staying = append(staying, s)
		}
	}
	available -= r.shrink(staying, count, now)
	for _, s := range moving {
		by := r.leaveBy(s)
		forced := count == 0 || !by.IsZero() && !now.Before(by)
		switch r.phase(s, now) {
		case healthy, proving:
			if forced || available > count {
				s.leaving = true
				available--
			}
		case unseen, returned:
			s.leaving = forced
		default:
			s.leaving = true
		}
	}
	limit := count
	if len(moving) > 0 {
		limit += max(1, r.wanted.Update.MaxSurge)
	}
	for open := len(staying); open < count && r.slotsOf(version) < limit && len(r.slots) < r.most(); open++ {
		r.open(r.lowestFree(), version).dark = dark
	}
	return available
}

// most is how many slots there may be of all versions.
func (r *Role) most() int {
	most := r.wanted.Count + max(1, r.wanted.Update.MaxSurge)
	switch r.course() {
	case sharing:
		return most + r.canaries()
	case preparing, closing:
		return most + r.wanted.Count
	}
	return most
}

// slotsOf counts the slots of a version, with those that leave.
func (r *Role) slotsOf(version int32) (n int) {
	for _, s := range r.slots {
		if s.version == version {
			n++
		}
	}
	return n
}

// holdStill keeps what there is of each version, within what count and surge allow.
func (r *Role) holdStill(now time.Time) {
	count, most := r.wanted.Count, r.wanted.Count+r.wanted.Update.MaxSurge
	var fresh, old []*slot
	for _, s := range r.sorted() {
		switch {
		case s.leaving:
		case s.version == r.wanted.Version:
			fresh = append(fresh, s)
		default:
			old = append(old, s)
		}
	}
	base := r.base()
	if base == 0 {
		// What a master finds of another version then was lost with its node, and is not brought back.
		for _, s := range old {
			s.leaving = true
		}
		r.tend(fresh, r.wanted.Version, min(max(len(fresh), count), most), false, now)
		return
	}
	// Old ones that serve, or may for all that is known yet, are not given up for new ones that do not.
	serving := r.countOf(old, now)
	for _, s := range old {
		if phase := r.phase(s, now); phase == unseen || phase == returned {
			serving++
		}
	}
	needed := max(0, min(serving, count-r.countOf(fresh, now)))
	ofFresh := min(len(fresh), most-needed)
	r.tend(fresh, r.wanted.Version, ofFresh, false, now)
	r.tend(old, base, min(max(len(old), count-ofFresh), most-ofFresh), false, now)
}

func (r *Role) countOf(slots []*slot, now time.Time) (n int) {
	for _, s := range slots {
		if !s.leaving && r.counts(s, now) {
			n++
		}
	}
	return n
}

// light has the slots of a version serve.
func (r *Role) light(version int32) {
	for _, s := range r.slots {
		if s.version == version && !s.leaving {
			s.dark = false
		}
	}
}

// weights are the shares of an instance of the wanted version and of another one. While a canary shares the requests,
// they come out as people asked, whatever the counts: canaries that start already count, so that the share is never
// more than that.
func (r *Role) weights(now time.Time) (fresh, old int) {
	if r.course() != sharing {
		return normalWeight, normalWeight
	}
	canaries, others := 0, 0
	for _, s := range r.slots {
		switch {
		case s.leaving || !inService(s):
		case s.version == r.wanted.Version:
			canaries++
		case r.serves(s, now):
			others++
		}
	}
	if canaries == 0 || others == 0 {
		return normalWeight, normalWeight
	}
	percent := r.wanted.Update.Percent
	fresh, old = percent*others, (100-percent)*canaries
	heaviest := max(fresh, old)
	scale := func(weight int) int { return max(1, (weight*normalWeight+heaviest/2)/heaviest) }
	return scale(fresh), scale(old)
}

// normalWeight is that of an instance among its like.
const normalWeight = 100

// Counted takes what balancers have counted for an instance since the last call. Requests of a container that has only
// just begun to run may be its predecessor's, and are left out.
func (r *Role) Counted(instance string, requests, errors int64, now time.Time) {
	s := r.slots[r.Number(instance)]
	if s == nil || s.version != r.wanted.Version || s.current == nil || r.wanted.Update.MaxErrorPercent <= 0 {
		return
	}
	status := s.current.status
	if status.Stage != Running || now.Before(status.RunningSince.Add(predecessors)) {
		return
	}
	o := &r.rollout
	o.requests += requests
	o.errors += errors
	if o.requests > remembered {
		o.requests, o.errors = o.requests/2, o.errors/2
	}
}

const (
	// predecessors is how long after a start a balancer may still count for the container before.
	predecessors = 3 * time.Second
	// fewest requests are needed to judge by errors; of more than remembered the older count half.
	fewest, remembered = 20, 1000
)

func (r *Role) tooManyErrors() bool {
	o := &r.rollout
	limit := r.wanted.Update.MaxErrorPercent
	return limit > 0 && o.change && o.requests >= fewest && 100*float64(o.errors) > limit*float64(o.requests)
}

// settled rollouts are over.
func (o *rollout) settled() bool {
	return o.state == Done || o.state == Reverted || o.state == NoRollout
}

// pausedFor says what the rollout waits for people to say, empty if it goes on by itself.
func (r *Role) pausedFor(updated int) string {
	switch course := r.course(); {
	case course == sharing && updated >= r.canaries():
		why := fmt.Sprintf("version %d is given %d %% of the requests until it is promoted", r.wanted.Version, r.wanted.Update.Percent)
		if r.wanted.Paused {
			why += ", and is not taken back by itself, for a person paused it"
		}
		return why
	case r.wanted.Paused && course != sharing:
		return "a person paused it"
	}
	return ""
}
