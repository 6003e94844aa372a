package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// Claims and victims are chosen a few at a time, so that a pass stays short; Next asks for the rest.
const (
	claimsPerPass = 16
	// windowNodes is how many nodes, those with the newest borrowed containers, are compared for one claim; mostNodes if
	// none of them will do.
	windowNodes = 16
	mostNodes   = 256
	// claimPause is how long asks wait for whom no victims were found.
	claimPause = time.Second
	// restartCost is what stopping a container costs besides its work.
	restartCost = 10 * time.Second
	// masterCost makes application masters the last to go.
	masterCost = 10_000 * time.Hour
)

// claim makes room for waiting asks that are within what their queues are promised, at the cost of those that
// hold more than they are promised.
func (c *Core) claim() {
	c.reviewClaims()
	given := len(c.notices)
	c.chooseVictims()
	c.dropNeedless(given)
}

// reviewClaims gives up claims that a limit is in the way of, because others of their queues were granted something: nobody
// is to be stopped for what will not be granted.
func (c *Core) reviewClaims() {
	if !c.claimsMoved {
		return
	}
	c.claimsMoved = false
	for i := 0; i < len(c.notices); i++ {
		m := c.notices[i].claim
		if m == nil {
			continue
		}
		if kind, _, _ := c.limit(m.ask, &m.room); kind != noLimit {
			c.giveUp(m)
			i = -1
		}
	}
}

// mayLimitClaims reports whether a leaf has claims and anything that could be in their way once it holds more.
func (c *Core) mayLimitClaims(leaf *queue) bool {
	if leaf.promised.IsZero() {
		return false
	}
	limited := leaf.spec.UserLimitPercent > 0 || len(c.contracts) > 0
	for q := leaf; q != nil && !limited; q = q.parent {
		limited = q.capped
	}
	return limited
}

func (c *Core) chooseVictims() {
	left := claimsPerPass
	claimants := c.plan.claimants[:0]
	if !c.anyBorrows() {
		return
	}
	for _, leaf := range c.leaves {
		leaf.sortHeld()
		if len(leaf.backlog.blocked.items) > 0 && leaf.spec.State != QueueStopped {
			claimants = append(claimants, leaf)
		}
	}
	slices.SortStableFunc(claimants, fairOrder)
	c.plan.claimants = claimants
	// Those within their own guarantees come before those that only some queue above them has room for.
	for _, c.plan.own = range []bool{true, false} {
		for _, leaf := range claimants {
			// The heap's own order depends on how it came about; decisions must not.
			c.plan.buckets = append(c.plan.buckets[:0], leaf.backlog.blocked.items...)
			slices.SortFunc(c.plan.buckets, func(x, y *bucket) int {
				if x.before(y) {
					return -1
				}
				return 1
			})
			for _, b := range c.plan.buckets {
				if b.claimAfter.After(c.pass.now) {
					c.pass.nextBy(b.claimAfter)
					continue
				}
				if left = c.claimFor(b, left); left <= 0 {
					c.pass.nextBy(c.pass.now)
					return
				}
			}
		}
	}
}

// anyBorrows reports whether any queue holds more than its guarantee, without what is under notice.
func (c *Core) anyBorrows() bool {
	for _, q := range c.queues[1:] {
		nothing := q.guaranteed.IsZero()
		for i := range q.used {
			if q.used[i]-q.leaving[i] > q.guaranteed[i] && (q.guaranteed[i] > 0 || nothing) {
				return true
			}
		}
	}
	return false
}

// fairOrder compares two leaves as next would choose between them.
func fairOrder(x, y *queue) int {
	for p := x; p.parent != nil; p = p.parent {
		for q := y; q.parent != nil; q = q.parent {
			if p.parent != q.parent || p == q {
				continue
			}
			if p.before(q) {
				return -1
			}
			return 1
		}
	}
	return 0
}

// claimFor makes claims for the asks of a bucket, in their order, until one fails, for then its equals would too, or no
// more are left to this pass.
func (c *Core) claimFor(b *bucket, left int) int {
	if b.key.gang != nil {
		if k := b.first(); k.claims == 0 && c.claimGang(k) {
			left -= k.spec.Pending
		}
		return left
	}
	b.asks.inOrder(&c.plan.frontier, func(q queued) bool {
		k := q.ask
		for missing := k.spec.Pending - k.claims; missing > 0; missing-- {
			if left == 0 || !c.claimOne(k) {
				return false
			}
			left--
		}
		return true
	})
	return left
}

// dropNeedless takes back those notices of this pass, from the given one on, without which every nomination would
// have its room all the same: a gang that goes as a whole may free more than was looked for.
func (c *Core) dropNeedless(given int) {
	if !slices.ContainsFunc(c.notices[given:], func(n *notice) bool { return n.container.gang != nil }) {
		return
	}
	for _, each := range slices.Clone(c.notices[given:]) {
		k := each.container
		if k.gang != nil {
			continue
		}
		left := c.fleet.avail[k.node.slot].Sub(k.need)
		for other := k.node.containers; other != nil; other = other.nextOfNode {
			if other.notice != nil && other.awaited == nil {
				left = left.Add(other.need)
			}
		}
		if left != left.Max(resource.Vector{}) {
			continue
		}
		c.reprieve(k)
		c.reprieved = c.reprieved[:len(c.reprieved)-1]
		c.pass.decisions.Notices = slices.DeleteFunc(c.pass.decisions.Notices, func(n Notice) bool { return n.Container == k.id })
	}
}

