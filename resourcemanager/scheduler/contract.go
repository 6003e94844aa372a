package scheduler

import (
	"slices"
	"strings"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// Contract lends a part of one queue's guarantee to others while one of its windows is open.
type Contract struct {
	Name      string
	Lender    id.Queue
	Borrowers []id.Queue
	// LendPercent of the lender's guarantee is lent; FloorPercent of it stays free for the lender, used or not.
	LendPercent, FloorPercent float64
	// Notice is how long a borrower's containers hear before they are stopped.
	Notice time.Duration
	// Grace is how long a container may take to stop after that. Hand-back begins so early that both fit.
	Grace time.Duration
	// Windows are the present and the next windows, in order, apart from each other. The calendar works them out;
	// whoever owns the core sets the contract again before they run out.
	Windows []Window
}

// Window is a time in which a contract lends.
type Window struct{ Open, Close time.Time }

// Ledger is what a contract came to so far.
type Ledger struct {
	Contract string
	// Open says that a window is open, Closing is when that window closes.
	Open    bool
	Closing time.Time
	// Lent is what is lent now, at most; Borrowed is how much of it is in use.
	Lent, Borrowed resource.Vector
	// LentCoreSeconds were on offer and UsedCoreSeconds of them in use; LostCoreSeconds of work were thrown away by
	// stopping Stopped containers. Returned ones heard that they must go, and were gone before their deadline.
	LentCoreSeconds, UsedCoreSeconds, LostCoreSeconds float64
	Stopped, Returned                                 int
	HandBacks                                         []HandBack
}

// HandBack is one return of what was lent: promised for the close of the window, complete from Done on; zero is
// never.
type HandBack struct {
	Promised, Done    time.Time
	Stopped, Returned int
}

// contract is a Contract and where it stands.
type contract struct {
	spec      Contract
	lender    *queue
	borrowers []*queue
	phase     phase
	// window is the one that is open, or whose hand-back is guarded.
	window Window
	// lentNow is what is on offer.
	lentNow resource.Vector
	// keeps is what it keeps for its lender beyond what others keep for that: scratch of keepRoom.
	keeps  resource.Vector
	ledger ledger
}

// isOpen reports whether it lends.
func (k *contract) isOpen() bool { return k.phase == lending || k.phase == closing }

// phase is where a contract stands in its window.
type phase uint8

const (
	// resting: no window is open.
	resting phase = iota
	// lending: borrowers are entitled to what is lent.
	lending
	// closing: the window ends soon; what is lent is fetched back.
	closing
	// guarding: the window is over; for as long as a notice, at least a minute, the lender's room stays free for it.
	guarding
)

type ledger struct {
	lent, used, lost  float64
	stopped, returned int
	handBacks         []HandBack
	// pending is the hand-back in progress.
	pending *HandBack
}

// loan is a queue's part of a contract.
type loan struct {
	contract *contract
	amount   resource.Vector
}

func (l *ledger) stop(k *container, lost time.Duration) {
	l.stopped++
	l.lost += lost.Seconds() * float64(k.need[resource.CPU]) / 1000
	if l.pending != nil {
		l.pending.Stopped++
	}
}

// giveBack counts a container that went by itself after it had heard that it must.
func (l *ledger) giveBack() {
	l.returned++
	if l.pending != nil {
		l.pending.Returned++
	}
}

// CheckContracts says in one sentence what is wrong with contracts, given the queues that they name.
func CheckContracts(specs []Contract, queues []QueueSpec) error {
	tree, err := buildTree(queues, resource.Schema{})
	if err != nil {
		return err
	}
	byName := make(map[id.Queue]*queue, len(tree))
	for _, q := range tree {
		byName[q.spec.Name] = q
	}
	_, err = buildContracts(specs, byName)
	return err
}

func buildContracts(specs []Contract, queues map[id.Queue]*queue) ([]*contract, error) {
	seen := map[string]bool{}
	var contracts []*contract
	for _, spec := range specs {
		switch {
		case spec.Name == "" || strings.ContainsAny(spec.Name, " \t\n/"):
			return nil, invalid("lending contract %q needs a name without spaces and slashes", spec.Name)
		case seen[spec.Name]:
			return nil, invalid("lending contract %s is there twice", spec.Name)
		case !(spec.LendPercent > 0 && spec.LendPercent <= 100):
			return nil, invalid("lending contract %s lends %v %%; it must be above 0 and at most 100", spec.Name, spec.LendPercent)
		case !(spec.FloorPercent >= 0 && spec.FloorPercent <= 100):
			return nil, invalid("lending contract %s has a floor of %v %%; it must be 0 to 100", spec.Name, spec.FloorPercent)
		case spec.LendPercent+spec.FloorPercent > 100:
			return nil, invalid("lending contract %s lends %v %% and keeps a floor of %v %%, together more than the guarantee", spec.Name, spec.LendPercent, spec.FloorPercent)
		case spec.Notice < 0 || spec.Grace < 0:
			return nil, invalid("lending contract %s has a negative notice", spec.Name)
		case len(spec.Borrowers) == 0:
			return nil, invalid("lending contract %s has no borrowers", spec.Name)
		}
		seen[spec.Name] = true
		k := &contract{spec: spec, lender: queues[spec.Lender]}
		switch {
		case k.lender == nil:
			return nil, invalid("lending contract %s has the lender %q, which is no queue", spec.Name, spec.Lender)
		case k.lender.parent == nil:
			return nil, invalid("lending contract %s has the root as lender; there is nobody to lend to", spec.Name)
		case k.lender.spec.Guaranteed == (Capacity{}):
			return nil, invalid("lending contract %s has the lender %s, which has no guarantee to lend", spec.Name, spec.Lender)
		}
		for _, name := range spec.Borrowers {
			q := queues[name]
			switch {
			case q == nil:
				return nil, invalid("lending contract %s has the borrower %q, which is no queue", spec.Name, name)
			case q.isUnder(k.lender) || k.lender.isUnder(q):
				return nil, invalid("lending contract %s lends from %s to %s, which are not apart in the tree", spec.Name, spec.Lender, name)
			}
			k.borrowers = append(k.borrowers, q)
		}
		for i, w := range spec.Windows {
			if !w.Close.After(w.Open) || i > 0 && w.Open.Before(spec.Windows[i-1].Close) {
				return nil, invalid("lending contract %s has windows out of order", spec.Name)
			}
		}
		contracts = append(contracts, k)
	}
	return contracts, nil
}

// setContracts replaces all contracts. One that is set again under its name keeps its ledger.
func (c *Core) setContracts(specs []Contract) error {
	contracts, err := buildContracts(specs, c.queueByName)
	if err != nil {
		return err
	}
	c.keepContracts(contracts)
	return nil
}

// keepContracts makes contracts the present ones. One that was there before goes on where it stands.
func (c *Core) keepContracts(contracts []*contract) {
	for _, k := range contracts {
		for _, old := range c.contracts {
			if old.spec.Name != k.spec.Name {
				continue
			}
			k.ledger = old.ledger
			if old.phase != resting {
				k.phase, k.window, k.lentNow = old.phase, old.window, old.lentNow
			}
			for _, given := range c.notices {
				if given.contract == old {
					given.contract = k
				}
			}
		}
	}
	c.contracts = contracts
	for _, given := range slices.Clone(c.notices) {
		if given.contract != nil && !slices.Contains(contracts, given.contract) {
			c.keepLent(given)
		}
	}
	c.contractsSet, c.turning = true, time.Time{}
	c.stale = true
}

// lend brings contracts to where they stand now, and their ledgers up to date.
func (c *Core) lend() {
	if len(c.contracts) == 0 {
		return
	}
	c.account()
	if c.contractsSet || !c.turning.IsZero() && !c.turning.After(c.pass.now) {
		turned := c.contractsSet
		c.contractsSet, c.turning = false, time.Time{}
		for _, k := range c.contracts {
			if k.turn(c) {
				turned = true
			}
		}
		if turned {
			c.stale = true
			c.reviewLate()
		}
	}
	if !c.turning.IsZero() {
		c.pass.nextBy(c.turning)
	}
}

// turn moves a contract to its present phase, notes when that ends, and reports whether it moved.
func (k *contract) turn(c *Core) bool {
	now, was, window := c.pass.now, k.phase, k.window
	until := func(at time.Time) {
		if c.turning.IsZero() || at.Before(c.turning) {
			c.turning = at
		}
	}
	k.phase = resting
	if was != resting && now.Before(k.guardUntil()) && !now.Before(window.Close) {
		k.phase = guarding
	}
	for _, w := range k.spec.Windows {
		if !now.Before(w.Close) {
			continue
		}
		if now.Before(w.Open) {
			until(w.Open)
			break
		}
		k.window, k.phase = w, lending
		if !now.Before(k.closingAt()) {
			k.phase = closing
		}
		break
	}
	// A window that was cut short while it was open ends like any other.
	if k.phase == resting && (was == lending || was == closing) && now.Before(window.Close) {
		k.window.Close = now.Add(min(window.Close.Sub(now), k.spec.Notice+k.spec.Grace))
		k.phase = closing
	}
	switch k.phase {
	case lending:
		until(k.closingAt())
	case closing:
		until(k.window.Close)
	case guarding:
		until(k.guardUntil())
	}
	k.promise(c, was)
	return k.phase != was || k.window != window
}

// promise begins a hand-back, or ends one, as the contract's phase says.
func (k *contract) promise(c *Core, was phase) {
	pending := k.ledger.pending
	switch {
	case pending == nil:
	case k.phase == lending && c.pass.now.Before(pending.Promised):
		// The window was extended: nothing needs to be back yet.
		k.ledger.pending = nil
		for _, given := range slices.Clone(c.notices) {
			if given.contract == k {
				c.keepLent(given)
			}
		}
	case k.phase == resting:
		if pending.Done.IsZero() && c.isBack(k) {
			pending.Done = c.pass.now
		}
		k.ledger.close()
	case !c.pass.now.Before(pending.Promised) && k.phase != guarding:
		// The next window is there before all was seen to be back from the last.
		k.ledger.close()
	case k.phase == closing:
		pending.Promised = k.window.Close
	}
	if (k.phase == closing || k.phase == guarding && was == lending) && k.ledger.pending == nil {
		k.ledger.pending = &HandBack{Promised: k.window.Close}
	}
}

// keepLent takes a notice back that was given only to hand back what does not need to be any more.
func (c *Core) keepLent(given *notice) {
	switch {
	case given.stopped:
	case given.claim != nil:
		given.contract = nil
	default:
		c.reprieve(given.container)
	}
}

// closingAt is when hand-back begins.
func (k *contract) closingAt() time.Time {
	return k.window.Close.Add(-k.spec.Notice - k.spec.Grace)
}

func (k *contract) guardUntil() time.Time {
	return k.window.Close.Add(max(k.spec.Notice, time.Minute))
}

func (l *ledger) close() {
	l.handBacks = append(l.handBacks, *l.pending)
	l.pending = nil
}

// account adds the time since the last pass to the ledgers.
func (c *Core) account() {
	seconds := c.pass.now.Sub(c.counted).Seconds()
	if !c.counted.IsZero() && seconds > 0 {
		for _, k := range c.contracts {
			if !k.isOpen() {
				continue
			}
			borrowed := k.borrowed()
			k.ledger.lent += seconds * float64(k.lentNow[resource.CPU]) / 1000
			k.ledger.used += seconds * float64(borrowed[resource.CPU]) / 1000
		}
	}
	c.counted = c.pass.now
}

// borrowed is what the borrowers hold beyond their guarantees, up to what is lent.
func (k *contract) borrowed() resource.Vector {
	var sum resource.Vector
	for _, q := range k.borrowers {
		sum = sum.Add(q.used.Sub(q.guaranteed).Max(resource.Vector{}))
	}
	return sum.Min(k.lentNow)
}

// resolveLoans works out what open contracts entitle to. Contracts with one lender share what its floors leave,
// in their order.
func (c *Core) resolveLoans() {
	for _, q := range c.queues {
		q.lent = q.lent[:0]
		q.entitled = q.guaranteed
	}
	for i, k := range c.contracts {
		k.lentNow = resource.Vector{}
		if !k.isOpen() {
			continue
		}
		left := k.lender.guaranteed
		floor := 0.0
		for j, other := range c.contracts {
			if other.lender != k.lender || !other.isOpen() {
				continue
			}
			floor = max(floor, other.spec.FloorPercent)
			if j < i {
				left = left.Sub(other.lentNow)
			}
		}
		left = left.Sub(k.lender.guaranteed.Percent(floor)).Max(resource.Vector{})
		k.lentNow = k.lender.guaranteed.Percent(k.spec.LendPercent).Min(left)
		if k.phase == closing {
			continue
		}
		each := k.lentNow.Percent(100 / float64(len(k.borrowers)))
		for _, borrower := range k.borrowers {
			for q := borrower; !k.lender.isUnder(q); q = q.parent {
				q.lent = append(q.lent, loan{k, each})
				q.entitled = q.entitled.Add(each)
			}
		}
	}
}

// Ledgers gives what each contract came to.
func (c *Core) Ledgers() []Ledger {
	c.resolveQueues()
	ledgers := make([]Ledger, len(c.contracts))
	for i, k := range c.contracts {
		ledgers[i] = Ledger{
			Contract: k.spec.Name, Open: k.isOpen(),
			LentCoreSeconds: k.ledger.lent, UsedCoreSeconds: k.ledger.used, LostCoreSeconds: k.ledger.lost,
			Stopped: k.ledger.stopped, Returned: k.ledger.returned, HandBacks: append([]HandBack(nil), k.ledger.handBacks...),
		}
		if ledgers[i].Open {
			ledgers[i].Closing, ledgers[i].Lent, ledgers[i].Borrowed = k.window.Close, k.lentNow, k.borrowed()
		}
	}
	return ledgers
}
