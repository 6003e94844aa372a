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

// owner owns the node. Its methods run in one goroutine only: take what the inbox holds, let the core decide, perform it, write down
// what changed, tell who watches.
type owner struct {
	nm   *NodeManager
	node *node.Node

	engines    map[corev1.ContainerSpec_Runtime]*engineState
	attributes map[string]*corev1.Attribute

	// cancels hurry the Prepare or Start that is under way for a container, and waiting are told once its first record is on the disk, or
	// could not be brought there.
	cancels map[id.Container]context.CancelCauseFunc
	waiting map[id.Container][]func()

	// leaving are the places of frameworks that are to end, and have not yet.
	leaving map[string]struct{}

	feeds   map[*feed]struct{}
	tracker *feed

	deadline time.Time
	// unknown is how much is still to be learnt before the truth about the node is whole: what each engine has,
	// and its health.
	unknown int
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
			LaunchWithin: 5 * time.Minute, ExitWithin: time.Second,
		},
	}
	o := &owner{
		nm:      nm,
		engines: map[corev1.ContainerSpec_Runtime]*engineState{},
		cancels: map[id.Container]context.CancelCauseFunc{}, waiting: map[id.Container][]func(){},
		leaving: map[string]struct{}{},
		feeds:   map[*feed]struct{}{},
		unknown: len(nm.config.Runtimes) + 1,
	}
	for kind := range nm.config.Runtimes {
		o.engines[kind] = &engineState{}
		settings.Runtimes = append(settings.Runtimes, kind)
	}
	o.node = node.New(settings)
	o.attributes = o.allAttributes()
	return o
}

// recover takes up what was written down.
func (o *owner) recover(records []recovery.Record) {
	o.node.Begin(time.Now())
	held := make([]*node.Held, len(records))
	for i, record := range records {
		held[i] = &node.Held{Core: record.Container, Lease: record.Lease, Spec: record.Spec}
	}
	o.node.Recover(held)
	o.perform()
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

// perform does what the core has decided. Everything that may block is left to an edge.
func (o *owner) perform() {
	out := o.node.Take()
	for _, record := range out.Records {
		if record.Awaited { // it was accepted just now
			delete(o.leaving, placeOf(record.Held))
		}
	}
	for _, note := range out.Notes {
		o.log(note)
	}
	for _, do := range out.Do {
		o.do(do)
	}
	for _, record := range out.Records {
		h, key := record.Held, record.Held.Core.ID
		var done func(error)
		if record.Awaited {
			done = func(err error) { o.nm.inbox.put(func(o *owner) { o.recorded(key, err) }) }
		}
		o.nm.records.Save(recovery.Record{Container: h.Core, Lease: h.Lease, Spec: h.Spec}, done)
	}
	for _, change := range out.Changes {
		for f := range o.feeds {
			f.offer(change.Status)
		}
		if o.tracker != nil && (!change.Held.Core.Forgotten || change.Again) {
			o.tracker.offer(change.Status)
		}
	}
}

func (o *owner) do(do node.Do) {
	h, key := do.Held, do.Held.Core.ID
	switch do.Kind {
	case container.Drop:
		o.nm.records.Drop(key.String())
	case container.Cancel:
		if cancel := o.cancels[key]; cancel != nil {
			cancel(errStopWanted)
		}
	case container.Probe:
		if target, ok := o.target(h, do.Healthy); ok {
			o.nm.prober.Add(o.nm.edges, key, target)
		}
	case container.Unprobe:
		if h.Core.Probed {
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

var errStopWanted = errors.New("its end is wanted")

func (o *owner) recorded(key id.Container, err error) {
	failure := ""
	if err != nil {
		failure = wire.Sentence(err)
	}
	o.node.Recorded(key, failure)
	for _, tell := range o.waiting[key] {
		tell()
	}
	delete(o.waiting, key)
}

// whenRecorded calls tell as soon as the container's record is on the disk, or has failed to be.
func (o *owner) whenRecorded(h *node.Held, tell func()) {
	if h.Recording() {
		o.waiting[h.Core.ID] = append(o.waiting[h.Core.ID], tell)
		return
	}
	tell()
}

func (o *owner) log(note node.Note) {
	log := o.nm.log.With("node", o.nm.config.NodeID)
	if h := note.Held; h != nil {
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
	o.nm.counters.transition(note.Held.Core.State)
	if note.State == container.Done.String() {
		delete(o.cancels, note.Held.Core.ID)
		o.endLeaving()
	}
}

// watch opens a feed, and gives what it is a continuation of.
func (o *owner) watch(f *feed) []*corev1.ContainerStatus {
	o.perform()
	o.feeds[f] = struct{}{}
	return o.node.Statuses(f.wants)
}

// sick takes in what is wrong with the node, or that nothing is.
func (o *owner) sick(reason string) {
	first := o.node.Health().GetSince() == nil
	if !o.node.Sick(reason) {
		return
	}
	if first {
		o.learnt()
	}
	if reason == "" {
		o.nm.log.Info("node is healthy", "node", o.nm.config.NodeID)
	} else {
		o.nm.log.Warn("node is unhealthy", "node", o.nm.config.NodeID, "reason", reason)
	}
	if o.tracker != nil {
		o.tracker.offerNode(nodeChange{health: o.node.Health()})
	}
}

// learnt notes that one more of the things is known that the first registration waits for.
func (o *owner) learnt() {
	if o.unknown--; o.unknown == 0 {
		close(o.nm.whole)
	}
}

// inner is a container whose runtime may be asked for its output, or to run a command in it.
type inner struct {
	id       id.Container
	instance string
	runtime  runtime.Runtime
}

// inside finds a container whose runtime is to be asked for its output, or to run a command in it.
func (o *owner) inside(signed *corev1.ContainerToken, containerID string, running bool) (inner, error) {
	h, err := o.node.Reach(signed, containerID)
	if err != nil {
		return inner{}, err
	}
	in := inner{h.Core.ID, h.Spec.GetLabels()["instance"], o.runtimeOf(h)}
	if in.runtime == nil {
		return in, fmt.Errorf("node %s has nothing of container %s: %w", o.nm.config.NodeID, containerID, errdefs.ErrNotFound)
	}
	if running && h.Core.State != container.Running && h.Core.State != container.Stopping {
		return in, fmt.Errorf("container %s is %v, not running: %w", containerID, h.Core.State, errdefs.ErrFailedPrecondition)
	}
	return in, nil
}

// runtimeOf is what runs a container; nil if this node has lost it.
func (o *owner) runtimeOf(h *node.Held) runtime.Runtime {
	return o.nm.config.Runtimes[h.Spec.GetRuntime()]
}

func compareKinds(a, b corev1.ContainerSpec_Runtime) int { return cmp.Compare(a, b) }
