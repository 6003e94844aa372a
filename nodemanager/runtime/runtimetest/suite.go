package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

type testCase struct {
	name string
	run  func(*World)
}

var cases = []testCase{
	{"Info", info},
	{"PrepareIsIdempotent", prepareTwice},
	{"PrepareRefusesWhatIsNowhere", prepareMissing},
	{"StartTellsAndListAgrees", startTells},
	{"StartIsIdempotent", startTwice},
	{"AnEndedContainerIsNotRunAgain", startEnded},
	{"AFailedStartLeavesNothing", startFails},
	{"ACancelledStartLeavesNothing", startCancelled},
	{"ExitCodes", exitCodes},
	{"StopLetsItEnd", stopLets},
	{"StopKillsAfterTheGrace", stopKills},
	{"StopSendsTheSignalOfTheSpec", stopSignals},
	{"StopOfTheEndedAndTheUnknown", stopNothing},
	{"AnEndOfASignalOfSomebodyElse", signalled},
	{"RemoveIsForTheEndedAndIdempotent", remove},
	{"Environment", environment},
	{"Events", events},
	{"EventsEndWithTheContext", eventsEnd},
	{"ListAfterRestart", listAfterRestart},
	{"AnEndWhileNobodyWatchedIsListed", endedMeanwhile},
	{"ForeignContainersAreNotListed", foreign},
	{"ACopyIsForeign", copied},
	{"WhatWasStartedAgainIsSeen", startedAgain},
	{"LogsInOrderTailSince", logs},
	{"LogsOfBothStreams", logsBoth},
	{"LogsFollow", logsFollow},
	{"LogsOutliveTheContainerUntilPurge", logsOutlive},
	{"ExecExitCodes", execExit},
	{"ExecOfNothing", execNothing},
	{"ExecStandardInput", execStdin},
	{"ExecTerminal", execTerminal},
	{"ExecNeedsARunningContainer", execEnded},
	{"PortsAreUniqueAndReachable", ports},
	{"HostPorts", hostPorts},
	{"MemoryQuota", memory},
	{"MemoryQuotaOfAChild", memoryChild},
	{"DiskQuota", disk},
	{"DiskQuotaOfDeletedFiles", diskDeleted},
	{"PidsQuota", pids},
}

func info(w *World) {
	info, err := w.Info(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	if info.Name == "" || info.Version == "" || info.CgroupVersion < 1 || info.CgroupVersion > 2 {
		w.Errorf("info says %+v", info)
	}
	if !slices.Contains([]string{"driver", "watcher", "none"}, info.DiskQuota) {
		w.Errorf("disk quota by %q", info.DiskQuota)
	}
}

func prepareTwice(w *World) {
	spec := w.Spec("exit", "0")
	for range 2 {
		if err := w.Prepare(w.Context(), spec, func(runtime.Progress) {}); err != nil {
			w.Fatal(err)
		}
	}
	var moved int64
	if err := w.Prepare(w.Context(), spec, func(p runtime.Progress) { moved += p.Bytes }); err != nil || moved != 0 {
		w.Errorf("preparing what is there: %v, %d bytes", err, moved)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			if err := w.Prepare(w.Context(), spec, func(runtime.Progress) {}); err != nil {
				w.Errorf("four at a time: %v", err)
			}
		})
	}
	group.Wait()
}

func prepareMissing(w *World) {
	spec := w.Spec("exit", "0")
	spec.Image = w.MissingImage
	err := w.Prepare(w.Context(), spec, func(runtime.Progress) {})
	if !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, errdefs.ErrInvalidArgument) {
		w.Errorf("preparing what does not exist: %v", err)
	}
}

func startTells(w *World) {
	spec := w.Spec("serve")
	spec.Ports = []runtime.Port{{Name: "http", Container: 8080}}
	before := time.Now().Add(-2 * time.Second)
	started := w.Run(spec)
	if !started.Running || started.Exit != nil || started.RuntimeID == "" || started.ID != spec.ID {
		w.Errorf("started as %+v", started)
	}
	if started.StartedAt.Before(before) || started.StartedAt.After(time.Now().Add(2*time.Second)) {
		w.Errorf("started at %v", started.StartedAt)
	}
	if len(started.Ports) != 1 || started.Ports[0].Name != "http" || started.Ports[0].Host == 0 {
		w.Errorf("ports %+v", started.Ports)
	}
	listed, ok := w.Find(spec.ID)
	if !ok {
		w.Fatal("not listed")
	}
	same(w, listed, started)
}

