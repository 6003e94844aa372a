// Package zone decides everything about a zone: which apps there are and what people want of them, which container is on which node,
// what is published and who is told what.
//
// It is pure. What happens comes in as data, an Input; what follows from it goes out as data, a Ready. The time and the random bytes of
// a turn are given to it. It holds no stream, file, clock or function of anybody. The same inputs make the same decisions.
//
// A turn is Begin, a Step for each input, and Ready. The ResourceManager is the shell: it stores what a turn has decided, and only
// then tells anybody.
package zone

import (
	"time"

	"github.com/mammoth-os/mammoth/resourcemanager/access"
)

// Core is the state of a zone. It wires the parts, and does what touches several of them. It is not safe for use by several goroutines.
type Core struct {
	*turn
	config config
	access access.Rules
	units  units
	damage damage

	scheduler scheduling
	queues    queues
	lending   lending

	apps      apps
	desired   desired
	rollouts  rollouts
	attempts  attempts
	asks      asks
	masters   masters
	endpoints endpoints
	balancers balancers

	nodes      nodes
	sessions   sessions
	frameworks frameworks
	leases     leases
	keys       keys

	views     views
	waits     waits
	explainer explainer
}

// Begin begins a turn. Inputs are stepped through next, then Ready ends it.
func (z *Core) Begin(now time.Time, fresh Seed) {
	z.turn.begin(now, fresh)
	z.apps.begin()
	z.views.begin()
	z.sessions.begin()
}

// Ready ends a turn: what follows from its inputs and its time is decided, and all of it is handed over.
func (z *Core) Ready() (*Ready, error) {
	if z.IsDue() {
		z.due()
	}
	z.settle()
	z.schedule()
	z.waits.inspectDue()
	return z.handOver()
}

// handOver works out what others are told because of a turn, and gives it with the records.
func (z *Core) handOver() (*Ready, error) {
	z.endpoints.update()
	z.out.Held = z.damage.standsStill()
	z.sessions.deliver()
	z.masters.deliver()
	z.views.deliver()
	batch, err := z.pack()
	z.out.Batch = batch
	return z.out, err
}

// Step folds an input into the zone. Its answer may be told once the turn is stored.
func (z *Core) Step(in Input) (any, error) { return in.step(z) }

// Tick is the longest time between two turns: deadlines that are seconds long need no timer of their own.
const Tick = time.Second

// Wake is when the next turn is to be, though nothing may have happened until then.
func (z *Core) Wake() time.Time { return z.wake }

// IsDue reports whether due has something to do: once a tick, and whenever at said so.
func (z *Core) IsDue() bool { return !z.now.Before(z.wake) }

// due does what deadlines ask for.
func (z *Core) due() {
	z.wake = z.now.Add(Tick)
	z.nodes.due()
	z.balancers.due()
	if z.damage.standsStill() {
		return
	}
	z.keys.rotate()
	z.lending.due()
	for _, a := range z.apps.sorted() {
		z.leases.due(a)
		z.desired.due(a)
		z.attempts.due(a)
		if a.record.GetEndBy() != nil || z.endpoints.areHeldBack(a) {
			z.apps.touch(a)
		}
		z.views.due(a)
	}
}

// settle does what follows from a turn's facts by themselves.
func (z *Core) settle() {
	for _, a := range z.apps.touchedInOrder() {
		z.desired.settle(a)
	}
}

// schedule lets the scheduler decide and writes its decisions down. The next turn comes at once if that was not all.
func (z *Core) schedule() {
	if z.damage.standsStill() {
		return
	}
	decisions := z.scheduler.Schedule(z.now)
	z.leases.carryOut(decisions)
	for range passesPerTurn - 1 {
		if !decisions.More(z.now) {
			break
		}
		decisions = z.scheduler.Schedule(z.now)
		z.leases.carryOut(decisions)
	}
	if !decisions.Next.IsZero() {
		z.wakeBy(decisions.Next)
	}
	z.lending.updateStates()
}
