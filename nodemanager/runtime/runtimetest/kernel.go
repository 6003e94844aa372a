package runtimetest

import (
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
	group := w.Group(container)
	// The usage is that of some moment between from and to, however long the call takes.
	look := func() (usage cgroup.Usage, from, to time.Time) {
		from = time.Now()
		usage, err := group.Usage()
		if err != nil {
			w.Fatal(err)
		}
		return usage, from, time.Now()
	}
	before, first, earliest := look()
	<-time.After(3 * time.Second)
	after, latest, last := look()
	used := (after.CPU - before.CPU).Seconds()
	least, most := used/last.Sub(first).Seconds(), used/latest.Sub(earliest).Seconds()
	periods, throttled := after.Periods-before.Periods, after.Throttled-before.Throttled
	w.Logf("0.5 cpu measures %.3f to %.3f, used up in %d of %d periods", least, most, throttled, periods)
	if least > 0.55 {
		w.Errorf("0.5 cpu measures %.3f", least)
	}
	if most < 0.45 && throttled*10 > periods*9 {
		w.Errorf("0.5 cpu measures %.3f though it was used up in %d of %d periods", most, throttled, periods)
	}
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