// same compares everything that a list and the start must report equally.
func same(w *World, got, want runtime.Container) {
	w.Helper()
	if got.ID != want.ID || got.RuntimeID != want.RuntimeID || got.AppName != want.AppName || got.Attempt != want.Attempt ||
		!maps.Equal(got.Labels, want.Labels) || !slices.Equal(got.Ports, want.Ports) || !got.StartedAt.Equal(want.StartedAt) ||
		got.Running != want.Running || got.Pid != want.Pid || got.Address != want.Address {
		w.Errorf("is\n%+v, want\n%+v", got, want)
	}
}

func startTwice(w *World) {
	spec := w.Spec("serve")
	first := w.Run(spec)
	second, err := w.Start(w.Context(), spec)
	if err != nil {
		w.Fatal(err)
	}
	same(w, second, first)
	w.Restart()
	third, err := w.Start(w.Context(), spec)
	if err != nil {
		w.Fatal(err)
	}
	same(w, third, first)
}

func startEnded(w *World) {
	spec := w.Spec("exit", "3")
	w.Run(spec)
	w.End(spec.ID)
	again, err := w.Start(w.Context(), spec)
	if err != nil || again.Running || again.Exit == nil || again.Exit.Code != 3 {
		w.Errorf("starting what has ended: %+v, %v", again, err)
	}
}

func startFails(w *World) {
	spec := w.Spec("serve")
	if err := w.Prepare(w.Context(), spec, func(runtime.Progress) {}); err != nil {
		w.Fatal(err)
	}
	broken := spec
	broken.Command = []string{"/there/is/no/such/program"}
	if _, err := w.Start(w.Context(), broken); !errors.Is(err, errdefs.ErrInvalidArgument) {
		w.Errorf("starting no program: %v", err)
	} else if strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "/there/is/no/such/program") {
		w.Errorf("the reason is %q", err)
	}
	if found, ok := w.Find(spec.ID); ok {
		w.Errorf("left behind: %+v", found)
	}
	if container := w.Run(spec); !container.Running {
		w.Errorf("the same id cannot be started right: %+v", container)
	}
}

func startCancelled(w *World) {
	spec := w.Spec("serve")
	if err := w.Prepare(w.Context(), spec, func(runtime.Progress) {}); err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.Context())
	cancel()
	if _, err := w.Start(ctx, spec); !errors.Is(err, context.Canceled) {
		w.Errorf("a cancelled start: %v", err)
	}
	if found, ok := w.Find(spec.ID); ok {
		w.Errorf("left behind: %+v", found)
	}
}

func exitCodes(w *World) {
	for _, code := range []int{0, 3} {
		spec := w.Spec("exit", fmt.Sprint(code))
		w.Run(spec)
		if exit := w.End(spec.ID); exit.Code != code || exit.OOM || exit.DiskQuota || exit.Signal != 0 {
			w.Errorf("exit %d ended as %+v", code, exit)
		}
		found, ok := w.Find(spec.ID)
		if !ok || found.Running || found.Exit == nil || found.Exit.Code != code || found.FinishedAt.Before(found.StartedAt) {
			w.Errorf("exit %d is listed as %+v", code, found)
		}
	}
}

func stopLets(w *World) {
	spec := w.Spec("serve")
	w.Run(spec)
	w.AwaitLine(spec.ID, "serving")
	if err := w.Stop(w.Context(), spec.ID, time.Minute); err != nil {
		w.Fatal(err)
	}
	// Stop returns when the container was seen gone, so the list is right at once.
	if found, ok := w.Find(spec.ID); !ok || found.Running || found.Exit == nil || found.Exit.Code != 0 {
		w.Errorf("after the stop: %+v", found)
	}
	if got := w.Output(spec.ID, runtime.LogOptions{Tail: 1}); got != "terminated" {
		w.Errorf("its last words were %q", got)
	}
}

func stopKills(w *World) {
	spec := w.Spec("ignore-term")
	w.Run(spec)
	w.AwaitLine(spec.ID, "ignoring")
	if err := w.Stop(w.Context(), spec.ID, 50*time.Millisecond); err != nil {
		w.Fatal(err)
	}
	if found, ok := w.Find(spec.ID); !ok || found.Running || found.Exit == nil || found.Exit.Code != 137 || found.Exit.OOM {
		w.Errorf("after the kill: %+v", found)
	}
}

