package nodemanager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	"github.com/mammoth-os/mammoth/nodemanager/node"
	"github.com/mammoth-os/mammoth/nodemanager/recovery"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// owner owns the node. Its methods run in one goroutine, in passes: take the messages of the inbox, let the core decide, perform it,
// store what changed, publish it.
type owner struct {
	nm   *NodeManager
	node *node.Node

	engines    map[corev1.ContainerSpec_Runtime]*engineState
	attributes map[string]*corev1.Attribute

	// cancels cancel the present Prepare or Start of a container.
	cancels map[id.Container]context.CancelCauseFunc
	// onRecorded are called once the first record of a container is durable or its write has failed.
	onRecorded map[id.Container][]func()

	// removing are the state directories to be removed.
	removing map[string]struct{}

	feeds   map[*feed]struct{}
	tracker *feed

	deadline time.Time
	// unknown is how many parts of the node's state are missing: the listing of each engine, and the node's health.
	unknown int
	// registrations counts those that were begun.
	registrations int64
}

type engineState struct {
	listed bool
	info   runtime.Info
}

func newOwner(nm *NodeManager) *owner {
	settings := node.Settings{
		ID: nm.config.NodeID, Address: nm.config.Address, Schema: nm.config.Schema, HostNetwork: nm.config.HostNetwork,
		Machine: container.Machine{
			Retention: nm.config.LogRetention, RetryMin: 200 * time.Millisecond, RetryMax: 5 * time.Second,
			LaunchTimeout: 5 * time.Minute, ExitTimeout: time.Second,
		},
	}
	o := &owner{
		nm:      nm,
		engines: map[corev1.ContainerSpec_Runtime]*engineState{},
		cancels: map[id.Container]context.CancelCauseFunc{}, onRecorded: map[id.Container][]func(){},
		removing: map[string]struct{}{},
		feeds:    map[*feed]struct{}{},
		unknown:  len(nm.config.Runtimes) + 1,
	}
	for kind := range nm.config.Runtimes {
		o.engines[kind] = &engineState{}
		settings.Runtimes = append(settings.Runtimes, kind)
	}
	o.node = node.New(settings)
	o.attributes = o.allAttributes()
	return o
}

// recover takes over the stored containers.
func (o *owner) recover(records []recovery.Record) {
	o.node.Begin(time.Now())
	held := make([]*node.Entry, len(records))
	for i, record := range records {
		held[i] = &node.Entry{Core: record.Container, Lease: record.Lease, Spec: record.Spec}
	}
	o.node.Recover(held)
	o.perform()
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
		o.node.Begin(time.Now())
		for _, message := range o.nm.inbox.take() {
			message(o)
		}
		o.deadline = o.node.Tick()
		o.perform()
		if o.deadline.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(o.deadline))
		}
	}
}

// perform performs what the core has decided. What may block runs in edges.
func (o *owner) perform() {
	out := o.node.Take()
	for _, record := range out.Records {
		if record.Entry.RecordPending() { // it was accepted just now, and will use the directory
			delete(o.removing, stateDir(record.Entry))
		}
	}
	for _, note := range out.Notes {
		o.log(note)
	}
	for _, do := range out.Do {
		o.do(do)
	}
	for _, record := range out.Records {
		h, key := record.Entry, record.Entry.Core.ID
		var done func(error)
		if record.Awaited {
			done = func(err error) { o.nm.inbox.put(func(o *owner) { o.recorded(key, err) }) }
		}
		o.nm.records.Save(recovery.Record{Container: h.Core, Lease: h.Lease, Spec: h.Spec}, done)
	}
	for _, change := range out.Changes {
		for f := range o.feeds {
			f.add(change.Status)
		}
		if o.tracker != nil && (!change.Entry.Core.EndAcknowledged || change.Again) {
			o.tracker.add(change.Status)
		}
	}
}

func (o *owner) do(do node.Do) {
	h, key := do.Entry, do.Entry.Core.ID
	switch do.Kind {
	case container.Drop:
		o.nm.records.Drop(key.String())
	case container.Cancel:
		if cancel := o.cancels[key]; cancel != nil {
			cancel(errStopRequested)
		}
	case container.Probe:
		if target, ok := o.target(h, do.Healthy); ok {
			o.nm.prober.Add(o.nm.edges, key, target)
		}
	case container.Unprobe:
		if h.Core.HasProbe {
			o.nm.prober.Remove(o.nm.edges, key)
		}
	case container.Prepare:
		o.prepare(h)
	case container.Start:
		o.start(h)
	case container.StopProcess:
		o.stop(h, do.Grace)
	case container.Remove:
		o.clean(h, container.Removed, container.RemoveFailed, runtime.Runtime.Remove)
	case container.Purge:
		o.clean(h, container.Purged, container.PurgeFailed, runtime.Runtime.Purge)
	}
}

