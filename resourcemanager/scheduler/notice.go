package scheduler

import (
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// notice is a preemption notice: the container has to end by the deadline.
type notice struct {
	container *container
	deadline  time.Time
	reason    string
	// claim is the nomination that waits for the container to end; nil is none.
	claim *nomination
	// contract is the contract whose capacity returns by it; nil if there is none.
	contract *contract
	// adopted is set if the notice was given before the claim was made.
	adopted bool
	// stopped is set once the notice has expired and the container is stopped.
	stopped bool
}

// credit is how long a preempted container of an ask had worked. The container that replaces it gets the credit, which makes its
// preemption more expensive: so the same work is not lost repeatedly.
type credit struct {
	ask  string
	work time.Duration
}

// noticeLength is the length of a container's notice if it is preempted for another queue, by a contract or nil.
func (pr *preemption) noticeLength(ctr *container, lent *contract) time.Duration {
	if lent != nil {
		return lent.spec.Notice
	}
	for q := ctr.app.leaf; q != nil; q = q.parent {
		if q.spec.Notice > 0 {
			return q.spec.Notice
		}
	}
	return pr.notice
}

// cancelled is a preemption that was cancelled in this pass, with its deadline.
type cancelled struct {
	container id.Container
	deadline  time.Time
}

// give gives a notice.
func (pr *preemption) give(given *notice) {
	ctr := given.container
	// If a preemption of the container was cancelled in this pass, its deadline is kept.
	for _, r := range pr.cancelled {
		if r.container == ctr.id && r.deadline.Before(given.deadline) {
			given.deadline = r.deadline
			if given.deadline.Before(pr.pass.now) {
				given.deadline = pr.pass.now
			}
		}
	}
	ctr.app.leaf.unlink(ctr)
	ctr.notice = given
	ctr.app.leaf.addLeaving(&ctr.need, 1)
	if m := given.claim; m != nil {
		m.victims = append(m.victims, given)
	} else {
		pr.unclaimed = append(pr.unclaimed, given)
	}
	pr.notices = append(pr.notices, given)
	pr.pass.decisions.Notices = append(pr.pass.decisions.Notices, Notice{Container: ctr.id, Deadline: given.deadline, Reason: given.reason})
	pr.awaitDeadline(given.deadline)
	pr.pass.nextBy(given.deadline)
}

// stopDue stops the containers whose notices have expired.
func (pr *preemption) stopDue() {
	switch {
	case pr.firstDeadline.IsZero():
		return
	case pr.firstDeadline.After(pr.pass.now):
		pr.pass.nextBy(pr.firstDeadline)
		return
	}
	pr.firstDeadline = time.Time{}
	var needless []*notice
	for _, given := range pr.notices {
		ctr := given.container
		switch {
		case given.stopped:
			continue
		case given.deadline.After(pr.pass.now):
			pr.awaitDeadline(given.deadline)
			pr.pass.nextBy(given.deadline)
			continue
		case !ctr.app.leaf.borrows():
			// Its queue is within its guarantee now. Other victims will be chosen.
			needless = append(needless, given)
			continue
		}
		given.stopped = true
		pr.pass.decisions.Stops = append(pr.pass.decisions.Stops, Stop{Container: ctr.id, Reason: given.reason})
		work := pr.pass.now.Sub(ctr.startedAt)
		lost := work
		if ctr.checkpoint.After(ctr.startedAt) {
			lost = pr.pass.now.Sub(ctr.checkpoint)
		}
		ctr.app.addCredit(ctr.ask, work+ctr.credit+restartCost)
		if given.contract != nil {
			given.contract.ledger.stop(ctr, lost)
		}
	}
	for _, given := range needless {
		switch {
		case given.container.notice != given:
		case given.claim != nil:
			pr.nominations.cancel(given.claim)
			pr.pass.nextBy(pr.pass.now)
			if given.container.notice == given {
				// The notice was also given for a hand-back.
				pr.cancel(given.container)
			}
		default:
			pr.cancel(given.container)
		}
	}
}

// compactUnclaimed removes notices that are not unclaimed any more.
func (pr *preemption) compactUnclaimed() {
	if len(pr.unclaimed) > 64+2*len(pr.notices) {
		pr.unclaimed = slices.DeleteFunc(pr.unclaimed, func(given *notice) bool { return given.container.notice != given || given.claim != nil })
	}
}

// reportCancelled adds the preemptions that were cancelled in this pass to its decisions.
func (pr *preemption) reportCancelled() {
	d := &pr.pass.decisions
	for _, each := range pr.cancelled {
		d.Cancelled = append(d.Cancelled, each.container)
	}
	pr.cancelled = pr.cancelled[:0]
}

// awaitDeadline makes sure that stopDue examines the notices again by a time.
func (pr *preemption) awaitDeadline(at time.Time) {
	if pr.firstDeadline.IsZero() || at.Before(pr.firstDeadline) {
		pr.firstDeadline = at
	}
}

// borrows reports whether the queue, or one above it, holds more than its guarantee of anything.
func (q *queue) borrows() bool {
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

// endClaim turns a claim into a plain nomination, and cancels the preemption of victims that are not stopped yet. A notice that is
// also for the return of lent capacity stays.
func (pr *preemption) endClaim(m *nomination) {
	if !m.isClaim {
		return
	}
	m.isClaim = false
	m.ask.claims--
	m.ask.app.leaf.addClaimed(&m.room, -1)
	for _, given := range m.victims {
		given.claim = nil
		if given.stopped || given.adopted && given.contract != nil {
			given.adopted = false
			pr.unclaimed = append(pr.unclaimed, given)
			continue
		}
		if lent := pr.lending.returning(given.container); lent != nil {
			given.contract = lent
			pr.unclaimed = append(pr.unclaimed, given)
			continue
		}
		pr.cancel(given.container)
	}
	m.victims = nil
}

// cancel cancels a container's preemption.
func (pr *preemption) cancel(ctr *container) {
	deadline := ctr.notice.deadline
	pr.drop(ctr)
	ctr.app.leaf.addLeaving(&ctr.need, -1)
	ctr.app.leaf.addHeld(ctr)
	pr.fleet.touch(ctr.node)
	pr.cancelled = append(pr.cancelled, cancelled{ctr.id, deadline})
}

// drop removes a container's notice.
func (pr *preemption) drop(ctr *container) {
	given := ctr.notice
	if given == nil {
		return
	}
	ctr.notice = nil
	if pr.notices = drop(pr.notices, given); len(pr.notices) == 0 {
		pr.firstDeadline = time.Time{}
	}
	if given.claim != nil {
		given.claim.victims = drop(given.claim.victims, given)
	}
}

// addCredit adds a credit for an ask.
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

// bringForward shortens notices of borrowers' containers that were given for claims and would expire too late.
func (pr *preemption) bringForward(lc *contract, deadline time.Time, lacking *resource.Vector) {
	for _, given := range pr.notices {
		held := given.container
		if given.stopped || !given.deadline.After(deadline) || !slices.ContainsFunc(lc.borrowers, held.app.leaf.isUnder) || !helps(&held.need, lacking) {
			continue
		}
		given.deadline, given.contract = deadline, lc
		pr.awaitDeadline(deadline)
		*lacking = lacking.Sub(held.need)
		pr.pass.decisions.Notices = append(pr.pass.decisions.Notices, Notice{Container: held.id, Deadline: deadline, Reason: lc.reason()})
	}
}

// leavingBy is what containers hold whose notices expire by a time.
func (pr *preemption) leavingBy(deadline time.Time) resource.Vector {
	var sum resource.Vector
	for _, given := range pr.notices {
		if given.stopped || !given.deadline.After(deadline) {
			sum = sum.Add(given.container.need)
		}
	}
	return sum
}

// noticesUnder are the notices by which the capacity of matching contracts returns.
func (pr *preemption) noticesUnder(match func(*contract) bool) []*notice {
	var found []*notice
	for _, given := range pr.notices {
		if given.contract != nil && match(given.contract) {
			found = append(found, given)
		}
	}
	return found
}
