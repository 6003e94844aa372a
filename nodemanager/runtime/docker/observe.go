package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/go-connections/nat"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/cgroup"
	"github.com/mammoth-os/mammoth/nodemanager/disk"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// These are the labels of a container. Those of the spec follow labelOwn.
const (
	labelZone      = "mammoth.zone"
	labelNode      = "mammoth.node"
	labelContainer = "mammoth.container"
	labelEpoch     = "mammoth.epoch"
	labelApp       = "mammoth.app"
	labelAttempt   = "mammoth.attempt"
	labelPorts     = "mammoth.ports"
	labelCPU       = "mammoth.cpu"
	labelMemory    = "mammoth.memory"
	labelPids      = "mammoth.pids"
	labelDisk      = "mammoth.disk"
	labelOwn       = "mammoth.label."
)

func name(key id.Container) string { return "mammoth-" + key.String() }

func (r *Runtime) labels(spec runtime.Spec, ports []runtime.Port) map[string]string {
	labels := map[string]string{
		labelZone:      r.config.Zone,
		labelNode:      r.config.Node,
		labelContainer: spec.ID.String(),
		labelEpoch:     strconv.FormatInt(spec.ID.Epoch, 10),
		labelApp:       spec.AppName,
		labelAttempt:   strconv.FormatInt(int64(spec.Attempt), 10),
		labelPorts:     formatPorts(ports),
		labelCPU:       strconv.FormatInt(spec.CPUMillis, 10),
		labelMemory:    strconv.FormatInt(spec.MemoryBytes, 10),
		labelPids:      strconv.FormatInt(spec.Pids, 10),
		labelDisk:      strconv.FormatInt(spec.DiskBytes, 10),
	}
	for key, value := range spec.Labels {
		labels[labelOwn+key] = value
	}
	return labels
}

func (r *Runtime) ownLabels(labels map[string]string) bool {
	return labels[labelZone] == r.config.Zone && labels[labelNode] == r.config.Node && labels[labelContainer] != ""
}

// formatPorts writes NAME/CONTAINER/HOST for each port, in the spec's order, separated by spaces. HOST is 0 if the engine
// chooses.
func formatPorts(ports []runtime.Port) string {
	words := make([]string, len(ports))
	for i, port := range ports {
		words[i] = fmt.Sprintf("%s/%d/%d", port.Name, port.Container, port.Host)
	}
	return strings.Join(words, " ")
}

func parsePorts(text string) []runtime.Port {
	var ports []runtime.Port
	for _, word := range strings.Fields(text) {
		parts := strings.Split(word, "/")
		if len(parts) != 3 {
			continue
		}
		inner, err := strconv.Atoi(parts[1])
		host, err2 := strconv.Atoi(parts[2])
		if err == nil && err2 == nil {
			ports = append(ports, runtime.Port{Name: parts[0], Container: inner, Host: host})
		}
	}
	return ports
}

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
			seen.Exit = r.exit(key, c.ID, c.State, r.endedOf(ctx, life, true))
			r.askForOOM(ctx, seen.Exit, life)
		}
		return seen, nil
	}
	if hostNetwork {
		seen.Address = "127.0.0.1"
		for _, port := range seen.Ports {
			r.config.Leases.Hold(key, port.Host)
		}
	} else if c.NetworkSettings != nil {
		for _, endpoint := range c.NetworkSettings.Networks {
			if endpoint.IPAddress != "" {
				seen.Address = endpoint.IPAddress
			}
		}
	}
	r.watch(seen, c)
	r.watchOOM(c)
	r.restoreLater(key, c)
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
	r.mu.Lock()
	// A process may have been killed at the quota long before the container was killed.
	exit.OOM = exit.Code != 0 && signal != sigkill && (state.OOMKilled || r.ooms[runtimeID])
	r.mu.Unlock()
	if message, err := os.ReadFile(r.verdictFile(key)); err == nil {
		exit.OOM, exit.DiskQuota, exit.Message = false, true, string(message)
	}
	return exit
}

// verdictFile records that a container was stopped for exceeding its disk quota, and its usage. It is written before the
// stop, so that no restart loses the reason.
func (r *Runtime) verdictFile(key id.Container) string {
	return filepath.Join(r.config.LogDir, key.String()+".exceeded")
}

