package nodemanager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/token"
	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	"github.com/mammoth-os/mammoth/nodemanager/recovery"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// owner is the state of the node. Its methods run in one goroutine only: take what the inbox holds, let the
// core decide, write down what changed, tell who watches.
type owner struct {
	nm         *NodeManager
	machine    container.Machine
	containers map[id.Container]*held
	now        time.Time

	keys       []token.Key
	health     *corev1.NodeHealth
	engines    map[corev1.ContainerSpec_Runtime]*engineState
	attributes map[string]*corev1.Attribute

	// leaving are the places of frameworks that are to end, and have not yet.
	leaving map[string]struct{}

	feeds   map[*feed]struct{}
	tracker *feed

	// What this pass has touched.
	changed, dirty map[*held]struct{}
	deadline       time.Time
	// unknown is how much is still to be learnt before the truth about the node is whole: what each engine has,
	// and its health.
	unknown int
}

// held is one container: what the core knows, and what it takes to run it.
type held struct {
	core    *container.Container
	lease   *corev1.Lease
	spec    *corev1.ContainerSpec
	runtime runtime.Runtime // nil if this node has lost the runtime
	// cancel hurries the Prepare or Start under way; nil if none is.
	cancel context.CancelCauseFunc
	// recorded is told when the next write of its record is on the disk.
	recorded func(error)
	// recording: its first record is on the way to the disk. waiting are told once it is there, or could not be: only
	// then does the container survive a restart.
	recording bool
	waiting   []func()
	// trouble is what was said last of cleaning it up; saying it once is enough.
	trouble string
}

// whenRecorded calls tell as soon as the container's record is on the disk, or has failed to be.
func (h *held) whenRecorded(tell func()) {
	if h.recording {
		h.waiting = append(h.waiting, tell)
		return
	}
	tell()
}

type engineState struct {
	listed bool
	info   runtime.Info
}

func newOwner(nm *NodeManager) *owner {
	o := &owner{
		nm: nm,
		machine: container.Machine{
			Retention: nm.config.LogRetention, RetryMin: 200 * time.Millisecond, RetryMax: 5 * time.Second,
			LaunchWithin: 5 * time.Minute, ExitWithin: time.Second,
		},
		containers: map[id.Container]*held{},
		health:     &corev1.NodeHealth{Healthy: true},
		engines:    map[corev1.ContainerSpec_Runtime]*engineState{},
		leaving:    map[string]struct{}{},
		feeds:      map[*feed]struct{}{},
		changed:    map[*held]struct{}{},
		dirty:      map[*held]struct{}{},
		unknown:    len(nm.config.Runtimes) + 1,
	}
	for kind := range nm.config.Runtimes {
		o.engines[kind] = &engineState{}
	}
	o.attributes = o.allAttributes()
	return o
}

// recover takes up what was written down.
func (o *owner) recover(records []recovery.Record) {
	o.now = time.Now()
	for _, record := range records {
		h := &held{core: record.Container, lease: record.Lease, spec: record.Spec, runtime: o.nm.config.Runtimes[record.Spec.GetRuntime()]}
		o.containers[record.Container.ID] = h
	}
	for _, h := range o.sorted() {
		o.perform(h, o.machine.Recover(o.now, h.core))
	}
}

// run is the one goroutine.
func (o *owner) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.nm.inbox.wake:
		case <-timer.C:
		}
		o.now = time.Now()
		for _, message := range o.nm.inbox.take() {
			message(o)
		}
		o.tick()
		o.write()
		o.publish()
		if o.deadline.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(o.deadline))
		}
	}
}

// tick lets deadlines pass and finds the next one.
func (o *owner) tick() {
	o.deadline = time.Time{}
	for _, h := range o.containers {
		at := o.machine.Deadline(h.core)
		if !at.IsZero() && !at.After(o.now) {
			o.step(h, func() []container.Effect { return o.machine.Tick(o.now, h.core) })
			at = o.machine.Deadline(h.core)
		}
		if !at.IsZero() && (o.deadline.IsZero() || at.Before(o.deadline)) {
			o.deadline = at
		}
	}
}

// fact tells the core of a container something, if the node still has it.
func (o *owner) fact(key id.Container, fact container.Fact) {
	if h := o.containers[key]; h != nil {
		o.apply(h, fact)
	}
}

func (o *owner) apply(h *held, fact container.Fact) {
	if h.core.State == container.Done {
		switch fact.Event {
		case container.RemoveFailed, container.PurgeFailed, container.StopFailed:
			o.complain(h, "an ended container could not be cleaned up", fact.Detail)
		case container.RemoveRefused:
			o.complain(h, againMessage, "")
		}
	}
	o.step(h, func() []container.Effect { return o.machine.Apply(o.now, h.core, fact) })
}

