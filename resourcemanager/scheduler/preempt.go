package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/resource"
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
	stopped  bool
}

// credit is how long containers of an ask had worked when they were stopped for others' guarantees.
type credit struct {
	ask  string
	work time.Duration
}

// Claims and victims are chosen a few at a time, so that a pass stays short; Next asks for the rest.
const (
	claimsPerPass = 32
	// windowNodes is how many nodes, those with the newest borrowed containers, are compared for one claim.
	windowNodes = 16
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
	given := len(c.notices)
	c.chooseVictims()
	c.dropNeedless(given)
}

func (c *Core) chooseVictims() {
	left := claimsPerPass
	claimants := c.plan.claimants[:0]
	for _, leaf := range c.leaves {
		if len(leaf.waiting.items) > 0 && leaf.spec.State != QueueStopped {
			claimants = append(claimants, leaf)
		}
	}
	slices.SortStableFunc(claimants, fairOrder)
	c.plan.claimants = claimants
	// Those within their own guarantees come before those that only some queue above them has room for.
	for _, c.plan.own = range []bool{true, false} {
		for _, leaf := range claimants {
			for _, b := range leaf.waiting.items {
				if b.claimAfter.After(c.now) {
					c.wakeAt(b.claimAfter)
					continue
				}
				if left = c.claimFor(b, left); left <= 0 {
					c.wakeAt(c.now)
					return
				}
			}
		}
	}
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

// claimFor makes claims for the asks of a bucket until one fails, for then its equals would too, or no more are
// left to this pass.
func (c *Core) claimFor(b *bucket, left int) int {
	for _, k := range b.asks.items {
		if b.key.gang != nil {
			if k.claims == 0 && c.claimGang(k) {
				left -= k.spec.Pending
			}
			return left
		}
		for missing := k.spec.Pending - k.claims; missing > 0; missing-- {
			if left == 0 || !c.claimOne(k) {
				return left
			}
			left--
		}
	}
	return left
}

// dropNeedless takes back those notices of this pass, from the given one on, without which every nomination would
// have its room all the same: a gang that goes as a whole may free more than was looked for.
func (c *Core) dropNeedless(given int) {
	if !slices.ContainsFunc(c.notices[given:], func(n *notice) bool { return n.container.gang != 0 }) {
		return
	}
	for _, each := range slices.Clone(c.notices[given:]) {
		k := each.container
		if k.gang != 0 {
			continue
		}
		left := c.avail[k.node.slot].Sub(k.need)
		for other := k.node.containers; other != nil; other = other.nextOfNode {
			if other.notice != nil {
				left = left.Add(other.need)
			}
		}
		if left != left.Max(resource.Vector{}) {
			continue
		}
		c.reprieve(k)
		c.reprieved = c.reprieved[:len(c.reprieved)-1]
		c.decisions.Notices = slices.DeleteFunc(c.decisions.Notices, func(n Notice) bool { return n.Container == k.id })
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
	notices, reprieves := len(c.decisions.Notices), len(c.reprieved)
	for range k.spec.Pending {
		if !c.claimOne(k) {
			c.withdrawNominations(k)
			c.decisions.Notices, c.reprieved = c.decisions.Notices[:notices], c.reprieved[:reprieves]
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
	if kind, _, _ := c.limit(k, &k.spec.Resources); kind != noLimit {
		return false
	}
	if !c.planRemoval(k, windowNodes) && !c.planRemoval(k, 16*windowNodes) {
		k.bucket.claimAfter = c.now.Add(claimPause)
		c.wakeAt(k.bucket.claimAfter)
		return false
	}
	best := &c.plan.best
	for i := len(best.node.nominations) - 1; i >= 0; i-- {
		if m := best.node.nominations[i]; c.yields(m) {
			c.withdrawNomination(m)
		}
	}
	// A node that was kept for the ask is not needed any more.
	for i := len(k.nominations) - 1; i >= 0; i-- {
		if m := k.nominations[i]; m.leaf != nil {
			c.withdrawNomination(m)
			break
		}
	}
	m := c.nominate(k, best.node, k.spec.Resources)
	m.claim = true
	k.claims++
	k.app.leaf.promise(&m.room, 1)
	for _, victim := range best.victims {
		for _, gone := range c.withGang(victim) {
			if gone.notice != nil {
				continue
			}
			reason := fmt.Sprintf("queue %s asks for what it is guaranteed, and queue %s holds more than that", k.app.leaf.spec.Name, gone.app.leaf.spec.Name)
			c.giveNotice(gone, m, c.lentUnder(gone, k.app.leaf), c.now.Add(c.noticeFor(gone, k.app.leaf)), reason)
		}
	}
	return true
}

// yields reports whether a node is kept for an ask only because that has waited, beyond its queue's own guarantee:
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

// gather collects the leaves below q that hold anything and, at every level, more than they are promised.
func (p *removalPlan) gather(q *queue, k *ask) {
	if q.isLeaf() {
		if q.containersHeld != nil {
			q.chosenFor = p.turn
			p.leaves = append(p.leaves, q)
		}
		return
	}
	for _, child := range q.children {
		if exceedsPromise(child, k.app.leaf, &k.spec.Resources) {
			p.gather(child, k)
		}
	}
}

// exceedsPromise reports whether a queue will still hold more than it is promised of something that is asked for,
// when all under notice are gone. What a contract lends counts as promised, but not towards the lender.
func exceedsPromise(q, claimant *queue, need *resource.Vector) bool {
	promised := q.guaranteed
	for _, l := range q.lent {
		if !claimant.isUnder(l.contract.lender) {
			promised = promised.Add(l.amount)
		}
	}
	nothing := promised.IsZero()
	for i := range need {
		if need[i] == 0 || promised[i] == 0 && !nothing {
			continue
		}
		if q.used[i]-q.leaving[i] > promised[i] {
			return true
		}
	}
	return false
}

func (q *queue) isUnder(ancestor *queue) bool {
	for ; q != nil; q = q.parent {
		if q == ancestor {
			return true
		}
	}
	return false
}

// removalPlan is the scratch space of choosing victims.
type removalPlan struct {
	// claimants are the leaves with asks that wait; own restricts them to their own guarantees.
	claimants []*queue
	own       bool
	ask       *ask
	// leaves may lose containers to the claimant; those chosen in this turn carry its number.
	leaves        []*queue
	turn          int64
	seen          bitmap
	nodes         []*node
	candidates    []*container
	best, current removal
}

// removal is victims on one node that make room there, and what that costs.
type removal struct {
	node    *node
	victims []*container
	cost    float64
}

// planRemoval finds the cheapest way to make room for one container of an ask, among the nodes where the newest
// borrowed containers are.
func (c *Core) planRemoval(k *ask, window int) bool {
	p := &c.plan
	p.nodes, p.best.node = p.nodes[:0], nil
	for _, leaf := range p.leaves {
		looked := 0
		for held := leaf.containersHeld; held != nil && len(p.nodes) < window; held = held.nextOfLeaf {
			n := held.node
			if held.notice != nil || p.seen.has(n.slot) || !n.isOpen() || !k.shape.allows(n) {
				continue
			}
			p.seen.set(n.slot, c.grid.words)
			p.nodes = append(p.nodes, n)
			if looked++; looked*len(p.leaves) >= window {
				break
			}
		}
	}
	for _, n := range p.nodes {
		p.seen.clear(n.slot)
		if c.planOn(k, n) && (p.best.node == nil || p.current.cost < p.best.cost) {
			p.best, p.current = p.current, p.best
		}
	}
	return p.best.node != nil
}

// planOn works out whom to stop on one node, cheapest first, and drops again those that turn out needless.
func (c *Core) planOn(k *ask, n *node) bool {
	p := &c.plan
	p.candidates = p.candidates[:0]
	room := c.avail[n.slot]
	for _, m := range n.nominations {
		if c.yields(m) {
			room = room.Add(m.room)
		}
	}
	for held := n.containers; held != nil; held = held.nextOfNode {
		switch {
		case held.notice != nil:
			room = room.Add(held.need)
		case held.app.leaf != nil && held.app.leaf.chosenFor == p.turn:
			p.candidates = append(p.candidates, held)
		}
	}
	slices.SortStableFunc(p.candidates, func(x, y *container) int {
		return cmp.Or(cmp.Compare(c.cost(x), c.cost(y)), y.id.Compare(x.id))
	})
	p.current = removal{node: n, victims: p.current.victims[:0]}
	need := &k.spec.Resources
	for _, held := range p.candidates {
		if fits(need, &room) {
			break
		}
		if !stillExceeds(held.app.leaf, k.app.leaf, need) {
			continue
		}
		room = room.Add(held.need)
		p.current.victims = append(p.current.victims, held)
		held.app.leaf.expect(&held.need, 1)
	}
	for _, held := range p.current.victims {
		held.app.leaf.expect(&held.need, -1)
	}
	if !fits(need, &room) {
		return false
	}
	// The second pass begins with the dearest.
	kept := p.current.victims
	for i := len(kept) - 1; i >= 0; i-- {
		if less := room.Sub(kept[i].need); fits(need, &less) {
			room = less
			kept = slices.Delete(kept, i, i+1)
		}
	}
	p.current.victims = kept
	for _, held := range kept {
		p.current.cost += c.cost(held) * (float64(held.need[resource.CPU])*c.cpuWeight + float64(held.need[resource.Memory])*c.memoryWeight)
	}
	return true
}

// stillExceeds tests a victim's queues below those that it shares with the claimant, as they would be after the
// victims chosen so far.
func stillExceeds(q, claimant *queue, need *resource.Vector) bool {
	for ; !claimant.isUnder(q); q = q.parent {
		if !exceedsPromise(q, claimant, need) {
			return false
		}
	}
	return true
}

// cost is what stopping a container throws away, in seconds of work.
func (c *Core) cost(k *container) float64 {
	since := k.startedAt
	if k.checkpoint.After(since) {
		since = k.checkpoint
	}
	cost := c.now.Sub(since) + restartCost + k.credit
	if k.master {
		cost += masterCost
	}
	seconds := cost.Seconds()
	if k.gang != 0 {
		seconds *= float64(len(c.withGang(k)))
	}
	return seconds
}

// withGang is a container and, if it came with a gang, all that are left of it.
func (c *Core) withGang(k *container) []*container {
	if k.gang == 0 {
		return []*container{k}
	}
	var all []*container
	for other := k.app.containers; other != nil; other = other.nextOfApp {
		if other.gang == k.gang {
			all = append(all, other)
		}
	}
	return all
}

// noticeFor is how long a container hears before it is stopped for a claimant.
func (c *Core) noticeFor(k *container, claimant *queue) time.Duration {
	for q := k.app.leaf; q != nil; q = q.parent {
		for _, l := range q.lent {
			if claimant.isUnder(l.contract.lender) {
				return l.contract.spec.Notice
			}
		}
		if q.spec.Notice > 0 {
			return q.spec.Notice
		}
	}
	return c.config.Notice
}

func (c *Core) giveNotice(k *container, m *nomination, contract *contract, deadline time.Time, reason string) {
	given := &notice{container: k, deadline: deadline, reason: reason, claim: m, contract: contract}
	k.app.leaf.unlink(k)
	k.notice = given
	k.app.leaf.expect(&k.need, 1)
	if m != nil {
		m.victims = append(m.victims, given)
	}
	c.notices = append(c.notices, given)
	c.decisions.Notices = append(c.decisions.Notices, Notice{Container: k.id, Deadline: deadline, Reason: reason})
	c.wakeAt(deadline)
}

// stopDue stops those whose notice has run out.
func (c *Core) stopDue() {
	var spared []*notice
	for _, given := range c.notices {
		k := given.container
		switch {
		case given.stopped:
			continue
		case given.deadline.After(c.now):
			c.wakeAt(given.deadline)
			continue
		case !k.app.leaf.isOver():
			// Its queue is not over its guarantee any more; what was asked for is looked for anew.
			spared = append(spared, given)
			continue
		}
		given.stopped = true
		c.decisions.Stops = append(c.decisions.Stops, Stop{Container: k.id, Reason: given.reason})
		work := c.now.Sub(k.startedAt)
		lost := work
		if k.checkpoint.After(k.startedAt) {
			lost = c.now.Sub(k.checkpoint)
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
			c.withdrawNomination(given.claim)
			c.wakeAt(c.now)
		default:
			c.reprieve(given.container)
		}
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
		if given.stopped {
			continue
		}
		if lent := c.fetchingBack(given.container); lent != nil {
			given.contract = lent
			continue
		}
		c.reprieve(given.container)
	}
	m.victims = nil
}

// reprieve takes a container's notice back.
func (c *Core) reprieve(k *container) {
	c.dropNotice(k)
	k.app.leaf.expect(&k.need, -1)
	k.app.leaf.link(k)
	c.reprieved = append(c.reprieved, k.id)
}

// dropNotice forgets a container's notice.
func (c *Core) dropNotice(k *container) {
	given := k.notice
	if given == nil {
		return
	}
	k.notice = nil
	c.notices = slices.DeleteFunc(c.notices, func(other *notice) bool { return other == given })
	if given.claim != nil {
		given.claim.victims = slices.DeleteFunc(given.claim.victims, func(other *notice) bool { return other == given })
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

func (c *Core) checkpoint(in Checkpoint) error {
	k := c.containers[in.Container]
	if k == nil {
		return fmt.Errorf("container %s is not held: %w", in.Container, errdefs.ErrNotFound)
	}
	if in.At.After(k.checkpoint) {
		k.checkpoint = in.At
	}
	return nil
}