// watch enforces the disk quota of a running container, if the storage driver does not.
func (r *Runtime) watch(seen runtime.Container, c container.InspectResponse) {
	quota, _ := strconv.ParseInt(c.Config.Labels[labelDisk], 10, 64)
	if quota <= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watched[c.ID] != nil {
		return
	}
	// The engine's own files that a container can write to are outside its layer.
	paths := []string{c.HostsPath, c.HostnamePath, c.ResolvConfPath}
	for _, m := range c.Mounts {
		if m.Type == mount.TypeVolume { // declared by the image
			paths = append(paths, m.Source)
		}
	}
	paths = slices.DeleteFunc(paths, func(path string) bool { return path == "" })
	layer := "" // the driver enforces it
	if c.HostConfig.StorageOpt["size"] == "" {
		if layer = c.GraphDriver.Data["UpperDir"]; layer != "" {
			paths = append(paths, layer)
		} else {
			layer = "?"
		}
	}
	subject := disk.Subject{ID: seen.ID, Quota: quota}
	measured := int64(-1)
	subject.Measure = func(ctx context.Context) (int64, error) {
		used, err := disk.Usage(paths...)
		if err != nil {
			return used, err
		}
		if layer == "" {
			unheld, err := r.unenforced(seen.Pid, &measured)
			return used + unheld, err
		}
		if layer == "?" { // only the engine knows where the layer is
			sized, _, err := r.client.ContainerInspectWithRaw(ctx, c.ID, true)
			if err != nil || sized.SizeRw == nil {
				return 0, errors.Join(err, errdefs.ErrUnavailable)
			}
			used += *sized.SizeRw
		}
		return used + r.deleted(seen.Pid), nil
	}
	subject.Exceeded = func(ctx context.Context, used int64) {
		err := r.recordVerdict(seen.ID, used, quota)
		if killed := r.client.ContainerKill(ctx, c.ID, "SIGKILL"); !errdefs.IsNotFound(killed) && !errdefs.IsConflict(killed) {
			err = errors.Join(err, killed)
		}
		if err != nil {
			r.config.Logger.Error("cannot stop a container over its disk quota", "container", seen.ID.String(), "error", err)
		}
	}
	r.watched[c.ID] = func() {
		if layer != "?" { // otherwise only the engine could measure it
			r.measureAtEnd(subject, paths)
		}
	}
	r.watcher.Add(subject)
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

// expectOOM has the kernel report kills at the memory quota of a container that is about to be started. It may be killed before the
// start is over, and the engine, which begins to look at the same time, does not always know why. watchOOM, unwatchOOM or dropOOM follows.
func (r *Runtime) expectOOM(runtimeID string) {
	if r.hierarchy == nil {
		return
	}
	w := &oomWatch{pid: make(chan int, 1), done: make(chan struct{})}
	r.mu.Lock()
	r.oomWatches[runtimeID] = w
	r.mu.Unlock()
	r.measurements.Go(func() {
		defer close(w.done)
		for {
			watch, err := r.hierarchy.FindOOM(runtimeID)
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
				w.watch = r.registerOOM(runtimeID, pid)
				return
			case <-wait:
			}
		}
	})
}

// watchOOM has the kernel report kills at a running container's memory quota. The engine reports them too, but may do so after it has
// reported the end.
func (r *Runtime) watchOOM(c container.InspectResponse) {
	if r.hierarchy == nil || c.State.Pid == 0 || c.HostConfig.Memory == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.oomWatches[c.ID]; w != nil {
		w.settle(c.State.Pid)
		return
	}
	w := &oomWatch{pid: make(chan int, 1), done: make(chan struct{})}
	r.oomWatches[c.ID] = w
	r.measurements.Go(func() {
		defer close(w.done)
		w.watch = r.registerOOM(c.ID, c.State.Pid)
	})
}

// registerOOM returns nil if the container has ended, or the kernel does not report kills.
func (r *Runtime) registerOOM(runtimeID string, pid int) *cgroup.OOMWatch {
	if pid == 0 {
		return nil
	}
	group, err := r.hierarchy.OfProcess(pid)
	if err != nil {
		return nil
	}
	watch, err := group.WatchOOM()
	switch {
	case errdefs.IsNotFound(err), errdefs.IsNotImplemented(err):
		return nil
	case err != nil:
		r.config.Logger.Warn("only the engine reports kills at a container's memory quota", "container", runtimeID, "error", err)
		return nil
	case !strings.Contains(watch.Path(), runtimeID): // It has ended, and another process has its number.
		watch.Close()
		return nil
	}
	return watch
}

// unwatchOOM records what the kernel has done at the memory quota of a container that has ended.
func (r *Runtime) unwatchOOM(runtimeID string) {
	r.mu.Lock()
	w := r.oomWatches[runtimeID]
	delete(r.oomWatches, runtimeID)
	r.mu.Unlock()
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
	r.mu.Lock()
	r.ooms[runtimeID] = r.ooms[runtimeID] || killed
	r.mu.Unlock()
}

