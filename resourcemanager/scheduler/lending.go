package scheduler

import (
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// lending has the contracts by which queues lend parts of their guarantees.
//
// A contract is idle, open, closing or guarded. While it is open its borrowers are entitled to what is lent. While it is closing,
// the capacity returns: borrowers' containers get a notice. After that it is guarded for a while: the lender's guarantee stays
// reserved.
type lending struct {
	pass       *pass
	tree       *tree
	backlog    *backlog
	preemption *preemption
	// contracts are those that are in force, in the order in which they were set.
	contracts []*contract
	// nextChange is when the phase of a contract changes next; zero is never.
	nextChange time.Time
	// counted is until when the ledgers are up to date.
	counted time.Time
	// changed is set after contracts were set, until the next advance.
	changed bool
	// lenderGrew is set when a lender was granted something: less is reserved for it then, and other asks may fit.
	lenderGrew bool
	// outlasting are asks in buckets of their own because they would outlast a window, until a contract changes its phase.
	outlasting []*ask
}

// set replaces all contracts. One that is set again under its name keeps its ledger.
func (l *lending) set(specs []Contract) error {
	contracts, err := buildContracts(specs, l.tree.present())
	if err != nil {
		return err
	}
	l.replace(contracts)
	return nil
}

// replace replaces the contracts. One of the same name as before keeps its phase.
func (l *lending) replace(contracts []*contract) {
	for _, k := range contracts {
		for _, old := range l.contracts {
			if old.spec.Name != k.spec.Name {
				continue
			}
			k.ledger = old.ledger
			if old.phase != phaseIdle {
				k.phase, k.window, k.lent = old.phase, old.window, old.lent
			}
			for _, given := range l.preemption.noticesUnder(func(c *contract) bool { return c == old }) {
				given.contract = k
			}
		}
	}
	l.contracts = contracts
	for _, given := range l.preemption.noticesUnder(func(c *contract) bool { return !slices.Contains(contracts, c) }) {
		l.cancelReturn(given)
	}
	l.changed, l.nextChange = true, time.Time{}
	l.tree.invalidate()
}

func (l *lending) hasContracts() bool { return len(l.contracts) > 0 }

// specs are the contracts as they were set.
func (l *lending) specs() []Contract {
	var specs []Contract
	for _, k := range l.contracts {
		specs = append(specs, k.spec)
	}
	return specs
}

// rebind sets the contracts' queues to those of a new tree. same are the same contracts, built for that tree.
func (l *lending) rebind(same []*contract) {
	for i, k := range l.contracts {
		k.lender, k.borrowers = same[i].lender, same[i].borrowers
	}
}

// takeLenderGrew reports whether a lender was granted something since the last call.
func (l *lending) takeLenderGrew() bool {
	grew := l.lenderGrew
	l.lenderGrew = false
	return grew
}

// advance updates the phases and ledgers of all contracts.
func (l *lending) advance() {
	if len(l.contracts) == 0 {
		return
	}
	l.account()
	if l.changed || !l.nextChange.IsZero() && !l.nextChange.After(l.pass.now) {
		changed := l.changed
		l.changed, l.nextChange = false, time.Time{}
		for _, k := range l.contracts {
			if l.updatePhase(k) {
				changed = true
			}
		}
		if changed {
			l.tree.invalidate()
			l.reviewOutlasting()
		}
	}
	if !l.nextChange.IsZero() {
		l.pass.nextBy(l.nextChange)
	}
}

// updatePhase sets a contract's phase and nextChange, and reports whether the phase or window has changed.
func (l *lending) updatePhase(k *contract) bool {
	now, was, window := l.pass.now, k.phase, k.window
	until := func(at time.Time) {
		if l.nextChange.IsZero() || at.Before(l.nextChange) {
			l.nextChange = at
		}
	}
	k.phase = phaseIdle
	if was != phaseIdle && now.Before(k.guardEnds()) && !now.Before(window.Close) {
		k.phase = phaseGuarded
	}
	for _, w := range k.spec.Windows {
		if !now.Before(w.Close) {
			continue
		}
		if now.Before(w.Open) {
			until(w.Open)
			break
		}
		k.window, k.phase = w, phaseOpen
		if !now.Before(k.returnBegins()) {
			k.phase = phaseClosing
		}
		break
	}
	// A window that was cut short while it was open ends like any other.
	if k.phase == phaseIdle && (was == phaseOpen || was == phaseClosing) && now.Before(window.Close) {
		k.window.Close = now.Add(min(window.Close.Sub(now), k.spec.Notice+k.spec.Grace))
		k.phase = phaseClosing
	}
	switch k.phase {
	case phaseOpen:
		until(k.returnBegins())
	case phaseClosing:
		until(k.window.Close)
	case phaseGuarded:
		until(k.guardEnds())
	}
	l.beginOrEndReturn(k, was)
	return k.phase != was || k.window != window
}

// beginOrEndReturn begins a hand-back, or ends one, as the contract's phase says.
func (l *lending) beginOrEndReturn(k *contract, was phase) {
	pending := k.ledger.pending
	switch {
	case pending == nil:
	case k.phase == phaseOpen && l.pass.now.Before(pending.Promised):
		// The window was extended: nothing has to return yet.
		k.ledger.pending = nil
		for _, given := range l.preemption.noticesUnder(func(c *contract) bool { return c == k }) {
			l.cancelReturn(given)
		}
	case k.phase == phaseIdle:
		if pending.Done.IsZero() && l.isReturned(k) {
			pending.Done = l.pass.now
		}
		k.ledger.close()
	case !l.pass.now.Before(pending.Promised) && k.phase != phaseGuarded:
		// The next window opens before all was seen to have returned from the last.
		k.ledger.close()
	case k.phase == phaseClosing:
		pending.Promised = k.window.Close
	}
	if (k.phase == phaseClosing || k.phase == phaseGuarded && was == phaseOpen) && k.ledger.pending == nil {
		k.ledger.pending = &HandBack{Promised: k.window.Close}
	}
}

// cancelReturn cancels a preemption that was only for the return of capacity which does not have to return any more.
func (l *lending) cancelReturn(given *notice) {
	switch {
	case given.stopped:
	case given.claim != nil:
		given.contract = nil
	default:
		l.preemption.cancel(given.container)
	}
}

// returnBegins is when the capacity begins to return.
func (k *contract) returnBegins() time.Time {
	return k.window.Close.Add(-k.spec.Notice - k.spec.Grace)
}

// guardEnds is until when the lender's guarantee stays reserved after the window.
func (k *contract) guardEnds() time.Time {
	return k.window.Close.Add(max(k.spec.Notice, time.Minute))
}

func (l *ledger) close() {
	l.handBacks = append(l.handBacks, *l.pending)
	l.pending = nil
}

// account adds the time since the last pass to the ledgers.
func (l *lending) account() {
	seconds := l.pass.now.Sub(l.counted).Seconds()
	if !l.counted.IsZero() && seconds > 0 {
		for _, k := range l.contracts {
			if !k.isOpen() {
				continue
			}
			borrowed := k.borrowed()
			k.ledger.lent += seconds * float64(k.lent[resource.CPU]) / 1000
			k.ledger.used += seconds * float64(borrowed[resource.CPU]) / 1000
		}
	}
	l.counted = l.pass.now
}

// borrowed is what the borrowers hold beyond their guarantees, up to what is lent.
func (k *contract) borrowed() resource.Vector {
	var sum resource.Vector
	for _, q := range k.borrowers {
		sum = sum.Add(q.used.Sub(q.guaranteed).Max(resource.Vector{}))
	}
	return sum.Min(k.lent)
}

// resolve computes what open contracts entitle their borrowers to. Contracts of one lender share what its floors leave, in their
// order.
func (l *lending) resolve() {
	for _, q := range l.tree.all() {
		q.lent = q.lent[:0]
		q.entitled = q.guaranteed
	}
	for i, k := range l.contracts {
		k.lent = resource.Vector{}
		if !k.isOpen() {
			continue
		}
		left := k.lender.guaranteed
		floor := 0.0
		for j, other := range l.contracts {
			if other.lender != k.lender || !other.isOpen() {
				continue
			}
			floor = max(floor, other.spec.FloorPercent)
			if j < i {
				left = left.Sub(other.lent)
			}
		}
		left = left.Sub(k.lender.guaranteed.Percent(floor)).Max(resource.Vector{})
		k.lent = k.lender.guaranteed.Percent(k.spec.LendPercent).Min(left)
		if k.phase == phaseClosing {
			continue
		}
		each := k.lent.Percent(100 / float64(len(k.borrowers)))
		for _, borrower := range k.borrowers {
			for q := borrower; !k.lender.isUnder(q); q = q.parent {
				q.lent = append(q.lent, loan{k, each})
				q.entitled = q.entitled.Add(each)
			}
		}
	}
}

// ledgers returns the account of each contract.
func (l *lending) ledgers() []Ledger {
	ledgers := make([]Ledger, len(l.contracts))
	for i, k := range l.contracts {
		ledgers[i] = Ledger{
			Contract: k.spec.Name, Open: k.isOpen(),
			LentCoreSeconds: k.ledger.lent, UsedCoreSeconds: k.ledger.used, LostCoreSeconds: k.ledger.lost,
			Stopped: k.ledger.stopped, Returned: k.ledger.returned, HandBacks: append([]HandBack(nil), k.ledger.handBacks...),
		}
		if ledgers[i].Open {
			ledgers[i].Closing, ledgers[i].Lent, ledgers[i].Borrowed = k.window.Close, k.lent, k.borrowed()
		}
	}
	return ledgers
}
