package nodemanager

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	"github.com/mammoth-os/mammoth/nodemanager/disk"
	"github.com/mammoth-os/mammoth/nodemanager/health"
	"github.com/mammoth-os/mammoth/nodemanager/node"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

const (
	// healthInterval is how often the node checks its own health.
	healthInterval = time.Second
	// infoTimeout is how long an engine may take to answer Info.
	infoTimeout = 3 * time.Second
	// compareInterval is how often an engine is listed without a sign of a difference.
	compareInterval = time.Minute
)

// followEngine hands the events of an engine's containers to the owner until ctx ends. After the engine was away it is
// listed.
func (nm *NodeManager) followEngine(ctx context.Context, kind corev1.ContainerSpec_Runtime, rt runtime.Runtime) {
	pace := backoff.Policy{Min: 50 * time.Millisecond, Max: time.Second}
	var away time.Time
	for failures := 0; ctx.Err() == nil; {
		began := time.Now()
		err := nm.followOnce(ctx, kind, rt, away)
		if ctx.Err() != nil {
			return
		}
		if away.IsZero() || followed(err) {
			away = time.Now()
		}
		if time.Since(began) > time.Minute {
			failures = 0
		}
		if failures == 0 {
			nm.log.Warn("lost the connection to the engine", "node", nm.config.NodeID, "runtime", kind.String(), "error", err)
		}
		failures++
		if backoff.Sleep(ctx, pace.After(failures)) != nil {
			return
		}
	}
}

// endedStream is the error of an engine that answered until now.
type endedStream struct{ kind corev1.ContainerSpec_Runtime }

func (e endedStream) Error() string {
	return fmt.Sprintf("the %s runtime ended its stream of events", strings.ToLower(e.kind.String()))
}

func followed(err error) bool {
	var ended endedStream
	return errors.As(err, &ended)
}

// followOnce follows an engine until its stream of events ends. What ended since away may have been ended by the engine.
func (nm *NodeManager) followOnce(ctx context.Context, kind corev1.ContainerSpec_Runtime, rt runtime.Runtime, away time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := rt.Watch(ctx)
	if err != nil {
		return err
	}
	if err := nm.list(ctx, kind, rt, away); err != nil {
		return err
	}
	look := make(chan struct{}, 1)
	var looking sync.WaitGroup
	defer looking.Wait()
	defer cancel()
	looking.Go(func() { nm.compare(ctx, kind, rt, look) })
	for event := range events {
		if event.Kind != runtime.Ended {
			nm.inbox.put(func(o *owner) { o.checkUnexpected(event.ID, look) })
			continue
		}
		fact := container.Fact{Event: container.Ended, Ending: endingOf(event.Exit)}
		fact.Ending.At = event.At
		nm.inbox.put(func(o *owner) { o.node.Fact(event.ID, fact) })
	}
	return endedStream{kind}
}

// list lists an engine's containers. The engine was away since away, unless that is zero.
func (nm *NodeManager) list(ctx context.Context, kind corev1.ContainerSpec_Runtime, rt runtime.Runtime, away time.Time) error {
	asOf := time.Now()
	list, err := rt.List(ctx)
	if err != nil {
		return err
	}
	if !away.IsZero() {
		for i, c := range list {
			// The engine has the node's clock. It may have begun to go down a second before that was noticed.
			if !c.Running && c.Exit != nil && c.FinishedAt.After(away.Add(-time.Second)) {
				exit := *c.Exit
				exit.EngineDown = true
				list[i].Exit = &exit
			}
		}
	}
	nm.inbox.put(func(o *owner) { o.reconcile(kind, asOf, list) })
	return nil
}

// compare lists the engine when look reports something unexpected, and at intervals, since an engine may drop events. An
// error is only logged: an engine that has gone away also ends its stream of events.
func (nm *NodeManager) compare(ctx context.Context, kind corev1.ContainerSpec_Runtime, rt runtime.Runtime, look <-chan struct{}) {
	ticker := time.NewTicker(compareInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look:
		case <-ticker.C:
		}
		if err := nm.list(ctx, kind, rt, time.Time{}); err != nil && ctx.Err() == nil {
			nm.log.Debug("cannot list the engine's containers", "node", nm.config.NodeID, "runtime", kind.String(), "error", err)
		}
	}
}