// complain says what is wrong with an ended container, unless that was said last.
func (o *owner) complain(h *held, message, trouble string) {
	if h.trouble == message+trouble {
		return
	}
	h.trouble = message + trouble
	log := o.log(h)
	if trouble != "" {
		log = log.With("error", trouble)
	}
	log.Warn(message)
}

func (o *owner) step(h *held, decide func() []container.Effect) {
	before := h.core.State
	effects := decide()
	if after := h.core.State; after != before {
		log := o.log(h).With("state", after.String())
		if h.core.Reason != "" {
			log = log.With("reason", h.core.Reason)
		}
		log.Info("container changed state")
		o.nm.counters.transition(after)
		if after == container.Done {
			o.endLeaving()
		}
	}
	o.perform(h, effects)
	if h.core.Removed {
		h.shrink()
	}
}

// shrink leaves of an ended container what its logs and the id need, for as long as they are kept.
func (h *held) shrink() {
	h.spec = &corev1.ContainerSpec{Runtime: h.spec.GetRuntime(), Labels: h.spec.GetLabels()}
}

func (o *owner) log(h *held) *slog.Logger {
	return o.nm.log.With("app", h.lease.GetAppName(), "attempt", h.lease.GetAttempt(), "container", h.core.ID.String(), "node", o.nm.config.NodeID)
}

// perform does what the core decided. Everything that may block is left to an edge.
func (o *owner) perform(h *held, effects []container.Effect) {
	key := h.core.ID
	for _, effect := range effects {
		switch effect.Kind {
		case container.Record:
			h.recording = true
			h.recorded = func(err error) {
				fact := container.Fact{Event: container.Recorded}
				if err != nil {
					fact = container.Fact{Event: container.RecordFailed, Detail: wire.Sentence(err)}
				}
				o.nm.inbox.put(func(o *owner) {
					h.recording = false
					o.fact(key, fact)
					for _, tell := range h.waiting {
						tell()
					}
					h.waiting = nil
				})
			}
			o.dirty[h] = struct{}{}
		case container.Save:
			o.dirty[h] = struct{}{}
		case container.Publish:
			o.changed[h] = struct{}{}
		case container.Drop:
			delete(o.containers, key)
			delete(o.dirty, h)
			delete(o.changed, h)
			o.nm.records.Drop(key.String())
		case container.Cancel:
			if h.cancel != nil {
				h.cancel(errStopWanted)
			}
		case container.Probe:
			if target, ok := o.target(h, effect.Healthy); ok {
				o.nm.prober.Add(o.nm.edges, key, target)
			}
		case container.Unprobe:
			if h.core.Probed {
				o.nm.prober.Remove(o.nm.edges, key)
			}
		case container.Prepare:
			o.prepare(h)
		case container.Start:
			o.start(h)
		case container.StopProcess:
			if h.core.State == container.Done {
				o.complain(h, againMessage, "")
			}
			o.stop(h, effect.Grace)
		case container.Remove:
			o.clean(h, container.Removed, container.RemoveFailed, runtime.Runtime.Remove)
		case container.Purge:
			o.clean(h, container.Purged, container.PurgeFailed, runtime.Runtime.Purge)
		}
	}
}

// againMessage is said once of a container that runs and has no owner.
const againMessage = "an ended container runs again, started by somebody else; it is ended"

var errStopWanted = errors.New("its end is wanted")

// write queues the records of this pass. A container that waits to be recorded is told once the group that it
// belongs to is on the disk.
func (o *owner) write() {
	for h := range o.dirty {
		o.nm.records.Save(recovery.Record{Container: h.core, Lease: h.lease, Spec: h.spec}, h.recorded)
		h.recorded = nil
	}
	clear(o.dirty)
}

// publish sends what changed in this pass to everybody who watches.
func (o *owner) publish() {
	if len(o.changed) == 0 {
		return
	}
	for h := range o.changed {
		status := h.status(o.nm.config.Address)
		for f := range o.feeds {
			f.offer(status)
		}
		if o.tracker != nil && !h.core.Forgotten {
			o.tracker.offer(status)
		}
	}
	clear(o.changed)
}

// watch opens a feed, and gives what it is a continuation of.
func (o *owner) watch(f *feed) []*corev1.ContainerStatus {
	o.publish()
	o.feeds[f] = struct{}{}
	return o.statuses(f.wants)
}

