package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// returnLent gives notices for every contract whose window closes, until the lender could use all of its guarantee. The notices
// expire early enough for the containers to have ended when the window closes.
func (l *lending) returnLent() {
	for _, lc := range l.contracts {
		if lc.phase != phaseClosing && lc.phase != phaseGuarded {
			continue
		}
		deadline := lc.window.Close.Add(-lc.spec.Grace)
		if deadline.Before(l.pass.now) {
			deadline = l.pass.now
		}
		lacking := l.lacking(lc, deadline)
		l.preemption.bringForward(lc, deadline, &lacking)
		for _, masters := range []bool{false, true} {
			for i := range lacking {
				for _, borrower := range lc.borrowers {
					if lacking[i] > 0 {
						l.reclaimFrom(lc, borrower, &lacking, selection{dim: i, masters: masters, deadline: deadline})
					}
				}
			}
		}
		pending := lc.ledger.pending
		switch {
		case pending == nil:
		case !l.isReturned(lc):
			pending.Done = time.Time{}
		default:
			if pending.Done.IsZero() {
				pending.Done = l.pass.now
			}
			if !l.pass.now.Before(lc.window.Close) {
				lc.ledger.close()
			}
		}
	}
}

// helps reports whether the end of a container would return a resource that is lacking.
func helps(need, lacking *resource.Vector) bool {
	for i := range need {
		if need[i] > 0 && lacking[i] > 0 {
			return true
		}
	}
	return false
}

// reason is the reason in the notices by which capacity returns.
func (lc *contract) reason() string {
	return fmt.Sprintf("the window of contract %s closes at %s, and queue %s gets its capacity back", lc.spec.Name, lc.window.Close.UTC().Format(time.RFC3339), lc.lender.spec.Name)
}

// returning is a contract whose window closes and by which a container's queue has borrowed; nil if there is none. The preemption
// of such a container is not cancelled, since there may be no time for another notice.
func (l *lending) returning(ctr *container) *contract {
	for _, lent := range l.contracts {
		for _, borrower := range lent.borrowers {
			if lent.phase == phaseClosing && ctr.app.leaf.isUnder(borrower) {
				return lent
			}
		}
	}
	return nil
}

// isReturned reports whether no borrower keeps the lender from using all of its guarantee.
func (l *lending) isReturned(lc *contract) bool {
	room, free := l.owed(lc), l.tree.free()
	for i := range room {
		if lc.reserved[i] == 0 || free[i] >= room[i] {
			continue
		}
		for _, q := range lc.borrowers {
			if entitled := q.entitlementAgainst(lc.lender); q.used[i] > entitled[i] {
				return false
			}
		}
	}
	return true
}

// lacking is what the lender's guarantee will still lack at the deadline, when containers whose notices expire by then, and those
// that end by themselves, have ended.
func (l *lending) lacking(lc *contract, deadline time.Time) resource.Vector {
	lacking := l.owed(lc).Sub(l.tree.free()).Max(resource.Vector{})
	if lacking.IsZero() {
		return lacking
	}
	lacking = lacking.Sub(l.preemption.leavingBy(deadline))
	for _, leaf := range l.tree.leaves() {
		if !l.isReturning(leaf, lc) {
			continue
		}
		for held := leaf.newest(); held != nil; held = held.nextOfLeaf {
			if l.endsInTime(held, lc) {
				lacking = lacking.Sub(held.need)
				l.pass.nextBy(held.startedAt.Add(held.duration))
			}
		}
	}
	return lacking.Max(resource.Vector{}).Min(lc.reserved)
}

// isReturning reports whether a leaf has borrowed by a contract, or by one whose capacity returns earlier.
func (l *lending) isReturning(leaf *queue, lc *contract) bool {
	for _, other := range l.contracts {
		if (other == lc || l.returnsBefore(other, lc)) && slices.ContainsFunc(other.borrowers, leaf.isUnder) {
			return true
		}
	}
	return false
}

// endsInTime reports whether a container is expected to end by itself before it must be stopped, and has not exceeded its expected
// duration.
func (l *lending) endsInTime(held *container, lc *contract) bool {
	end := held.startedAt.Add(held.duration)
	return held.duration > 0 && end.After(l.pass.now) && !end.After(lc.window.Close.Add(-lc.spec.Grace))
}

// selection is which containers get a notice.
type selection struct {
	// dim is a resource of which they must hold something.
	dim int
	// masters is set for application masters, and unset for all others.
	masters bool
	// deadline is when they are to have ended.
	deadline time.Time
}

// reclaimFrom gives notices to a borrower's newest containers as long as it borrows and something is lacking.
func (l *lending) reclaimFrom(lc *contract, borrower *queue, lacking *resource.Vector, which selection) {
	for _, leaf := range l.tree.leaves() {
		if !leaf.isUnder(borrower) {
			continue
		}
		leaf.sortHeld()
		for held := leaf.newest(); held != nil && lacking[which.dim] > 0; {
			victim := held
			held = held.nextOfLeaf
			if victim.need[which.dim] == 0 || victim.master != which.masters || l.endsInTime(victim, lc) {
				continue
			}
			var need resource.Vector
			need[which.dim] = 1
			if !stillExceeds(leaf, lc.lender, &need) {
				return
			}
			for _, member := range withGang(victim) {
				if member.notice == nil {
					if member == held {
						held = held.nextOfLeaf
					}
					l.preemption.give(&notice{container: member, contract: lc, deadline: which.deadline, reason: lc.reason()})
					*lacking = lacking.Sub(member.need)
				}
			}
		}
	}
}
