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
	"maps"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/fsm"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/token"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// Core is the state of a zone. It is not safe for use by several goroutines.
type Core struct {
	settings Settings
	identity store.Identity
	started  time.Time
	tables   tables
	core     schedulerCore
	access   *access.Rules

	record *storev1.Zone
	// keys are those of record: the newest first.
	keys  []token.Key
	units *units

	apps       map[id.App]*app
	names      map[string]*app
	nodes      map[id.Node]*node
	containers map[id.Container]*container
	// registered are the nodes by the sessions that they were given when they registered.
	registered map[string]*node
	// streaming are the apps by the streams of their masters.
	streaming map[StreamID]*app
	// watching are the apps by the streams of those who watch them.
	watching map[StreamID]*app

	// full is why changes are refused; empty if they are not.
	full string
	// losses are records that were lost, and that nobody has accepted yet.
	losses []loss

	balancers *balancers
	shares    *shares

	// lookout says why apps wait.
	lookout lookout

	// Of the present turn.
	*turn
	touched map[id.App]*app
	// stale are apps that have not changed, but look different by now, or whose watchers have not been sent the last change.
	stale []*app
	// speaking are the nodes that have commands to be told.
	speaking map[id.Node]*node
}

// core is the scheduler, and what its lending contracts came to.
type schedulerCore interface {
	scheduler.Interface
	Ledgers() []scheduler.Ledger
	// MaySubmit and MayAdminister look at the lists of a queue and of those above it.
	MaySubmit(queue id.Queue, user string) bool
	MayAdminister(queue id.Queue, user string) bool
}

type tables struct {
	apps       fsm.Table[lifecycle.AppState, lifecycle.AppEvent]
	attempts   fsm.Table[lifecycle.AttemptState, lifecycle.AttemptEvent]
	containers fsm.Table[lifecycle.ContainerState, lifecycle.ContainerEvent]
	nodes      fsm.Table[lifecycle.NodeState, lifecycle.NodeEvent]
}

// app is one installed app. What is not in a record can be lost.
type app struct {
	id     id.App
	record *storev1.App
	asks   map[string]*storev1.Ask
	// lastAsk is the position of the ask that came last.
	lastAsk   int64
	instances map[string]*storev1.Instance
	// containers are the held ones and, for a while, the ended ones.
	containers map[id.Container]*container
	// held counts the held ones but the masters by the id of their ask; ended are the others, in the order of their ends.
	held  map[string]int
	ended []*container
	memo  []byte
	// secret is the newest attempt's bearer token, until its launch has been told to a node.
	secret string

	// stream is the master's Allocate stream; zero while it has none.
	stream StreamID
	// silentSince is when the stream ended, the master registered or was launched, or the ResourceManager was started.
	silentSince time.Time
	// out is what the stream is to be told at the end of the turn.
	out *masterv1.AllocateResponse

	// published is what the registry was last told, by service.
	published map[string]*publication
	// withdrawals counts, by instance, how often it was taken out of service: an answer that was overtaken is dropped.
	withdrawals map[string]int
	withdrawing []string
	// routed is what is to be done once balancers know the state at the end of the turn.
	routed []confirmation
	// ahead is set while a step of the master's waits for the word of a node, since aheadSince.
	ahead      bool
	aheadSince time.Time
	// traffic is what balancers have counted since the master's stream was opened, by instance.
	traffic map[string]*masterv1.Traffic
	// rolloutReports counts what the master said of the rollout: what waits for balancers may be overtaken.
	rolloutReports int
	// withdrawingAll is set while balancers are waited for, after which every instance is stopped.
	withdrawingAll bool
	watchers       map[StreamID]struct{}
	shown          shownApp
	// unconfirmed counts the states of its services that balancers have not confirmed yet.
	unconfirmed int
	wait        wait
	// homeless says that the scheduler does not know it: its queue was lost.
	homeless bool
	counts   counts
	// removed is set at the end of its life; it is then in no index any more.
	removed bool
}

