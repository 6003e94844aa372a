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
	// lookInterval is how often the node looks at itself.
	lookInterval = time.Second
	// infoWithin is how long an engine may take to say that it is there.
	infoWithin = 3 * time.Second
	// compareInterval is how often an engine is asked for all it has though nothing speaks for a difference.
	compareInterval = time.Minute
)

// followEngine keeps the owner told of what an engine's containers do, for as long as ctx lives. Whenever the
// engine was away it is asked for all it has.
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
			nm.log.Warn("lost sight of the engine", "node", nm.config.NodeID, "runtime", kind.String(), "error", err)
		}
		failures++
		if backoff.Sleep(ctx, pace.After(failures)) != nil {
			return
		}
	}
}

// endedStream says that an engine was there until now.
type endedStream struct{ kind corev1.ContainerSpec_Runtime }

func (e endedStream) Error() string {
	return fmt.Sprintf("the %s runtime ended its stream of events", strings.ToLower(e.kind.String()))
}

func followed(err error) bool {
	var ended endedStream
	return errors.As(err, &ended)
}

// followOnce follows an engine until it ends its stream of events. What ended since away may have been ended by the engine.
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
			nm.inbox.put(func(o *owner) { o.appeared(event.ID, look) })
			continue
		}
		fact := container.Fact{Event: container.Ended, Ending: ending(event.Exit)}
		fact.Ending.At = event.At
		nm.inbox.put(func(o *owner) { o.node.Fact(event.ID, fact) })
	}
	return endedStream{kind}
}

// list asks an engine for all it has; it was away since then, unless that is zero.
func (nm *NodeManager) list(ctx context.Context, kind corev1.ContainerSpec_Runtime, rt runtime.Runtime, away time.Time) error {
	asOf := time.Now()
	list, err := rt.List(ctx)
	if err != nil {
		return err
	}
	if !away.IsZero() {
		for i, c := range list {
			// The engine's clock is the node's own. A second before it was missed it may have begun to go down.
			if !c.Running && c.Exit != nil && c.FinishedAt.After(away.Add(-time.Second)) {
				exit := *c.Exit
				exit.EngineDown = true
				list[i].Exit = &exit
			}
		}
	}
	nm.inbox.put(func(o *owner) { o.listed(kind, asOf, list) })
	return nil
}

// compare asks an engine for all it has whenever look says that it has something unexpected, and now and then, since an
// engine drops events that it cannot get rid of. A failure is the stream's of events too, which begins anew.
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
			nm.log.Debug("what the engine has cannot be compared", "node", nm.config.NodeID, "runtime", kind.String(), "error", err)
		}
	}
}

// appeared is about a container that the engine has made or started. One that nobody here is starting is looked at.
func (o *owner) appeared(key id.Container, look chan<- struct{}) {
	if h := o.node.Container(key); h != nil && h.Core.State != container.Done {
		return
	}
	select {
	case look <- struct{}{}:
	default:
	}
}

// listed compares what an engine has with what is written down.
func (o *owner) listed(kind corev1.ContainerSpec_Runtime, asOf time.Time, list []runtime.Container) {
	all := make([]node.Listed, len(list))
	for i, c := range list {
		all[i] = node.Listed{
			ID: c.ID, AppName: c.AppName, Attempt: c.Attempt, Labels: c.Labels,
			Running: c.Running, NeverRan: !c.Running && c.Exit == nil && c.StartedAt.IsZero(),
			Seen: seen(c), Ending: endedAs(c).Ending,
		}
	}
	adopted := o.node.Compare(kind, asOf, all)
	if state := o.engines[kind]; !state.listed {
		state.listed = true
		o.learnt()
	}
	if adopted > 0 && o.tracker != nil { // otherwise the first registration will tell of them
		o.nm.reregister()
	}
}

// signs are what the node's health is judged by.
func (nm *NodeManager) signs() []health.Sign {
	signs := []health.Sign{health.Descriptors(mostFiles, openFiles), nm.prober.Sign, health.Disk(nm.config.Dir, disk.Free)}
	for _, kind := range slices.SortedFunc(maps.Keys(nm.config.Runtimes), compareKinds) {
		signs = append(signs, nm.engineSign(kind, nm.config.Runtimes[kind]))
	}
	began := time.Now()
	wall := func() time.Time { return time.Now().Round(0) }
	return append(signs, health.Clock(wall, func() time.Duration { return time.Since(began) }))
}

// engineSign is bad when an engine did not answer twice in a row, or not at the very first time.
func (nm *NodeManager) engineSign(kind corev1.ContainerSpec_Runtime, rt runtime.Runtime) health.Sign {
	failures, answered := 0, false
	return func(ctx context.Context) string {
		ctx, cancel := context.WithTimeout(ctx, infoWithin)
		defer cancel()
		info, err := rt.Info(ctx)
		if err == nil {
			failures, answered = 0, true
			nm.inbox.put(func(o *owner) { o.informed(kind, info) })
			return ""
		}
		if failures++; failures < 2 && answered {
			return ""
		}
		return fmt.Sprintf("%s does not answer: %s", strings.ToLower(kind.String()), sentence(err))
	}
}

// informed takes in what a runtime tells of itself.
func (o *owner) informed(kind corev1.ContainerSpec_Runtime, info runtime.Info) {
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
		o.tracker.offerNode(nodeChange{attributes: attributes})
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
