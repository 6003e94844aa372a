package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errNoDevice is what reading a group gives that is just being removed.
var errNoDevice error = unix.ENODEV

// period of the cpu quota in microseconds, and the least that the kernel takes for a quota.
const (
	period   = 100_000
	minQuota = 1_000
)

func (g *Group) limit(limits Limits) error {
	type setting struct{ dir, file, value string }
	var settings []setting
	set := func(dir, file string, value int64) {
		settings = append(settings, setting{dir, file, strconv.FormatInt(value, 10)})
	}
	quota := max(limits.CPUMillis*period/1000, minQuota)
	shares := max(limits.CPUMillis*1024/1000, 2)
	if limits.CPUMillis > 0 && g.v2() {
		settings = append(settings, setting{g.unified, "cpu.max", fmt.Sprintf("%d %d", quota, period)})
		// The mapping of shares 2…262144 to weights 1…10000 that runc uses too.
		set(g.unified, "cpu.weight", 1+(min(shares, 262144)-2)*9999/262142)
	} else if limits.CPUMillis > 0 {
		set(g.paths[cpu], "cpu.cfs_period_us", period)
		set(g.paths[cpu], "cpu.cfs_quota_us", quota)
		set(g.paths[cpu], "cpu.shares", shares)
	}
	if limits.MemoryBytes > 0 && g.v2() {
		set(g.unified, "memory.max", limits.MemoryBytes)
	} else if limits.MemoryBytes > 0 {
		set(g.paths[memory], "memory.limit_in_bytes", limits.MemoryBytes)
	}
	if limits.Pids > 0 && g.v2() {
		set(g.unified, "pids.max", limits.Pids)
	} else if limits.Pids > 0 {
		set(g.paths[pids], "pids.max", limits.Pids)
	}
	for _, s := range settings {
		if err := write(s.dir, s.file, s.value); err != nil {
			return err
		}
	}
	if limits.MemoryBytes == 0 {
		return nil
	}
	return g.noSwap(limits.MemoryBytes)
}

// noSwap keeps the memory quota from being widened by swap. A kernel without swap accounting lacks the files.
func (g *Group) noSwap(memoryBytes int64) error {
	if g.v2() {
		return ignoreMissing(write(g.unified, "memory.swap.max", "0"))
	}
	err := write(g.paths[memory], "memory.memsw.limit_in_bytes", strconv.FormatInt(memoryBytes, 10))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EOPNOTSUPP) {
		return ignoreMissing(write(g.paths[memory], "memory.swappiness", "0"))
	}
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
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

// Kill kills every process of the group, whatever they do about it, and returns when none is left.
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
	if g.unified != "" {
		err := write(g.unified, "cgroup.kill", "1")
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// Frozen processes cannot fork away from under the signals.
	dir, file, on, off := g.paths[freezer], "freezer.state", "FROZEN", "THAWED"
	if g.v2() {
		dir, file, on, off = g.unified, "cgroup.freeze", "1", "0"
	}
	frozen := write(dir, file, on)
	killed := g.Signal(unix.SIGKILL)
	if frozen != nil {
		return errors.Join(ignoreMissing(frozen), killed)
	}
	return errors.Join(killed, write(dir, file, off))
}

// OOMKills is how many processes of the group the kernel has killed at the memory quota.
func (g *Group) OOMKills() (int64, error) {
	if g.v2() {
		return keyed(g.unified, "memory.events", "oom_kill")
	}
	return keyed(g.paths[memory], "memory.oom_control", "oom_kill")
}

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
func (g *Group) Usage() (Usage, error) {
	var u Usage
	var errs [5]error
	stat := g.paths[cpu]
	if g.v2() {
		stat = g.unified
	}
	u.Periods, errs[3] = keyed(stat, "cpu.stat", "nr_periods")
	u.Throttled, errs[4] = keyed(stat, "cpu.stat", "nr_throttled")
	if g.v2() {
		var micros int64
		micros, errs[0] = keyed(g.unified, "cpu.stat", "usage_usec")
		u.CPU = time.Duration(micros) * time.Microsecond
		u.MemoryBytes, errs[1] = number(g.unified, "memory.current")
		u.Pids, errs[2] = number(g.unified, "pids.current")
	} else {
		var nanos int64
		nanos, errs[0] = number(g.paths[cpuacct], "cpuacct.usage")
		u.CPU = time.Duration(nanos)
		u.MemoryBytes, errs[1] = number(g.paths[memory], "memory.usage_in_bytes")
		u.Pids, errs[2] = number(g.paths[pids], "pids.current")
	}
	return u, errors.Join(errs[:]...)
}

// Limits reads the limits back from the kernel; zero is none.
func (g *Group) Limits() (Limits, error) {
	var l Limits
	var errs [3]error
	if g.v2() {
		text, err := os.ReadFile(filepath.Join(g.unified, "cpu.max"))
		errs[0] = err
		var quota, every int64
		if n, _ := fmt.Sscanf(string(text), "%d %d", &quota, &every); n == 2 {
			l.CPUMillis = quota * 1000 / every
		}
		l.MemoryBytes, errs[1] = number(g.unified, "memory.max")
		l.Pids, errs[2] = number(g.unified, "pids.max")
		return l, errors.Join(errs[:]...)
	}
	quota, err := number(g.paths[cpu], "cpu.cfs_quota_us")
	every, err2 := number(g.paths[cpu], "cpu.cfs_period_us")
	errs[0] = errors.Join(err, err2)
	if quota > 0 && every > 0 {
		l.CPUMillis = quota * 1000 / every
	}
	if l.MemoryBytes, errs[1] = number(g.paths[memory], "memory.limit_in_bytes"); l.MemoryBytes >= 1<<62 {
		l.MemoryBytes = 0 // the kernel's way to say none
	}
	l.Pids, errs[2] = number(g.paths[pids], "pids.max")
	return l, errors.Join(errs[:]...)
}

// number reads a file with one number; "max" is zero.
func number(dir, file string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	trimmed := strings.TrimSpace(string(text))
	if trimmed == "max" {
		return 0, nil
	}
	return strconv.ParseInt(trimmed, 10, 64)
}

// keyed reads one number out of a file of lines "key number".
func keyed(dir, file, key string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name == key {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", filepath.Join(dir, file), key)
}
