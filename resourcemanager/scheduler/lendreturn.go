package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// handBack fetches back, for every contract whose window closes, what the lender could not use at once: by notices
// that run out early enough for the containers to be gone when the window closes.
func (l *lending) returnLent() {
	for _, k := range l.contracts {
		if k.phase != phaseClosing && k.phase != phaseGuard {
			continue
		}
		deadline := k.window.Close.Add(-k.spec.Grace)
		if deadline.Before(l.pass.now) {
			deadline = l.pass.now
		}
		lacking := l.lacking(k, deadline)
		l.preemption.bringForward(k, deadline, &lacking)
		for _, masters := range []bool{false, true} {
			for i := range lacking {
				for _, borrower := range k.borrowers {
					if lacking[i] > 0 {
						l.reclaimFrom(k, borrower, &lacking, fetch{place: i, masters: masters, deadline: deadline})
					}
				}
			}
		}
		pending := k.ledger.pending
		switch {
		case pending == nil:
		case !l.isReturned(k):
			pending.Done = time.Time{}
		default:
			if pending.Done.IsZero() {
				pending.Done = l.pass.now
			}
			if !l.pass.now.Before(k.window.Close) {
				k.ledger.close()
			}
		}
	}
}

// helps reports whether something of what is lacking would come back.
func helps(back, lacking *resource.Vector) bool {
	for i := range back {
		if back[i] > 0 && lacking[i] > 0 {
			return true
		}
	}
	return false
}

// reason is what containers hear that are fetched back.
func (k *contract) reason() string {
	return fmt.Sprintf("the window of contract %s closes at %s, and queue %s gets its capacity back", k.spec.Name, k.window.Close.UTC().Format(time.RFC3339), k.lender.spec.Name)
}

// fetchingBack is a contract whose window closes and that a container's queue borrowed under. Such a container's
// notice is not taken back: there might be no time for another.
func (l *lending) returning(k *container) *contract {
	for _, lent := range l.contracts {
		for _, borrower := range lent.borrowers {
			if lent.phase == phaseClosing && k.app.leaf.isUnder(borrower) {
				return lent
			}
		}
	}
	return nil
}

// isBack reports whether the lender could use all of its guarantee at once, as far as that is up to the borrowers.
func (l *lending) isReturned(k *contract) bool {
	room := l.owed(k)
	for i := range room {
		if k.reserved[i] == 0 || l.tree.free()[i] >= room[i] {
			continue
		}
		for _, q := range k.borrowers {
			if promised := q.promisedAgainst(k.lender); q.used[i] > promised[i] {
				return false
			}
		}
	}
	return true
}

// lacking is what is still missing of the lender's guarantee once those that are to be gone by the deadline, and those
// that will have ended by themselves, have gone.
func (l *lending) lacking(k *contract, deadline time.Time) resource.Vector {
	lacking := l.owed(k).Sub(l.tree.free()).Max(resource.Vector{})
	if lacking.IsZero() {
		return lacking
	}
	lacking = lacking.Sub(l.preemption.leavingBy(deadline))
	for _, leaf := range l.tree.leaves() {
		if !l.isReturning(leaf, k) {
			continue
		}
		for held := leaf.newest(); held != nil; held = held.nextOfLeaf {
			if l.endsInTime(held, k) {
				lacking = lacking.Sub(held.need)
				l.pass.nextBy(held.startedAt.Add(held.duration))
			}
		}
	}
	return lacking.Max(resource.Vector{}).Min(k.reserved)
}

// isHandingBack reports whether a leaf borrowed under a contract, or under one that is handed back before it.
func (l *lending) isReturning(leaf *queue, k *contract) bool {
	for _, other := range l.contracts {
		if (other == k || l.returnsBefore(other, k)) && slices.ContainsFunc(other.borrowers, leaf.isUnder) {
			return true
		}
	}
	return false
}

// endsInTime reports whether a container said that it would end by itself before it must be stopped, and has not
// overrun that.
func (l *lending) endsInTime(held *container, k *contract) bool {
	end := held.startedAt.Add(held.duration)
	return held.duration > 0 && end.After(l.pass.now) && !end.After(k.window.Close.Add(-k.spec.Grace))
}

// fetch says which containers are to be fetched back: those that hold something of a place, masters or others.
type fetch struct {
	place    int
	masters  bool
	deadline time.Time
}

// fetchBack gives notice to a borrower's newest containers, as far as they are borrowed and something is lacking.
func (l *lending) reclaimFrom(k *contract, borrower *queue, lacking *resource.Vector, which fetch) {
	for _, leaf := range l.tree.leaves() {
		if !leaf.isUnder(borrower) {
			continue
		}
		leaf.sortHeld()
		for held := leaf.newest(); held != nil && lacking[which.place] > 0; {
			victim := held
			held = held.nextOfLeaf
			if victim.need[which.place] == 0 || victim.master != which.masters || l.endsInTime(victim, k) {
				continue
			}
			var need resource.Vector
			need[which.place] = 1
			if !stillExceeds(leaf, k.lender, &need) {
				return
			}
			for _, gone := range withGang(victim) {
				if gone.notice == nil {
					if gone == held {
						held = held.nextOfLeaf
					}
					l.preemption.giveNotice(gone, nil, k, which.deadline, k.reason())
					*lacking = lacking.Sub(gone.need)
				}
			}
		}
	}
}
