package plan

import (
	"fmt"
	"slices"
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

// chooser decides which slots are to leave and opens new ones, from the strategy and from how all slots are. It is made for one
// decision.
type chooser struct {
	desired Desired
	// deferred is true while the desired version is not begun with.
	deferred bool
	at       *view
	slots    *slots
	rollout  *rollout
}

// mode follows from the strategy and the progress of the rollout.
func (c *chooser) mode() mode {
	update := c.desired.Update
	old := c.base()
	switch {
	case c.desired.Count == 0:
		return modeReplace
	case c.deferred:
		return modePaused
	case old != 0 && update.Strategy == Canary && update.Percent < 100:
		return modeCanary
	case old != 0 && update.Strategy == BlueGreen && !c.rollout.hasSwitched():
		return modePrepare
	case old != 0 && update.Strategy == BlueGreen && update.Exclusive && c.slots.holdOtherVersions(c.desired.Version):
		return modeExclusive
	case c.desired.Paused && !c.rollout.over() && !c.oldGone():
		return modePaused
	}
	return modeReplace
}

// oldGone reports whether an exclusive rollout has switched: a pause must not bring back old instances beside the new ones.
func (c *chooser) oldGone() bool {
	return c.desired.Update.Strategy == BlueGreen && c.desired.Update.Exclusive && c.rollout.hasSwitched()
}

// base is the version that serves until the desired one has come up completely, zero if there is none: the last one that
// did, or else the newest that serves.
func (c *chooser) base() int32 {
	base, known := c.rollout.lastBase()
	switch {
	case !known:
		return c.slots.newestRouted(c.desired.Version)
	case base == c.desired.Version:
		return 0
	}
	return base
}

// adjust decides which slots leave, and opens new ones.
func (c *chooser) adjust() {
	switch c.mode() {
	case modeCanary:
		c.keepBase(c.canaries(), false)
	case modePrepare:
		ready := c.keepBase(c.desired.Count, true)
		if ready >= c.desired.Count && !c.desired.Paused {
			c.rollout.switchOver()
			c.adjust()
		}
	case modeExclusive:
		for s := range c.slots.each() {
			if s.version != c.desired.Version {
				s.leave()
			}
		}
		c.scale(c.slots.of(c.desired.Version), c.desired.Version, c.desired.Count, true)
	case modePaused:
		c.keepVersions()
	default:
		c.replace()
	}
}

// canaries is the number of instances of a canary: its share of the count, at least one.
func (c *chooser) canaries() int {
	count := c.desired.Count
	return min(count, max(1, (count*c.desired.Update.Percent+99)/100))
}

// keepBase keeps all instances of the base and count instances of the desired version. Slots of other versions leave once
// enough others serve. It returns how many instances of the desired version count.
func (c *chooser) keepBase(count int, notRouted bool) (ready int) {
	base := c.base()
	others := slices.DeleteFunc(c.slots.sorted(), func(s *slot) bool { return s.version == base || s.version == c.desired.Version })
	if len(others) == 0 {
		c.slots.route(base)
	}
	if !notRouted {
		c.slots.route(c.desired.Version)
	}
	c.scale(c.slots.of(base), base, c.desired.Count, false)
	fresh := c.slots.of(c.desired.Version)
	if c.rollout.failed() {
		fresh, count = c.withdrawFailed(fresh)
	}
	ready = c.scale(fresh, c.desired.Version, count, notRouted)
	serving, waiting := 0, false
	for _, s := range c.slots.sorted() {
		waiting = waiting || s.version == base && s.notRouted && !s.leaving
		if s.version != c.desired.Version && !s.notRouted && !s.leaving && c.at.serves(s) {
			serving++
		}
	}
	for _, s := range others {
		switch phase := c.at.phase(s); {
		case s.leaving:
		case waiting:
			// The base was about to be the only version that serves.
			s.leave()
		case phase == unreported || phase == returned:
		case !c.at.serves(s) || s.notRouted:
			s.leave()
		case serving > c.desired.Count:
			s.leave()
			serving--
		}
	}
	return ready
}

// withdrawFailed lets the slots of a failed version leave that wait for a container, since the base has the whole count and
// others may need the capacity. It returns the slots that stay and how many instances of the version are wanted: none is
// added, and an evicted one is not replaced.
func (c *chooser) withdrawFailed(fresh []*slot) (staying []*slot, count int) {
	for _, s := range fresh {
		switch phase := c.at.phase(s); {
		case phase == empty && c.at.goal(s) != hold, phase == asked, phase == lost, phase == replacing:
			s.leave()
		default:
			staying = append(staying, s)
			if !c.at.evicted(s) {
				count++
			}
		}
	}
	return staying, count
}

// scale brings the slots of a version to a count. Evicted slots leave once another one counts in their place. It returns how
// many count.
func (c *chooser) scale(slots []*slot, version int32, count int, notRouted bool) (counting int) {
	var staying, moving []*slot
	for _, s := range slots {
		if c.at.counts(s) {
			counting++
		}
		if c.at.evicted(s) {
			moving = append(moving, s)
		} else {
			staying = append(staying, s)
		}
	}
	counting -= c.shrink(staying, count)
	for _, s := range moving {
		forced := count == 0 || c.at.mustLeave(s)
		switch c.at.phase(s) {
		case healthy, proving:
			if forced || counting > count {
				s.leave()
				counting--
			}
		case unreported, returned:
			if forced {
				s.leave()
			}
		default:
			s.leave()
		}
	}
	limit := count
	if len(moving) > 0 {
		limit += max(1, c.desired.Update.MaxSurge)
	}
	for open := len(staying); open < count && c.slots.count(version) < limit && c.slots.len() < c.maxSlots(); open++ {
		c.slots.openNext(version).setRouted(!notRouted)
	}
	return counting
}

// maxSlots is the highest number of slots of all versions.
func (c *chooser) maxSlots() int {
	most := c.desired.Count + max(1, c.desired.Update.MaxSurge)
	switch c.mode() {
	case modeCanary:
		return most + c.canaries()
	case modePrepare, modeExclusive:
		return most + c.desired.Count
	}
	return most
}

// keepVersions keeps the slots of each version, within the count and the surge.
func (c *chooser) keepVersions() {
	count, most := c.desired.Count, c.desired.Count+c.desired.Update.MaxSurge
	var fresh, old []*slot
	for _, s := range c.slots.sorted() {
		switch {
		case s.leaving:
		case s.version == c.desired.Version:
			fresh = append(fresh, s)
		default:
			old = append(old, s)
		}
	}
	base := c.base()
	if base == 0 {
		// A master that finds other versions here finds containers of a lost node. They are not kept.
		for _, s := range old {
			s.leave()
		}
		c.scale(fresh, c.desired.Version, min(max(len(fresh), count), most), false)
		return
	}
	// Old ones that serve, or may serve unreported, are not replaced by new ones that do not serve.
	serving := c.countCounting(old)
	for _, s := range old {
		if phase := c.at.phase(s); phase == unreported || phase == returned {
			serving++
		}
	}
	needed := max(0, min(serving, count-c.countCounting(fresh)))
	ofFresh := min(len(fresh), most-needed)
	c.scale(fresh, c.desired.Version, ofFresh, false)
	c.scale(old, base, min(max(len(old), count-ofFresh), most-ofFresh), false)
}

func (c *chooser) countCounting(slots []*slot) (n int) {
	for _, s := range slots {
		if !s.leaving && c.at.countsTowardMinimum(s) {
			n++
		}
	}
	return n
}

// weights returns the weights of an instance of the desired version and of another one. Beside a canary they give it its
// share, whatever the numbers of instances. Canaries that still start are included, so that its share is never exceeded.
func (c *chooser) weights() (fresh, old int) {
	if c.mode() != modeCanary {
		return normalWeight, normalWeight
	}
	canaries, others := 0, 0
	for s := range c.slots.each() {
		switch {
		case s.leaving || !s.inService():
		case s.version == c.desired.Version:
			canaries++
		case c.at.serves(s):
			others++
		}
	}
	if canaries == 0 || others == 0 {
		return normalWeight, normalWeight
	}
	percent := c.desired.Update.Percent
	fresh, old = percent*others, (100-percent)*canaries
	heaviest := max(fresh, old)
	scale := func(weight int) int { return max(1, (weight*normalWeight+heaviest/2)/heaviest) }
	return scale(fresh), scale(old)
}

// normalWeight is the weight of instances that share equally.
const normalWeight = 100

// pauseReason is why the rollout waits for a person, empty if it does not.
func (c *chooser) pauseReason(updated int) string {
	switch mode := c.mode(); {
	case mode == modeCanary && updated >= c.canaries():
		why := fmt.Sprintf("version %d is given %d %% of the requests until it is promoted", c.desired.Version, c.desired.Update.Percent)
		if c.desired.Paused {
			why += ", and is not reverted automatically, because a person paused it"
		}
		return why
	case c.desired.Paused && mode != modeCanary:
		return "a person paused it"
	}
	return ""
}
