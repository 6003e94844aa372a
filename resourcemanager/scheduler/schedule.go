package scheduler

import (
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Schedule implements Interface. A pass serves ready nominations first. Then it repeatedly takes the queue with the smallest share
// of what it is entitled to, and the first ask there, until nothing more can be decided.
func (c *Core) Schedule(now time.Time) Decisions {
	c.pass.begin(now)
	d := &c.pass.decisions
	c.lending.advance()
	c.backlog.dropIdle()
	c.preemption.compactUnclaimed()
	c.nominations.endReservations()
	if c.grantReady() {
		// Preempt and reserve only for asks that found no room.
		c.preemption.claim()
		c.nominations.reserve()
	} else {
		c.pass.nextBy(c.pass.now)
	}
	c.lending.returnLent()
	c.preemption.stopDue()
	if c.fleet.hasTouched() {
		c.pass.nextBy(c.pass.now)
	}
	c.preemption.reportCancelled()
	return *d
}

// grantReady serves what is ready, and reports whether it has served all of it within the bounds of the pass. It grants nothing
// before all touched nodes were offered, since placements would be worse.
func (c *Core) grantReady() bool {
	for c.pass.looks > 0 && len(c.pass.decisions.Grants) < c.pass.grantsPerPass {
		c.resolveQueues()
		if c.tree.takeLimitsMoved() {
			c.backlog.retryLimited(c.tree.all())
		}
		if c.offerTouched(); c.fleet.hasTouched() {
			return false
		}
		if c.serveNomination() {
			continue
		}
		leaf := c.tree.next()
		if leaf == nil {
			if !c.lending.takeLenderGrew() {
				return true
			}
			c.backlog.liftLimit(c.tree.root())
			continue
		}
		c.serve(leaf.backlog.first())
	}
	return false
}

// serveNomination grants an ask the room of a ready nomination. It reports whether there was one in the queue.
func (c *Core) serveNomination() bool {
	m, ok := c.nominations.nextReady()
	if m == nil {
		return ok
	}
	k, n := m.ask, m.node
	if k.spec.Gang {
		c.serveNominatedGang(k)
		return true
	}
	limit := c.tree.limit(k, &k.spec.Resources)
	allowed := k.shape.allows(n)
	c.nominations.withdraw(m)
	switch {
	case limit.kind != noLimit:
	case !allowed:
		c.preemption.pauseClaims(k.bucket)
	default:
		c.grant(k, n)
		c.granted(k, 1)
	}
	return true
}

// serveNominatedGang grants a gang once there is room for all of it.
func (c *Core) serveNominatedGang(k *ask) {
	if !c.nominations.areReady(k) {
		return
	}
	whole := k.spec.Resources.Scale(int64(k.spec.Pending))
	limit := c.tree.limit(k, &whole)
	nodes := nodesOf(k)
	complete := len(nodes) == k.spec.Pending
	c.nominations.withdrawAll(k)
	if limit.kind != noLimit || !complete {
		return
	}
	trial := newGangTrial(c, k)
	for _, n := range nodes {
		if !k.shape.allows(n) {
			trial.undo()
			c.preemption.pauseClaims(k.bucket)
			return
		}
		c.grant(k, n)
	}
	trial.keep()
}

// serve grants the first ask of a bucket, or blocks or limits the bucket.
func (c *Core) serve(b *bucket) {
	k := b.first()
	if k.spec.Gang {
		c.serveGang(k)
		return
	}
	if limit := c.tree.limit(k, &k.spec.Resources); limit.kind != noLimit {
		if limit.kind == lendingLimit && !k.outlasting && k.spec.Duration > 0 {
			c.lending.setOutlasting(k, true)
		} else {
			c.nominations.cancelReservation(k)
			c.backlog.setLimited(b, limit.queue)
		}
		return
	}
	slot := c.backlog.find(k)
	if slot < 0 && k.spec.Replaces {
		slot = c.nominations.yieldTo(k)
	}
	if slot < 0 {
		c.pass.looks -= looksPerMiss
		c.backlog.block(b.shape)
		return
	}
	c.grant(k, c.fleet.at(slot))
	c.granted(k, 1)
}

// serveGang grants all containers of a gang, or none.
func (c *Core) serveGang(k *ask) {
	b, count := k.bucket, k.spec.Pending
	whole := k.spec.Resources.Scale(int64(count))
	if limit := c.tree.limit(k, &whole); limit.kind != noLimit {
		c.nominations.cancelReservation(k)
		c.backlog.setLimited(b, limit.queue)
		return
	}
	hasRoom := c.nominations.hasAllRoom(k)
	reserved := c.nominations.suspend(k)
	trial := newGangTrial(c, k)
	if trial.grantAll() {
		trial.keep()
		for _, n := range reserved {
			c.fleet.touch(n)
		}
		return
	}
	fitted := len(trial.grants())
	c.pass.looks -= looksPerMiss * (1 + fitted)
	trial.undo()
	c.backlog.blockGang(b, count-fitted)
	if hasRoom {
		// It does not fit although it has enough room, because its containers exclude each other by placement rules.
		c.nominations.backOff(k)
	} else if len(reserved) > 0 {
		c.pass.onTrial = true
		if !c.nominations.reserveFor(k, count) {
			c.nominations.backOff(k)
		}
		c.pass.onTrial = false
	}
	for _, n := range reserved {
		if len(n.nominations) == 0 {
			c.fleet.touch(n)
		}
	}
}

// grant gives one container of an ask on a node.
func (c *Core) grant(k *ask, n *node) {
	a := k.app
	a.lastSeq++
	held := c.containers.take()
	held.id = id.Container{Epoch: c.config.Epoch, App: a.id, Seq: a.lastSeq}
	held.app, held.group, held.node, held.ask = a, k.group, n, k.spec.ID
	held.need, held.master, held.startedAt, held.duration = k.spec.Resources, k.spec.Master, c.pass.now, k.spec.Duration
	held.service = k.spec.Service || k.spec.Master
	if len(a.credits) > 0 {
		held.credit = a.takeCredit(held.ask)
	}
	c.containers.add(held)
	c.hold(held)
	c.pass.decisions.Grants = append(c.pass.decisions.Grants, Grant{
		Container: held.id, Ask: k.spec.ID, Node: n.spec.Name, Queue: a.leaf.spec.Name, Resources: held.need, Master: held.master,
	})
}

// granted subtracts grants from the pending containers of an ask.
func (c *Core) granted(k *ask, count int) {
	c.lending.noteGrant(k.app)
	if !k.reservedAt.IsZero() {
		k.reservedAt, k.app.failedReservations = time.Time{}, 0
	}
	c.preemption.noteGrant(k.app.leaf)
	k.spec.Pending -= count
	k.blockedSince = time.Time{}
	for len(k.nominations) > max(k.spec.Pending, 0) {
		c.nominations.withdraw(k.nominations[len(k.nominations)-1])
	}
	if k.spec.Pending <= 0 {
		c.withdraw(k)
	}
}
