package plan

import (
	"fmt"
	"slices"
	"time"
)

// mode is what the rollout does at present with instances of other versions.
type mode uint8

const (
	// modeReplace: they are replaced by the desired version, a few at a time.
	modeReplace mode = iota
	// modeCanary: they serve beside a canary.
	modeCanary
	// modePrepare: they serve until all instances of the desired version are ready.
	modePrepare
	// modeExclusive: they leave, and the desired version is routed to after that.
	modeExclusive
	// modePaused: a person has paused the rollout, or it comes after other roles.
	modePaused
)

// mode follows from the strategy and the progress of the rollout.
func (r *Role) mode() mode {
	update := r.desired.Update
	old := r.base()
	switch {
	case r.desired.Count == 0:
		return modeReplace
	case r.deferred:
		return modePaused
	case old != 0 && update.Strategy == Canary && update.Percent < 100:
		return modeCanary
	case old != 0 && update.Strategy == BlueGreen && !r.rollout.switched:
		return modePrepare
	case old != 0 && update.Strategy == BlueGreen && update.Exclusive && r.otherVersionsLeft():
		return modeExclusive
	case r.desired.Paused && !r.rollout.over() && !r.oldGone():
		return modePaused
	}
	return modeReplace
}

// oldGone reports whether an exclusive rollout has switched: a pause must not bring back old instances beside the new ones.
func (r *Role) oldGone() bool {
	return r.desired.Update.Strategy == BlueGreen && r.desired.Update.Exclusive && r.rollout.switched
}

// base is the version that serves until the desired one has come up completely, zero if there is none: the last one that
// did, or else the newest that serves.
func (r *Role) base() int32 {
	if base := r.rollout.base; base != 0 {
		if base == r.desired.Version {
			return 0
		}
		return base
	}
	if r.rollout.over() || r.rollout.completed {
		return 0
	}
	var newest int32
	for _, s := range r.slots {
		if s.version != r.desired.Version && !s.notRouted {
			newest = max(newest, s.version)
		}
	}
	return newest
}

func (r *Role) otherVersionsLeft() bool {
	for _, s := range r.slots {
		if s.version != r.desired.Version {
			return true
		}
	}
	return false
}

// adjust decides which slots leave, and opens new ones.
func (r *Role) adjust(now time.Time) {
	switch r.mode() {
	case modeCanary:
		r.keepBase(r.canaries(), false, now)
	case modePrepare:
		ready := r.keepBase(r.desired.Count, true, now)
		if ready >= r.desired.Count && !r.desired.Paused {
			r.rollout.switched = true
			r.adjust(now)
		}
	case modeExclusive:
		for _, s := range r.slots {
			s.leaving = s.leaving || s.version != r.desired.Version
		}
		r.scale(r.slotsOf(r.desired.Version), r.desired.Version, r.desired.Count, true, now)
	case modePaused:
		r.keepVersions(now)
	default:
		r.replace(now)
	}
}

// canaries is the number of instances of a canary: its share of the count, at least one.
func (r *Role) canaries() int {
	count := r.desired.Count
	return min(count, max(1, (count*r.desired.Update.Percent+99)/100))
}

// keepBase keeps all instances of the base and count instances of the desired version. Slots of other versions leave once
// enough others serve. It returns how many instances of the desired version count.
func (r *Role) keepBase(count int, notRouted bool, now time.Time) (ready int) {
	base := r.base()
	others := slices.DeleteFunc(r.sorted(), func(s *slot) bool { return s.version == base || s.version == r.desired.Version })
	if len(others) == 0 {
		r.route(base)
	}
	if !notRouted {
		r.route(r.desired.Version)
	}
	r.scale(r.slotsOf(base), base, r.desired.Count, false, now)
	fresh := r.slotsOf(r.desired.Version)
	if r.rollout.state == Failed {
		fresh, count = r.withdrawFailed(fresh, now)
	}
	ready = r.scale(fresh, r.desired.Version, count, notRouted, now)
	serving, waiting := 0, false
	for _, s := range r.sorted() {
		waiting = waiting || s.version == base && s.notRouted && !s.leaving
		if s.version != r.desired.Version && !s.notRouted && !s.leaving && r.serves(s, now) {
			serving++
		}
	}
	for _, s := range others {
		switch phase := r.phase(s, now); {
		case s.leaving:
		case waiting:
			// The base was about to be the only version that serves.
			s.leaving = true
		case phase == unreported || phase == returned:
		case !r.serves(s, now) || s.notRouted:
			s.leaving = true
		case serving > r.desired.Count:
			s.leaving = true
			serving--
		}
	}
	return ready
}

