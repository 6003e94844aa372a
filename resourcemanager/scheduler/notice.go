package scheduler

import (
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// notice is a container's warning: it is to be gone by the deadline.
type notice struct {
	container *container
	deadline  time.Time
	reason    string
	// claim is the nomination that it makes room for, contract the one whose capacity it hands back; a notice of a
	// hand-back has no claim.
	claim    *nomination
	contract *contract
	// adopted says that it was given to hand back capacity before a claim was made on that.
	adopted bool
	stopped bool
}

// credit is how long containers of an ask had worked when they were stopped for others' guarantees.
type credit struct {
	ask  string
	work time.Duration
}

// noticeFor is how long a container hears before it is stopped for another queue, under a contract with that or nil.
func (c *Core) noticeFor(k *container, lent *contract) time.Duration {
	if lent != nil {
		return lent.spec.Notice
	}
	for q := k.app.leaf; q != nil; q = q.parent {
		if q.spec.Notice > 0 {
			return q.spec.Notice
		}
	}
	return c.config.Notice
}

// reprieve is a notice that was taken back, which nobody was told yet.
type reprieve struct {
	container id.Container
	deadline  time.Time
}

func (c *Core) giveNotice(k *container, m *nomination, contract *contract, deadline time.Time, reason string) {
	// Whoever has heard already does not hear for longer because what it was for is looked for anew.
	for _, r := range c.reprieved {
		if r.container == k.id && r.deadline.Before(deadline) {
			deadline = r.deadline
			if deadline.Before(c.pass.now) {
				deadline = c.pass.now
			}
		}
	}
	given := &notice{container: k, deadline: deadline, reason: reason, claim: m, contract: contract}
	k.app.leaf.unlink(k)
	k.notice = given
	k.app.leaf.expect(&k.need, 1)
	if m != nil {
		m.victims = append(m.victims, given)
	} else {
		c.loose = append(c.loose, given)
	}
	c.notices = append(c.notices, given)
	c.pass.decisions.Notices = append(c.pass.decisions.Notices, Notice{Container: k.id, Deadline: deadline, Reason: reason})
	c.awaitDeadline(deadline)
	c.pass.nextBy(deadline)
}

// stopDue stops those whose notice has run out.
func (c *Core) stopDue() {
	switch {
	case c.firstDeadline.IsZero():
		return
	case c.firstDeadline.After(c.pass.now):
		c.pass.nextBy(c.firstDeadline)
		return
	}
	c.firstDeadline = time.Time{}
	var spared []*notice
	for _, given := range c.notices {
		k := given.container
		switch {
		case given.stopped:
			continue
		case given.deadline.After(c.pass.now):
			c.awaitDeadline(given.deadline)
			c.pass.nextBy(given.deadline)
			continue
		case !k.app.leaf.isOver():
			// Its queue is not over its guarantee any more; what was asked for is looked for anew.
			spared = append(spared, given)
			continue
		}
		given.stopped = true
		c.pass.decisions.Stops = append(c.pass.decisions.Stops, Stop{Container: k.id, Reason: given.reason})
		work := c.pass.now.Sub(k.startedAt)
		lost := work
		if k.checkpoint.After(k.startedAt) {
			lost = c.pass.now.Sub(k.checkpoint)
		}
		k.app.addCredit(k.ask, work+k.credit+restartCost)
		if given.contract != nil {
			given.contract.ledger.stop(k, lost)
		}
	}
	for _, given := range spared {
		switch {
		case given.container.notice != given:
		case given.claim != nil:
			c.giveUp(given.claim)
			c.pass.nextBy(c.pass.now)
			if given.container.notice == given {
				// A hand-back had asked for it as well.
				c.reprieve(given.container)
			}
		default:
			c.reprieve(given.container)
		}
	}
}

// dropForgotten drops loose notices that are none any more.
func (c *Core) dropForgotten() {
	if len(c.loose) > 64+2*len(c.notices) {
		c.loose = slices.DeleteFunc(c.loose, func(given *notice) bool { return given.container.notice != given || given.claim != nil })
	}
}

// awaitDeadline makes stopDue look at the notices again by then.
func (c *Core) awaitDeadline(at time.Time) {
	if c.firstDeadline.IsZero() || at.Before(c.firstDeadline) {
		c.firstDeadline = at
	}
}

// isOver reports whether the queue, or one above it, holds more than its guarantee of anything.
func (q *queue) isOver() bool {
	for ; q.parent != nil; q = q.parent {
		nothing := q.guaranteed.IsZero()
		for i := range q.used {
			if q.used[i] > q.guaranteed[i] && (q.guaranteed[i] > 0 || nothing) {
				return true
			}
		}
	}
	return false
}

// endClaim takes back what a nomination promised, and the notices that were given for it and are not stops yet.
func (c *Core) endClaim(m *nomination) {
	if !m.claim {
		return
	}
	m.claim = false
	m.ask.claims--
	m.ask.app.leaf.promise(&m.room, -1)
	for _, given := range m.victims {
		given.claim = nil
		if given.stopped || given.adopted && given.contract != nil {
			given.adopted = false
			c.loose = append(c.loose, given)
			continue
		}
		if lent := c.fetchingBack(given.container); lent != nil {
			given.contract = lent
			c.loose = append(c.loose, given)
			continue
		}
		c.reprieve(given.container)
	}
	m.victims = nil
}

// reprieve takes a container's notice back.
func (c *Core) reprieve(k *container) {
	deadline := k.notice.deadline
	c.dropNotice(k)
	k.app.leaf.expect(&k.need, -1)
	k.app.leaf.link(k)
	c.fleet.touch(k.node)
	c.reprieved = append(c.reprieved, reprieve{k.id, deadline})
}

// dropNotice forgets a container's notice.
func (c *Core) dropNotice(k *container) {
	given := k.notice
	if given == nil {
		return
	}
	k.notice = nil
	if c.notices = drop(c.notices, given); len(c.notices) == 0 {
		c.firstDeadline = time.Time{}
	}
	if given.claim != nil {
		given.claim.victims = drop(given.claim.victims, given)
	}
}

func (a *app) addCredit(ask string, work time.Duration) {
	a.credits = append(a.credits, credit{ask, work})
}

// takeCredit gives the largest credit of an ask to a new container.
func (a *app) takeCredit(ask string) time.Duration {
	best := -1
	for i := range a.credits {
		if a.credits[i].ask == ask && (best < 0 || a.credits[i].work > a.credits[best].work) {
			best = i
		}
	}
	if best < 0 {
		return 0
	}
	work := a.credits[best].work
	a.credits = slices.Delete(a.credits, best, best+1)
	return work
}
