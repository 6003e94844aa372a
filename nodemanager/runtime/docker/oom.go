package docker

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"

	"github.com/mammoth-os/mammoth/nodemanager/cgroup"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// oomTimeout is how long an end by SIGKILL from an unknown sender waits for the engine's event about the memory quota.
const oomTimeout = 500 * time.Millisecond

// oomKills owns what is known of processes that the kernel killed at the memory quotas of containers, and the watches that learn
// it from the kernel.
type oomKills struct {
	engine *engine
	// hierarchy is nil if the host's control groups cannot be read.
	hierarchy     *cgroup.Hierarchy
	logger        *slog.Logger
	registrations sync.WaitGroup

	mu sync.Mutex
	// watches observe, by the engine's id, what the kernel does at the memory quota of running containers; the result is in known once
	// a container has ended. There is none for a container that ended at once: then only the engine reports it, and perhaps late.
	watches map[string]*oomWatch
	// known is, by the engine's id, whether the kernel killed a process of the container at its memory quota, if known.
	known map[string]bool
}

// oomWatch is the registration for kills at a container's memory quota. It takes the kernel some ten milliseconds, for which nobody
// waits.
type oomWatch struct {
	// pid tells the registration the container's process, or that it is not to go on: zero.
	pid chan int
	// done is closed at the end of the registration; then watch is nil if it failed.
	done  chan struct{}
	watch *cgroup.OOMWatch
}

// settle ends the search for a container's group. It may be called several times.
func (w *oomWatch) settle(pid int) {
	select {
	case w.pid <- pid:
	default:
	}
}

func (w *oomWatch) close() {
	w.settle(0)
	<-w.done
	if w.watch != nil {
		w.watch.Close()
	}
}

// findInterval is how often the group of a container that is being started is looked for.
const findInterval = 5 * time.Millisecond

// expect has the kernel report kills at the memory quota of a container that is about to be started. It may be killed before the
// start is over, and the engine, which begins to look at the same time, does not always know why. watch, ended or drop follows.
func (o *oomKills) expect(runtimeID string) {
	if o.hierarchy == nil {
		return
	}
	w := &oomWatch{pid: make(chan int, 1), done: make(chan struct{})}
	o.mu.Lock()
	o.watches[runtimeID] = w
	o.mu.Unlock()
	o.registrations.Go(func() {
		defer close(w.done)
		for {
			watch, err := o.hierarchy.FindOOM(runtimeID)
			if err == nil {
				w.watch = watch
				return
			}
			wait := time.After(findInterval)
			if !errdefs.IsNotFound(err) {
				wait = nil
			}
			select {
			case pid := <-w.pid:
				w.watch = o.register(runtimeID, pid)
				return
			case <-wait:
			}
		}
	})
}

// watch has the kernel report kills at a running container's memory quota. The engine reports them too, but may do so after it has
// reported the end.
func (o *oomKills) watch(c container.InspectResponse) {
	if o.hierarchy == nil || c.State.Pid == 0 || c.HostConfig.Memory == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if w := o.watches[c.ID]; w != nil {
		w.settle(c.State.Pid)
		return
	}
	w := &oomWatch{pid: make(chan int, 1), done: make(chan struct{})}
	o.watches[c.ID] = w
	o.registrations.Go(func() {
		defer close(w.done)
		w.watch = o.register(c.ID, c.State.Pid)
	})
}

// register returns nil if the container has ended, or the kernel does not report kills.
func (o *oomKills) register(runtimeID string, pid int) *cgroup.OOMWatch {
	if pid == 0 {
		return nil
	}
	group, err := o.hierarchy.OfProcess(pid)
	if err != nil {
		return nil
	}
	watch, err := group.WatchOOM()
	switch {
	case errdefs.IsNotFound(err), errdefs.IsNotImplemented(err):
		return nil
	case err != nil:
		o.logger.Warn("only the engine reports kills at a container's memory quota", "container", runtimeID, "error", err)
		return nil
	case !strings.Contains(watch.Path(), runtimeID): // It has ended, and another process has its number.
		watch.Close()
		return nil
	}
	return watch
}

// ended records what the kernel has done at the memory quota of a container that has ended.
func (o *oomKills) ended(runtimeID string) {
	o.mu.Lock()
	w := o.watches[runtimeID]
	delete(o.watches, runtimeID)
	o.mu.Unlock()
	if w == nil {
		return
	}
	w.settle(0)
	<-w.done
	if w.watch == nil {
		return
	}
	killed := w.watch.Killed()
	w.watch.Close()
	o.mu.Lock()
	o.known[runtimeID] = o.known[runtimeID] || killed
	o.mu.Unlock()
}

// drop ends the watch of a container whose start has failed.
func (o *oomKills) drop(runtimeID string) {
	o.mu.Lock()
	w := o.watches[runtimeID]
	delete(o.watches, runtimeID)
	o.mu.Unlock()
	if w != nil {
		w.close()
	}
}

// ask asks the engine whether a container that was killed by an unknown sender was killed at its memory quota. A busy
// engine reports that after the end, and its state of the container does not have it by then.
func (o *oomKills) ask(ctx context.Context, exit *runtime.Exit, l runPeriod) {
	o.mu.Lock()
	_, asked := o.known[l.runtimeID]
	o.mu.Unlock()
	if asked || exit.Code != 128+sigkill || exit.Signal != 0 || exit.OOM || exit.DiskQuota {
		return
	}
	// A start is reported after the fact, so the kill may precede it.
	err := o.engine.queryEvents(ctx, l.runtimeID, events.ActionOOM, l.ended.Add(-stopSignalTime), l.ended.Add(oomTimeout), func(events.Message) bool {
		exit.OOM = true
		return false
	})
	if err != nil {
		o.logger.Warn("cannot learn whether a container was killed at its memory quota", "container", l.runtimeID, "error", err)
		return
	}
	o.mu.Lock()
	o.known[l.runtimeID] = o.known[l.runtimeID] || exit.OOM
	o.mu.Unlock()
}

// killed reports whether the kernel is known to have killed a process of a container at its memory quota.
func (o *oomKills) killed(runtimeID string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.known[runtimeID]
}

// reported records the engine's own report of a kill.
func (o *oomKills) reported(runtimeID string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.known[runtimeID] = true
}

// started forgets how an earlier run of a container ended. A kill that is known may belong to this run: a start is reported after
// the fact.
func (o *oomKills) started(runtimeID string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.known[runtimeID] {
		delete(o.known, runtimeID)
	}
}

// forget forgets a container that was removed.
func (o *oomKills) forget(runtimeID string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.known, runtimeID)
}

// close ends all watches.
func (o *oomKills) close() {
	o.mu.Lock()
	for _, w := range o.watches {
		w.close()
	}
	clear(o.watches)
	o.mu.Unlock()
	o.registrations.Wait()
}