// dropOOM ends the watch of a container whose start has failed.
func (r *Runtime) dropOOM(runtimeID string) {
	r.mu.Lock()
	w := r.oomWatches[runtimeID]
	delete(r.oomWatches, runtimeID)
	r.mu.Unlock()
	if w != nil {
		w.close()
	}
}

// unenforced measures a container during each time in which the storage driver enforces no quotas, and once after it. At
// other times the driver enforces them, and it returns zero. measured is the number of such times after which it was
// measured.
func (r *Runtime) unenforced(pid int, measured *int64) (int64, error) {
	r.mu.Lock()
	known := r.engine
	r.mu.Unlock()
	if known == nil || known.pool == nil {
		return 0, nil
	}
	holds := known.pool.Enforces()
	if !holds {
		begun, err := known.pool.Rescan()
		if err != nil {
			r.config.Logger.Error("the storage driver does not enforce disk quotas; each container is measured", "error", err)
		} else if begun {
			r.config.Logger.Warn("the quota groups of the engine's btrfs are inconsistent; they are rescanned, and each container is measured")
		}
	}
	recounts := known.pool.Rescans()
	if holds && *measured == recounts {
		return 0, nil
	}
	used, err := disk.UsageOfRoot(pid)
	if err == nil && holds {
		*measured = recounts
	}
	return used + r.deleted(pid), err
}

// recordVerdict stores that a container is over its quota.
func (r *Runtime) recordVerdict(key id.Container, used, quota int64) error {
	if err := os.MkdirAll(r.config.LogDir, 0o750); err != nil {
		return err
	}
	return os.WriteFile(r.verdictFile(key), []byte(disk.Exceeded(used, quota)), 0o640)
}

// measureAtEnd measures an ended container, which may have exceeded its quota after the watcher's last measurement. If there are
// more files than can be counted soon, the watcher has found them earlier.
func (r *Runtime) measureAtEnd(subject disk.Subject, paths []string) {
	used, err := disk.UsageSoon(paths...)
	if err != nil || used <= subject.Quota {
		return
	}
	if err := r.recordVerdict(subject.ID, used, subject.Quota); err != nil {
		r.config.Logger.Error("cannot record that a container exceeded its disk quota", "container", subject.ID.String(), "error", err)
	}
}

// deleted is the size of deleted files that the container's processes have open.
func (r *Runtime) deleted(pid int) int64 {
	if r.hierarchy == nil || pid == 0 {
		return 0
	}
	group, err := r.hierarchy.OfProcess(pid)
	if err != nil {
		return 0
	}
	members, err := group.Pids()
	if err != nil {
		return 0
	}
	return disk.Deleted(members)
}

// unwatch ends what observe has started, after a last measurement.
func (r *Runtime) unwatch(key id.Container, runtimeID string) {
	r.watcher.Remove(key)
	r.mu.Lock()
	look := r.watched[runtimeID]
	r.mu.Unlock()
	if look != nil {
		look()
	}
	r.unwatchOOM(runtimeID)
	r.config.Leases.Release(key)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.watched, runtimeID)
}

// List implements runtime.Runtime. It needs one inspect for each container: a list does not contain how one has ended.
func (r *Runtime) List(ctx context.Context) ([]runtime.Container, error) {
	summaries, err := r.client.ContainerList(ctx, container.ListOptions{All: true, Filters: r.filter()})
	if err != nil {
		return nil, r.failure(ctx, err)
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
		if err != nil || !r.own(key, summary.ID, summary.Names...) {
			continue
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			inspected, err := r.client.ContainerInspect(ctx, summary.ID)
			if errdefs.IsNotFound(err) {
				return // removed meanwhile
			}
			var seen runtime.Container
			if err == nil {
				seen, err = r.observe(ctx, inspected)
			} else {
				err = r.failure(ctx, err)
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
	r.mu.Lock()
	r.portsKnown = true
	r.mu.Unlock()
	slices.SortFunc(list, func(a, b runtime.Container) int {
		return cmp.Or(a.StartedAt.Compare(b.StartedAt), a.ID.Compare(b.ID))
	})
	return list, nil
}

// filter selects this node's containers.
func (r *Runtime) filter() filters.Args {
	return filters.NewArgs(
		filters.Arg("label", labelZone+"="+r.config.Zone),
		filters.Arg("label", labelNode+"="+r.config.Node),
		filters.Arg("label", labelContainer),
	)
}