// claimGang makes room for all of a gang, or for none of it.
func (c *Core) claimGang(k *ask) bool {
	whole := k.spec.Resources.Scale(int64(k.spec.Pending))
	promised := false
	for q := k.app.leaf; q.parent != nil; q = q.parent {
		promised = promised || c.isPromised(q, &whole)
	}
	if !promised {
		return false
	}
	if kind, _, _ := c.limit(k, &whole); kind != noLimit {
		return false
	}
	notices, reprieves := len(c.pass.decisions.Notices), len(c.reprieved)
	for range k.spec.Pending {
		if !c.claimOne(k) {
			c.withdrawNominations(k)
			c.pauseClaims(k.bucket)
			// Nobody was told yet. What a contract fetches back anyway keeps its notice.
			c.reprieved = c.reprieved[:reprieves]
			told := slices.DeleteFunc(c.pass.decisions.Notices[notices:], func(n Notice) bool { return c.containers.byID[n.Container].notice == nil })
			c.pass.decisions.Notices = c.pass.decisions.Notices[:notices+len(told)]
			return false
		}
	}
	return true
}

// claimOne chooses victims for one container of an ask and gives them notice. It reports whether it found any.
func (c *Core) claimOne(k *ask) bool {
	c.plan.ask = k
	if !c.mayClaim(k) {
		return false
	}
	if kind, _, _ := c.limit(k, &k.spec.Resources); kind != noLimit || c.claimsReach(k) {
		return false
	}
	if !c.planComing(k) && !c.planRemoval(k, windowNodes) && !c.planRemoval(k, mostNodes) {
		c.pauseClaims(k.bucket)
		return false
	}
	best := &c.plan.best
	for i := len(best.node.nominations) - 1; i >= 0; i-- {
		if m := best.node.nominations[i]; c.yields(m) {
			c.withdrawNomination(m)
		}
	}
	// What was reserved for the ask is not needed any more.
	for i := len(k.nominations) - 1; i >= 0 && k.app.leaf.reservations > 0; i-- {
		if m := k.nominations[i]; m.leaf != nil {
			c.withdrawNomination(m)
			break
		}
	}
	m := c.nominate(k, best.node)
	m.claim = true
	k.claims++
	k.app.leaf.promise(&m.room, 1)
	c.adopt(m)
	for _, victim := range best.victims {
		for _, gone := range withGang(victim) {
			if gone.notice != nil {
				continue
			}
			reason := fmt.Sprintf("queue %s asks for what it is guaranteed, and queue %s holds more than that", k.app.leaf.spec.Name, gone.app.leaf.spec.Name)
			lent := c.lentUnder(gone, k.app.leaf)
			c.giveNotice(gone, m, lent, c.pass.now.Add(c.noticeFor(gone, lent)), reason)
		}
	}
	return true
}

// claimsReach reports whether one more claim would be granted beyond the maximum of a queue, after those that there are.
func (c *Core) claimsReach(k *ask) bool {
	for q := k.app.leaf; q != nil; q = q.parent {
		if !q.capped || q.promised.IsZero() {
			continue
		}
		if holds := q.used.Add(q.promised); exceeds(&holds, &k.spec.Resources, &q.maximum) >= 0 {
			return true
		}
	}
	return false
}

// pauseClaims lets no victims be looked for until something may have changed.
func (c *Core) pauseClaims(b *bucket) {
	b.claimAfter = c.pass.now.Add(claimPause)
	c.pass.nextBy(b.claimAfter)
}

// yields reports whether room is reserved for an ask only because that has waited, beyond its queue's own guarantee:
// claims come before it.
func (c *Core) yields(m *nomination) bool {
	return m.leaf != nil && (m.ask == c.plan.ask || !c.isPromised(m.leaf, &m.room))
}

// isPromised reports whether a queue would stay within what it is entitled to.
func (c *Core) isPromised(q *queue, need *resource.Vector) bool {
	holds := q.used.Sub(q.leaving).Add(q.promised)
	return within(&holds, need, &q.entitled)
}

// mayClaim reports whether any queue on the ask's path is promised more than it has, and notes for each leaf
// whether its containers may be taken for it.
func (c *Core) mayClaim(k *ask) bool {
	p := &c.plan
	p.leaves = p.leaves[:0]
	p.turn++
	if p.own && !c.isPromised(k.app.leaf, &k.spec.Resources) {
		return false
	}
	for q := k.app.leaf; q.parent != nil; q = q.parent {
		if !c.isPromised(q, &k.spec.Resources) {
			continue
		}
		for _, sibling := range q.parent.children {
			if sibling != q && exceedsPromise(sibling, k.app.leaf, &k.spec.Resources) {
				p.gather(sibling, k)
			}
		}
	}
	return len(p.leaves) > 0
}
