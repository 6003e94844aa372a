// Package cgroup creates, limits, measures and kills the control groups of containers, in version 1, version 2 and the
// hybrid of both. It is a thin layer over containerd/cgroups: it hides the difference between the versions and implements
// what the library lacks, each time with a comment that says why.
//
// It owns no group: whoever creates one kills and removes it.
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

// The library and every distribution have control groups here; in a hybrid, version 2 is below.
const (
	root          = "/sys/fs/cgroup"
	hybridUnified = root + "/unified"
)

// Hierarchy is the host's tree or trees of control groups.
type Hierarchy struct {
	// v1 are the controllers of version 1; none means version 2.
	v1 []cgroup1.Subsystem
	// mount is the root of version 2. Beside version 1 it has no controllers and is used for cgroup.kill only.
	mount string
}

// Detect examines the host. It fails with ErrFailedPrecondition if a controller is missing.
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
	// CPUMillis is in thousandths of a core: a hard quota, and the share when cpu is scarce.
	CPUMillis int64
	// MemoryBytes limits memory, without swap.
	MemoryBytes int64
	Pids        int64
}

// period is the period of the cpu quota in microseconds, and minQuota the kernel's smallest quota.
const (
	period   = 100_000
	minQuota = 1_000
)

// resources converts the limits, without swap, which depends on the group. Every controller is listed, so that version 2
// also measures what is unlimited.
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

// Create creates the group at path, with its parents, and sets its limits. An existing group gets the limits.
func (h *Hierarchy) Create(path string, limits Limits) (*Group, error) {
	g := h.Open(path)
	err := g.create(limits)
	for range 3 {
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		// A concurrent Prune may have removed the parents.
		err = g.create(limits)
	}
	if err != nil {
		return nil, errors.Join(precondition(err), g.Delete())
	}
	return g, nil
}

func (g *Group) create(limits Limits) error {
	if err := g.main.create(limits); err != nil || g.unified == nil {
		return err
	}
	return g.unified.create(Limits{})
}

// Prune removes the group at path and its empty ancestors, up to the first one with a process or a group. The kernel decides
// that, so groups of others stay.
func (h *Hierarchy) Prune(path string) error {
	for path = filepath.Join("/", path); path != "/"; path = filepath.Dir(path) {
		g := h.Open(path)
		err := g.main.removeEmpty()
		if g.unified != nil {
			err = errors.Join(err, g.unified.removeEmpty())
		}
		if err != nil {
			return fmt.Errorf("remove control group %s: %w", path, err)
		}
	}
	return nil
}

// removeEmpty removes the folder of an empty group.
func removeEmpty(dir string) error {
	switch err := unix.Rmdir(dir); {
	case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENOTEMPTY):
		return nil
	default:
		return err
	}
}

// precondition classifies the error of a NodeManager that is not root, or may only read control groups.
func precondition(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EROFS) {
		return fmt.Errorf("control groups cannot be changed here (%w): %w", err, errdefs.ErrFailedPrecondition)
	}
	return err
}

// Open returns the group at path, whether it exists or not.
func (h *Hierarchy) Open(path string) *Group {
	path = filepath.Join("/", path)
	if h.Version() == 2 {
		return &Group{main: &v2{mount: h.mount, path: path}}
	}
	g := &Group{main: &v1{controllers: h.v1, path: cgroup1.StaticPath(path)}}
	if h.mount != "" {
		g.unified = &v2{mount: h.mount, path: path, noControllers: true}
	}
	return g
}

// OfProcess returns the group of a process. It fails with ErrNotFound if there is no such process.
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

// at returns the group with these paths in the controllers of version 1, and in version 2.
func (h *Hierarchy) at(paths map[string]string, unified string) *Group {
	if h.Version() == 2 {
		return &Group{main: &v2{mount: h.mount, path: unified}}
	}
	// The library's PidPath fails if any controller of the kernel is not mounted, even an unused one.
	g := &Group{main: &v1{controllers: h.v1, path: func(controller cgroup1.Name) (string, error) {
		if path, ok := paths[string(controller)]; ok {
			return path, nil
		}
		return "", cgroup1.ErrControllerNotActive
	}}}
	// In a hybrid, most engines leave their containers in the root of version 2.
	if h.mount != "" && unified != "" && unified != "/" {
		g.unified = &v2{mount: h.mount, path: unified, noControllers: true}
	}
	return g
}

// version is a group in the files of one version. Methods fail with errdefs.ErrNotFound for a missing group, except create
// and removeEmpty.
type version interface {
	create(Limits) error
	add(pid int) error
	pids() ([]int, error)
	freeze() error
	thaw() error
	// remove removes the group and the empty ones below it.
	remove() error
	// removeEmpty removes the group unless a process or another group is in it. A missing group is not an error.
	removeEmpty() error
	oomKills() (int64, error)
	watchOOM() (*OOMWatch, error)
	limits() (Limits, error)
}

// Group is one control group.
type Group struct {
	// main is the group in the tree with the controllers.
	main version
	// unified is the same group in the other tree of a hybrid; nil if there is one tree.
	unified *v2
}

// Add moves a process into the group; its later children start in it.
func (g *Group) Add(pid int) error {
	if err := g.main.add(pid); err != nil || g.unified == nil {
		return err
	}
	return g.unified.add(pid)
}

// Pids lists the processes of the group and its descendants; none if the group does not exist.
func (g *Group) Pids() ([]int, error) {
	var members []int
	var err error
	for range 10 {
		members, err = g.main.pids()
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			break
		}
		// A descendant was just removed; the next call lists the rest.
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

// Kill kills every process of the group and returns when none is left. The library's Kill exists for version 2 only, and
// does not wait.
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
			return fmt.Errorf("%d processes are still running: %w", len(members), context.Cause(ctx))
		case <-timer.C:
		}
		wait = min(2*wait, 50*time.Millisecond)
	}
}

func (g *Group) killOnce() error {
	unified := g.unified
	if unified == nil {
		unified, _ = g.main.(*v2)
	}
	if unified != nil {
		if done, err := unified.kill(); done || err != nil {
			return ignoreNotFound(err)
		}
	}
	// Frozen processes cannot fork while they are killed. If the kernel cannot freeze, the next round finds new ones.
	frozen := g.main.freeze()
	killed := g.Signal(unix.SIGKILL)
	if frozen != nil {
		return killed
	}
	return errors.Join(killed, ignoreNotFound(g.main.thaw()))
}

// Delete removes a group without processes, and its descendants. It may be repeated.
func (g *Group) Delete() error {
	err := ignoreNotFound(g.main.remove())
	if g.unified == nil {
		return err
	}
	return errors.Join(err, ignoreNotFound(g.unified.remove()))
}

// OOMKills is how many processes of the group the kernel has killed at the memory quota.
func (g *Group) OOMKills() (int64, error) { return g.main.oomKills() }

// Limits reads the limits back from the kernel; zero is none.
func (g *Group) Limits() (Limits, error) { return g.main.limits() }
