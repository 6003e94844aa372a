package docker

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// restoreDelay is the time before a container is unpaused and its quotas are restored: "docker commit" pauses it for a
// moment too.
const restoreDelay = 5 * time.Second

// restorer owns the repair of containers that were paused, or whose quotas were changed, with the engine's own commands.
type restorer struct {
	engine *engine
	logger *slog.Logger
	// lifetime ends with close.
	lifetime context.Context
	end      context.CancelFunc
	running  sync.WaitGroup

	mu sync.Mutex
	// pending has, by the engine's id, the containers that are repaired after restoreDelay, and those of which a repair has failed.
	pending map[string]bool
}

func newRestorer(e *engine, logger *slog.Logger) *restorer {
	lifetime, end := context.WithCancel(context.Background())
	return &restorer{engine: e, logger: logger, lifetime: lifetime, end: end, pending: make(map[string]bool)}
}

// close ends what waits, and waits for a repair in progress.
func (r *restorer) close() {
	r.end()
	r.running.Wait()
}

// later unpauses a running container and restores its quotas, after restoreDelay, if docker commands have changed
// them.
func (r *restorer) later(key id.Container, c container.InspectResponse) {
	if !c.State.Paused && r.quotas(c) == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending[c.ID] {
		return
	}
	r.pending[c.ID] = true
	r.running.Go(func() {
		if backoff.Sleep(r.lifetime, restoreDelay) != nil {
			return
		}
		r.mu.Lock()
		delete(r.pending, c.ID)
		r.mu.Unlock()
		r.restore(key, c.ID)
	})
}

func (r *restorer) restore(key id.Container, runtimeID string) {
	ctx, cancel := cleanup(r.lifetime)
	defer cancel()
	log := r.logger.With("container", key.String())
	c, err := r.engine.ContainerInspect(ctx, runtimeID)
	if err != nil || !c.State.Running {
		return // it has ended, or the engine is away and will be listed
	}
	if c.State.Paused {
		if err := r.engine.ContainerUnpause(ctx, runtimeID); err != nil {
			log.Warn("cannot unpause a container that was paused from outside", "error", err)
		} else {
			log.Warn("a container was paused from outside; it is unpaused")
		}
	}
	quotas := r.quotas(c)
	if quotas == nil {
		return
	}
	if _, err = r.engine.ContainerUpdate(ctx, runtimeID, *quotas); err == nil {
		log.Warn("the quotas of a container were changed from outside; they are restored")
		if c, err = r.engine.ContainerInspect(ctx, runtimeID); err == nil && r.quotas(c) == nil {
			return
		}
	}
	log.Warn("cannot restore the quotas of a container", "error", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending[runtimeID] = true // once is enough
}

// quotas is the update that restores the quotas with which a container was started; nil if it still has them.
func (r *restorer) quotas(c container.InspectResponse) *container.UpdateConfig {
	number := func(label string) int64 {
		n, _ := strconv.ParseInt(c.Config.Labels[label], 10, 64)
		return n
	}
	spec := runtime.Spec{CPUMillis: number(labelCPU), MemoryBytes: number(labelMemory), Pids: number(labelPids)}
	known := r.engine.known()
	if known == nil {
		return nil
	}
	has, want := c.HostConfig.Resources, resources(known, spec)
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
func (r *restorer) changed(ctx context.Context, key id.Container, runtimeID string) {
	if c, err := r.engine.ContainerInspect(ctx, runtimeID); err == nil && c.State.Running {
		r.later(key, c)
	}
}
