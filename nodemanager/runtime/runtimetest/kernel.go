package runtimetest

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mammoth-os/mammoth/nodemanager/cgroup"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// kernelCases read the kernel's own files.
var kernelCases = []testCase{
	{"KernelHasTheQuotas", kernelQuotas},
	{"CPUQuota", cpuQuota},
	{"NoProcessOutlivesItsContainer", wholeTree},
	{"ALongLineIsCutBetweenLetters", logsLetters},
	{"ACommandEndsThoughSomethingOfItIsLeft", execLeaves},
	{"NothingIsLeftOfATerminal", execTerminalEnds},
	{"NothingIsLeftOfACommandWhoseCallerHasGone", execGone},
}

// Group is the control group of a running container.
func (w *World) Group(container runtime.Container) *cgroup.Group {
	w.Helper()
	hierarchy, err := cgroup.Detect()
	if err != nil {
		w.Fatal(err)
	}
	group, err := hierarchy.OfProcess(container.Pid)
	if err != nil {
		w.Fatal(err)
	}
	return group
}

func kernelQuotas(w *World) {
	spec := w.Spec("serve")
	spec.CPUMillis, spec.MemoryBytes, spec.Pids = 250, 48<<20, 77
	got, err := w.Group(w.Run(spec)).Limits()
	if want := (cgroup.Limits{CPUMillis: 250, MemoryBytes: 48 << 20, Pids: 77}); err != nil || got != want {
		w.Errorf("the kernel has %+v, %v; want %+v", got, err, want)
	}
}

// A loop on every core gets half a core of time. On a busy machine it gets less, and is seldom throttled.
func cpuQuota(w *World) {
	spec := w.Spec("cpu", "60")
	spec.CPUMillis = 500
	container := w.Run(spec)
	w.AwaitLine(spec.ID, "burning")
	// The usage is that of some moment between from and to, however long the call takes.
	look := func() (used usage, from, to time.Time) {
		from = time.Now()
		return w.usage(container.Pid), from, time.Now()
	}
	before, first, earliest := look()
	<-time.After(3 * time.Second)
	after, latest, last := look()
	used := (after.cpu - before.cpu).Seconds()
	least, most := used/last.Sub(first).Seconds(), used/latest.Sub(earliest).Seconds()
	periods, throttled := after.periods-before.periods, after.throttled-before.throttled
	w.Logf("0.5 cpu measures %.3f to %.3f, used up in %d of %d periods", least, most, throttled, periods)
	if least > 0.55 {
		w.Errorf("0.5 cpu measures %.3f", least)
	}
	if most < 0.45 && throttled*10 > periods*9 {
		w.Errorf("0.5 cpu measures %.3f though it was used up in %d of %d periods", most, throttled, periods)
	}
}

// usage is what the control group of a process has used since it was made.
type usage struct {
	cpu time.Duration
	// periods is the number of periods of the cpu quota (100 ms) in which something ran, and throttled in how many of them the quota was
	// used up.
	periods, throttled int64
}

func (w *World) usage(pid int) (used usage) {
	w.Helper()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		w.Fatal(err)
	}
	stat, nanoseconds := "", ""
	for line := range strings.Lines(string(groups)) {
		controllers, path, _ := strings.Cut(strings.SplitN(strings.TrimSpace(line), ":", 2)[1], ":")
		switch names := strings.Split(controllers, ","); {
		case slices.Contains(names, "cpu"):
			stat = "/sys/fs/cgroup/cpu" + path + "/cpu.stat"
		case controllers == "" && stat == "":
			stat = "/sys/fs/cgroup" + path + "/cpu.stat"
		}
		if slices.Contains(strings.Split(controllers, ","), "cpuacct") {
			nanoseconds = "/sys/fs/cgroup/cpuacct" + path + "/cpuacct.usage"
		}
	}
	text, err := os.ReadFile(stat)
	if err != nil {
		w.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		value, _ := strconv.ParseInt(number, 10, 64)
		switch name {
		case "usage_usec":
			used.cpu = time.Duration(value) * time.Microsecond
		case "nr_periods":
			used.periods = value
		case "nr_throttled":
			used.throttled = value
		}
	}
	if nanoseconds != "" {
		text, err := os.ReadFile(nanoseconds)
		if err != nil {
			w.Fatal(err)
		}
		value, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		used.cpu = time.Duration(value)
	}
	return used
}

func wholeTree(w *World) {
	spec := w.Spec("fork", "10")
	container := w.Run(spec)
	w.AwaitLine(spec.ID, "forked 10")
	group := w.Group(container)
	if members, err := group.Pids(); err != nil || len(members) < 11 {
		w.Fatalf("%d processes, %v", len(members), err)
	}
	if err := w.Stop(w.Context(), spec.ID, time.Minute); err != nil {
		w.Fatal(err)
	}
	if members, err := group.Pids(); err != nil || len(members) != 0 {
		w.Errorf("left after the stop: %v, %v", members, err)
	}
}