// container is one lease.
type container struct {
	id     id.Container
	app    *app
	node   id.Node
	record *storev1.Container
	// notice is the warning that it was given; nil if it was not, or that was taken back.
	notice *masterv1.PreemptionNotice
}

// node is one host.
type node struct {
	id     id.Node
	record *storev1.Node
	// session is empty until the node has registered with this ResourceManager.
	session string
	// stream is zero until the node has opened it, and when it has ended.
	stream StreamID
	// outbox is what the stream is to be told at the end of the turn.
	outbox []*trackerv1.NodeCommand
	// heard is when the node was last heard of, as far as the zone was told: beats are passed on once a tick.
	heard      time.Time
	containers map[id.Container]*container
	// shown says that the scheduler knows the node.
	shown bool
	// process is the random id of the process that registered last.
	process string
	// twin is the NodeManager of the same name that people were told of last, and twinTold when.
	twin     string
	twinTold time.Time
	// unknown are containers that it runs and that the zone has no record of, by id.
	unknown map[string]*corev1.ContainerStatus
	// places are what frameworks may have on the node: APP, or ROLE.APP.
	places map[string]struct{}
}

// Begin begins a turn. Inputs are stepped through next, then Ready ends it.
func (z *Core) Begin(now time.Time, fresh Seed) {
	z.turn.begin(now, fresh)
	z.touched = map[id.App]*app{}
	z.stale = nil
	z.speaking = map[id.Node]*node{}
}

// touch has the app settled, projected and shown at the end of the turn. Whatever people see of the app changes with it.
func (z *Core) touch(a *app) {
	z.touched[a.id] = a
	a.shown.view = nil
}

// touchedApps gives them in the order of their submission.
func (z *Core) touchedApps() []*app {
	return slices.SortedFunc(maps.Values(z.touched), func(a, b *app) int { return a.id.Compare(b.id) })
}

// Ready ends a turn: what follows from its inputs and its time is decided, and all of it is handed over.
func (z *Core) Ready() (*Ready, error) {
	if z.IsDue() {
		z.due()
	}
	z.settle()
	z.schedule()
	z.lookAtWaiting()
	return z.handOver()
}

// handOver works out what others are told because of a turn, and gives it with the records.
func (z *Core) handOver() (*Ready, error) {
	z.project()
	z.out.Held = z.standsStill()
	z.address()
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
	z.dueNodes()
	z.balancers.due()
	if z.standsStill() {
		return
	}
	z.dueKeys()
	z.shares.due()
	for _, a := range z.sortedApps() {
		z.dueContainers(a)
		z.dueCounts(a)
		z.dueAttempt(a)
		if a.record.GetEndBy() != nil || a.ahead {
			z.touch(a)
		}
		if proven := !a.shown.provenAt.IsZero() && !z.now.Before(a.shown.provenAt); proven || a.shown.late {
			z.stale = append(z.stale, a)
		}
	}
}

// settle does what follows from a turn's facts by themselves.
func (z *Core) settle() {
	for _, a := range z.touchedApps() {
		z.settleApp(a)
	}
}

// address hands over what nodes, masters and people are to be sent because of this turn.
func (z *Core) address() {
	for _, n := range slices.SortedFunc(maps.Values(z.speaking), byName) {
		n.flush(z.out)
	}
	for _, a := range z.touchedApps() {
		a.shown.view = nil // what was shown in the middle of the turn may be half of it
		z.flush(a)
		z.showWatchers(a)
	}
	for _, a := range z.stale {
		if z.touched[a.id] == nil {
			a.shown.view = nil
			z.showWatchers(a)
		}
	}
}

func (z *Core) sortedApps() []*app {
	return slices.SortedFunc(maps.Values(z.apps), func(a, b *app) int { return a.id.Compare(b.id) })
}

func (z *Core) sortedNodes() []*node {
	return slices.SortedFunc(maps.Values(z.nodes), byName)
}

func byName(a, b *node) int { return id.CompareNames(string(a.id), string(b.id)) }

func sortedContainers(containers map[id.Container]*container) []*container {
	return slices.SortedFunc(maps.Values(containers), byAge)
}
