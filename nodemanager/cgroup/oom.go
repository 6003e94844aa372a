package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// removalWithin is how long to wait for the kernel's notice that a group was removed.
const removalWithin = 200 * time.Millisecond

// OOMWatch counts the processes of a group that the kernel has killed at the memory quota, also after the group was removed. Its
// methods belong to one goroutine.
//
// The kernel adds one to the eventfd for kills at each kill, and one more some time after the group's folder is gone. To tell them
// apart there is a second eventfd, for a memory use that is never reached: only the removal is counted on it. The kernel notifies
// the eventfds of a removed group in the reverse order of their registration. The one for kills is registered last, so its count is
// complete once the other one has the removal (mm/memcontrol-v1.c, memcg1_css_offline).
type OOMWatch struct {
	dir string
	// kills and removals are eventfds.
	kills, removals int
	// counted is the sum of what was read from kills so far; before is the number of kills before the watch began.
	counted, before uint64
	// removed is true once the kernel has notified removals.
	removed bool
}

// WatchOOM begins a watch. It fails with errdefs.ErrNotFound if the group is gone, and with errdefs.ErrNotImplemented in version 2,
// where the count of a removed group cannot be read.
func (g *Group) WatchOOM() (*OOMWatch, error) { return g.main.watchOOM() }

func (*v2) watchOOM() (*OOMWatch, error) { return nil, errNoOOMWatch }

var errNoOOMWatch = fmt.Errorf("kills at the memory quota of a group of version 2: %w", errdefs.ErrNotImplemented)

// FindOOM begins a watch of the group that an engine has created for a container. It finds the group by the engine's id at the
// second level of the tree, since a process that has just been started may be killed before /proc can be asked for its group. It
// fails with errdefs.ErrNotFound while there is no such group, and with errdefs.ErrNotImplemented in version 2.
func (h *Hierarchy) FindOOM(runtimeID string) (*OOMWatch, error) {
	top, isV1 := h.Open("/").main.(*v1)
	if !isV1 {
		return nil, errNoOOMWatch
	}
	dir, err := top.dir(cgroup1.Memory)
	if err != nil {
		return nil, err
	}
	parents, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list control groups: %w", err)
	}
	for _, parent := range parents {
		for _, name := range []string{runtimeID, "docker-" + runtimeID + ".scope"} {
			if parent.IsDir() && exists(filepath.Join(dir, parent.Name(), name), "") {
				return h.Open(filepath.Join("/", parent.Name(), name)).WatchOOM()
			}
		}
	}
	return nil, fmt.Errorf("the control group of container %s: %w", runtimeID, errdefs.ErrNotFound)
}

func (g *v1) watchOOM() (*OOMWatch, error) {
	dir, err := g.dir(cgroup1.Memory)
	if err != nil {
		return nil, err
	}
	w := &OOMWatch{dir: dir, kills: -1, removals: -1}
	// No group ever uses so much memory.
	if w.removals, err = notify(dir, "memory.usage_in_bytes", " 0x7ffffffffffff000"); err == nil {
		w.kills, err = notify(dir, "memory.oom_control", "")
	}
	if err == nil {
		var before int64
		before, err = g.oomKills()
		w.before = uint64(before)
	}
	if err != nil {
		w.Close()
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil, fmt.Errorf("control group: %w", errdefs.ErrNotFound)
		}
		return nil, err
	}
	return w, nil
}

// notify returns an eventfd on which the kernel counts an event of a group.
func notify(dir, file, argument string) (int, error) {
	source, err := os.Open(filepath.Join(dir, file))
	if err != nil {
		return -1, err
	}
	defer source.Close()
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, err
	}
	registration := fmt.Sprintf("%d %d%s", event, source.Fd(), argument)
	if err := os.WriteFile(filepath.Join(dir, "cgroup.event_control"), []byte(registration), 0); err != nil {
		_ = unix.Close(event)
		return -1, err
	}
	return event, nil
}

// Killed reports whether the kernel has killed a process at the quota. Call it only when nothing runs in the group any more.
func (w *OOMWatch) Killed() bool {
	if w.before > 0 {
		return true
	}
	w.counted += drain(w.kills)
	if exists(w.dir, "") {
		return w.counted > 0
	}
	for deadline := time.Now().Add(removalWithin); !w.removed && time.Now().Before(deadline); {
		if w.removed = drain(w.removals) > 0; !w.removed {
			<-time.After(time.Millisecond)
		}
	}
	w.counted += drain(w.kills)
	return w.counted > 1
}

// Path is the group's folder.
func (w *OOMWatch) Path() string { return w.dir }

// Close ends the watch.
func (w *OOMWatch) Close() {
	for _, event := range []int{w.kills, w.removals} {
		if event >= 0 {
			_ = unix.Close(event)
		}
	}
	w.kills, w.removals = -1, -1
}

// drain reads the count of an eventfd and resets it.
func drain(event int) uint64 {
	var count [8]byte
	if n, err := unix.Read(event, count[:]); n != len(count) || err != nil {
		return 0 // nothing was counted
	}
	return binary.NativeEndian.Uint64(count[:])
}
