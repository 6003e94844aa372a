package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// A pass makes only a few claims, so that it stays short. Decisions.Next requests another pass for the rest.
const (
	claimsPerPass = 16
	// windowNodes is how many nodes are compared for one claim: those with the newest borrowed containers. If no victims are found
	// there, mostNodes are compared.
	windowNodes = 16
	mostNodes   = 256
	// claimPause is how long a bucket makes no claim after no victims were found.
	claimPause = time.Second
	// restartCost is what stopping a container costs besides its work.
	restartCost = 10 * time.Second
	// masterCost makes application masters the last choice as victims.
	masterCost = 10_000 * time.Hour
)

// preemption has the notices of containers, and chooses the containers that get one.
//
// A claim is a nomination for which containers have a notice: its victims. A notice is unclaimed if no claim waits for the end of
// its container. A preemption is cancelled if its notice is withdrawn before it has expired.
type preemption struct {
	pass        *pass
	fleet       *fleet
	tree        *tree
	containers  *containers
	lending     *lending
	nominations *nominations
	// notice is the default length of a notice.
	notice time.Duration
	// notices are those of all containers that have one, in the order in which they were given.
	notices []*notice
	// firstDeadline is not later than any deadline that has not passed; zero if all have passed.
	firstDeadline time.Time
	// unclaimed are the unclaimed notices, and some that are claimed or cancelled by now.
	unclaimed []*notice
	// cancelled are the preemptions that were cancelled in this pass.
	cancelled []cancelled
	// reviewDue is set when a leaf with claims was granted something: the claims may exceed a limit now.
	reviewDue bool
	// plan is the scratch space of choosing victims.
	plan removalPlan
}

// claim preempts containers of queues that hold more than they are entitled to, for blocked asks whose queues hold less than they
// are entitled to.
func (pr *preemption) claim() {
	pr.reviewClaims()
	first := len(pr.notices)
	pr.chooseVictims()
	pr.cancelNeedless(first)
}

// reviewClaims cancels claims that would exceed a limit after grants to other asks of their queues: no container is stopped for an
// ask that would not be granted.
func (pr *preemption) reviewClaims() {
	if !pr.reviewDue {
		return
	}
	pr.reviewDue = false
	for i := 0; i < len(pr.notices); i++ {
		m := pr.notices[i].claim
		if m == nil {
			continue
		}
		if pr.tree.limit(m.ask, &m.room).kind != noLimit {
			pr.nominations.cancel(m)
			i = -1
		}
	}
}

// noteGrant records a grant to a leaf, after which its claims may exceed limits.
func (pr *preemption) noteGrant(leaf *queue) {
	if len(pr.notices) > 0 && !pr.reviewDue {
		pr.reviewDue = pr.mayLimitClaims(leaf)
	}
}

// mayLimitClaims reports whether a leaf has claims, and limits that they could exceed once it holds more.
func (pr *preemption) mayLimitClaims(leaf *queue) bool {
	if leaf.reclaim.claimed.IsZero() {
		return false
	}
	limited := leaf.spec.UserLimitPercent > 0 || pr.lending.hasContracts()
	for q := leaf; q != nil && !limited; q = q.parent {
		limited = q.capped
	}
	return limited
}

// chooseVictims makes claims for blocked asks.
func (pr *preemption) chooseVictims() {
	left := claimsPerPass
	claimants := pr.plan.claimants[:0]
	if !pr.anyBorrows() {
		return
	}
	for _, leaf := range pr.tree.leaves() {
		leaf.sortHeld()
		if leaf.backlog.hasBlocked() && leaf.spec.State != QueueStopped {
			claimants = append(claimants, leaf)
		}
	}
	slices.SortStableFunc(claimants, fairOrder)
	pr.plan.claimants = claimants
	// Leaves within their own entitlement come before those that are only within the entitlement of a queue above.
	for _, pr.plan.own = range []bool{true, false} {
		for _, leaf := range claimants {
			pr.plan.buckets = leaf.backlog.appendBlocked(pr.plan.buckets[:0])
			for _, b := range pr.plan.buckets {
				if b.claimAfter.After(pr.pass.now) {
					pr.pass.nextBy(b.claimAfter)
					continue
				}
				if left = pr.claimFor(b, left); left <= 0 {
					pr.pass.nextBy(pr.pass.now)
					return
				}
			}
		}
	}
}

