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

// An engine that takes longer than this counts as not answering, and is called again.
const (
	prepareTimeout = 30 * time.Minute
	startTimeout   = 2 * time.Minute
	stopTimeout    = time.Minute // in addition to the grace
	cleanTimeout   = 2 * time.Minute
)

// edge runs something that may block, and hands its result to the owner unless the NodeManager is stopping.
func (nm *NodeManager) edge(key id.Container, do func(ctx context.Context) container.Fact) {
	nm.goroutines.Go(func() {
		fact := do(nm.edges)
		if nm.edges.Err() != nil {
			return
		}
		nm.inbox.put(func(o *owner) { o.node.Fact(key, fact) })
	})
}

// unavailable reports whether a later attempt may succeed.
func unavailable(err error) bool {
	return errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		health.IsShortage(err)
}

func sentence(err error) string { return wire.Sentence(err) }

// outcome is good if err is nil, away with the error if the engine did not answer, and otherwise failed with it.
func outcome(good container.Fact, err error, failed, away container.Event) container.Fact {
	switch {
	case err == nil:
		return good
	case unavailable(err):
		return container.Fact{Event: away, Detail: sentence(err)}
	}
	return container.Fact{Event: failed, Detail: sentence(err), NodeFault: errors.Is(err, errdefs.ErrResourceExhausted)}
}

// engineError marks a failed start as the engine's fault if the engine is going down, since its errors are unreliable then.
func engineError(ctx context.Context, rt runtime.Runtime, err error) error {
	if !errors.Is(err, errdefs.ErrInternal) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	if _, away := rt.Info(ctx); away != nil {
		return away
	}
	return err
}

func (o *owner) prepare(h *node.Entry) {
	nm, key, spec, rt := o.nm, h.Core.ID, o.runtimeSpec(h), o.runtimeOf(h)
	ctx, cancel := context.WithCancelCause(nm.edges)
	o.cancels[key] = cancel
	nm.edge(key, func(context.Context) container.Fact {
		defer cancel(nil)
		ctx, timeout := context.WithTimeout(ctx, prepareTimeout)
		defer timeout()
		if rt == nil {
			return container.Fact{Event: container.PrepareFailed, Detail: "the node has lost its runtime", NodeFault: true}
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
			bytes = fetched // what really crossed the network
		}
		return outcome(container.Fact{Event: container.Prepared, Bytes: bytes}, engineError(ctx, rt, err), container.PrepareFailed, container.PrepareUnavailable)
	})
}

func (o *owner) start(h *node.Entry) {
	nm, key, spec, rt, kind := o.nm, h.Core.ID, o.runtimeSpec(h), o.runtimeOf(h), h.Spec.GetRuntime()
	ctx, cancel := context.WithCancelCause(nm.edges)
	o.cancels[key] = cancel
	nm.edge(key, func(context.Context) container.Fact {
		defer cancel(nil)
		if rt == nil {
			return container.Fact{Event: container.StartFailed, Detail: "the node has lost its runtime", NodeFault: true}
		}
		ctx, timeout := context.WithTimeout(ctx, startTimeout)
		defer timeout()
		if kind == corev1.ContainerSpec_DOCKER {
			spec = nm.withRegistry(ctx, spec)
		}
		began := time.Now()
		started, err := rt.Start(ctx, spec)
		if err != nil {
			return outcome(container.Fact{}, engineError(ctx, rt, err), container.StartFailed, container.StartUnavailable)
		}
		nm.counters.started(time.Since(began))
		if started.Exit != nil || !started.Running {
			// It ended before the answer: the end is reported first, as its event would be.
			nm.inbox.put(func(o *owner) { o.node.Fact(key, endedFact(started)) })
		}
		return container.Fact{Event: container.Started, Process: processOf(started)}
	})
}

func (o *owner) stop(h *node.Entry, grace time.Duration) {
	nm, key, rt := o.nm, h.Core.ID, o.runtimeOf(h)
	nm.edge(key, func(ctx context.Context) container.Fact {
		if rt == nil {
			return container.Fact{Event: container.Stopped}
		}
		ctx, timeout := context.WithTimeout(ctx, grace+stopTimeout)
		defer timeout()
		if err := rt.Stop(ctx, key, grace); err != nil {
			return container.Fact{Event: container.StopFailed, Detail: sentence(err)}
		}
		return container.Fact{Event: container.Stopped}
	})
}

// clean runs Remove or Purge.
func (o *owner) clean(h *node.Entry, done, failed container.Event, how func(runtime.Runtime, context.Context, id.Container) error) {
	nm, key, rt := o.nm, h.Core.ID, o.runtimeOf(h)
	nm.edge(key, func(ctx context.Context) container.Fact {
		if rt == nil {
			return container.Fact{Event: done}
		}
		ctx, timeout := context.WithTimeout(ctx, cleanTimeout)
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

// target is how a container is probed, and whether it is.
func (o *owner) target(h *node.Entry, wasHealthy bool) (health.Target, bool) {
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

// endpoint is where the node reaches a port: at the container's own address if it has one, else at the published port.
func (o *owner) endpoint(h *node.Entry, name string) string {
	host, number := o.nm.config.Address, 0
	seen := h.Core.Process
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

// runtimeSpec is the spec for the runtime: the container's spec with the quotas of its lease.
func (o *owner) runtimeSpec(h *node.Entry) runtime.Spec {
	lease, spec := h.Lease, h.Spec
	out := runtime.Spec{
		ID: h.Core.ID, AppName: lease.GetAppName(), Attempt: lease.GetAttempt(), Labels: maps.Clone(spec.GetLabels()),
		Image: spec.GetImage(), Command: spec.GetCommand(), Args: spec.GetArgs(), Env: o.environment(h),
		WorkingDir: spec.GetWorkingDir(), User: spec.GetUser(), Network: runtime.Network(spec.GetNetwork()),
		CPUMillis: lease.GetResources().GetCpuMillis(), MemoryBytes: lease.GetResources().GetMemoryBytes(),
		DiskBytes: lease.GetResources().GetDiskBytes(), Pids: spec.GetPids(),
		ReadOnlyRoot: spec.GetReadOnlyRoot(), StopSignal: spec.GetStopSignal(),
		StateDir: stateDir(h),
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

// processOf converts what a runtime reports for the core.
func processOf(c runtime.Container) container.Process {
	out := container.Process{RuntimeID: c.RuntimeID, StartedAt: c.StartedAt, Address: c.Address}
	if out.StartedAt.IsZero() {
		out.StartedAt = time.Now()
	}
	for _, port := range c.Ports {
		out.Ports = append(out.Ports, container.Port{Name: port.Name, Container: port.Container, Host: port.Host})
	}
	return out
}

// endedFact is the end of a container that a runtime lists as ended.
func endedFact(c runtime.Container) container.Fact {
	fact := container.Fact{Event: container.Ended, Ending: endingOf(c.Exit)}
	fact.Ending.At = c.FinishedAt
	return fact
}

func endingOf(exit *runtime.Exit) container.Ending {
	if exit == nil {
		return container.Ending{Code: -1, Message: "it ended, and its exit code is unknown"}
	}
	end := container.Ending{Code: exit.Code, OOM: exit.OOM, DiskQuota: exit.DiskQuota, Message: exit.Message, EngineDown: exit.EngineDown}
	if exit.Signal > 0 {
		end.Signal = signal.Name(exit.Signal)
	}
	return end
}
