package resourcemanager

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/fsm"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/token"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/eventlog"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// zone is the state of the zone. The loop's goroutine alone touches it.
type zone struct {
	config   *Config
	log      *slog.Logger
	identity store.Identity
	started  time.Time
	tables   tables
	core     core
	registry Registry

	record *storev1.Zone
	// keys are those of record: the newest first.
	keys   []token.Key
	schema resource.Schema

	apps       map[id.App]*app
	names      map[string]*app
	nodes      map[id.Node]*node
	containers map[id.Container]*container
	// registered are the nodes by the sessions that they were given when they registered.
	registered map[string]*node
	contracts  map[string]*contract
	// tree is what was last set; nil if nothing was.
	tree *storev1.Queues
	// file is what the file that declares the queue tree was found to say at the start, and badFile why what it says now
	// does not count.
	file    reading
	badFile string
	// readCalendarAt is when the windows of contracts are worked out again.
	readCalendarAt time.Time

	// full is why changes are refused; empty if they are not. unstored is what the disk has no room for yet, retryAt when it is
	// tried again.
	full     string
	unstored store.Batch
	retryAt  time.Time
	// losses are records that were lost, and that nobody has accepted yet.
	losses []loss
	// unarranged are contracts whose queues were lost.
	unarranged map[string]*contract

	lastEvent int64
	// wake is when deadlines are looked at next.
	wake time.Time
	// past is what everybody reads the zone's events from.
	past *eventlog.Log

	// lostBalancers are known balancers that are not connected, and since when.
	lostBalancers map[string]time.Time
	// refused is what each balancer last said that it does not route, and why, by service.
	refused map[string]map[string]string

	// lookout says why apps wait.
	lookout lookout

	// Of the present turn.
	changes
	now time.Time
	// lookAtLending has contracts looked at after the scheduler has decided.
	lookAtLending bool
	touched       map[id.App]*app
	// speaking are the nodes that have commands to be told.
	speaking map[id.Node]*node
	replies  []func()
	told     []*apiv1.Event
	post     func(input)
}

// core is the scheduler, and what its lending contracts came to.
type core interface {
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

	// stream is the master's Allocate stream; nil while it has none.
	stream *mailbox[*masterv1.AllocateResponse]
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
	routed []func(*zone)
	// ahead is set while a step of the master's waits for the word of a node, since aheadSince.
	ahead      bool
	aheadSince time.Time
	// traffic is what balancers have counted since the master's stream was opened, by instance.
	traffic map[string]*masterv1.Traffic
	// rolloutReports counts what the master said of the rollout: what waits for balancers may be overtaken.
	rolloutReports int
	// withdrawingAll is set while balancers are waited for, after which every instance is stopped.
	withdrawingAll bool
	watchers       map[*mailbox[*service.AppView]]struct{}
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
	// stream is nil until the node has opened it, and when it has ended.
	stream *session
	// outbox is what the stream is to be told at the end of the turn.
	outbox []*trackerv1.NodeCommand
	// lastReport is when the node was last heard of otherwise than on its present stream.
	lastReport time.Time
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

func (z *zone) begin(now time.Time) {
	z.now = now
	z.touched = map[id.App]*app{}
	z.speaking = map[id.Node]*node{}
	z.replies = nil
	z.told = nil
}

// after has something done once this turn is stored.
func (z *zone) after(do func()) { z.replies = append(z.replies, do) }

// at has the deadlines looked at by an instant, though nothing may have happened until then.
func (z *zone) at(instant time.Time) {
	if instant.Before(z.wake) {
		z.wake = instant
	}
}

func (z *zone) sleep(now time.Time) time.Duration { return max(0, z.wake.Sub(now)) }

// touch has the app settled, projected and shown at the end of the turn. Whatever people see of the app changes with it.
func (z *zone) touch(a *app) {
	z.touched[a.id] = a
	a.shown.view = nil
}

// touchedApps gives them in the order of their submission.
func (z *zone) touchedApps() []*app {
	return slices.SortedFunc(maps.Values(z.touched), func(a, b *app) int { return a.id.Compare(b.id) })
}

// due does what deadlines ask for, once a tick and whenever at said so.
func (z *zone) due() {
	if z.now.Before(z.wake) {
		return
	}
	z.wake = z.now.Add(tick)
	z.dueNodes()
	z.dueBalancers()
	if z.standsStill() {
		return
	}
	z.dueKeys()
	z.dueLending()
	for _, a := range z.sortedApps() {
		z.dueContainers(a)
		z.dueCounts(a)
		z.dueAttempt(a)
		proven := !a.shown.provenAt.IsZero() && !z.now.Before(a.shown.provenAt)
		if a.record.GetEndBy() != nil || a.ahead || a.shown.late || proven {
			z.touch(a)
		}
	}
}

// settle does what follows from a turn's facts by themselves.
func (z *zone) settle() {
	for _, a := range z.touchedApps() {
		z.settleApp(a)
	}
}

// publish tells everybody about a turn that is stored: the registry first, so that a master that reads its
// applied sequence finds the registry right.
func (z *zone) publish() {
	touched := z.touchedApps()
	z.publishServices(touched)
	for _, n := range z.speaking {
		n.flush()
	}
	for _, a := range touched {
		a.shown.view = nil // what was shown in the middle of the turn may be half of it
		z.flush(a)
		z.showWatchers(a)
	}
	logged := z.log.Enabled(context.Background(), slog.LevelInfo)
	for _, event := range z.told {
		if logged {
			z.log.LogAttrs(context.Background(), slog.LevelInfo, "transition", eventAttrs(event)...)
		}
	}
	z.past.Add(z.told...)
	for _, reply := range z.replies {
		reply()
	}
}

func (z *zone) closeStreams() {
	for _, n := range z.nodes {
		n.hangUp(errStopped)
	}
	for _, a := range z.apps {
		if a.stream != nil {
			a.stream.close(errStopped)
		}
		for watcher := range a.watchers {
			watcher.close(errStopped)
		}
	}
	z.past.Close(errStopped)
}

func (z *zone) sortedApps() []*app {
	return slices.SortedFunc(maps.Values(z.apps), func(a, b *app) int { return a.id.Compare(b.id) })
}

func (z *zone) sortedNodes() []*node {
	return slices.SortedFunc(maps.Values(z.nodes), func(a, b *node) int { return id.CompareNames(string(a.id), string(b.id)) })
}

func sortedContainers(containers map[id.Container]*container) []*container {
	return slices.SortedFunc(maps.Values(containers), byAge)
}

// vector reads resources, and makes room for a countable resource that is named for the first time.
func (z *zone) vector(message *corev1.Resources) (resource.Vector, error) {
	schema := z.schema
	for _, name := range slices.Sorted(maps.Keys(message.GetExtended())) {
		grown, _, ok := schema.With(name)
		if !ok {
			return resource.Vector{}, fmt.Errorf("the zone keeps account of %s; it has no room for %q: %w", strings.Join(schema.Names(), ", "), name, errdefs.ErrInvalidArgument)
		}
		schema = grown
	}
	v, err := wire.Vector(schema, message)
	if err != nil {
		return v, err
	}
	if schema != z.schema {
		z.schema = schema
		z.record.Extended = schema.Names()
		z.save(kindZone, "zone", z.record)
	}
	return v, nil
}

func (z *zone) resources(v resource.Vector) *corev1.Resources { return wire.Resources(z.schema, v) }
