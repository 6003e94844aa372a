package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// controller is the interface of the library's controllers, which has no name there.
type controller interface {
	cgroup1.Subsystem
	Path(group string) string
}

// controllers returns the controllers that a group needs, and those of them that are not mounted. The library's list has all
// controllers of the kernel, and creates a folder in each for every group.
func controllers(root string) (present []cgroup1.Subsystem, missing []string) {
	for _, c := range []controller{
		cgroup1.NewCpu(root), cgroup1.NewCpuacct(root), cgroup1.NewPids(root), cgroup1.NewFreezer(root),
		// Unused statistics are not read: some kernels lack them.
		cgroup1.NewMemory(root, cgroup1.IgnoreModules("memsw", "kmem", "kmem.tcp")),
	} {
		if _, err := os.Stat(c.Path("/")); err != nil {
			missing = append(missing, string(c.Name()))
			continue
		}
		present = append(present, c)
	}
	return present, missing
}

// v1 is a group in the trees of version 1.
type v1 struct {
	controllers []cgroup1.Subsystem
	path        cgroup1.Path
}

func (g *v1) hierarchy() ([]cgroup1.Subsystem, error) { return g.controllers, nil }

func (g *v1) load(opts ...cgroup1.InitOpts) (cgroup1.Cgroup, error) {
	group, err := cgroup1.Load(g.path, append([]cgroup1.InitOpts{cgroup1.WithHierarchy(g.hierarchy)}, opts...)...)
	if errors.Is(err, cgroup1.ErrCgroupDeleted) {
		return nil, fmt.Errorf("control group: %w", errdefs.ErrNotFound)
	}
	return group, err
}

// dir is the group's folder in one controller.
func (g *v1) dir(name cgroup1.Name) (string, error) {
	path, err := g.path(name)
	if err != nil {
		return "", err
	}
	for _, c := range g.controllers {
		if c, ok := c.(controller); ok && c.Name() == name {
			return c.Path(path), nil
		}
	}
	return "", cgroup1.ErrControllerNotActive
}

func (g *v1) create(limits Limits) error {
	group, err := cgroup1.New(g.path, limits.resources(), cgroup1.WithHierarchy(g.hierarchy))
	if err != nil || limits.MemoryBytes == 0 {
		return err
	}
	// There is no swap. A kernel without swap accounting lacks the file or refuses the value; there swappiness is set to
	// zero.
	dir, err := g.dir(cgroup1.Memory)
	if err != nil {
		return err
	}
	if exists(dir, "memory.memsw.limit_in_bytes") {
		err := group.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: &limits.MemoryBytes}})
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	if !exists(dir, "memory.swappiness") {
		return nil
	}
	return group.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: new(uint64)}})
}

func (g *v1) add(pid int) error {
	group, err := g.load()
	if err != nil {
		return err
	}
	return group.AddProc(uint64(pid))
}

func (g *v1) pids() ([]int, error) {
	group, err := g.load(cgroup1.WithHierarchy(cgroup1.SingleSubsystem(g.hierarchy, cgroup1.Pids)))
	if err != nil {
		return nil, err
	}
	processes, err := group.Processes(cgroup1.Pids, true)
	members := make([]int, len(processes))
	for i, process := range processes {
		members[i] = process.Pid
	}
	return members, err
}

// freeze does not wait until every process is frozen, as the library's Freeze does: that never happens if a process sleeps
// in the kernel.
func (g *v1) freeze() error { return g.freezer("FROZEN") }

func (g *v1) thaw() error { return g.freezer("THAWED") }

func (g *v1) freezer(state string) error {
	dir, err := g.dir(cgroup1.Freezer)
	if err != nil {
		return err
	}
	err = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte(state), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("control group: %w", errdefs.ErrNotFound)
	}
	return err
}

func (g *v1) remove() error {
	group, err := g.load()
	if err != nil {
		return err
	}
	return group.Delete()
}

func (g *v1) removeEmpty() error {
	var failures []error
	for _, c := range g.controllers {
		dir, err := g.dir(c.Name())
		if err == nil {
			err = removeEmpty(dir)
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

func (g *v1) oomKills() (int64, error) {
	group, err := g.load(cgroup1.WithHierarchy(cgroup1.SingleSubsystem(g.hierarchy, cgroup1.Memory)))
	if err != nil {
		return 0, err
	}
	metrics, err := group.Stat()
	return int64(metrics.GetMemoryOomControl().GetOomKill()), err
}

func (g *v1) limits() (Limits, error) {
	group, err := g.load()
	if err != nil {
		return Limits{}, err
	}
	m, err := group.Stat()
	if err != nil {
		return Limits{}, err
	}
	limits := Limits{MemoryBytes: int64(m.GetMemory().GetUsage().GetLimit()), Pids: int64(m.GetPids().GetLimit())}
	if limits.MemoryBytes >= 1<<62 {
		limits.MemoryBytes = 0 // the kernel's value for none
	}
	// The library does not read the cpu limit.
	dir, err := g.dir(cgroup1.Cpu)
	if err != nil {
		return Limits{}, err
	}
	quota, err := number(dir, "cpu.cfs_quota_us")
	every, err2 := number(dir, "cpu.cfs_period_us")
	if quota > 0 && every > 0 {
		limits.CPUMillis = quota * 1000 / every
	}
	return limits, errors.Join(err, err2)
}

// number reads a file with one number.
func number(dir, file string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

func exists(dir, file string) bool {
	_, err := os.Lstat(filepath.Join(dir, file))
	return err == nil
}
