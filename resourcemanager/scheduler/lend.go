package scheduler

import (
	"fmt"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// lentUnder is the contract under which a container's queue borrows from a claimant, nil if there is none.
func (c *Core) lentUnder(k *container, claimant *queue) *contract {
	for q := k.app.leaf; q != nil; q = q.parent {
		for _, l := range q.lent {
			if claimant.isUnder(l.contract.lender) {
				return l.contract
			}
		}
	}
	return nil
}

// keepsFor finds a contract that keeps room which an ask would take: the lender's floor while the window is open,
// all of its guarantee while it is handed back. An ask of known duration that would outlast the window is held to
// the latter from the beginning. Asks within their queue's guarantee, and the lender's own, are never held back.
func (c *Core) keepsFor(k *ask, need *resource.Vector) *contract {
	if len(c.contracts) == 0 {
		return nil
	}
	for _, lent := range c.contracts {
		if lent.phase == resting || k.app.leaf.isUnder(lent.lender) || c.isGuaranteed(k.app.leaf, lent.lender, need) {
			continue
		}
		percent := lent.spec.FloorPercent
		if lent.phase != lending || k.spec.Duration > 0 && c.now.Add(k.spec.Duration).After(lent.window.Close) {
			percent = 100
		}
		room := lent.roomAt(percent)
		for i := range need {
			if need[i] > 0 && room[i] > 0 && c.zone[i]-c.root().used[i]-need[i] < room[i] {
				return lent
			}
		}
	}
	return nil
}

// roomAt is how much of a percentage of its guarantee the lender does not use.
func (k *contract) roomAt(percent float64) resource.Vector {
	return k.lender.guaranteed.Percent(percent).Sub(k.lender.used).Max(resource.Vector{})
}

// isGuaranteed reports whether need is within the guarantee of the highest queue that a leaf does not share with
// the lender.
func (c *Core) isGuaranteed(leaf, lender *queue, need *resource.Vector) bool {
	q := leaf
	for q.parent != nil && !lender.isUnder(q.parent) {
		q = q.parent
	}
	return within(&q.used, need, &q.guaranteed)
}

// handBack fetches back, for every contract whose window closes, what the lender could not use at once: by notices
// that run out early enough for the containers to be gone when the window closes.
func (c *Core) handBack() {
	for _, k := range c.contracts {
		if k.phase != closing && k.phase != guarding {
			continue
		}
		lacking := c.lacking(k)
		deadline := k.window.Close.Add(-k.spec.Grace)
		for i := range lacking {
			for _, borrower := range k.borrowers {
				if lacking[i] > 0 {
					c.fetchBack(k, borrower, &lacking, i, deadline)
				}
			}
		}
		if k.ledger.pending != nil && c.isBack(k) {
			k.ledger.pending.Done = c.now
			if !c.now.Before(k.window.Close) {
				k.ledger.close()
			}
		}
	}
}

// isBack reports whether the lender could use all of its guarantee at once.
func (c *Core) isBack(k *contract) bool {
	room := k.roomAt(100)
	for i := range room {
		if room[i] > 0 && c.zone[i]-c.root().used[i] < room[i] {
			return false
		}
	}
	return true
}

// lacking is what is still missing of the lender's guarantee once those under notice, and those that will have
// ended by themselves, have gone.
func (c *Core) lacking(k *contract) resource.Vector {
	root := c.root()
	lacking := k.roomAt(100).Sub(c.zone.Sub(root.used).Add(root.leaving)).Max(resource.Vector{})
	if lacking.IsZero() {
		return lacking
	}
	for _, borrower := range k.borrowers {
		for _, leaf := range c.leaves {
			if !leaf.isUnder(borrower) {
				continue
			}
			for held := leaf.containersHeld; held != nil; held = held.nextOfLeaf {
				if held.endsBefore(k.window.Close) {
					lacking = lacking.Sub(held.need)
				}
			}
		}
	}
	return lacking.Max(resource.Vector{})
}

// endsBefore reports whether a container is known to end by itself in time.
func (k *container) endsBefore(at time.Time) bool {
	return k.duration > 0 && !k.startedAt.Add(k.duration).After(at)
}

// fetchBack gives notice to a borrower's newest containers, as far as they are borrowed and something is lacking.
func (c *Core) fetchBack(k *contract, borrower *queue, lacking *resource.Vector, place int, deadline time.Time) {
	for _, leaf := range c.leaves {
		if !leaf.isUnder(borrower) {
			continue
		}
		for held := leaf.containersHeld; held != nil && lacking[place] > 0; {
			victim := held
			held = held.nextOfLeaf
			if victim.need[place] == 0 || victim.master || victim.endsBefore(k.window.Close) {
				continue
			}
			var need resource.Vector
			need[place] = 1
			if !stillExceeds(leaf, k.lender, &need) {
				return
			}
			if deadline.Before(c.now) {
				deadline = c.now
			}
			reason := fmt.Sprintf("the window of contract %s closes at %s, and queue %s gets its capacity back", k.spec.Name, k.window.Close.UTC().Format(time.RFC3339), k.lender.spec.Name)
			for _, gone := range c.withGang(victim) {
				if gone.notice == nil {
					if gone == held {
						held = held.nextOfLeaf
					}
					c.giveNotice(gone, nil, k, deadline, reason)
					*lacking = lacking.Sub(gone.need)
				}
			}
		}
	}
}
