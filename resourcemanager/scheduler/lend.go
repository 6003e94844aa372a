package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// lentUnder is the open contract under which a container's queue borrows from a claimant, nil if there is none.
func (c *Core) lentUnder(k *container, claimant *queue) *contract {
	for _, lent := range c.contracts {
		if lent.isOpen() && claimant.isUnder(lent.lender) && slices.ContainsFunc(lent.borrowers, k.app.leaf.isUnder) {
			return lent
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
	var kept resource.Vector
	for _, lent := range c.contracts {
		lent.keeps = resource.Vector{}
	}
	for _, lent := range c.contracts {
		if lent.phase == resting || k.app.leaf.isUnder(lent.lender) || c.isGuaranteed(k.app.leaf, lent.lender, need) {
			continue
		}
		percent := lent.spec.FloorPercent
		switch {
		case lent.phase == guarding, lent.phase == closing && k.spec.Duration == 0, c.outlasts(k, lent):
			percent = max(percent, c.backPercent(lent, k))
		}
		c.keepRoom(&kept, lent, percent)
		for place := range need {
			if need[place] > 0 && lent.keeps[place] > 0 && c.zone[place]-c.root().used[place]-kept[place] < need[place] {
				return lent
			}
		}
	}
	return nil
}

// keepRoom adds to kept what a contract keeps at a percentage of its lender's guarantee. What others were found to keep
// for the same lender, or for one above or below it, is part of that.
func (c *Core) keepRoom(kept *resource.Vector, k *contract, percent float64) {
	room := k.roomAt(percent)
	for _, other := range c.contracts {
		if other.lender.isUnder(k.lender) || k.lender.isUnder(other.lender) {
			room = room.Sub(other.keeps).Max(resource.Vector{})
		}
	}
	k.keeps = room
	*kept = kept.Add(room)
}

// backPercent is how much of its guarantee the lender is promised when a contract's window closes: all but what its
// other contracts lend beyond that. For an ask of known duration only those count that it would not outlast as well.
func (c *Core) backPercent(lent *contract, k *ask) float64 {
	goesOn, floor := 0.0, 0.0
	for _, other := range c.contracts {
		if other.lender != lent.lender || !other.isOpen() || !other.window.Close.After(lent.window.Close) || k != nil && c.outlasts(k, other) {
			continue
		}
		goesOn += other.spec.LendPercent
		floor = max(floor, other.spec.FloorPercent)
	}
	return 100 - min(goesOn, 100-floor)
}

// owed is the room that there has to be when a contract's capacity is back: for its lender, for those that have theirs
// back no later, and the floors of the others.
func (c *Core) owed(k *contract) resource.Vector {
	var kept resource.Vector
	for _, other := range c.contracts {
		other.keeps = resource.Vector{}
	}
	for _, other := range c.contracts {
		if c.isBackBefore(other, k) {
			c.keepRoom(&kept, other, c.backPercent(other, nil))
		}
	}
	c.keepRoom(&kept, k, c.backPercent(k, nil))
	for _, other := range c.contracts {
		if other != k && other.isOpen() && !c.isBackBefore(other, k) {
			c.keepRoom(&kept, other, other.spec.FloorPercent)
		}
	}
	return kept
}

// isBackBefore reports whether another contract that is handed back comes before one: it closes sooner, or stands
// before it.
func (c *Core) isBackBefore(other, k *contract) bool {
	if other == k || other.phase < closing {
		return false
	}
	if order := other.window.Close.Compare(k.window.Close); order != 0 {
		return order < 0
	}
	return slices.Index(c.contracts, other) < slices.Index(c.contracts, k)
}

// outlasts reports whether a container of known duration would still run when its capacity is handed back.
func (c *Core) outlasts(k *ask, lent *contract) bool {
	return k.spec.Duration > 0 && c.pass.now.Add(k.spec.Duration).After(lent.window.Close.Add(-lent.spec.Grace))
}

// setLate moves an ask to or from the bucket of those that would outlast a window.
func (c *Core) setLate(k *ask, late bool) {
	c.backlog.leave(k)
	k.outlasting = late
	c.backlog.enter(k)
	if late {
		c.late = append(c.late, k)
	}
}

// noteLender notes that an app holds more. If it is a lender's, less is kept for that, and others may go on.
func (c *Core) noteLender(a *app) {
	for _, lent := range c.contracts {
		if a.leaf != nil && a.leaf.isUnder(lent.lender) {
			c.keepsLess = true
		}
	}
}

// reviewLate puts asks back among their equals after a contract turned.
func (c *Core) reviewLate() {
	for _, k := range c.late {
		if k.outlasting && k.bucket != nil {
			c.setLate(k, false)
		}
	}
	c.late = c.late[:0]
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
		deadline := k.window.Close.Add(-k.spec.Grace)
		if deadline.Before(c.pass.now) {
			deadline = c.pass.now
		}
		lacking := c.lacking(k, deadline)
		c.hurry(k, deadline, &lacking)
		for _, masters := range []bool{false, true} {
			for i := range lacking {
				for _, borrower := range k.borrowers {
					if lacking[i] > 0 {
						c.fetchBack(k, borrower, &lacking, fetch{place: i, masters: masters, deadline: deadline})
					}
				}
			}
		}
		pending := k.ledger.pending
		switch {
		case pending == nil:
		case !c.isBack(k):
			pending.Done = time.Time{}
		default:
			if pending.Done.IsZero() {
				pending.Done = c.pass.now
			}
			if !c.pass.now.Before(k.window.Close) {
				k.ledger.close()
			}
		}
	}
}

// hurry brings forward the notices of borrowers' containers that were given for others and would end too late.
func (c *Core) hurry(k *contract, deadline time.Time, lacking *resource.Vector) {
	for _, given := range c.notices {
		held := given.container
		if given.stopped || !given.deadline.After(deadline) || !slices.ContainsFunc(k.borrowers, held.app.leaf.isUnder) || !helps(&held.need, lacking) {
			continue
		}
		given.deadline, given.contract = deadline, k
		c.awaitDeadline(deadline)
		*lacking = lacking.Sub(held.need)
		c.pass.decisions.Notices = append(c.pass.decisions.Notices, Notice{Container: held.id, Deadline: deadline, Reason: k.reason()})
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
func (c *Core) fetchingBack(k *container) *contract {
	for _, lent := range c.contracts {
		for _, borrower := range lent.borrowers {
			if lent.phase == closing && k.app.leaf.isUnder(borrower) {
				return lent
			}
		}
	}
	return nil
}

// isBack reports whether the lender could use all of its guarantee at once, as far as that is up to the borrowers.
func (c *Core) isBack(k *contract) bool {
	room := c.owed(k)
	for i := range room {
		if k.keeps[i] == 0 || c.zone[i]-c.root().used[i] >= room[i] {
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
func (c *Core) lacking(k *contract, deadline time.Time) resource.Vector {
	lacking := c.owed(k).Sub(c.zone.Sub(c.root().used)).Max(resource.Vector{})
	if lacking.IsZero() {
		return lacking
	}
	for _, given := range c.notices {
		if given.stopped || !given.deadline.After(deadline) {
			lacking = lacking.Sub(given.container.need)
		}
	}
	for _, leaf := range c.leaves {
		if !c.isHandingBack(leaf, k) {
			continue
		}
		for held := leaf.containersHeld; held != nil; held = held.nextOfLeaf {
			if c.endsInTime(held, k) {
				lacking = lacking.Sub(held.need)
				c.pass.nextBy(held.startedAt.Add(held.duration))
			}
		}
	}
	return lacking.Max(resource.Vector{}).Min(k.keeps)
}

// isHandingBack reports whether a leaf borrowed under a contract, or under one that is handed back before it.
func (c *Core) isHandingBack(leaf *queue, k *contract) bool {
	for _, other := range c.contracts {
		if (other == k || c.isBackBefore(other, k)) && slices.ContainsFunc(other.borrowers, leaf.isUnder) {
			return true
		}
	}
	return false
}

// endsInTime reports whether a container said that it would end by itself before it must be stopped, and has not
// overrun that.
func (c *Core) endsInTime(held *container, k *contract) bool {
	end := held.startedAt.Add(held.duration)
	return held.duration > 0 && end.After(c.pass.now) && !end.After(k.window.Close.Add(-k.spec.Grace))
}

// fetch says which containers are to be fetched back: those that hold something of a place, masters or others.
type fetch struct {
	place    int
	masters  bool
	deadline time.Time
}

// fetchBack gives notice to a borrower's newest containers, as far as they are borrowed and something is lacking.
func (c *Core) fetchBack(k *contract, borrower *queue, lacking *resource.Vector, which fetch) {
	for _, leaf := range c.leaves {
		if !leaf.isUnder(borrower) {
			continue
		}
		leaf.sortHeld()
		for held := leaf.containersHeld; held != nil && lacking[which.place] > 0; {
			victim := held
			held = held.nextOfLeaf
			if victim.need[which.place] == 0 || victim.master != which.masters || c.endsInTime(victim, k) {
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
					c.giveNotice(gone, nil, k, which.deadline, k.reason())
					*lacking = lacking.Sub(gone.need)
				}
			}
		}
	}
}
