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

// owner is the state of the node. Its methods run in one goroutine, in passes: take the messages of the inbox, let the core
// decide, store what changed, publish it.
type owner struct {
	nm         *NodeManager
	machine    container.Machine
	containers map[id.Container]*entry
	now        time.Time

	keys       []token.Key
	health     *corev1.NodeHealth
	engines    map[corev1.ContainerSpec_Runtime]*engineState
	attributes map[string]*corev1.Attribute

	// removing are the state directories to be removed.
	removing map[string]struct{}

	feeds   map[*feed]struct{}
	tracker *feed

	// changed and dirty are the containers that this pass has to publish and to store.
	changed, dirty map[*entry]struct{}
	deadline       time.Time
	// unknown is how many parts of the node's state are missing: the listing of each engine, and the node's health.
	unknown int
}

// entry is one container: its state, and what is needed to run it.
type entry struct {
	core    *container.Container
	lease   *corev1.Lease
	spec    *corev1.ContainerSpec
	runtime runtime.Runtime // nil if this node does not have the runtime any more
	// cancel cancels the present Prepare or Start; nil if there is none.
	cancel context.CancelCauseFunc
	// recorded is called when the next write of its record is durable.
	recorded func(error)
	// recordPending is true until its first record is durable: only then does the container survive a restart. onRecorded
	// are called after that, or after the write failed.
	recordPending bool
	onRecorded    []func()
	// lastTrouble is the last logged error of its clean-up, which is logged once.
	lastTrouble string
}

// whenRecorded calls tell once the container's record is durable or its write has failed.
func (h *entry) whenRecorded(tell func()) {
	if h.recordPending {
		h.onRecorded = append(h.onRecorded, tell)
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
			LaunchTimeout: 5 * time.Minute, ExitTimeout: time.Second,
		},
		containers: map[id.Container]*entry{},
		health:     &corev1.NodeHealth{Healthy: true},
		engines:    map[corev1.ContainerSpec_Runtime]*engineState{},
		removing:   map[string]struct{}{},
		feeds:      map[*feed]struct{}{},
		changed:    map[*entry]struct{}{},
		dirty:      map[*entry]struct{}{},
		unknown:    len(nm.config.Runtimes) + 1,
	}
	for kind := range nm.config.Runtimes {
		o.engines[kind] = &engineState{}
	}
	o.attributes = o.allAttributes()
	return o
}

// recover takes over the stored containers.
func (o *owner) recover(records []recovery.Record) {
	o.now = time.Now()
	for _, record := range records {
		h := &entry{core: record.Container, lease: record.Lease, spec: record.Spec, runtime: o.nm.config.Runtimes[record.Spec.GetRuntime()]}
		o.containers[record.Container.ID] = h
	}
	for _, h := range o.sorted() {
		o.perform(h, o.machine.Recover(o.now, h.core))
	}
}

// run is the owner's goroutine.
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

// tick applies deadlines and finds the next one.
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

// fact applies a fact to a container, if the node still has it.
func (o *owner) fact(key id.Container, fact container.Fact) {
	if h := o.containers[key]; h != nil {
		o.apply(h, fact)
	}
}

func (o *owner) apply(h *entry, fact container.Fact) {
	if h.core.State == container.Done {
		switch fact.Event {
		case container.RemoveFailed, container.PurgeFailed, container.StopFailed:
			o.warnOnce(h, "an ended container could not be cleaned up", fact.Detail)
		case container.RemoveRefused:
			o.warnOnce(h, runsAgainMessage, "")
		}
	}
	o.step(h, func() []container.Effect { return o.machine.Apply(o.now, h.core, fact) })
}

// warnOnce logs an error about an ended container unless it was the last one logged.
func (o *owner) warnOnce(h *entry, message, trouble string) {
	if h.lastTrouble == message+trouble {
		return
	}
	h.lastTrouble = message + trouble
	log := o.log(h)
	if trouble != "" {
		log = log.With("error", trouble)
	}
	log.Warn(message)
}

