package balancer

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// After a reload old processes finish the connections that they have accepted, so that an event stream of one app survives a
// change of another. Old processes may live long, so their number is limited. The more there are, the less often the proxy
// is reloaded. When there are too many, the oldest are ended.

// DefaultKeepOld is how long an old process may live.
const DefaultKeepOld = 24 * time.Hour

// KeepIdle is how long after a reload an old process may keep clients' connections that wait for their next request. The answer
// to that request ends the connection. If a connection were closed at once, a request that was just sent would be lost, and a
// client may not repeat a POST. The time is shorter than the usual drain (stop.drain), as old processes ask the instances that
// they know.
const KeepIdle = 5 * time.Second

// MaxReloadDelay is the longest time between two reloads. It is well below the minute for which the zone waits for a
// balancer.
const MaxReloadDelay = 20 * time.Second

// ReloadDelay is the time from one reload to the next: interval, or longer if the number of old processes is at least half of most.
func ReloadDelay(interval time.Duration, old, most int) time.Duration {
	rests := []time.Duration{2 * time.Second, 5 * time.Second, 10 * time.Second, MaxReloadDelay}
	// From half of most on, each further eighth makes it longer.
	step := 8*old/max(most, 1) - 4
	if step < 0 {
		return interval
	}
	return max(interval, rests[min(step, len(rests)-1)])
}

// MaxOldFor is how many old processes as large as pid may run: most, or fewer if they would use more than half of the memory
// of the companion and its proxy. It is at least 1.
func MaxOldFor(most, pid int) int {
	size, room := resident(pid), memoryLimit()/2
	if size == 0 || room == 0 {
		return most
	}
	return max(1, int(min(int64(most), room/size)))
}

// EndOldest sends SIGTERM to the oldest processes so that at most leave remain, and returns how many it was sent to.
func EndOldest(pids []int, leave int) int {
	excess := len(pids) - max(leave, 0)
	if excess <= 0 {
		return 0
	}
	born := make(map[int]uint64, len(pids))
	for _, pid := range pids {
		born[pid] = started(pid)
	}
	pids = slices.SortedFunc(slices.Values(pids), func(a, b int) int { return cmp.Or(cmp.Compare(born[a], born[b]), cmp.Compare(a, b)) })
	for _, pid := range pids[:excess] {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	return excess
}

// AwaitEnd waits until runs is false, for at most half a minute: on a busy machine, processes take a while to end.
func AwaitEnd(runs func() bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil && runs() {
		Pause(ctx, 5*time.Millisecond)
	}
}

// ListProcesses lists all processes of the machine.
func ListProcesses() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// started is the start time of a process, in ticks since the machine's boot.
func started(pid int) uint64 {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	// After the name, which may contain anything, the start is the twentieth field.
	name := strings.LastIndex(string(text), ") ")
	if fields := strings.Fields(string(text)[max(name, 0):]); len(fields) > 20 {
		ticks, _ := strconv.ParseUint(fields[20], 10, 64)
		return ticks
	}
	return 0
}

// resident is the resident memory of a process, in bytes.
func resident(pid int) int64 {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
	if err != nil {
		return 0
	}
	var all, pages int64
	if _, err := fmt.Sscan(string(text), &all, &pages); err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// memoryLimit is the memory limit of this process's control group, or else the machine's memory, in bytes.
func memoryLimit() int64 {
	limit := int64(0)
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		_, _ = fmt.Sscanf(string(text), "MemTotal: %d kB", &limit)
		limit <<= 10
	}
	groups, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(groups)) {
		field := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(field) != 3 {
			continue
		}
		file := ""
		switch {
		case field[1] == "":
			file = filepath.Join("/sys/fs/cgroup", field[2], "memory.max")
		case slices.Contains(strings.Split(field[1], ","), "memory"):
			file = filepath.Join("/sys/fs/cgroup/memory", field[2], "memory.limit_in_bytes")
		}
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if own, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && own > 0 && (limit == 0 || own < limit) {
			limit = own
		}
	}
	return limit
}
