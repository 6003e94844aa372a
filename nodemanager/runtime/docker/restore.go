package docker

import (
	"context"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// restoreDelay is the time before a container is unpaused and its quotas are restored: "docker commit" pauses it for a
// moment too.
const restoreDelay = 5 * time.Second

// restoreLater unpauses a running container and restores its quotas, after restoreDelay, if docker commands have changed
// them.
func (r *Runtime) restoreLater(key id.Container, c container.InspectResponse) {
	if !c.State.Paused && r.quotas(c) == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.restoring[c.ID] {
		return
	}
	r.restoring[c.ID] = true
	r.measurements.Go(func() {
		if backoff.Sleep(r.lifetime, restoreDelay) != nil {
			return
		}
		r.mu.Lock()
		delete(r.restoring, c.ID)
		r.mu.Unlock()
		r.restore(key, c.ID)
	})
}

func (r *Runtime) restore(key id.Container, runtimeID string) {
	ctx, cancel := cleanup(r.lifetime)
	defer cancel()
	log := r.config.Logger.With("container", key.String())
	c, err := r.client.ContainerInspect(ctx, runtimeID)
	if err != nil || !c.State.Running {
		return // it has ended, or the engine is away and will be listed
	}
	if c.State.Paused {
		if err := r.client.ContainerUnpause(ctx, runtimeID); err != nil {
			log.Warn("cannot unpause a container that was paused from outside", "error", err)
		} else {
			log.Warn("a container was paused from outside; it is unpaused")
		}
	}
	quotas := r.quotas(c)
	if quotas == nil {
		return
	}
	if _, err = r.client.ContainerUpdate(ctx, runtimeID, *quotas); err == nil {
		log.Warn("the quotas of a container were changed from outside; they are restored")
		if c, err = r.client.ContainerInspect(ctx, runtimeID); err == nil && r.quotas(c) == nil {
			return
		}
	}
	log.Warn("cannot restore the quotas of a container", "error", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restoring[runtimeID] = true // once is enough
}

// quotas is the update that restores the quotas with which a container was started; nil if it still has them.
func (r *Runtime) quotas(c container.InspectResponse) *container.UpdateConfig {
	number := func(label string) int64 {
		n, _ := strconv.ParseInt(c.Config.Labels[label], 10, 64)
		return n
	}
	spec := runtime.Spec{CPUMillis: number(labelCPU), MemoryBytes: number(labelMemory), Pids: number(labelPids)}
	r.mu.Lock()
	e := r.engine
	r.mu.Unlock()
	if e == nil {
		return nil
	}
	has, want := c.HostConfig.Resources, resources(e, spec)
	pids := int64(0)
	if has.PidsLimit != nil {
		pids = *has.PidsLimit
	}
	changed := spec.CPUMillis > 0 && (has.NanoCPUs != want.NanoCPUs || has.CPUQuota != want.CPUQuota || has.CPUShares != want.CPUShares) ||
		spec.MemoryBytes > 0 && has.Memory != want.Memory ||
		spec.Pids > 0 && pids != spec.Pids
	if !changed && c.HostConfig.RestartPolicy.IsNone() {
		return nil
	}
	return &container.UpdateConfig{Resources: want, RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled}}
}

// changed handles a container that was paused or changed from outside.
func (r *Runtime) changed(ctx context.Context, key id.Container, runtimeID string) {
	if c, err := r.client.ContainerInspect(ctx, runtimeID); err == nil && c.State.Running {
		r.restoreLater(key, c)
	}
}
