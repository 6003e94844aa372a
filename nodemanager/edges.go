package nodemanager

import (
	"context"
	"errors"
	"maps"
	"net"
	"strconv"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/defaults"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/signal"
	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	"github.com/mammoth-os/mammoth/nodemanager/health"
	"github.com/mammoth-os/mammoth/nodemanager/node"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// How long an engine may take. What takes longer counts as an engine that does not answer, and is tried again.
const (
	prepareWithin = 30 * time.Minute
	startWithin   = 2 * time.Minute
	stopWithin    = time.Minute // beyond the grace
	cleanWithin   = 2 * time.Minute
)

// edge runs something that may block, and tells the owner what came of it unless the NodeManager is stopping.
func (nm *NodeManager) edge(key id.Container, do func(ctx context.Context) container.Fact) {
	nm.waiting.Go(func() {
		fact := do(nm.edges)
		if nm.edges.Err() != nil {
			return
		}
		nm.inbox.put(func(o *owner) { o.node.Fact(key, fact) })
	})
}

// unavailable reports whether trying again later may help.
func unavailable(err error) bool {
	return errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		health.Lacks(err)
}

func sentence(err error) string { return wire.Sentence(err) }

// outcome is good, or what an error makes of it.
func outcome(good container.Fact, err error, failed, away container.Event) container.Fact {
	switch {
	case err == nil:
		return good
	case unavailable(err):
		return container.Fact{Event: away, Detail: sentence(err)}
	}
	return container.Fact{Event: failed, Detail: sentence(err), OfNode: errors.Is(err, errdefs.ErrResourceExhausted)}
}

// ofEngine is a failure to start with the engine's part in it: one that goes down says all kinds of things meanwhile.
func ofEngine(ctx context.Context, rt runtime.Runtime, err error) error {
	if !errors.Is(err, errdefs.ErrInternal) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, infoWithin)
	defer cancel()
	if _, away := rt.Info(ctx); away != nil {
		return away
	}
	return err
}

func (o *owner) prepare(h *node.Held) {
	nm, key, spec, rt := o.nm, h.Core.ID, o.runtimeSpec(h), o.runtimeOf(h)
	ctx, cancel := context.WithCancelCause(nm.edges)
	o.cancels[key] = cancel
	nm.edge(key, func(context.Context) container.Fact {
		defer cancel(nil)
		ctx, timeout := context.WithTimeout(ctx, prepareWithin)
		defer timeout()
		if rt == nil {
			return container.Fact{Event: container.PrepareFailed, Detail: "the node has lost its runtime", OfNode: true}
		}
		moved := nm.pulls.join(spec.Image)
		var bytes int64
		var phase string
		err := rt.Prepare(ctx, spec, func(progress runtime.Progress) {
			if progress.Phase == "download" {
				bytes = max(bytes, progress.Bytes)
			}
			if progress.Phase == phase {
				return
			}
			phase = progress.Phase
			fact := container.Fact{Event: container.Progress, Phase: phase}
			nm.inbox.put(func(o *owner) { o.node.Fact(key, fact) })
		})
		if fetched := moved(); nm.config.Layers != nil && spec.Image != "" {
			bytes = fetched // what really came from elsewhere
		}
		return outcome(container.Fact{Event: container.Prepared, Bytes: bytes}, ofEngine(ctx, rt, err), container.PrepareFailed, container.PrepareUnavailable)
	})
}

func (o *owner) start(h *node.Held) {
	nm, key, spec, rt, kind := o.nm, h.Core.ID, o.runtimeSpec(h), o.runtimeOf(h), h.Spec.GetRuntime()
	ctx, cancel := context.WithCancelCause(nm.edges)
	o.cancels[key] = cancel
	nm.edge(key, func(context.Context) container.Fact {
		defer cancel(nil)
		if rt == nil {
			return container.Fact{Event: container.StartFailed, Detail: "the node has lost its runtime", OfNode: true}
		}
		ctx, timeout := context.WithTimeout(ctx, startWithin)
		defer timeout()
		if kind == corev1.ContainerSpec_DOCKER {
			spec = nm.withRegistry(ctx, spec)
		}
		began := time.Now()
		started, err := rt.Start(ctx, spec)
		if err != nil {
			return outcome(container.Fact{}, ofEngine(ctx, rt, err), container.StartFailed, container.StartUnavailable)
		}
		nm.counters.started(time.Since(began))
		if started.Exit != nil || !started.Running {
			// It ended before the answer: the end is told first, as its event would be.
			nm.inbox.put(func(o *owner) { o.node.Fact(key, endedAs(started)) })
		}
		return container.Fact{Event: container.Started, Seen: seen(started)}
	})
}

func (o *owner) stop(h *node.Held, grace time.Duration) {
	nm, key, rt := o.nm, h.Core.ID, o.runtimeOf(h)
	nm.edge(key, func(ctx context.Context) container.Fact {
		if rt == nil {
			return container.Fact{Event: container.Stopped}
		}
		ctx, timeout := context.WithTimeout(ctx, grace+stopWithin)
		defer timeout()
		if err := rt.Stop(ctx, key, grace); err != nil {
			return container.Fact{Event: container.StopFailed, Detail: sentence(err)}
		}
		return container.Fact{Event: container.Stopped}
	})
}

