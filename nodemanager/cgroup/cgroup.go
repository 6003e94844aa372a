// Package cgroup makes, limits, measures and kills the control groups of containers, in version 1, in version 2, and
// in the hybrid of both. It is a thin layer over containerd/cgroups, which speaks to the kernel: this package makes
// the two versions one, and does itself only what the library leaves open. Each such place says why.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Where the library, and every distribution, has control groups; in a hybrid version 2 is below.
const (
	root          = "/sys/fs/cgroup"
	hybridUnified = root + "/unified"
)

// Hierarchy is the host's tree, or trees, of control groups.
type Hierarchy struct {
	// v1 are the controllers of version 1; none means version 2.
	v1 []cgroup1.Subsystem
	// mount is where version 2 is; beside version 1 it has no controllers, and is used for cgroup.kill alone.
	mount string
}

// Detect finds what the host has. ErrFailedPrecondition if a controller is missing.
func Detect() (*Hierarchy, error) {
	h := &Hierarchy{}
	var missing []string
	switch cgroups.Mode() {
	case cgroups.Unified:
		h.mount = root
		manager, err := cgroup2.Load("/", cgroup2.WithMountpoint(root))
		if err != nil {
			return nil, err
		}
		present, err := manager.RootControllers()
		if err != nil {
			return nil, fmt.Errorf("controllers: %w", err)
		}
		for _, controller := range []string{"cpu", "memory", "pids"} {
			if !slices.Contains(present, controller) {
				missing = append(missing, controller)
			}
		}
	case cgroups.Hybrid:
		h.mount = hybridUnified
		h.v1, missing = controllers(root)
	case cgroups.Legacy:
		h.v1, missing = controllers(root)
	default:
		missing = []string{"anything"}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("this host has no control groups for %s: %w", strings.Join(missing, ", "), errdefs.ErrFailedPrecondition)
	}
	return h, nil
}

// Version is 1 or 2. A hybrid, whose controllers are those of version 1, is 1.
func (h *Hierarchy) Version() int {
	if len(h.v1) > 0 {
		return 1
	}
	return 2
}

// Limits of a group; zero is none.
type Limits struct {
	// CPUMillis are thousandths of a core: a hard quota, and the share when there is not enough for all.
	CPUMillis int64
	// MemoryBytes bounds memory; there is no swap beyond it.
	MemoryBytes int64
	Pids        int64
}

// period of the cpu quota in microseconds, and the least that the kernel takes for a quota.
const (
	period   = 100_000
	minQuota = 1_000
)

// resources are the limits as a container's specification has them, but for swap: that takes a look at the group.
// Every controller is named, also without a limit, so that version 2 measures what it does not bound.
func (l Limits) resources() *specs.LinuxResources {
	r := &specs.LinuxResources{CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{}, Pids: &specs.LinuxPids{Limit: &l.Pids}}
	if l.CPUMillis > 0 {
		r.CPU.Period = new(uint64(period))
		r.CPU.Quota = new(max(l.CPUMillis*period/1000, minQuota))
		r.CPU.Shares = new(uint64(max(l.CPUMillis*1024/1000, 2)))
	}
	if l.MemoryBytes > 0 {
		r.Memory.Limit = &l.MemoryBytes
	}
	return r
}

// Create makes the group at path, with its parents, and sets its limits. One that exists gets the limits.
func (h *Hierarchy) Create(path string, limits Limits) (*Group, error) {
	g := h.Open(path)
	err := g.create(limits)
	for range 3 {
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		// Somebody who ended at this moment has pruned the parents.
		err = g.create(limits)
	}
	if err != nil {
		return nil, errors.Join(precondition(err), g.Delete())
	}
	return g, nil
}

func (g *Group) create(limits Limits) error {
	if err := g.accounts.create(limits); err != nil || g.beside == nil {
		return err
	}
	return g.beside.create(Limits{})
}

// Prune removes the group at path and those above it that are empty, up to the first one with a process or a group in
// it. The kernel decides that: what others put there meanwhile stays.
func (h *Hierarchy) Prune(path string) error {
	for path = filepath.Join("/", path); path != "/"; path = filepath.Dir(path) {
		g := h.Open(path)
		err := g.accounts.removeAlone()
		if g.beside != nil {
			err = errors.Join(err, g.beside.removeAlone())
		}
		if err != nil {
			return fmt.Errorf("remove control group %s: %w", path, err)
		}
	}
	return nil
}

// removeEmpty removes the folder of a group that nothing is in.
func removeEmpty(dir string) error {
	switch err := unix.Rmdir(dir); {
	case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENOTEMPTY):
		return nil
	default:
		return err
	}
}

// precondition marks what a NodeManager runs into that is not root, or has control groups only to look at.
func precondition(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EROFS) {
		return fmt.Errorf("control groups cannot be changed here (%w): %w", err, errdefs.ErrFailedPrecondition)
	}
	return err
}

// Open is the group at path, whether it exists or not.
func (h *Hierarchy) Open(path string) *Group {
	path = filepath.Join("/", path)
	if h.Version() == 2 {
		return &Group{accounts: &v2{mount: h.mount, path: path}}
	}
	g := &Group{accounts: &v1{controllers: h.v1, path: cgroup1.StaticPath(path)}}
	if h.mount != "" {
		g.beside = &v2{mount: h.mount, path: path, bare: true}
	}
	return g
}