func stopSignals(w *World) {
	for text, number := range map[string]string{"": "15", "SIGQUIT": "3", "RTMIN+3": "37"} {
		spec := w.Spec("signals")
		spec.StopSignal = text
		w.Run(spec)
		w.AwaitLine(spec.ID, "waiting")
		if err := w.Stop(w.Context(), spec.ID, time.Minute); err != nil {
			w.Fatal(err)
		}
		if got := w.Output(spec.ID, runtime.LogOptions{Tail: 1}); got != "got "+number {
			w.Errorf("of a container with the stop signal %q the last words were %q", text, got)
		}
	}
}

func stopNothing(w *World) {
	if err := w.Stop(w.Context(), w.Spec().ID, time.Second); err != nil {
		w.Errorf("stopping the unknown: %v", err)
	}
	spec := w.Spec("exit", "0")
	w.Run(spec)
	w.End(spec.ID)
	if err := w.Stop(w.Context(), spec.ID, time.Second); err != nil {
		w.Errorf("stopping the ended: %v", err)
	}
}

func remove(w *World) {
	if err := w.Remove(w.Context(), w.Spec().ID); err != nil {
		w.Errorf("removing the unknown: %v", err)
	}
	if err := w.Purge(w.Context(), w.Spec().ID); err != nil {
		w.Errorf("purging the unknown: %v", err)
	}
	spec := w.Spec("serve")
	w.Run(spec)
	if err := w.Remove(w.Context(), spec.ID); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		w.Errorf("removing the running: %v", err)
	}
	if err := w.Stop(w.Context(), spec.ID, time.Second); err != nil {
		w.Fatal(err)
	}
	for range 2 {
		if err := w.Remove(w.Context(), spec.ID); err != nil {
			w.Error(err)
		}
	}
	if found, ok := w.Find(spec.ID); ok {
		w.Errorf("removed and listed: %+v", found)
	}
	for range 2 {
		if err := w.Purge(w.Context(), spec.ID); err != nil {
			w.Error(err)
		}
	}
}

func signalled(w *World) {
	if w.Signal == nil {
		return
	}
	for _, c := range []struct {
		program, line, stopSignal string
		signal, code              int
	}{
		{"ignore-term", "ignoring", "", 9, 137}, {"serve", "serving", "", 15, 0}, {"signals", "waiting", "RTMIN+3", 37, 0},
	} {
		for _, watched := range []bool{true, false} {
			spec := w.Spec(c.program)
			spec.StopSignal = c.stopSignal
			running := w.Run(spec)
			w.AwaitLine(spec.ID, c.line)
			ctx, cancel := context.WithCancel(w.Context())
			events, err := w.Watch(ctx)
			if err != nil {
				w.Fatal(err)
			}
			var exit runtime.Exit
			if watched {
				w.Signal(w.T, running, c.signal)
				event := <-events
				if event.Kind != runtime.Ended {
					w.Fatalf("got %+v of %s", event, c.program)
				}
				exit = *event.Exit
			}
			cancel()
			for range events { // its end is that of the watch
			}
			if !watched {
				w.Signal(w.T, running, c.signal)
				w.Restart()
				exit = w.End(spec.ID)
			}
			if exit.Signal != c.signal || exit.Code != c.code {
				w.Errorf("%s sent %d (watched: %v) ended as %+v", c.program, c.signal, watched, exit)
			}
			if found, ok := w.Find(spec.ID); !ok || found.Exit == nil || found.Exit.Signal != c.signal {
				w.Errorf("%s sent %d (watched: %v) is listed as %+v", c.program, c.signal, watched, found.Exit)
			}
		}
	}
}

func environment(w *World) {
	spec := w.Spec("env")
	spec.Env = map[string]string{"GREETING": "hello world", "EMPTY": ""}
	w.Run(spec)
	w.End(spec.ID)
	env := strings.Split(w.Output(spec.ID, runtime.LogOptions{Tail: -1}), "\n")
	for _, want := range []string{"GREETING=hello world", "EMPTY="} {
		if !slices.Contains(env, want) {
			w.Errorf("%q is not in %q", want, env)
		}
	}
}

