package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/errdefs"
)

// v2 is a group in the tree of version 2.
type v2 struct {
	mount, path string
	// bare has no controllers, which are those of version 1.
	bare bool
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
	if !g.bare {
		resources = cgroup2.ToResources(limits.resources())
	}
	manager, err := cgroup2.NewManager(g.mount, g.path, resources)
	if err != nil {
		return err
	}
	// No swap beyond the memory; a kernel without an account of swap lacks the file.
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

// kill has the kernel kill all at once, and reports whether the kernel can (5.14). The library's way on an older one
// is not taken: it waits for the processes, and so takes the exit code from whoever has started them.
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

func (g *v2) removeAlone() error { return removeEmpty(g.dir()) }

func (g *v2) oomKills() (int64, error) {
	manager, err := g.load()
	if err != nil {
		return 0, err
	}
	metrics, err := manager.StatFiltered(cgroup2.StatMemoryEvents)
	return int64(metrics.GetMemoryEvents().GetOomKill()), err
}

func (g *v2) usage() (Usage, error) {
	manager, err := g.load()
	if err != nil {
		return Usage{}, err
	}
	m, err := manager.StatFiltered(cgroup2.StatCPU | cgroup2.StatMemory | cgroup2.StatPids)
	return Usage{
		CPU:         time.Duration(m.GetCPU().GetUsageUsec()) * time.Microsecond,
		MemoryBytes: int64(m.GetMemory().GetUsage()),
		Pids:        int64(m.GetPids().GetCurrent()),
		Periods:     int64(m.GetCPU().GetNrPeriods()),
		Throttled:   int64(m.GetCPU().GetNrThrottled()),
	}, err
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
	limits := Limits{MemoryBytes: bounded(m.GetMemory().GetUsageLimit()), Pids: bounded(m.GetPids().GetLimit())}
	// The library reads no limit of the cpu.
	text, err := os.ReadFile(filepath.Join(g.dir(), "cpu.max"))
	var quota, every int64
	if n, _ := fmt.Sscanf(string(text), "%d %d", &quota, &every); n == 2 && every > 0 {
		limits.CPUMillis = quota * 1000 / every
	}
	return limits, err
}

// bounded is a limit as the library reads it, which has "max" as the largest number.
func bounded(limit uint64) int64 {
	if limit == math.MaxUint64 {
		return 0
	}
	return int64(limit)
}
