package zone

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/fsm"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/sentence"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/keys"
)

const (
	// passesPerTurn is how often the scheduler decides, at most, before its decisions are stored and the next inputs taken in.
	passesPerTurn = 5
	// startWithin is how long a lease may be started.
	startWithin = 10 * time.Minute
	// startMargin allows for a node whose clock is behind, before a lease that was not started is ended.
	startMargin = time.Minute
	// An ended container is kept so long, and so many of an app, for those who ask about it later: a master that was away,
	// a person who reads its logs.
	keepEnded     = time.Hour
	keepEndedMost = 200
	// So long is a token to watch a node valid, unless its key is dropped before. A master is sent a new one with every grant.
	watchFor = 365 * 24 * time.Hour
)

// container is one container and its lease: from its grant until its end was seen, and for a while after.
type container struct {
	id     id.Container
	app    *app
	node   id.Node
	record *storev1.Container
	// notice is its preemption notice; nil if it has none, or the preemption was cancelled.
	notice *masterv1.PreemptionNotice
}

// appLeases sums up the containers of an app.
type appLeases struct {
	// heldByAsk counts the held containers but those of masters, by the ids of their asks.
	heldByAsk map[string]int
	// unstarted are the containers that no node has begun to start.
	unstarted map[id.Container]*container
	// ended are the containers that are not held any more, in the order of their ends.
	ended []*container
}

func newAppLeases() appLeases {
	return appLeases{heldByAsk: map[string]int{}, unstarted: map[id.Container]*container{}}
}

func (a *app) heldCount() int { return len(a.containers) - len(a.leases.ended) }

// heldOf is how many containers of an ask are held.
func (a *app) heldOf(ask string) int { return a.leases.heldByAsk[ask] }

// leases grant containers to apps, follow what nodes report of them, and end them. A container is done when its node has
// seen it gone, or when it ended unseen: its node does not have it, or is gone for good.
type leases struct {
	*turn
	scheduler  *scheduling
	units      *units
	table      fsm.Table[lifecycle.ContainerState, lifecycle.ContainerEvent]
	keys       *keys.Keys
	attempts   *attempts
	asks       *asks
	masters    *masters
	apps       *apps
	nodes      *nodes
	sessions   *sessions
	companions *companions
	damage     *damage
	views      *views
	byID       map[id.Container]*container
}

// get is the container with an id; nil if there is none.
func (ls *leases) get(cid id.Container) *container { return ls.byID[cid] }

// insert has a container found: by its node while it is held, by its app for a while longer.
func (ls *leases) insert(c *container) {
	ls.byID[c.id] = c
	c.app.containers[c.id] = c
	switch lease := c.record.GetLease(); {
	case !c.held():
		c.app.leases.ended = append(c.app.leases.ended, c)
	case !lease.GetMaster():
		c.app.leases.heldByAsk[lease.GetAskId()]++
	}
	if c.state() == lifecycle.ContainerNew {
		c.app.leases.unstarted[c.id] = c
	}
	if n := ls.nodes.get(c.node); n != nil && c.held() {
		n.containers[c.id] = c
	}
}

func (ls *leases) load(stored Records) error {
	err := loadRecords(stored, kindContainer, func(record *storev1.Container) error {
		cid, err := id.ParseContainer(record.GetLease().GetContainerId())
		if err != nil {
			return err
		}
		a := ls.apps.get(cid.App)
		if a == nil {
			ls.Forget(kindContainer, cid.String())
			return ls.damage.tolerate(fmt.Errorf("container %s belongs to no app", cid))
		}
		c := &container{id: cid, app: a, node: id.Node(record.GetLease().GetNodeId()), record: record}
		ls.insert(c)
		if c.held() && !a.queueLost {
			ls.scheduler.apply(ls.recoveredHold(c))
		}
		return nil
	})
	for _, a := range ls.apps.sorted() {
		slices.SortStableFunc(a.leases.ended, func(x, y *container) int { return x.record.GetDoneAt().AsTime().Compare(y.record.GetDoneAt().AsTime()) })
	}
	return err
}

// observe takes in what a node reports of a container.
func (ls *leases) observe(c *container, status *corev1.ContainerStatus) {
	from := c.state()
	to, ok := ls.table.Next(from, lifecycle.Reported(lifecycle.ContainerState(status.GetState())))
	if !ok || from == lifecycle.ContainerDone {
		return
	}
	// The lease is the ResourceManager's to write; the node only repeats it.
	status.Lease = c.record.GetLease()
	status.State = corev1.ContainerStatus_State(to)
	before := c.record.GetStatus()
	ls.setStatus(c, status)
	ls.companions.note(c)
	switch {
	case to == lifecycle.ContainerDone:
		ls.done(c, from)
	case to != from:
		ls.emitEvent(c, from, to, because(fmt.Sprintf("%s is %s on %s", c.name(), strings.ToLower(to.String()), c.node), status.GetReason()))
	case before.GetHealth() != status.GetHealth() && status.GetHealth() >= corev1.ContainerStatus_HEALTHY:
		ls.emitEvent(c, from, to, because(fmt.Sprintf("%s is %s", c.name(), strings.ToLower(status.GetHealth().String())), status.GetHealthDetail()))
	}
	ls.changed(c)
}