// anyBorrows reports whether any queue holds more than its guarantee, not counting containers with a notice.
func (pr *preemption) anyBorrows() bool {
	for _, q := range pr.tree.all()[1:] {
		nothing := q.guaranteed.IsZero()
		for i := range q.used {
			if q.used[i]-q.reclaim.leaving[i] > q.guaranteed[i] && (q.guaranteed[i] > 0 || nothing) {
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
			if p.Before(q) {
				return -1
			}
			return 1
		}
	}
	return 0
}

// claimFor makes claims for the asks of a bucket, in order, until the pass may make no more, or one fails: then its equals would
// fail too.
func (pr *preemption) claimFor(b *bucket, left int) int {
	if b.key.gang != nil {
		if k := b.first(); k.claims == 0 && pr.claimGang(k) {
			left -= k.spec.Pending
		}
		return left
	}
	b.asks.InOrder(&pr.plan.frontier, func(q queued) bool {
		k := q.ask
		for missing := k.spec.Pending - k.claims; missing > 0; missing-- {
			if left == 0 || !pr.claimOne(k) {
				return false
			}
			left--
		}
		return true
	})
	return left
}

// cancelNeedless cancels preemptions of this pass that no claim needs: a gang, which is preempted as a whole, may free more than
// was needed. first is the index of the first notice of the pass.
func (pr *preemption) cancelNeedless(first int) {
	if !slices.ContainsFunc(pr.notices[first:], func(n *notice) bool { return n.container.gang != nil }) {
		return
	}
	for _, each := range slices.Clone(pr.notices[first:]) {
		ctr := each.container
		if ctr.gang != nil {
			continue
		}
		left := pr.fleet.left(ctr.node).Sub(ctr.need)
		for other := ctr.node.containers; other != nil; other = other.nextOfNode {
			if other.notice != nil && other.awaitedBy == nil {
				left = left.Add(other.need)
			}
		}
		if left != left.Max(resource.Vector{}) {
			continue
		}
		pr.cancel(ctr)
		pr.cancelled = pr.cancelled[:len(pr.cancelled)-1]
		pr.pass.decisions.Notices = slices.DeleteFunc(pr.pass.decisions.Notices, func(n Notice) bool { return n.Container == ctr.id })
	}
}

// claimGang makes claims for all containers of a gang, or for none.
func (pr *preemption) claimGang(k *ask) bool {
	whole := k.spec.Resources.Scale(int64(k.spec.Pending))
	entitled := false
	for q := k.app.leaf; q.parent != nil; q = q.parent {
		entitled = entitled || q.isEntitled(&whole)
	}
	if !entitled {
		return false
	}
	if pr.tree.limit(k, &whole).kind != noLimit {
		return false
	}
	notices, cancelled := len(pr.pass.decisions.Notices), len(pr.cancelled)
	for range k.spec.Pending {
		if !pr.claimOne(k) {
			pr.nominations.withdrawAll(k)
			pr.pauseClaims(k.bucket)
			// Nothing of this was reported yet. A notice that is also for a return of capacity stays.
			pr.cancelled = pr.cancelled[:cancelled]
			stay := slices.DeleteFunc(pr.pass.decisions.Notices[notices:], func(n Notice) bool { return pr.containers.find(n.Container).notice == nil })
			pr.pass.decisions.Notices = pr.pass.decisions.Notices[:notices+len(stay)]
			return false
		}
	}
	return true
}

// claimOne chooses victims for one container of an ask and gives them notice. It reports whether it found any.
func (pr *preemption) claimOne(k *ask) bool {
	pr.plan.ask = k
	if !pr.mayClaim(k) {
		return false
	}
	if pr.tree.limit(k, &k.spec.Resources).kind != noLimit || k.app.leaf.claimsReach(&k.spec.Resources) {
		return false
	}
	if !pr.planWithLeaving(k) && !pr.planRemoval(k, windowNodes) && !pr.planRemoval(k, mostNodes) {
		pr.pauseClaims(k.bucket)
		return false
	}
	best := &pr.plan.best
	for i := len(best.node.nominations) - 1; i >= 0; i-- {
		if m := best.node.nominations[i]; pr.yields(m) {
			pr.nominations.withdraw(m)
		}
	}
	// The claim takes the place of one of the ask's reservations.
	for i := len(k.nominations) - 1; i >= 0 && k.app.leaf.hasReservation(); i-- {
		if m := k.nominations[i]; m.reservingLeaf != nil {
			pr.nominations.withdraw(m)
			break
		}
	}
	m := pr.nominations.nominate(k, best.node)
	m.isClaim = true
	k.claims++
	k.app.leaf.addClaimed(&m.room, 1)
	pr.assignLeaving(m)
	for _, victim := range best.victims {
		for _, member := range withGang(victim) {
			if member.notice != nil {
				continue
			}
			reason := fmt.Sprintf("queue %s asks for what it is guaranteed, and queue %s holds more than that", k.app.leaf.spec.Name, member.app.leaf.spec.Name)
			lent := pr.lending.lentUnder(member, k.app.leaf)
			pr.give(&notice{container: member, claim: m, contract: lent, deadline: pr.pass.now.Add(pr.noticeLength(member, lent)), reason: reason})
		}
	}
	return true
}

// claimsReach reports whether need would exceed the maximum of the queue, or of one above it, once all claims there are granted.
func (q *queue) claimsReach(need *resource.Vector) bool {
	for ; q != nil; q = q.parent {
		if !q.capped || q.reclaim.claimed.IsZero() {
			continue
		}
		if holds := q.used.Add(q.reclaim.claimed); exceeds(&holds, need, &q.maximum) >= 0 {
			return true
		}
	}
	return false
}

// pauseClaims prevents claims of a bucket for a while.
func (pr *preemption) pauseClaims(b *bucket) {
	b.claimAfter = pr.pass.now.Add(claimPause)
	pr.pass.nextBy(b.claimAfter)
}

// yields reports whether a nomination is a reservation that ends in favour of claims: one beyond the entitlement of its leaf.
func (pr *preemption) yields(m *nomination) bool {
	return m.reservingLeaf != nil && (m.ask == pr.plan.ask || !m.reservingLeaf.isEntitled(&m.room))
}

// isEntitled reports whether need and all claims are within what a queue is entitled to.
func (q *queue) isEntitled(need *resource.Vector) bool {
	holds := q.used.Sub(q.reclaim.leaving).Add(q.reclaim.claimed)
	return within(&holds, need, &q.entitled)
}

// mayClaim reports whether a queue on the ask's path holds less than it is entitled to, and collects the leaves whose containers
// may be preempted for it.
func (pr *preemption) mayClaim(k *ask) bool {
	p := &pr.plan
	p.leaves = p.leaves[:0]
	p.turn++
	if p.own && !k.app.leaf.isEntitled(&k.spec.Resources) {
		return false
	}
	for q := k.app.leaf; q.parent != nil; q = q.parent {
		if !q.isEntitled(&k.spec.Resources) {
			continue
		}
		for _, sibling := range q.parent.children {
			if sibling != q && exceedsEntitlement(sibling, k.app.leaf, &k.spec.Resources) {
				p.gather(sibling, k)
			}
		}
	}
	return len(p.leaves) > 0
}