func events(w *World) {
	channel, err := w.Watch(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	spec := w.Spec("exit", "5")
	w.Run(spec)
	for _, want := range []runtime.EventKind{runtime.Started, runtime.Ended} {
		event, ok := <-channel
		if event.Kind == runtime.Created { // which not every runtime tells
			event, ok = <-channel
		}
		if !ok || event.ID != spec.ID || event.Kind != want || event.At.IsZero() {
			w.Fatalf("got %+v, want kind %d", event, want)
		}
		if want == runtime.Ended && (event.Exit == nil || event.Exit.Code != 5) {
			w.Errorf("ended as %+v", event.Exit)
		}
	}
}

func eventsEnd(w *World) {
	ctx, cancel := context.WithCancel(w.Context())
	channel, err := w.Watch(ctx)
	if err != nil {
		w.Fatal(err)
	}
	cancel()
	if event, ok := <-channel; ok {
		w.Errorf("got %+v", event)
	}
}

func listAfterRestart(w *World) {
	spec := w.Spec("serve")
	spec.Ports = []runtime.Port{{Name: "http", Container: 8080}}
	before := w.Run(spec)
	w.Restart()
	after, ok := w.Find(spec.ID)
	if !ok {
		w.Fatal("lost by the restart")
	}
	same(w, after, before)
	if err := w.Stop(w.Context(), spec.ID, time.Minute); err != nil {
		w.Fatal(err)
	}
	if found, ok := w.Find(spec.ID); !ok || found.Running {
		w.Errorf("after the stop: %+v", found)
	}
}

func endedMeanwhile(w *World) {
	spec := w.Spec("exit", "3")
	w.Run(spec)
	w.End(spec.ID)
	w.Restart()
	if found, ok := w.Find(spec.ID); !ok || found.Running || found.Exit == nil || found.Exit.Code != 3 {
		w.Errorf("listed as %+v", found)
	}
}

func foreign(w *World) {
	mine := w.Spec("serve")
	w.Run(mine)
	if w.Foreign != nil {
		w.Foreign(w.T)
	}
	// Another node of the same zone, on the same engine, is foreign too.
	other := w.Harness.New(w.T)()
	if closer, ok := other.(io.Closer); ok {
		w.Cleanup(func() { _ = closer.Close() })
	}
	if listed, err := other.List(w.Context()); err != nil || len(listed) != 0 {
		w.Errorf("another node lists %+v, %v", listed, err)
	}
	if listed, err := w.List(w.Context()); err != nil || len(listed) != 1 || listed[0].ID != mine.ID {
		w.Errorf("lists %+v, %v", listed, err)
	}
}

func copied(w *World) {
	if w.Copy == nil {
		return
	}
	watched, err := w.Watch(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	mine := w.Run(w.Spec("serve"))
	if event := <-watched; event.Kind == runtime.Created {
		event = <-watched
	}
	end := w.Copy(w.T, mine)
	if listed, err := w.List(w.Context()); err != nil || len(listed) != 1 || listed[0].RuntimeID != mine.RuntimeID {
		w.Errorf("lists %+v, %v", listed, err)
	}
	end()
	if found, ok := w.Find(mine.ID); !ok || !found.Running || found.RuntimeID != mine.RuntimeID {
		w.Errorf("after the end of its copy it is %+v", found)
	}
	if err := w.Stop(w.Context(), mine.ID, time.Minute); err != nil {
		w.Fatal(err)
	}
	if event := <-watched; event.Kind != runtime.Ended || event.ID != mine.ID || event.Exit.Code != 0 {
		w.Errorf("the first event is %+v, not its own end", event)
	}
	again := w.Copy(w.T, mine)
	defer again()
	if err := w.Remove(w.Context(), mine.ID); err != nil {
		w.Errorf("removing what has a copy that runs: %v", err)
	}
	if listed, err := w.List(w.Context()); err != nil || len(listed) != 0 {
		w.Errorf("once it was removed, its copy is listed as %+v, %v", listed, err)
	}
}

func startedAgain(w *World) {
	if w.StartAgain == nil {
		return
	}
	spec := w.Spec("serve")
	w.Run(spec)
	w.AwaitLine(spec.ID, "serving")
	if err := w.Stop(w.Context(), spec.ID, time.Minute); err != nil {
		w.Fatal(err)
	}
	ended, _ := w.Find(spec.ID)
	watched, err := w.Watch(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	w.StartAgain(w.T, ended)
	if event := <-watched; event.Kind != runtime.Started || event.ID != spec.ID {
		w.Errorf("the start by somebody else is told as %+v", event)
	}
	if found, ok := w.Find(spec.ID); !ok || !found.Running {
		w.Errorf("listed as %+v", found)
	}
	if err := w.Remove(w.Context(), spec.ID); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		w.Errorf("removing what runs again: %v", err)
	}
	if err := w.Stop(w.Context(), spec.ID, 0); err != nil {
		w.Fatal(err)
	}
	if found, ok := w.Find(spec.ID); !ok || found.Running || found.Exit == nil {
		w.Errorf("after its second end it is %+v", found)
	}
	if err := w.Remove(w.Context(), spec.ID); err != nil {
		w.Error(err)
	}
}