func (o *owner) step(h *entry, decide func() []container.Effect) {
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
			o.retryRemovals()
		}
	}
	o.perform(h, effects)
	if h.core.Removed {
		h.shrink()
	}
}

// shrink drops what an ended container does not need for its logs and its id.
func (h *entry) shrink() {
	h.spec = &corev1.ContainerSpec{Runtime: h.spec.GetRuntime(), Labels: h.spec.GetLabels()}
}

func (o *owner) log(h *entry) *slog.Logger {
	return o.nm.log.With("app", h.lease.GetAppName(), "attempt", h.lease.GetAttempt(), "container", h.core.ID.String(), "node", o.nm.config.NodeID)
}

// perform performs effects. Those that may block run in edges.
func (o *owner) perform(h *entry, effects []container.Effect) {
	key := h.core.ID
	for _, effect := range effects {
		switch effect.Kind {
		case container.Record:
			h.recordPending = true
			h.recorded = func(err error) {
				fact := container.Fact{Event: container.Recorded}
				if err != nil {
					fact = container.Fact{Event: container.RecordFailed, Detail: wire.Sentence(err)}
				}
				o.nm.inbox.put(func(o *owner) {
					h.recordPending = false
					o.fact(key, fact)
					for _, tell := range h.onRecorded {
						tell()
					}
					h.onRecorded = nil
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
				h.cancel(errStopRequested)
			}
		case container.Probe:
			if target, ok := o.target(h, effect.Healthy); ok {
				o.nm.prober.Add(o.nm.edges, key, target)
			}
		case container.Unprobe:
			if h.core.HasProbe {
				o.nm.prober.Remove(o.nm.edges, key)
			}
		case container.Prepare:
			o.prepare(h)
		case container.Start:
			o.start(h)
		case container.StopProcess:
			if h.core.State == container.Done {
				o.warnOnce(h, runsAgainMessage, "")
			}
			o.stop(h, effect.Grace)
		case container.Remove:
			o.clean(h, container.Removed, container.RemoveFailed, runtime.Runtime.Remove)
		case container.Purge:
			o.clean(h, container.Purged, container.PurgeFailed, runtime.Runtime.Purge)
		}
	}
}

// runsAgainMessage is logged once for an ended container that runs.
const runsAgainMessage = "an ended container was started again from outside; it is stopped"

var errStopRequested = errors.New("its stop was requested")

// write queues the records of this pass. A container that waits for its record is told when the group is durable.
func (o *owner) write() {
	for h := range o.dirty {
		o.nm.records.Save(recovery.Record{Container: h.core, Lease: h.lease, Spec: h.spec}, h.recorded)
		h.recorded = nil
	}
	clear(o.dirty)
}

// publish sends the changes of this pass to all watchers.
func (o *owner) publish() {
	if len(o.changed) == 0 {
		return
	}
	for h := range o.changed {
		status := h.status(o.nm.config.Address)
		for f := range o.feeds {
			f.add(status)
		}
		if o.tracker != nil && !h.core.EndAcknowledged {
			o.tracker.add(status)
		}
	}
	clear(o.changed)
}

// watch adds a feed and returns the statuses from which it continues.
func (o *owner) watch(f *feed) []*corev1.ContainerStatus {
	o.publish()
	o.feeds[f] = struct{}{}
	return o.statuses(f.matches)
}

// statuses are those of every container whose end is not acknowledged.
func (o *owner) statuses(wants func(*corev1.ContainerStatus) bool) []*corev1.ContainerStatus {
	var statuses []*corev1.ContainerStatus
	for _, h := range o.sorted() {
		if h.core.State == container.Done && h.core.EndAcknowledged {
			continue
		}
		if status := h.status(o.nm.config.Address); wants(status) {
			statuses = append(statuses, status)
		}
	}
	return statuses
}

func (o *owner) sorted() []*entry {
	return slices.SortedFunc(maps.Values(o.containers), func(a, b *entry) int { return a.core.ID.Compare(b.core.ID) })
}

// stopContainer is the ResourceManager's Stop. A container that never arrived is ended in advance: its lease ends when the
// node reports the end, and a late start finds it ended.
func (o *owner) stopContainer(containerID string, stop container.Stop) {
	key, err := id.ParseContainer(containerID)
	if err != nil {
		o.nm.log.Warn("the ResourceManager sent an invalid container id", "container", containerID, "node", o.nm.config.NodeID)
		return
	}
	if h := o.containers[key]; h != nil {
		if h.core.State == container.Done && o.tracker != nil {
			o.tracker.add(h.status(o.nm.config.Address)) // the ResourceManager does not have the end
		}
		o.apply(h, container.Fact{Event: container.StopRequested, Stop: stop})
		return
	}
	if stop.Message == "" {
		stop.Message = "it was never started on this node"
	}
	lease := &corev1.Lease{ContainerId: containerID, AppId: key.App.String(), NodeId: o.nm.config.NodeID}
	o.refuse(key, lease, &corev1.ContainerSpec{}, container.Exit{Reason: stop.Reason, Code: -1, Message: stop.Message})
}

// forgetContainer records that the ResourceManager has stored the end of a container.
func (o *owner) forgetContainer(containerID string) {
	if key, err := id.ParseContainer(containerID); err == nil {
		o.fact(key, container.Fact{Event: container.EndAcknowledged})
	}
}

// reap ends a container that has no lease any more.
func (o *owner) reap(containerID string) {
	key, err := id.ParseContainer(containerID)
	if err != nil {
		return
	}
	if h := o.containers[key]; h != nil {
		o.apply(h, container.Fact{Event: container.StopRequested, Stop: container.Stop{
			Reason: container.LeaseEnded, Message: "the ResourceManager holds no lease for it",
		}})
		o.apply(h, container.Fact{Event: container.EndAcknowledged})
	}
}

// launch starts an application master for the ResourceManager. One that cannot be started is reported as ended.
func (o *owner) launch(signed *corev1.ContainerToken, spec *corev1.ContainerSpec) {
	_, err := o.admit(signed, spec)
	if err == nil {
		return
	}
	key, claims, leaseErr := o.leaseOf(signed)
	if leaseErr != nil {
		o.nm.log.Warn("a launch of the ResourceManager was refused", "node", o.nm.config.NodeID, "error", leaseErr)
		return
	}
	o.refuse(key, claims.GetLease(), spec, container.Exit{Reason: container.LaunchFailed, Code: -1, Message: sentence(err)})
}

// setHealth records what is wrong with the node; empty if nothing is.
func (o *owner) setHealth(reason string) {
	if o.health.GetReason() == reason && o.health.GetSince() != nil {
		return
	}
	if o.health.GetSince() == nil {
		o.learned()
	}
	o.health = &corev1.NodeHealth{Healthy: reason == "", Reason: reason, Since: timeMessage(o.now)}
	if reason == "" {
		o.nm.log.Info("node is healthy", "node", o.nm.config.NodeID)
	} else {
		o.nm.log.Warn("node is unhealthy", "node", o.nm.config.NodeID, "reason", reason)
	}
	if o.tracker != nil {
		o.tracker.addNode(nodeChange{health: o.health})
	}
}

// learned counts one missing part of the node's state as known.
func (o *owner) learned() {
	if o.unknown--; o.unknown == 0 {
		close(o.nm.ready)
	}
}

// entryForAccess returns a container for reading its output or running a command in it.
func (o *owner) entryForAccess(signed *corev1.ContainerToken, containerID string, running bool) (*entry, error) {
	h, err := o.containerFor(signed, containerID)
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
