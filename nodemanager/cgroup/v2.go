package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/errdefs"
)

// v2 is a group in the tree of version 2.
type v2 struct {
	mount, path string
	// noControllers is true in a hybrid, whose controllers are those of version 1.
	noControllers bool
}

func (g *v2) dir() string { return filepath.Join(g.mount, g.path) }

func (g *v2) load() (*cgroup2.Manager, error) {
	if _, err := os.Lstat(g.dir()); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("control group: %w", errdefs.ErrNotFound)
	}
	return cgroup2.Load(g.path, cgroup2.WithMountpoint(g.mount))
}

func (g *v2) create(limits Limits) error {
	resources := &cgroup2.Resources{}
	if !g.noControllers {
		resources = cgroup2.ToResources(limits.resources())
	}
	manager, err := cgroup2.NewManager(g.mount, g.path, resources)
	if err != nil {
		return err
	}
	// There is no swap; a kernel without swap accounting lacks the file.
	if limits.MemoryBytes == 0 || !exists(g.dir(), "memory.swap.max") {
		return nil
	}
	return manager.Update(&cgroup2.Resources{Memory: &cgroup2.Memory{Swap: new(int64)}})
}

func (g *v2) add(pid int) error {
	manager, err := g.load()
	if err != nil {
		return err
	}
	return manager.AddProc(uint64(pid))
}

func (g *v2) pids() ([]int, error) {
	manager, err := g.load()
	if err != nil {
		return nil, err
	}
	processes, err := manager.Procs(true)
	members := make([]int, len(processes))
	for i, pid := range processes {
		members[i] = int(pid)
	}
	return members, err
}

// kill lets the kernel kill all processes at once, and reports whether the kernel can (5.14). The library's fallback for
// older kernels is not used: it waits for the processes, and so takes the exit code from their parent.
func (g *v2) kill() (done bool, err error) {
	if !exists(g.dir(), "cgroup.kill") {
		return false, nil
	}
	manager, err := g.load()
	if err != nil {
		return false, err
	}
	return true, manager.Kill()
}

func (g *v2) freeze() error {
	manager, err := g.load()
	if err != nil {
		return err
	}
	return manager.Freeze()
}

func (g *v2) thaw() error {
	manager, err := g.load()
	if err != nil {
		return err
	}
	return manager.Thaw()
}

func (g *v2) remove() error {
	manager, err := g.load()
	if err != nil {
		return err
	}
	return manager.Delete()
}

func (g *v2) removeEmpty() error { return removeEmpty(g.dir()) }

func (g *v2) oomKills() (int64, error) {
	manager, err := g.load()
	if err != nil {
		return 0, err
	}
	metrics, err := manager.StatFiltered(cgroup2.StatMemoryEvents)
	return int64(metrics.GetMemoryEvents().GetOomKill()), err
}

func (g *v2) limits() (Limits, error) {
	manager, err := g.load()
	if err != nil {
		return Limits{}, err
	}
	m, err := manager.StatFiltered(cgroup2.StatMemory | cgroup2.StatPids)
	if err != nil {
		return Limits{}, err
	}
	limits := Limits{MemoryBytes: limitOf(m.GetMemory().GetUsageLimit()), Pids: limitOf(m.GetPids().GetLimit())}
	// The library does not read the cpu limit.
	text, err := os.ReadFile(filepath.Join(g.dir(), "cpu.max"))
	var quota, every int64
	if n, _ := fmt.Sscanf(string(text), "%d %d", &quota, &every); n == 2 && every > 0 {
		limits.CPUMillis = quota * 1000 / every
	}
	return limits, err
}

// limitOf converts a limit of the library, for which "max" is the largest number.
func limitOf(limit uint64) int64 {
	if limit == math.MaxUint64 {
		return 0
	}
	return int64(limit)
}
