package scheduler

import (
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Schedule implements Interface. A pass serves nominated room first, then always the queue that has the least of
// what it was promised and there the ask whose turn it is, until nothing more can be decided.
func (c *Core) Schedule(now time.Time) Decisions {
	c.pass.begin(now)
	d := &c.pass.decisions
	c.lending.advance()
	c.backlog.dropIdle()
	c.preemption.dropForgotten()
	c.nominations.endReservations()
	if c.grantReady() {
		// Nobody is asked to go, and nothing is reserved, for what may yet find room.
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

// grantReady serves what is ready, and reports whether that is all of it: a pass may be cut short. Nothing is granted
// before all that came back has been looked at, for what is placed then would be placed worse.
func (c *Core) grantReady() bool {
	for c.pass.looks > 0 && len(c.pass.decisions.Grants) < c.pass.grantsPerPass {
		c.resolveQueues()
		if c.tree.takeLimitsMoved() {
			c.backlog.retryLimited(c.tree.all())
		}
		if c.wake(); c.fleet.hasTouched() {
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

// serve decides about the first ask of a bucket.
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
			c.nominations.unreserve(k)
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

// serveGang grants all containers of a gang, or takes back what it has tried.
func (c *Core) serveGang(k *ask) {
	b, count := k.bucket, k.spec.Pending
	whole := k.spec.Resources.Scale(int64(count))
	if limit := c.tree.limit(k, &whole); limit.kind != noLimit {
		c.nominations.unreserve(k)
		c.backlog.setLimited(b, limit.queue)
		return
	}
	roomy := c.nominations.hasAllRoom(k)
	kept := c.nominations.suspend(k)
	first := len(c.pass.decisions.Grants)
	c.beginGang()
	if c.tryAll(k) {
		c.endGang(k, first)
		for _, n := range kept {
			c.fleet.touch(n)
		}
		return
	}
	b.missing = int64(count - (len(c.pass.decisions.Grants) - first))
	c.pass.looks -= looksPerMiss * (1 + len(c.pass.decisions.Grants) - first)
	c.takeBack(k, first)
	c.backlog.setBlocked(b)
	if roomy {
		// With all the room that it asked for it still does not fit, because its containers are in each other's way.
		c.nominations.postpone(k)
	} else if len(kept) > 0 {
		c.pass.onTrial = true
		if !c.nominations.reserveFor(k, count) {
			c.nominations.postpone(k)
		}
		c.pass.onTrial = false
	}
	for _, n := range kept {
		if len(n.nominations) == 0 {
			c.fleet.touch(n)
		}
	}
}

// hasAllRoom reports whether all that is nominated for an ask is free.
func (ns *nominations) hasAllRoom(k *ask) bool {
	for _, m := range k.nominations {
		if !ns.isReady(m) {
			return false
		}
	}
	return len(k.nominations) == k.spec.Pending
}

// lift takes back what is reserved for a gang, so that it is tried with all that there is, and gives the nodes.
func (ns *nominations) suspend(k *ask) []*node {
	if len(k.nominations) == 0 || k.nominations[0].leaf == nil {
		return nil
	}
	kept := make([]*node, len(k.nominations))
	for i, m := range k.nominations {
		kept[i] = m.node
	}
	ns.pass.onTrial = true
	ns.withdrawAll(k)
	ns.pass.onTrial = false
	ns.fleet.noteChange()
	return kept
}

// beginGang gives the gang to come a number, and lets nobody be woken before it is whole.
func (c *Core) beginGang() {
	c.containers.nextGang()
	c.pass.onTrial = true
}

// endGang keeps a gang that is whole.
func (c *Core) endGang(k *ask, first int) {
	c.pass.onTrial = false
	grants := c.pass.decisions.Grants[first:]
	whole := &gang{number: c.containers.lastGang(), members: make([]*container, len(grants))}
	for i := range grants {
		held := c.containers.find(grants[i].Container)
		held.gang, whole.members[i], grants[i].Gang = whole, held, whole.number
		if k.app.named.tracked {
			c.fleet.touch(held.node)
		}
	}
	c.granted(k, len(grants))
}

// tryAll grants as many of an ask's containers as fit, on trial, and reports whether that is all of them.
func (c *Core) tryAll(k *ask) bool {
	for range k.spec.Pending {
		slot := c.backlog.find(k)
		if slot < 0 {
			return false
		}
		c.grant(k, c.fleet.at(slot))
	}
	return true
}

// takeBack undoes the grants to an ask from the first on, as if they had never been tried.
func (c *Core) takeBack(k *ask, first int) {
	c.pass.onTrial = true
	defer func() { c.pass.onTrial = false }()
	for i := len(c.pass.decisions.Grants) - 1; i >= first; i-- {
		held := c.containers.find(c.pass.decisions.Grants[i].Container)
		k.shape.refit(held.node.slot)
		c.containers.remove(held)
		if held.credit > 0 {
			k.app.addCredit(held.ask, held.credit)
		}
		c.unhold(held)
		c.containers.recycle(held)
	}
	c.fleet.noteChange()
	k.app.lastSeq -= int64(len(c.pass.decisions.Grants) - first)
	c.pass.decisions.Grants = c.pass.decisions.Grants[:first]
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

// granted counts an ask down.
func (c *Core) granted(k *ask, count int) {
	c.lending.noteLender(k.app)
	if !k.reservedAt.IsZero() {
		k.reservedAt, k.app.failedReservations = time.Time{}, 0
	}
	c.preemption.noteGrant(k.app.leaf)
	k.spec.Pending -= count
	k.since = time.Time{}
	for len(k.nominations) > max(k.spec.Pending, 0) {
		c.nominations.withdraw(k.nominations[len(k.nominations)-1])
	}
	if k.spec.Pending <= 0 {
		c.withdraw(k)
	}
}