// withdrawFailed lets the slots of a failed version leave that wait for a container, since the base has the whole count and
// others may need the capacity. It returns the slots that stay and how many instances of the version are wanted: none is
// added, and an evicted one is not replaced.
func (r *Role) withdrawFailed(fresh []*slot, now time.Time) (staying []*slot, count int) {
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

// slotsOf returns the slots of a version that do not leave, by number.
func (r *Role) slotsOf(version int32) []*slot {
	var slots []*slot
	for _, s := range r.sorted() {
		if s.version == version && !s.leaving {
			slots = append(slots, s)
		}
	}
	return slots
}

// scale brings the slots of a version to a count. Evicted slots leave once another one counts in their place. It returns how
// many count.
func (r *Role) scale(slots []*slot, version int32, count int, notRouted bool, now time.Time) (counting int) {
	var staying, moving []*slot
	for _, s := range slots {
		if r.counts(s, now) {
			counting++
		}
		if r.evicted(s) {
			moving = append(moving, s)
		} else {
			staying = append(staying, s)
		}
	}
	counting -= r.shrink(staying, count, now)
	for _, s := range moving {
		by := r.leaveBy(s)
		forced := count == 0 || !by.IsZero() && !now.Before(by)
		switch r.phase(s, now) {
		case healthy, proving:
			if forced || counting > count {
				s.leaving = true
				counting--
			}
		case unreported, returned:
			s.leaving = forced
		default:
			s.leaving = true
		}
	}
	limit := count
	if len(moving) > 0 {
		limit += max(1, r.desired.Update.MaxSurge)
	}
	for open := len(staying); open < count && r.countSlots(version) < limit && len(r.slots) < r.maxSlots(); open++ {
		r.openSlot(r.lowestFree(), version).notRouted = notRouted
	}
	return counting
}

// maxSlots is the highest number of slots of all versions.
func (r *Role) maxSlots() int {
	most := r.desired.Count + max(1, r.desired.Update.MaxSurge)
	switch r.mode() {
	case modeCanary:
		return most + r.canaries()
	case modePrepare, modeExclusive:
		return most + r.desired.Count
	}
	return most
}

// countSlots counts the slots of a version, including those that leave.
func (r *Role) countSlots(version int32) (n int) {
	for _, s := range r.slots {
		if s.version == version {
			n++
		}
	}
	return n
}

// keepVersions keeps the slots of each version, within the count and the surge.
func (r *Role) keepVersions(now time.Time) {
	count, most := r.desired.Count, r.desired.Count+r.desired.Update.MaxSurge
	var fresh, old []*slot
	for _, s := range r.sorted() {
		switch {
		case s.leaving:
		case s.version == r.desired.Version:
			fresh = append(fresh, s)
		default:
			old = append(old, s)
		}
	}
	base := r.base()
	if base == 0 {
		// A master that finds other versions here finds containers of a lost node. They are not kept.
		for _, s := range old {
			s.leaving = true
		}
		r.scale(fresh, r.desired.Version, min(max(len(fresh), count), most), false, now)
		return
	}
	// Old ones that serve, or may serve unreported, are not replaced by new ones that do not serve.
	serving := r.countCounting(old, now)
	for _, s := range old {
		if phase := r.phase(s, now); phase == unreported || phase == returned {
			serving++
		}
	}
	needed := max(0, min(serving, count-r.countCounting(fresh, now)))
	ofFresh := min(len(fresh), most-needed)
	r.scale(fresh, r.desired.Version, ofFresh, false, now)
	r.scale(old, base, min(max(len(old), count-ofFresh), most-ofFresh), false, now)
}

func (r *Role) countCounting(slots []*slot, now time.Time) (n int) {
	for _, s := range slots {
		if !s.leaving && r.countsTowardMinimum(s, now) {
			n++
		}
	}
	return n
}

// route routes to the slots of a version.
func (r *Role) route(version int32) {
	for _, s := range r.slots {
		if s.version == version && !s.leaving {
			s.notRouted = false
		}
	}
}

// weights returns the weights of an instance of the desired version and of another one. Beside a canary they give it its
// share, whatever the numbers of instances. Canaries that still start are included, so that its share is never exceeded.
func (r *Role) weights(now time.Time) (fresh, old int) {
	if r.mode() != modeCanary {
		return normalWeight, normalWeight
	}
	canaries, others := 0, 0
	for _, s := range r.slots {
		switch {
		case s.leaving || !inService(s):
		case s.version == r.desired.Version:
			canaries++
		case r.serves(s, now):
			others++
		}
	}
	if canaries == 0 || others == 0 {
		return normalWeight, normalWeight
	}
	percent := r.desired.Update.Percent
	fresh, old = percent*others, (100-percent)*canaries
	heaviest := max(fresh, old)
	scale := func(weight int) int { return max(1, (weight*normalWeight+heaviest/2)/heaviest) }
	return scale(fresh), scale(old)
}

// normalWeight is the weight of instances that share equally.
const normalWeight = 100

// AddTraffic adds what balancers have counted for an instance since the last call. Requests soon after a start may belong to
// the container before, and are left out.
func (r *Role) AddTraffic(instance string, requests, errors int64, now time.Time) {
	s := r.slots[r.Number(instance)]
	if s == nil || s.version != r.desired.Version || s.container == nil || r.desired.Update.MaxErrorPercent <= 0 {
		return
	}
	status := s.container.status
	if status.Stage != StageRunning || now.Before(status.RunningSince.Add(trafficDelay)) {
		return
	}
	o := &r.rollout
	o.requests += requests
	o.errors += errors
	if o.requests > maxRequests {
		o.requests, o.errors = o.requests/2, o.errors/2
	}
}

const (
	// trafficDelay is how long after a start a balancer may still count for the container before.
	trafficDelay = 3 * time.Second
	// minRequests is how many requests are needed to evaluate the errors. Above maxRequests the older ones count half.
	minRequests, maxRequests = 20, 1000
)

func (r *Role) tooManyErrors() bool {
	o := &r.rollout
	limit := r.desired.Update.MaxErrorPercent
	return limit > 0 && o.newVersion && o.requests >= minRequests && 100*float64(o.errors) > limit*float64(o.requests)
}

// over reports whether the rollout has ended or never began.
func (o *rollout) over() bool {
	return o.state == Done || o.state == Reverted || o.state == NoRollout
}

// pauseReason is why the rollout waits for a person, empty if it does not.
func (r *Role) pauseReason(updated int) string {
	switch mode := r.mode(); {
	case mode == modeCanary && updated >= r.canaries():
		why := fmt.Sprintf("version %d is given %d %% of the requests until it is promoted", r.desired.Version, r.desired.Update.Percent)
		if r.desired.Paused {
			why += ", and is not reverted automatically, because a person paused it"
		}
		return why
	case r.desired.Paused && mode != modeCanary:
		return "a person paused it"
	}
	return ""
}