// clean removes or purges.
func (o *owner) clean(h *node.Held, done, failed container.Event, how func(runtime.Runtime, context.Context, id.Container) error) {
	nm, key, rt := o.nm, h.Core.ID, o.runtimeOf(h)
	nm.edge(key, func(ctx context.Context) container.Fact {
		if rt == nil {
			return container.Fact{Event: done}
		}
		ctx, timeout := context.WithTimeout(ctx, cleanWithin)
		defer timeout()
		err := how(rt, ctx, key)
		switch {
		case err == nil:
			return container.Fact{Event: done}
		case failed == container.RemoveFailed && errors.Is(err, errdefs.ErrFailedPrecondition):
			failed = container.RemoveRefused
		}
		return container.Fact{Event: failed, Detail: sentence(err)}
	})
}

// target is how a container is probed.
func (o *owner) target(h *node.Held, wasHealthy bool) (health.Target, bool) {
	spec := h.Spec.GetHealth()
	target := health.Target{
		Interval: defaults.ProbeInterval, Timeout: defaults.ProbeTimeout, WasHealthy: wasHealthy,
		Healthy: max(int(spec.GetHealthy()), 1), Unhealthy: int(spec.GetUnhealthy()),
	}
	if target.Unhealthy == 0 {
		target.Unhealthy = defaults.Unhealthy
	}
	if interval := spec.GetInterval().AsDuration(); interval > 0 {
		target.Interval = interval
	}
	if timeout := spec.GetTimeout().AsDuration(); timeout > 0 {
		target.Timeout = timeout
	}
	switch probe := spec.GetProbe().(type) {
	case *corev1.HealthCheck_Http_:
		target.Check = health.HTTP(o.endpoint(h, probe.Http.GetPort()), probe.Http.GetPath())
	case *corev1.HealthCheck_Tcp_:
		target.Check = health.TCP(o.endpoint(h, probe.Tcp.GetPort()))
	case *corev1.HealthCheck_Exec_:
		key, rt := h.Core.ID, o.runtimeOf(h)
		target.Exec = true
		target.Check = health.Exec(probe.Exec.GetCommand(), func(ctx context.Context, command []string) (int, error) {
			return rt.Exec(ctx, key, runtime.Exec{Command: command})
		})
	}
	return target, target.Check != nil
}

// endpoint is where the node reaches a port: the container's own address if it has one, else the published port.
func (o *owner) endpoint(h *node.Held, name string) string {
	host, number := o.nm.config.Address, 0
	seen := h.Core.Seen
	for i, port := range seen.Ports {
		if port.Name != name && (name != "" || i != 0) {
			continue
		}
		number = port.Host
		if seen.Address != "" {
			host = seen.Address
			if h.Spec.GetNetwork() == corev1.ContainerSpec_BRIDGE {
				number = port.Container
			}
		}
		break
	}
	return net.JoinHostPort(host, strconv.Itoa(number))
}

// runtimeSpec is what a runtime is asked for: the spec under the lease's quotas.
func (o *owner) runtimeSpec(h *node.Held) runtime.Spec {
	lease, spec := h.Lease, h.Spec
	out := runtime.Spec{
		ID: h.Core.ID, AppName: lease.GetAppName(), Attempt: lease.GetAttempt(), Labels: maps.Clone(spec.GetLabels()),
		Image: spec.GetImage(), Command: spec.GetCommand(), Args: spec.GetArgs(), Env: o.environment(h),
		WorkingDir: spec.GetWorkingDir(), User: spec.GetUser(), Network: runtime.Network(spec.GetNetwork()),
		CPUMillis: lease.GetResources().GetCpuMillis(), MemoryBytes: lease.GetResources().GetMemoryBytes(),
		DiskBytes: lease.GetResources().GetDiskBytes(), Pids: spec.GetPids(),
		ReadOnlyRoot: spec.GetReadOnlyRoot(), StopSignal: spec.GetStopSignal(),
		Place: placeOf(h),
	}
	if spec.GetWithoutArgs() && len(out.Args) == 0 {
		out.Args = []string{}
	}
	if out.Pids == 0 {
		out.Pids = defaults.Pids
	}
	for _, port := range spec.GetPorts() {
		out.Ports = append(out.Ports, runtime.Port{Name: port.GetName(), Container: int(port.GetContainerPort())})
	}
	return out
}

// seen is what the core keeps of what a runtime tells.
func seen(c runtime.Container) container.Seen {
	out := container.Seen{RuntimeID: c.RuntimeID, StartedAt: c.StartedAt, Address: c.Address}
	if out.StartedAt.IsZero() {
		out.StartedAt = time.Now()
	}
	for _, port := range c.Ports {
		out.Ports = append(out.Ports, container.Port{Name: port.Name, Container: port.Container, Host: port.Host})
	}
	return out
}

// endedAs is the end of a container that a runtime shows as ended.
func endedAs(c runtime.Container) container.Fact {
	fact := container.Fact{Event: container.Ended, Ending: ending(c.Exit)}
	fact.Ending.At = c.FinishedAt
	return fact
}

func ending(exit *runtime.Exit) container.Ending {
	if exit == nil {
		return container.Ending{Code: -1, Message: "it ended, and its exit code could not be learned"}
	}
	end := container.Ending{Code: exit.Code, OOM: exit.OOM, DiskQuota: exit.DiskQuota, Message: exit.Message, Engine: exit.EngineDown}
	if exit.Signal > 0 {
		end.Signal = signal.Name(exit.Signal)
	}
	return end
}
