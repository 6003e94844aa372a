package scheduler

import (
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// lentUnder is the open contract by which a container's queue borrows from a claimant; nil if there is none.
func (l *lending) lentUnder(ctr *container, claimant *queue) *contract {
	for _, lent := range l.contracts {
		if lent.isOpen() && claimant.isUnder(lent.lender) && slices.ContainsFunc(lent.borrowers, ctr.app.leaf.isUnder) {
			return lent
		}
	}
	return nil
}

// reserves returns a contract whose reserved room an ask would take; nil if there is none. A contract reserves the lender's floor
// while its window is open. While the capacity returns, it reserves what the lender gets back against asks of unknown duration, and after the
// close against all. Against an ask of known duration that would outlast the window it reserves that from the beginning. It reserves nothing against asks of the lender and asks
// within the guarantees of their own queues.
func (l *lending) reserves(k *ask, need *resource.Vector) *contract {
	if len(l.contracts) == 0 {
		return nil
	}
	var sum resource.Vector
	free := l.tree.free()
	for _, lent := range l.contracts {
		lent.reserved = resource.Vector{}
	}
	for _, lent := range l.contracts {
		if lent.phase == phaseIdle || k.app.leaf.isUnder(lent.lender) || k.app.leaf.isGuaranteedBeside(lent.lender, need) {
			continue
		}
		percent := lent.spec.FloorPercent
		switch {
		case lent.phase == phaseGuarded, lent.phase == phaseClosing && k.spec.Duration == 0, lent.isOutlastedBy(k, l.pass.now):
			percent = max(percent, l.returnPercent(lent, k))
		}
		l.reserveRoom(&sum, lent, percent)
		for dim := range need {
			if need[dim] > 0 && lent.reserved[dim] > 0 && free[dim]-sum[dim] < need[dim] {
				return lent
			}
		}
	}
	return nil
}

// reserveRoom adds to sum what a contract reserves, as a percentage of its lender's guarantee. It subtracts what other contracts
// have reserved for the same lender, or for a queue above or below it.
func (l *lending) reserveRoom(sum *resource.Vector, lc *contract, percent float64) {
	room := lc.roomAt(percent)
	for _, other := range l.contracts {
		if other.lender.isUnder(lc.lender) || lc.lender.isUnder(other.lender) {
			room = room.Sub(other.reserved).Max(resource.Vector{})
		}
	}
	lc.reserved = room
	*sum = sum.Add(room)
}

// returnPercent is how much of its guarantee the lender has again when a contract's window closes: all except what its other
// contracts continue to lend. For an ask of known duration, only contracts that it does not outlast count.
func (l *lending) returnPercent(lent *contract, k *ask) float64 {
	goesOn, floor := 0.0, 0.0
	for _, other := range l.contracts {
		if other.lender != lent.lender || !other.isOpen() || !other.window.Close.After(lent.window.Close) || k != nil && other.isOutlastedBy(k, l.pass.now) {
			continue
		}
		goesOn += other.spec.LendPercent
		floor = max(floor, other.spec.FloorPercent)
	}
	return 100 - min(goesOn, 100-floor)
}

// owed is the room that has to be free when a contract's capacity has returned: that of its lender, of lenders to whom capacity
// returns earlier, and the floors of the others.
func (l *lending) owed(lc *contract) resource.Vector {
	var sum resource.Vector
	for _, other := range l.contracts {
		other.reserved = resource.Vector{}
	}
	for _, other := range l.contracts {
		if l.returnsBefore(other, lc) {
			l.reserveRoom(&sum, other, l.returnPercent(other, nil))
		}
	}
	l.reserveRoom(&sum, lc, l.returnPercent(lc, nil))
	for _, other := range l.contracts {
		if other != lc && other.isOpen() && !l.returnsBefore(other, lc) {
			l.reserveRoom(&sum, other, other.spec.FloorPercent)
		}
	}
	return sum
}

// returnsBefore reports whether the capacity of other returns before that of lc: its window closes sooner, or at the same time and
// it was set before.
func (l *lending) returnsBefore(other, lc *contract) bool {
	if other == lc || other.phase < phaseClosing {
		return false
	}
	if order := other.window.Close.Compare(lc.window.Close); order != 0 {
		return order < 0
	}
	return slices.Index(l.contracts, other) < slices.Index(l.contracts, lc)
}

// isOutlastedBy reports whether a container of known duration would still run when the contract's capacity returns.
func (lc *contract) isOutlastedBy(asked *ask, now time.Time) bool {
	return asked.spec.Duration > 0 && now.Add(asked.spec.Duration).After(lc.window.Close.Add(-lc.spec.Grace))
}

// setOutlasting moves an ask to the bucket of those that would outlast a window, or from there.
func (l *lending) setOutlasting(k *ask, outlasting bool) {
	l.backlog.leave(k)
	k.outlasting = outlasting
	l.backlog.enter(k)
	if outlasting {
		l.outlasting = append(l.outlasting, k)
	}
}

// noteGrant records a grant to an app. If the app is a lender's, less is reserved, and other asks may be granted.
func (l *lending) noteGrant(a *app) {
	for _, lent := range l.contracts {
		if a.leaf != nil && a.leaf.isUnder(lent.lender) {
			l.lenderGrew = true
		}
	}
}

// reviewOutlasting moves outlasting asks back to the normal buckets after a contract has changed its phase.
func (l *lending) reviewOutlasting() {
	for _, k := range l.outlasting {
		if k.outlasting && k.bucket != nil {
			l.setOutlasting(k, false)
		}
	}
	l.outlasting = l.outlasting[:0]
}

// roomAt is how much of a percentage of its guarantee the lender does not use.
func (lc *contract) roomAt(percent float64) resource.Vector {
	return lc.lender.guaranteed.Percent(percent).Sub(lc.lender.used).Max(resource.Vector{})
}

// isGuaranteedBeside reports whether need fits into the guarantee of the leaf's highest queue that is not also above the lender.
func (leaf *queue) isGuaranteedBeside(lender *queue, need *resource.Vector) bool {
	q := leaf.beside(lender)
	return within(&q.used, need, &q.guaranteed)
}
