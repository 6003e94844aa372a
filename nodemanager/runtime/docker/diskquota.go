package docker

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/cgroup"
	"github.com/mammoth-os/mammoth/nodemanager/disk"
)

// diskQuotas owns the enforcement of the disk quotas of running containers where the storage driver does not enforce them, and the
// record of which containers exceeded theirs.
type diskQuotas struct {
	engine  *engine
	watcher *disk.Watcher
	// hierarchy is nil if the host's control groups cannot be read.
	hierarchy *cgroup.Hierarchy
	// dir has the records.
	dir    string
	logger *slog.Logger

	mu sync.Mutex
	// watched has, by the engine's id, the running containers whose disk quota the watcher enforces, and the function that
	// measures each at its end.
	watched map[string]func()
}

// verdictFile records that a container was stopped for exceeding its disk quota, and its usage. It is written before the
// stop, so that no restart loses the reason.
func (q *diskQuotas) verdictFile(key id.Container) string {
	return filepath.Join(q.dir, key.String()+".exceeded")
}

// watch enforces the disk quota of a running container, if the storage driver does not.
func (q *diskQuotas) watch(key id.Container, c container.InspectResponse) {
	quota, _ := strconv.ParseInt(c.Config.Labels[labelDisk], 10, 64)
	if quota <= 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.watched[c.ID] != nil {
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
	subject := disk.Subject{ID: key, Quota: quota}
	measured := int64(-1)
	subject.Measure = func(ctx context.Context) (int64, error) {
		used, err := disk.Usage(paths...)
		if err != nil {
			return used, err
		}
		if layer == "" {
			unheld, err := q.unenforced(c.State.Pid, &measured)
			return used + unheld, err
		}
		if layer == "?" { // only the engine knows where the layer is
			sized, _, err := q.engine.ContainerInspectWithRaw(ctx, c.ID, true)
			if err != nil || sized.SizeRw == nil {
				return 0, errors.Join(err, errdefs.ErrUnavailable)
			}
			used += *sized.SizeRw
		}
		return used + q.deleted(c.State.Pid), nil
	}
	subject.Exceeded = func(ctx context.Context, used int64) {
		err := q.recordVerdict(key, used, quota)
		if killed := q.engine.ContainerKill(ctx, c.ID, "SIGKILL"); !errdefs.IsNotFound(killed) && !errdefs.IsConflict(killed) {
			err = errors.Join(err, killed)
		}
		if err != nil {
			q.logger.Error("cannot stop a container over its disk quota", "container", key.String(), "error", err)
		}
	}
	q.watched[c.ID] = func() {
		if layer != "?" { // otherwise only the engine could measure it
			q.measureAtEnd(subject, paths)
		}
	}
	q.watcher.Add(subject)
}

// unenforced measures a container during each time in which the storage driver enforces no quotas, and once after it. At
// other times the driver enforces them, and it returns zero. measured is the number of such times after which it was
// measured.
func (q *diskQuotas) unenforced(pid int, measured *int64) (int64, error) {
	known := q.engine.known()
	if known == nil || known.pool == nil {
		return 0, nil
	}
	holds := known.pool.Enforces()
	if !holds {
		begun, err := known.pool.Rescan()
		if err != nil {
			q.logger.Error("the storage driver does not enforce disk quotas; each container is measured", "error", err)
		} else if begun {
			q.logger.Warn("the quota groups of the engine's btrfs are inconsistent; they are rescanned, and each container is measured")
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
	return used + q.deleted(pid), err
}

// recordVerdict stores that a container is over its quota.
func (q *diskQuotas) recordVerdict(key id.Container, used, quota int64) error {
	if err := os.MkdirAll(q.dir, 0o750); err != nil {
		return err
	}
	return os.WriteFile(q.verdictFile(key), []byte(disk.Exceeded(used, quota)), 0o640)
}

// measureAtEnd measures an ended container, which may have exceeded its quota after the watcher's last measurement. If there are
// more files than can be counted soon, the watcher has found them earlier.
func (q *diskQuotas) measureAtEnd(subject disk.Subject, paths []string) {
	used, err := disk.UsageSoon(paths...)
	if err != nil || used <= subject.Quota {
		return
	}
	if err := q.recordVerdict(subject.ID, used, subject.Quota); err != nil {
		q.logger.Error("cannot record that a container exceeded its disk quota", "container", subject.ID.String(), "error", err)
	}
}

// deleted is the size of deleted files that the container's processes have open.
func (q *diskQuotas) deleted(pid int) int64 {
	if q.hierarchy == nil || pid == 0 {
		return 0
	}
	group, err := q.hierarchy.OfProcess(pid)
	if err != nil {
		return 0
	}
	members, err := group.Pids()
	if err != nil {
		return 0
	}
	return disk.Deleted(members)
}

// unwatch ends the enforcement for a container that has ended, after a last measurement.
func (q *diskQuotas) unwatch(key id.Container, runtimeID string) {
	q.watcher.Remove(key)
	q.mu.Lock()
	measure := q.watched[runtimeID]
	q.mu.Unlock()
	if measure != nil {
		measure()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.watched, runtimeID)
}

// verdict is the sentence about a container that was stopped for exceeding its disk quota, or had exceeded it when it ended.
func (q *diskQuotas) verdict(key id.Container) (text string, exceeded bool) {
	message, err := os.ReadFile(q.verdictFile(key))
	return string(message), err == nil
}

// forget deletes the record of a container that was removed.
func (q *diskQuotas) forget(key id.Container) error { return removeFile(q.verdictFile(key)) }

func (q *diskQuotas) close() { q.watcher.Close() }
