package scheduler

import (
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// lentUnder is the open contract under which a container's queue borrows from a claimant, nil if there is none.
func (l *lending) lentUnder(k *container, claimant *queue) *contract {
	for _, lent := range l.contracts {
		if lent.isOpen() && claimant.isUnder(lent.lender) && slices.ContainsFunc(lent.borrowers, k.app.leaf.isUnder) {
			return lent
		}
	}
	return nil
}

// keepsFor finds a contract that keeps room which an ask would take: the lender's floor while the window is open,
// all of its guarantee while it is handed back. An ask of known duration that would outlast the window is held to
// the latter from the beginning. Asks within their queue's guarantee, and the lender's own, are never held back.
func (l *lending) reserves(k *ask, need *resource.Vector) *contract {
	if len(l.contracts) == 0 {
		return nil
	}
	var kept resource.Vector
	for _, lent := range l.contracts {
		lent.reserved = resource.Vector{}
	}
	for _, lent := range l.contracts {
		if lent.phase == phaseIdle || k.app.leaf.isUnder(lent.lender) || k.app.leaf.isGuaranteedBeside(lent.lender, need) {
			continue
		}
		percent := lent.spec.FloorPercent
		switch {
		case lent.phase == phaseGuard, lent.phase == phaseClosing && k.spec.Duration == 0, lent.isOutlastedBy(k, l.pass.now):
			percent = max(percent, l.returnPercent(lent, k))
		}
		l.reserveRoom(&kept, lent, percent)
		for place := range need {
			if need[place] > 0 && lent.reserved[place] > 0 && l.tree.free()[place]-kept[place] < need[place] {
				return lent
			}
		}
	}
	return nil
}

// keepRoom adds to kept what a contract keeps at a percentage of its lender's guarantee. What others were found to keep
// for the same lender, or for one above or below it, is part of that.
func (l *lending) reserveRoom(kept *resource.Vector, k *contract, percent float64) {
	room := k.roomAt(percent)
	for _, other := range l.contracts {
		if other.lender.isUnder(k.lender) || k.lender.isUnder(other.lender) {
			room = room.Sub(other.reserved).Max(resource.Vector{})
		}
	}
	k.reserved = room
	*kept = kept.Add(room)
}

// backPercent is how much of its guarantee the lender is promised when a contract's window closes: all but what its
// other contracts lend beyond that. For an ask of known duration only those count that it would not outlast as well.
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

// owed is the room that there has to be when a contract's capacity is back: for its lender, for those that have theirs
// back no later, and the floors of the others.
func (l *lending) owed(k *contract) resource.Vector {
	var kept resource.Vector
	for _, other := range l.contracts {
		other.reserved = resource.Vector{}
	}
	for _, other := range l.contracts {
		if l.returnsBefore(other, k) {
			l.reserveRoom(&kept, other, l.returnPercent(other, nil))
		}
	}
	l.reserveRoom(&kept, k, l.returnPercent(k, nil))
	for _, other := range l.contracts {
		if other != k && other.isOpen() && !l.returnsBefore(other, k) {
			l.reserveRoom(&kept, other, other.spec.FloorPercent)
		}
	}
	return kept
}

// isBackBefore reports whether another contract that is handed back comes before one: it closes sooner, or stands
// before it.
func (l *lending) returnsBefore(other, k *contract) bool {
	if other == k || other.phase < phaseClosing {
		return false
	}
	if order := other.window.Close.Compare(k.window.Close); order != 0 {
		return order < 0
	}
	return slices.Index(l.contracts, other) < slices.Index(l.contracts, k)
}

// isOutlastedBy reports whether a container of known duration would still run when the contract's capacity returns.
func (k *contract) isOutlastedBy(asked *ask, now time.Time) bool {
	return asked.spec.Duration > 0 && now.Add(asked.spec.Duration).After(k.window.Close.Add(-k.spec.Grace))
}

// setLate moves an ask to or from the bucket of those that would outlast a window.
func (l *lending) setOutlasting(k *ask, late bool) {
	l.backlog.leave(k)
	k.outlasting = late
	l.backlog.enter(k)
	if late {
		l.outlasting = append(l.outlasting, k)
	}
}

// noteLender notes that an app holds more. If it is a lender's, less is kept for that, and others may go on.
func (l *lending) noteLender(a *app) {
	for _, lent := range l.contracts {
		if a.leaf != nil && a.leaf.isUnder(lent.lender) {
			l.lenderGrew = true
		}
	}
}

// reviewLate puts asks back among their equals after a contract turned.
func (l *lending) reviewOutlasting() {
	for _, k := range l.outlasting {
		if k.outlasting && k.bucket != nil {
			l.setOutlasting(k, false)
		}
	}
	l.outlasting = l.outlasting[:0]
}

// roomAt is how much of a percentage of its guarantee the lender does not use.
func (k *contract) roomAt(percent float64) resource.Vector {
	return k.lender.guaranteed.Percent(percent).Sub(k.lender.used).Max(resource.Vector{})
}

// isGuaranteed reports whether need is within the guarantee of the highest queue that a leaf does not share with
// the lender.
func (leaf *queue) isGuaranteedBeside(lender *queue, need *resource.Vector) bool {
	q := leaf
	for q.parent != nil && !lender.isUnder(q.parent) {
		q = q.parent
	}
	return within(&q.used, need, &q.guaranteed)
}