// statuses are those of every container that somebody still has to hear of.
func (o *owner) statuses(wants func(*corev1.ContainerStatus) bool) []*corev1.ContainerStatus {
	var statuses []*corev1.ContainerStatus
	for _, h := range o.sorted() {
		if h.core.State == container.Done && h.core.Forgotten {
			continue
		}
		if status := h.status(o.nm.config.Address); wants(status) {
			statuses = append(statuses, status)
		}
	}
	return statuses
}

func (o *owner) sorted() []*held {
	return slices.SortedFunc(maps.Values(o.containers), func(a, b *held) int { return a.core.ID.Compare(b.core.ID) })
}

// command is Stop of the ResourceManager. A container that never came here is ended before it can come: the
// lease ends when the node reports its end, and a start that was overtaken finds it done.
func (o *owner) command(containerID string, stop container.Stop) {
	key, err := id.ParseContainer(containerID)
	if err != nil {
		o.nm.log.Warn("the ResourceManager named a container that cannot be", "container", containerID, "node", o.nm.config.NodeID)
		return
	}
	if h := o.containers[key]; h != nil {
		if h.core.State == container.Done && o.tracker != nil {
			o.tracker.offer(h.status(o.nm.config.Address)) // it has not heard, whatever it said before
		}
		o.apply(h, container.Fact{Event: container.StopWanted, Stop: stop})
		return
	}
	if stop.Message == "" {
		stop.Message = "it was never started on this node"
	}
	lease := &corev1.Lease{ContainerId: containerID, AppId: key.App.String(), NodeId: o.nm.config.NodeID}
	o.refuse(key, lease, &corev1.ContainerSpec{}, container.Exit{Reason: stop.Reason, Code: -1, Message: stop.Message})
}

// forget is the ResourceManager's word that it needs to hear no more of a container.
func (o *owner) forget(containerID string) {
	if key, err := id.ParseContainer(containerID); err == nil {
		o.fact(key, container.Fact{Event: container.Forgotten})
	}
}

// reap ends a container that has no lease any more.
func (o *owner) reap(containerID string) {
	key, err := id.ParseContainer(containerID)
	if err != nil {
		return
	}
	if h := o.containers[key]; h != nil {
		o.apply(h, container.Fact{Event: container.StopWanted, Stop: container.Stop{
			Reason: container.LeaseEnded, Message: "the ResourceManager holds no lease for it",
		}})
		o.apply(h, container.Fact{Event: container.Forgotten})
	}
}

// launch starts an application master for the ResourceManager. What cannot be started is reported as ended.
func (o *owner) launch(signed *corev1.ContainerToken, spec *corev1.ContainerSpec) {
	_, err := o.admit(signed, spec)
	if err == nil {
		return
	}
	key, claims, leaseErr := o.leased(signed)
	if leaseErr != nil {
		o.nm.log.Warn("a launch of the ResourceManager was refused", "node", o.nm.config.NodeID, "error", leaseErr)
		return
	}
	o.refuse(key, claims.GetLease(), spec, container.Exit{Reason: container.LaunchFailed, Code: -1, Message: sentence(err)})
}

// sick takes in what is wrong with the node, or that nothing is.
func (o *owner) sick(reason string) {
	if o.health.GetReason() == reason && o.health.GetSince() != nil {
		return
	}
	if o.health.GetSince() == nil {
		o.learnt()
	}
	o.health = &corev1.NodeHealth{Healthy: reason == "", Reason: reason, Since: timeMessage(o.now)}
	if reason == "" {
		o.nm.log.Info("node is healthy", "node", o.nm.config.NodeID)
	} else {
		o.nm.log.Warn("node is unhealthy", "node", o.nm.config.NodeID, "reason", reason)
	}
	if o.tracker != nil {
		o.tracker.offerNode(nodeChange{health: o.health})
	}
}

// learnt notes that one more of the things is known that the first registration waits for.
func (o *owner) learnt() {
	if o.unknown--; o.unknown == 0 {
		close(o.nm.whole)
	}
}

// inside finds a container whose runtime is to be asked for its output, or to run a command in it.
func (o *owner) inside(signed *corev1.ContainerToken, containerID string, running bool) (*held, error) {
	h, err := o.reach(signed, containerID)
	if err != nil {
		return nil, err
	}
	if h.runtime == nil {
		return nil, fmt.Errorf("node %s has nothing of container %s: %w", o.nm.config.NodeID, containerID, errdefs.ErrNotFound)
	}
	if running && h.core.State != container.Running && h.core.State != container.Stopping {
		return nil, fmt.Errorf("container %s is %v, not running: %w", containerID, h.core.State, errdefs.ErrFailedPrecondition)
	}
	return h, nil
}

func compareKinds(a, b corev1.ContainerSpec_Runtime) int { return cmp.Compare(a, b) }
