package scheduler

import (
	"strings"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// Contract lends a part of one queue's guarantee to others while one of its windows is open.
type Contract struct {
	// Name is unique among contracts.
	Name string
	// Lender is the queue whose guarantee is lent to Borrowers.
	Lender    id.Queue
	Borrowers []id.Queue
	// LendPercent of the lender's guarantee is lent. FloorPercent of it stays reserved for the lender, used or not.
	LendPercent, FloorPercent float64
	// Notice is the time between a preemption notice to a borrower's container and its stop.
	Notice time.Duration
	// Grace is how long a container may take to stop after that. The hand-back begins early enough for both.
	Grace time.Duration
	// Windows are the present and the next windows, in order, apart from each other. The owner of the Core computes them from the
	// calendar, and sets the contract again before they are used up.
	Windows []Window
}

// Window is a time in which a contract lends.
type Window struct{ Open, Close time.Time }

// Ledger is the account of a contract so far.
type Ledger struct {
	Contract string
	// Open is true if a window is open; Closing is when it closes.
	Open    bool
	Closing time.Time
	// Lent is how much can be borrowed at present; Borrowed is how much of that is in use.
	Lent, Borrowed resource.Vector
	// LentCoreSeconds is how much was lent and UsedCoreSeconds how much of that was used. LostCoreSeconds is the work that was lost
	// by stopping containers, and Stopped their number. Returned is the number of containers that ended after a notice and before
	// its deadline.
	LentCoreSeconds, UsedCoreSeconds, LostCoreSeconds float64
	Stopped, Returned                                 int
	HandBacks                                         []HandBack
}

// HandBack is the return of lent capacity at one close of a window. Promised is the close; Done is when all was returned, zero if
// it is not yet.
type HandBack struct {
	Promised, Done    time.Time
	Stopped, Returned int
}

// contract is a Contract and its state.
type contract struct {
	spec      Contract
	lender    *queue
	borrowers []*queue
	phase     phase
	// window is the open window or, while the contract is guarded, the last one.
	window Window
	// lent is what the borrowers may use of the lender's guarantee.
	lent resource.Vector
	// reserved is what the contract reserves for its lender in addition to other contracts. It is scratch space of reserveRoom.
	reserved resource.Vector
	ledger   ledger
}

// isOpen reports whether the contract lends.
func (lc *contract) isOpen() bool { return lc.phase == phaseOpen || lc.phase == phaseClosing }

// phase is a state of a contract.
type phase uint8

const (
	// phaseIdle: no window is open.
	phaseIdle phase = iota
	// phaseOpen: borrowers are entitled to what is lent.
	phaseOpen
	// phaseClosing: the window closes soon, and the capacity returns.
	phaseClosing
	// phaseGuarded: the window has closed. For the length of a notice, at least a minute, the lender's guarantee stays reserved.
	phaseGuarded
)

// ledger is the account of a contract so far.
type ledger struct {
	// lent, used and lost are core-seconds.
	lent, used, lost  float64
	stopped, returned int
	handBacks         []HandBack
	// pending is the hand-back in progress; nil is none.
	pending *HandBack
}

// loan is what a contract lends to a queue.
type loan struct {
	contract *contract
	amount   resource.Vector
}

// stop counts a container that is stopped, and the work that is lost with it.
func (l *ledger) stop(ctr *container, lost time.Duration) {
	l.stopped++
	l.lost += lost.Seconds() * float64(ctr.need[resource.CPU]) / 1000
	if l.pending != nil {
		l.pending.Stopped++
	}
}

// countReturn counts a container that ended after a notice and before its deadline.
func (l *ledger) countReturn() {
	l.returned++
	if l.pending != nil {
		l.pending.Returned++
	}
}

// CheckContracts returns what is wrong with contracts for a queue tree, one sentence.
func CheckContracts(specs []Contract, queues []QueueSpec) error {
	set, err := buildTree(queues, resource.Schema{})
	if err != nil {
		return err
	}
	_, err = buildContracts(specs, &set)
	return err
}

func buildContracts(specs []Contract, queues *queueSet) ([]*contract, error) {
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
		lc := &contract{spec: spec, lender: queues.named(spec.Lender)}
		switch {
		case lc.lender == nil:
			return nil, invalid("lending contract %s has the lender %q, which is no queue", spec.Name, spec.Lender)
		case lc.lender.parent == nil:
			return nil, invalid("lending contract %s has the root as lender; there is nobody to lend to", spec.Name)
		case lc.lender.spec.Guaranteed == (Capacity{}):
			return nil, invalid("lending contract %s has the lender %s, which has no guarantee to lend", spec.Name, spec.Lender)
		}
		for _, name := range spec.Borrowers {
			q := queues.named(name)
			switch {
			case q == nil:
				return nil, invalid("lending contract %s has the borrower %q, which is no queue", spec.Name, name)
			case q.isUnder(lc.lender) || lc.lender.isUnder(q):
				return nil, invalid("lending contract %s lends from %s to %s, which are not apart in the tree", spec.Name, spec.Lender, name)
			}
			lc.borrowers = append(lc.borrowers, q)
		}
		for i, w := range spec.Windows {
			if !w.Close.After(w.Open) || i > 0 && w.Open.Before(spec.Windows[i-1].Close) {
				return nil, invalid("lending contract %s has windows out of order", spec.Name)
			}
		}
		contracts = append(contracts, lc)
	}
	return contracts, nil
}