// missing ends a container whose node has registered anew without it.
func (ls *leases) missing(c *container) {
	from := c.state()
	to, ok := ls.table.Next(from, lifecycle.ContainerMissing)
	if !ok || to == from {
		return
	}
	ls.endUnseen(c, lifecycle.ContainerMissing, &corev1.Exit{
		Reason: corev1.Exit_VANISHED, Code: -1, Message: fmt.Sprintf("%s registered without it", c.node),
	})
}

// endUnseen ends a container whose end no node has reported.
func (ls *leases) endUnseen(c *container, event lifecycle.ContainerEvent, exit *corev1.Exit) {
	from := c.state()
	to, _ := ls.table.Next(from, event)
	// What was sent must not change: a status is replaced, never altered.
	status := proto.CloneOf(c.record.GetStatus())
	status.State, status.Exit = corev1.ContainerStatus_State(to), exit
	ls.setStatus(c, status)
	ls.done(c, from)
	ls.changed(c)
}

func (ls *leases) setStatus(c *container, status *corev1.ContainerStatus) {
	c.record.Status = status
	if c.state() != lifecycle.ContainerNew {
		delete(c.app.leases.unstarted, c.id)
	}
}

// done frees a container's capacity: its node has seen it gone, or does not have it.
func (ls *leases) done(c *container, from lifecycle.ContainerState) {
	exit := c.record.GetStatus().GetExit()
	c.record.DoneAt = timestamppb.New(ls.now)
	if n := ls.nodes.get(c.node); n != nil {
		delete(n.containers, c.id)
		if n.state() == lifecycle.NodeDraining {
			ls.WakeBy(ls.now)
		}
	}
	c.app.leases.ended = append(c.app.leases.ended, c)
	if lease := c.record.GetLease(); !lease.GetMaster() {
		if c.app.leases.heldByAsk[lease.GetAskId()]--; c.app.leases.heldByAsk[lease.GetAskId()] <= 0 {
			delete(c.app.leases.heldByAsk, lease.GetAskId())
		}
	}
	ls.scheduler.apply(scheduler.Release{Container: c.id})
	ls.emitEvent(c, from, lifecycle.ContainerDone, fmt.Sprintf("%s ended on %s: %s", c.name(), c.node, sentence.Exit(exit)))
	if c.record.GetLease().GetMaster() {
		c.record.Acknowledged = true
		ls.attempts.containerEnded(c, exit)
	} else {
		response := ls.masters.response(c.app)
		response.Completed = append(response.Completed, c.record.GetStatus())
		ls.asks.ended(c)
	}
	ls.pruneEnded(c.app)
}

// stop has a container stopped. It is held until its node has seen it gone.
func (ls *leases) stop(c *container, reason corev1.Exit_Reason, message string) {
	if !c.held() || c.record.GetStopping() {
		return
	}
	c.record.Stopping, c.record.StopReason, c.record.StopMessage = true, reason, message
	ls.sessions.send(ls.nodes.get(c.node), c.stopCommand())
	ls.emitEvent(c, c.state(), c.state(), because(fmt.Sprintf("%s is to be stopped", c.name()), message))
	ls.changed(c)
}

// due ends leases that were not started in time, and drops old ends.
func (ls *leases) due(a *app) {
	var expired []*container
	for _, c := range a.leases.unstarted {
		// A node that is away may run it and have had no chance to report it.
		n := ls.nodes.get(c.node)
		late := ls.now.After(c.record.GetStartBy().AsTime().Add(startMargin))
		if late && n != nil && n.registered() {
			expired = append(expired, c)
		}
	}
	slices.SortFunc(expired, byAge)
	for _, c := range expired {
		ls.endUnseen(c, lifecycle.ContainerExpired, &corev1.Exit{
			Reason: corev1.Exit_LAUNCH_FAILED, Code: -1, Message: fmt.Sprintf("it was not started within %s", startWithin),
		})
	}
	ls.pruneEnded(a)
}

// pruneEnded drops ended containers that are too old or too many, the oldest first.
func (ls *leases) pruneEnded(a *app) {
	for len(a.leases.ended) > 0 {
		oldest := a.leases.ended[0]
		if len(a.leases.ended) <= keepEndedMost && ls.now.Sub(oldest.record.GetDoneAt().AsTime()) <= keepEnded {
			return
		}
		a.leases.ended = a.leases.ended[1:]
		ls.drop(oldest)
	}
}

func (ls *leases) drop(c *container) {
	delete(ls.byID, c.id)
	delete(c.app.containers, c.id)
	delete(c.app.leases.unstarted, c.id)
	ls.Forget(kindContainer, c.id.String())
}

func (ls *leases) changed(c *container) {
	ls.Save(kindContainer, c.id.String(), c.record)
	ls.apps.touch(c.app)
	ls.views.containerChanged(c)
}

func (ls *leases) emitEvent(c *container, from, to lifecycle.ContainerState, message string) {
	event := &apiv1.Event{
		Kind: "container", App: c.app.record.GetName(), Instance: c.instance(), Container: c.id.String(),
		Node: string(c.node), Queue: c.record.GetLease().GetQueue(), From: stateName(from), To: to.String(), Message: message,
	}
	if c.record.GetLease().GetMaster() {
		event.Attempt = id.Attempt{App: c.app.id, N: c.record.GetLease().GetAttempt()}.String()
	}
	ls.Emit(event)
}

// acknowledge notes that the master knows that a container has ended.
func (ls *leases) acknowledge(c *container) {
	if !c.record.GetAcknowledged() {
		c.record.Acknowledged = true
		ls.changed(c)
	}
}