// OfProcess is the group that a process is in. ErrNotFound if there is no such process.
func (h *Hierarchy) OfProcess(pid int) (*Group, error) {
	paths, unified, err := cgroups.ParseCgroupFileUnified(fmt.Sprintf("/proc/%d/cgroup", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("process %d: %w", pid, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	return h.at(paths, unified), nil
}

// at is the group that has a path of its own in each controller of version 1, and one in version 2.
func (h *Hierarchy) at(paths map[string]string, unified string) *Group {
	if h.Version() == 2 {
		return &Group{accounts: &v2{mount: h.mount, path: unified}}
	}
	// The library's own PidPath gives up if any controller of the kernel is not mounted, also one that nobody needs.
	g := &Group{accounts: &v1{controllers: h.v1, path: func(controller cgroup1.Name) (string, error) {
		if path, ok := paths[string(controller)]; ok {
			return path, nil
		}
		return "", cgroup1.ErrControllerNotActive
	}}}
	// In a hybrid most engines leave their containers in the root.
	if h.mount != "" && unified != "" && unified != "/" {
		g.beside = &v2{mount: h.mount, path: unified, bare: true}
	}
	return g
}

// version is a group in the files of one version. A group that is not there is errdefs.ErrNotFound to all methods
// but create and removeAlone.
type version interface {
	create(Limits) error
	add(pid int) error
	pids() ([]int, error)
	freeze() error
	thaw() error
	// remove removes the group and the empty ones below it.
	remove() error
	// removeAlone removes the group unless a process or another group is in it, and that it is not there is no error.
	removeAlone() error
	oomKills() (int64, error)
	watchOOM() (*OOMWatch, error)
	usage() (Usage, error)
	limits() (Limits, error)
}

// Group is one control group.
type Group struct {
	// accounts is the group where its controllers are.
	accounts version
	// beside is the same group in the other tree of a hybrid; nil where there is one tree.
	beside *v2
}

// Add moves a process into the group; its later children are born in it.
func (g *Group) Add(pid int) error {
	if err := g.accounts.add(pid); err != nil || g.beside == nil {
		return err
	}
	return g.beside.add(pid)
}

// Pids are the processes of the group and of those below it; none if the group does not exist.
func (g *Group) Pids() ([]int, error) {
	var members []int
	var err error
	for range 10 {
		members, err = g.accounts.pids()
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			break
		}
		// A group below this one has just been removed; what was not read for that is there in another look.
	}
	return members, ignoreNotFound(err)
}

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// Signal sends a signal to every process of the group once.
func (g *Group) Signal(signal unix.Signal) error {
	members, err := g.Pids()
	for _, pid := range members {
		if kill := unix.Kill(pid, signal); kill != nil && !errors.Is(kill, unix.ESRCH) {
			err = errors.Join(err, kill)
		}
	}
	return err
}

// Kill kills every process of the group, whatever they do about it, and returns when none is left. The library has
// a kill for version 2 only, which does not wait.
func (g *Group) Kill(ctx context.Context) error {
	wait := time.Millisecond
	for {
		members, err := g.Pids()
		if err != nil || len(members) == 0 {
			return err
		}
		if err := g.killOnce(); err != nil {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%d processes are still there: %w", len(members), context.Cause(ctx))
		case <-timer.C:
		}
		wait = min(2*wait, 50*time.Millisecond)
	}
}

func (g *Group) killOnce() error {
	unified := g.beside
	if unified == nil {
		unified, _ = g.accounts.(*v2)
	}
	if unified != nil {
		if done, err := unified.kill(); done || err != nil {
			return ignoreNotFound(err)
		}
	}
	// Frozen processes cannot fork away from under the signals. Where the kernel cannot freeze, the next round meets
	// those that could.
	frozen := g.accounts.freeze()
	killed := g.Signal(unix.SIGKILL)
	if frozen != nil {
		return killed
	}
	return errors.Join(killed, ignoreNotFound(g.accounts.thaw()))
}

// Delete removes a group without processes, and those below it. One that does not exist is not an error.
func (g *Group) Delete() error {
	err := ignoreNotFound(g.accounts.remove())
	if g.beside == nil {
		return err
	}
	return errors.Join(err, ignoreNotFound(g.beside.remove()))
}

// OOMKills is how many processes of the group the kernel has killed at the memory quota.
func (g *Group) OOMKills() (int64, error) { return g.accounts.oomKills() }

// Usage is what a group uses.
type Usage struct {
	// CPU is the time spent since the group was made.
	CPU         time.Duration
	MemoryBytes int64
	Pids        int64
	// Periods of the cpu quota (100 ms) in which something ran, and in how many of them the quota was used up.
	Periods, Throttled int64
}

// Usage measures the group.
func (g *Group) Usage() (Usage, error) { return g.accounts.usage() }

// Limits reads the limits back from the kernel; zero is none.
func (g *Group) Limits() (Limits, error) { return g.accounts.limits() }