var errStopRequested = errors.New("its stop was requested")

func (o *owner) recorded(key id.Container, err error) {
	failure := ""
	if err != nil {
		failure = wire.Sentence(err)
	}
	o.node.Recorded(key, failure)
	for _, then := range o.onRecorded[key] {
		then()
	}
	delete(o.onRecorded, key)
}

// whenRecorded calls then once the container's record is durable or its write has failed.
func (o *owner) whenRecorded(h *node.Entry, then func()) {
	if h.RecordPending() {
		o.onRecorded[h.Core.ID] = append(o.onRecorded[h.Core.ID], then)
		return
	}
	then()
}

func (o *owner) log(note node.Note) {
	log := o.nm.log.With("node", o.nm.config.NodeID)
	if h := note.Entry; h != nil {
		log = log.With("app", h.Lease.GetAppName(), "attempt", h.Lease.GetAttempt(), "container", h.Core.ID.String())
	}
	for _, field := range []struct{ key, value string }{{"state", note.State}, {"reason", note.Reason}, {"error", note.Error}} {
		if field.value != "" {
			log = log.With(field.key, field.value)
		}
	}
	level := slog.LevelInfo
	if note.Warning {
		level = slog.LevelWarn
	}
	log.Log(context.Background(), level, note.Text)
	if note.State == "" {
		return
	}
	o.nm.counters.transition(note.Entry.Core.State)
	if note.State == container.Done.String() {
		delete(o.cancels, note.Entry.Core.ID)
		o.retryRemovals()
	}
}

// watch adds a feed and returns the statuses from which it continues.
func (o *owner) watch(f *feed) []*corev1.ContainerStatus {
	o.perform()
	o.feeds[f] = struct{}{}
	return o.node.Statuses(f.matches)
}

// setHealth records what is wrong with the node; empty if nothing is.
func (o *owner) setHealth(reason string) {
	first := o.node.Health().GetSince() == nil
	if !o.node.SetHealth(reason) {
		return
	}
	if first {
		o.learned()
	}
	if reason == "" {
		o.nm.log.Info("node is healthy", "node", o.nm.config.NodeID)
	} else {
		o.nm.log.Warn("node is unhealthy", "node", o.nm.config.NodeID, "reason", reason)
	}
	if o.tracker != nil {
		o.tracker.addNode(nodeChange{health: o.node.Health()})
	}
}

// learned counts one missing part of the node's state as known.
func (o *owner) learned() {
	if o.unknown--; o.unknown == 0 {
		close(o.nm.ready)
	}
}

// accessible is a container whose output may be read and in which commands may be run.
type accessible struct {
	id       id.Container
	instance string
	runtime  runtime.Runtime
}

// entryForAccess returns a container for reading its output or running a command in it.
func (o *owner) entryForAccess(signed *corev1.ContainerToken, containerID string, running bool) (accessible, error) {
	h, err := o.node.ContainerFor(signed, containerID)
	if err != nil {
		return accessible{}, err
	}
	in := accessible{h.Core.ID, h.Spec.GetLabels()["instance"], o.runtimeOf(h)}
	if in.runtime == nil {
		return in, fmt.Errorf("node %s has nothing of container %s: %w", o.nm.config.NodeID, containerID, errdefs.ErrNotFound)
	}
	if running && h.Core.State != container.Running && h.Core.State != container.Stopping {
		return in, fmt.Errorf("container %s is %v, not running: %w", containerID, h.Core.State, errdefs.ErrFailedPrecondition)
	}
	return in, nil
}

// runtimeOf is the runtime of a container; nil if this NodeManager is not configured with it any more.
func (o *owner) runtimeOf(h *node.Entry) runtime.Runtime {
	return o.nm.config.Runtimes[h.Spec.GetRuntime()]
}

func compareKinds(a, b corev1.ContainerSpec_Runtime) int { return cmp.Compare(a, b) }