// checkUnexpected handles a container that the engine has created or started, and requests a listing if nobody here is
// starting it.
func (o *owner) checkUnexpected(key id.Container, look chan<- struct{}) {
	if h := o.node.Container(key); h != nil && h.Core.State != container.Done {
		return
	}
	select {
	case look <- struct{}{}:
	default:
	}
}

// reconcile compares a listing with the records, in both directions.
func (o *owner) reconcile(kind corev1.ContainerSpec_Runtime, asOf time.Time, list []runtime.Container) {
	all := make([]node.Listed, len(list))
	for i, c := range list {
		all[i] = node.Listed{
			ID: c.ID, AppName: c.AppName, Attempt: c.Attempt, Labels: c.Labels,
			Running: c.Running, NeverRan: !c.Running && c.Exit == nil && c.StartedAt.IsZero(),
			Process: processOf(c), Ending: endedFact(c).Ending,
		}
	}
	adopted := o.node.Reconcile(kind, asOf, all)
	if state := o.engines[kind]; !state.listed {
		state.listed = true
		o.learned()
	}
	if adopted > 0 && o.tracker != nil { // otherwise the first registration reports them
		o.nm.reregister()
	}
}

// nodeChecks are the checks of the node's health.
func (nm *NodeManager) nodeChecks() []health.NodeCheck {
	checks := []health.NodeCheck{health.Descriptors(maxFiles, openFiles), nm.prober.NodeCheck, health.Disk(nm.config.Dir, disk.Free)}
	for _, kind := range slices.SortedFunc(maps.Keys(nm.config.Runtimes), compareKinds) {
		checks = append(checks, nm.engineCheck(kind, nm.config.Runtimes[kind]))
	}
	began := time.Now()
	wall := func() time.Time { return time.Now().Round(0) }
	return append(checks, health.Clock(wall, func() time.Duration { return time.Since(began) }))
}

// engineCheck reports an engine that did not answer twice in a row, or did not answer the first time.
func (nm *NodeManager) engineCheck(kind corev1.ContainerSpec_Runtime, rt runtime.Runtime) health.NodeCheck {
	failures, answered := 0, false
	return func(ctx context.Context) string {
		ctx, cancel := context.WithTimeout(ctx, infoTimeout)
		defer cancel()
		info, err := rt.Info(ctx)
		if err == nil {
			failures, answered = 0, true
			nm.inbox.put(func(o *owner) { o.setInfo(kind, info) })
			return ""
		}
		if failures++; failures < 2 && answered {
			return ""
		}
		return fmt.Sprintf("%s does not answer: %s", strings.ToLower(kind.String()), sentence(err))
	}
}

// setInfo records the Info of a runtime.
func (o *owner) setInfo(kind corev1.ContainerSpec_Runtime, info runtime.Info) {
	state := o.engines[kind]
	if state.info == info {
		return
	}
	state.info = info
	attributes := o.allAttributes()
	if maps.EqualFunc(attributes, o.attributes, func(a, b *corev1.Attribute) bool { return proto.Equal(a, b) }) {
		return
	}
	o.attributes = attributes
	if o.tracker != nil {
		o.tracker.addNode(nodeChange{attributes: attributes})
	}
}

func (o *owner) allAttributes() map[string]*corev1.Attribute {
	attributes := hostAttributes()
	attributes["host_network"] = flagAttribute(o.nm.config.HostNetwork)
	for _, kind := range slices.SortedFunc(maps.Keys(o.engines), compareKinds) {
		maps.Copy(attributes, engineAttributes(o.engines[kind].info))
	}
	maps.Copy(attributes, o.nm.config.Attributes)
	return attributes
}
