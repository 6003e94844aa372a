package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-connections/nat"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// times are when a container was started and when it ended; zero if it was not or has not.
func times(state *container.State) (started, finished time.Time) {
	// The engine writes year 1 for never, which is Go's zero time.
	started, _ = time.Parse(time.RFC3339Nano, state.StartedAt)
	finished, _ = time.Parse(time.RFC3339Nano, state.FinishedAt)
	return started, finished
}

// observe converts what the engine reports of a container of this node, and starts what has to be watched of it.
func (r *Runtime) observe(ctx context.Context, c container.InspectResponse) (runtime.Container, error) {
	labels := c.Config.Labels
	key, err := id.ParseContainer(labels[labelContainer])
	if err != nil {
		return runtime.Container{}, fmt.Errorf("container %s: %w", c.ID, errors.Join(err, errdefs.ErrInternal))
	}
	attempt, _ := strconv.ParseInt(labels[labelAttempt], 10, 32)
	seen := runtime.Container{
		ID: key, RuntimeID: c.ID, AppName: labels[labelApp], Attempt: int32(attempt),
		Labels: make(map[string]string), Running: c.State.Running, Ports: parsePorts(labels[labelPorts]), Pid: c.State.Pid,
	}
	for label, value := range labels {
		if own, ok := strings.CutPrefix(label, labelOwn); ok {
			seen.Labels[own] = value
		}
	}
	started, finished := times(c.State)
	seen.StartedAt = started
	hostNetwork := c.HostConfig.NetworkMode.IsHost()
	if !hostNetwork {
		published(seen.Ports, c)
	}
	if !c.State.Running {
		r.unwatch(key, c.ID)
		if !started.IsZero() {
			// The engine records a start after the fact, and a short life may be over by then.
			if seen.FinishedAt = finished; finished.Before(started) {
				seen.FinishedAt = started
			}
			life := runPeriodOf(c)
			seen.Exit = r.exit(key, c.ID, c.State, r.signals.endedOf(ctx, life, true))
			r.ooms.ask(ctx, seen.Exit, life)
		}
		return seen, nil
	}
	if hostNetwork {
		seen.Address = "127.0.0.1"
		for _, port := range seen.Ports {
			r.ports.hold(key, port.Host)
		}
	} else if c.NetworkSettings != nil {
		for _, endpoint := range c.NetworkSettings.Networks {
			if endpoint.IPAddress != "" {
				seen.Address = endpoint.IPAddress
			}
		}
	}
	r.quotas.watch(key, c)
	r.ooms.watch(c)
	r.restorer.later(key, c)
	return seen, nil
}

// published sets the host ports that the engine has bound, or had bound.
func published(ports []runtime.Port, c container.InspectResponse) {
	if c.NetworkSettings == nil {
		return
	}
	for i := range ports {
		for _, binding := range c.NetworkSettings.Ports[nat.Port(strconv.Itoa(ports[i].Container)+"/tcp")] {
			if host, err := strconv.Atoi(binding.HostPort); err == nil {
				ports[i].Host = host
			}
		}
	}
}

// exit is how a container ended, and by which signal if any.
func (r *Runtime) exit(key id.Container, runtimeID string, state *container.State, signal int) *runtime.Exit {
	exit := &runtime.Exit{Code: state.ExitCode, Message: state.Error, Signal: signal}
	// A process may have been killed at the quota long before the container was killed.
	exit.OOM = exit.Code != 0 && signal != sigkill && (state.OOMKilled || r.ooms.killed(runtimeID))
	if verdict, exceeded := r.quotas.verdict(key); exceeded {
		exit.OOM, exit.DiskQuota, exit.Message = false, true, verdict
	}
	return exit
}

// unwatch ends what observe has started, after a last measurement.
func (r *Runtime) unwatch(key id.Container, runtimeID string) {
	r.quotas.unwatch(key, runtimeID)
	r.ooms.ended(runtimeID)
	r.ports.release(key)
}

// List implements runtime.Runtime. It needs one inspect for each container: a list does not contain how one has ended.
func (r *Runtime) List(ctx context.Context) ([]runtime.Container, error) {
	summaries, err := r.engine.ContainerList(ctx, container.ListOptions{All: true, Filters: r.ids.filter()})
	if err != nil {
		return nil, r.engine.failure(ctx, err)
	}
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		list  []runtime.Container
		errs  []error
		slots = make(chan struct{}, 8)
	)
	for _, summary := range summaries {
		key, err := id.ParseContainer(summary.Labels[labelContainer])
		if err != nil || !r.ids.own(key, summary.ID, summary.Names...) {
			continue
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			inspected, err := r.engine.ContainerInspect(ctx, summary.ID)
			if errdefs.IsNotFound(err) {
				return // removed meanwhile
			}
			var seen runtime.Container
			if err == nil {
				seen, err = r.observe(ctx, inspected)
			} else {
				err = r.engine.failure(ctx, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
				return
			}
			list = append(list, seen)
		})
	}
	group.Wait()
	if len(errs) > 0 {
		return nil, errs[0]
	}
	r.ports.setComplete()
	slices.SortFunc(list, func(a, b runtime.Container) int {
		return cmp.Or(a.StartedAt.Compare(b.StartedAt), a.ID.Compare(b.ID))
	})
	return list, nil
}
