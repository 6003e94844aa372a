// Package zone decides everything about a zone: which apps there are and what people want of them, which container is on which node,
// which endpoints are published, what nodes and masters are sent, and what people see.
//
// It is pure. What happens comes in as data, an Input; what follows from it goes out as data, a Ready. The time and the random bytes of
// a turn are given to it. It holds no stream, file, clock or function of anybody. The same inputs make the same decisions.
//
// A turn is Begin, a Step for each input, and Ready. The ResourceManager is the shell: it stores what a turn has decided, and only
// then sends anything to anybody.
//
// The zone is divided into parts. Each part is a type that owns its fields, and has a struct of its own in the app or the node for what
// it knows of one. Apps, nodes and containers with their records are read by all parts; each of their fields is changed by one.
// borders_test.go lists the parts with what is theirs. A part changes what is another's by calling its methods. Parts that know few others
// are packages below this one.
//
// Words that all parts use:
//   - turn: the inputs that are taken in together, and what is decided because of them
//   - touched: changed in the present turn; a touched app is settled, published and shown at its end
//   - settle: do what the state of an app asks for
//   - held: a container is held until its end was seen; as long, its part of the node is kept for it
//   - desired: what people and the calendar want of an app at present
package zone

import (
	"time"

	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/commands"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/endpoints"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/keys"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/shares"
)

// Core is the state of a zone. It wires the parts, and does what touches several of them. It is not safe for use by several goroutines.
type Core struct {
	turn   *turn
	config config
	access access.Rules
	units  units
	damage damage

	scheduler scheduling
	queues    *shares.Queues
	lending   *shares.Lending

	appParts
	nodeParts

	views     views
	waits     waits
	explainer explainer
}

// appParts are the parts that know apps and who routes to them.
type appParts struct {
	apps      apps
	packages  packages
	desired   desired
	versions  versions
	attempts  attempts
	asks      asks
	masters   masters
	commands  *commands.Commands
	endpoints *endpoints.Endpoints
	balancers *endpoints.Balancers
}

// nodeParts are the parts that know nodes and the containers on them.
type nodeParts struct {
	nodes      nodes
	sessions   sessions
	companions companions
	leases     leases
	keys       *keys.Keys
}

// Begin begins a turn. Inputs are stepped through next, then Ready ends it.
func (z *Core) Begin(now time.Time, fresh Seed) {
	z.turn.begin(now, fresh)
	z.apps.begin()
	z.endpoints.Begin()
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

// handOver works out what others are sent because of a turn, and returns it with the records.
func (z *Core) handOver() (*Ready, error) {
	for _, a := range z.apps.touchedInOrder() {
		z.endpoints.Update(&a.endpoints, published{a})
	}
	out := z.endpoints.Out()
	z.turn.out.Secret, z.turn.out.Balancers, z.turn.out.Services, z.turn.out.Confirm = out.Secret, out.Balancers, out.Services, out.Confirm
	z.turn.out.Incomplete = z.damage.standsStill()
	z.sessions.deliver()
	z.masters.deliver()
	z.views.deliver()
	batch, err := z.turn.pack()
	z.turn.out.Batch = batch
	return z.turn.out, err
}

// Step folds an input into the zone. Its answer may be given once the turn is stored.
func (z *Core) Step(in Input) (any, error) {
	if !comesOften(in) {
		z.views.mustShow()
	}
	return in.step(z)
}

// comesOften reports whether an input is one of the reports that come at all times, and after which nobody looks whether they are shown.
func comesOften(in Input) bool {
	switch in.(type) {
	case Allocate, NodeReport, Beats, Counted, Confirmed:
		return true
	}
	return false
}

// Tick is the longest time between two turns: deadlines that are seconds long need no timer of their own.
const Tick = time.Second

// Wake is when the next turn is to be, though nothing may have happened until then.
func (z *Core) Wake() time.Time { return z.views.wakeBefore(z.turn.nextTurn()) }

// IsDue reports whether a deadline has come: once a tick, and whenever WakeBy has named an instant.
func (z *Core) IsDue() bool { return !z.turn.now.Before(z.turn.wake) }

// due does what is to be done once a tick or at a deadline.
func (z *Core) due() {
	z.turn.wake = z.turn.now.Add(Tick)
	z.nodes.due()
	z.balancers.Due()
	if z.damage.standsStill() {
		return
	}
	if !z.damage.isFull() && z.keys.Rotate() {
		z.nodes.sendKeys()
	}
	z.lending.Due()
	for _, a := range z.apps.sorted() {
		z.leases.due(a)
		z.desired.due(a)
		z.attempts.due(a)
		z.commands.Due(commanded(a))
		if state := a.state(); state == lifecycle.AppStopping || state == lifecycle.AppRemoving || a.endpoints.HeldBack() {
			z.apps.touch(a)
		}
		z.views.due(a)
	}
	z.views.tick()
}

// settle has every touched app settled.
func (z *Core) settle() {
	for _, a := range z.apps.touchedInOrder() {
		z.desired.settle(a)
	}
}

// schedule lets the scheduler decide and carries its decisions out. The next turn comes at once if there is more to decide.
func (z *Core) schedule() {
	if z.damage.standsStill() {
		return
	}
	decisions := z.scheduler.Schedule(z.turn.now)
	z.leases.carryOut(decisions)
	for range passesPerTurn - 1 {
		if !decisions.More(z.turn.now) {
			break
		}
		decisions = z.scheduler.Schedule(z.turn.now)
		z.leases.carryOut(decisions)
	}
	switch now := z.turn.now; {
	case decisions.More(now):
		z.turn.nextBy(now)
	case !decisions.Next.IsZero():
		z.turn.WakeBy(decisions.Next) // a lending contract may be concerned
	}
	z.lending.UpdateStates()
}
