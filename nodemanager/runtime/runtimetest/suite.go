package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
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
	{"StopOfTheEndedAndTheUnknown", stopNothing},
	{"RemoveIsForTheEndedAndIdempotent", remove},
	{"Environment", environment},
	{"Events", events},
	{"EventsEndWithTheContext", eventsEnd},
	{"ListAfterRestart", listAfterRestart},
	{"AnEndWhileNobodyWatchedIsListed", endedMeanwhile},
	{"ForeignContainersAreNotListed", foreign},
	{"LogsInOrderTailSince", logs},
	{"LogsOfBothStreams", logsBoth},
	{"LogsFollow", logsFollow},
	{"LogsOutliveTheContainerUntilPurge", logsOutlive},
	{"ExecExitCodes", execExit},
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
	if info.HostNetwork != w.HostNetwork {
		w.Errorf("host network %v, want %v", info.HostNetwork, w.HostNetwork)
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

// same compares everything that a list must tell as the start did.
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
		if exit := w.End(spec.ID); exit.Code != code || exit.OOM || exit.DiskQuota {
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
	// Stop returns when it was seen gone: nothing remains to be waited for.
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

func logs(w *World) {
	spec := w.Spec("lines", "50")
	w.Run(spec)
	w.End(spec.ID)
	all := make([]string, 50)
	for i := range all {
		all[i] = fmt.Sprintf("line %d", i+1)
	}
	for tail, want := range map[int][]string{-1: all, 0: nil, 1: all[49:], 10: all[40:], 100: all} {
		if got := w.Output(spec.ID, runtime.LogOptions{Tail: tail}); got != strings.Join(want, "\n") {
			w.Errorf("tail %d is %q", tail, got)
		}
	}
	var last time.Time
	err := w.Logs(w.Context(), spec.ID, runtime.LogOptions{Tail: -1}, func(line runtime.LogLine) error {
		if line.Time.Before(last) {
			w.Errorf("%q at %v comes after %v", line.Text, line.Time, last)
		}
		last = line.Time
		return nil
	})
	if err != nil || last.IsZero() {
		w.Fatal(err, last)
	}
	if got := w.Output(spec.ID, runtime.LogOptions{Tail: -1, Since: last}); !strings.HasSuffix(got, "line 50") {
		w.Errorf("since the last line's time: %q", got)
	}
	if got := w.Output(spec.ID, runtime.LogOptions{Tail: -1, Since: last.Add(time.Second)}); got != "" {
		w.Errorf("since after the end: %q", got)
	}
	if err := w.Logs(w.Context(), w.Spec().ID, runtime.LogOptions{}, nil); !errors.Is(err, errdefs.ErrNotFound) {
		w.Errorf("logs of the unknown: %v", err)
	}
	stop := errors.New("enough")
	if err := w.Logs(w.Context(), spec.ID, runtime.LogOptions{Tail: -1}, func(runtime.LogLine) error { return stop }); !errors.Is(err, stop) {
		w.Errorf("the reader's own error came back as %v", err)
	}
}

func logsBoth(w *World) {
	spec := w.Spec("both")
	w.Run(spec)
	w.End(spec.ID)
	got := map[string]bool{}
	err := w.Logs(w.Context(), spec.ID, runtime.LogOptions{Tail: -1}, func(line runtime.LogLine) error {
		got[line.Text] = line.Stderr
		return nil
	})
	if err != nil || !maps.Equal(got, map[string]bool{"out": false, "err": true}) {
		w.Errorf("got %v, %v", got, err)
	}
}

func logsFollow(w *World) {
	spec := w.Spec("tick", "20", "20")
	w.Run(spec)
	got := w.Output(spec.ID, runtime.LogOptions{Follow: true, Tail: -1})
	if lines := strings.Split(got, "\n"); len(lines) != 20 || lines[0] != "line 1" || lines[19] != "line 20" {
		w.Errorf("followed %q", got)
	}
	w.End(spec.ID)
	if again := w.Output(spec.ID, runtime.LogOptions{Follow: true, Tail: -1}); again != got {
		w.Errorf("following the ended gives %q", again)
	}
}

func logsOutlive(w *World) {
	spec := w.Spec("lines", "3")
	w.Run(spec)
	w.End(spec.ID)
	if err := w.Remove(w.Context(), spec.ID); err != nil {
		w.Fatal(err)
	}
	for range 2 {
		for _, follow := range []bool{false, true} {
			if got := w.Output(spec.ID, runtime.LogOptions{Tail: 2, Follow: follow}); got != "line 2\nline 3" {
				w.Errorf("after the removal: %q", got)
			}
		}
		w.Restart()
	}
	if err := w.Purge(w.Context(), spec.ID); err != nil {
		w.Fatal(err)
	}
	if err := w.Logs(w.Context(), spec.ID, runtime.LogOptions{}, nil); !errors.Is(err, errdefs.ErrNotFound) {
		w.Errorf("after the purge: %v", err)
	}
}

func execExit(w *World) {
	spec := w.Spec("serve")
	w.Run(spec)
	var out, errs bytes.Buffer
	for _, want := range []int{0, 3} {
		code, err := w.Exec(w.Context(), spec.ID, runtime.Exec{Command: w.Command("exit", fmt.Sprint(want)), Stdout: &out, Stderr: &errs})
		if err != nil || code != want {
			w.Errorf("exit %d: %d, %v", want, code, err)
		}
	}
	code, err := w.Exec(w.Context(), spec.ID, runtime.Exec{Command: w.Command("both"), Stdout: &out, Stderr: &errs})
	if err != nil || code != 0 || out.String() != "out\n" || errs.String() != "err\n" {
		w.Errorf("%d, %v, out %q, err %q", code, err, &out, &errs)
	}
	out.Reset()
	code, err = w.Exec(w.Context(), spec.ID, runtime.Exec{Command: w.Command("env"), Env: map[string]string{"ASKED": "yes"}, Stdout: &out})
	if err != nil || code != 0 || !strings.Contains(out.String(), "ASKED=yes\n") {
		w.Errorf("%d, %v, environment %q", code, err, &out)
	}
	if code, err = w.Exec(w.Context(), spec.ID, runtime.Exec{Command: []string{"/no/such/program"}}); err == nil && code == 0 {
		w.Error("running no program succeeded")
	}
}

func execStdin(w *World) {
	spec := w.Spec("serve")
	w.Run(spec)
	text := strings.Repeat("0123456789abcdef", 8<<10)
	var out bytes.Buffer
	code, err := w.Exec(w.Context(), spec.ID, runtime.Exec{Command: w.Command("cat"), Stdin: strings.NewReader(text), Stdout: &out})
	if err != nil || code != 0 || out.String() != text {
		w.Errorf("%d, %v, %d of %d bytes came back", code, err, out.Len(), len(text))
	}
}

func execTerminal(w *World) {
	spec := w.Spec("serve")
	w.Run(spec)
	resize := make(chan runtime.WindowSize, 1)
	resize <- runtime.WindowSize{Rows: 40, Columns: 120}
	var out bytes.Buffer
	code, err := w.Exec(w.Context(), spec.ID, runtime.Exec{Command: w.Command("tty"), TTY: true, Stdout: &out, Resize: resize})
	if err != nil || code != 0 || strings.TrimSpace(out.String()) != "40x120" {
		w.Errorf("%d, %v, %q", code, err, &out)
	}
	out.Reset()
	code, err = w.Exec(w.Context(), spec.ID, runtime.Exec{Command: w.Command("tty"), Stdout: &out, Stderr: io.Discard})
	if err != nil || code != 1 {
		w.Errorf("without a terminal: %d, %v, %q", code, err, &out)
	}
}

func execEnded(w *World) {
	if _, err := w.Exec(w.Context(), w.Spec().ID, runtime.Exec{Command: w.Command("exit", "0")}); !errors.Is(err, errdefs.ErrNotFound) {
		w.Errorf("in the unknown: %v", err)
	}
	spec := w.Spec("exit", "0")
	w.Run(spec)
	w.End(spec.ID)
	if _, err := w.Exec(w.Context(), spec.ID, runtime.Exec{Command: w.Command("exit", "0")}); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		w.Errorf("in the ended: %v", err)
	}
}

func ports(w *World) {
	var group sync.WaitGroup
	var mu sync.Mutex
	seen := map[int]bool{}
	if err := w.Prepare(w.Context(), w.Spec("serve"), func(runtime.Progress) {}); err != nil {
		w.Fatal(err)
	}
	for range 8 {
		spec := w.Spec("serve")
		spec.Ports = []runtime.Port{{Name: "http", Container: 8080}, {Name: "admin", Container: 9090}}
		group.Go(func() {
			started, err := w.Start(w.Context(), spec)
			if err != nil || len(started.Ports) != 2 {
				w.Errorf("%+v, %v", started, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, port := range started.Ports {
				if port.Host == 0 || seen[port.Host] {
					w.Errorf("port %+v was given twice", port)
				}
				seen[port.Host] = true
			}
			if !w.Dial {
				return
			}
			w.AwaitLine(spec.ID, "serving")
			if got, err := fetch(started.Ports[0].Host); err != nil || !strings.HasSuffix(got, "ok\n") {
				w.Errorf("port %d answers %q, %v", started.Ports[0].Host, got, err)
			}
		})
	}
	group.Wait()
}

func fetch(port int) (string, error) {
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 5*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

func hostPorts(w *World) {
	spec := w.Spec("env")
	spec.Network = runtime.Host
	spec.Ports = []runtime.Port{{Name: "http"}, {Name: "peer-sync"}}
	if !w.HostNetwork {
		if _, err := w.Start(w.Context(), spec); !errors.Is(err, errdefs.ErrPermissionDenied) {
			w.Errorf("host network where it is not allowed: %v", err)
		}
		return
	}
	started := w.Run(spec)
	w.End(spec.ID)
	if len(started.Ports) != 2 || started.Ports[0].Host == 0 || started.Ports[0].Host == started.Ports[1].Host {
		w.Fatalf("leased %+v", started.Ports)
	}
	env := strings.Split(w.Output(spec.ID, runtime.LogOptions{Tail: -1}), "\n")
	for key, port := range map[string]int{"PORT": started.Ports[0].Host, "PORT_HTTP": started.Ports[0].Host, "PORT_PEER_SYNC": started.Ports[1].Host} {
		if want := fmt.Sprintf("%s=%d", key, port); !slices.Contains(env, want) {
			w.Errorf("%s is not in %q", want, env)
		}
	}
}

func memory(w *World) {
	spec := w.Spec("memory", "128")
	w.Run(spec)
	if exit := w.End(spec.ID); !exit.OOM || exit.Code != 137 {
		w.Errorf("128MiB of 64MiB ended as %+v", exit)
	}
	if found, ok := w.Find(spec.ID); !ok || found.Exit == nil || !found.Exit.OOM {
		w.Errorf("listed as %+v", found)
	}
	spec = w.Spec("memory", "32")
	w.Run(spec)
	w.AwaitLine(spec.ID, "allocated")
}

func memoryChild(w *World) {
	spec := w.Spec("memory-child", "128")
	w.Run(spec)
	if exit := w.End(spec.ID); !exit.OOM {
		w.Errorf("a child with 128MiB of 64MiB ended it as %+v", exit)
	}
}

func disk(w *World) { overfill(w, "disk") }

func diskDeleted(w *World) { overfill(w, "disk-deleted") }

// overfill writes twice the quota: that fails with ENOSPC, or ends the container.
func overfill(w *World, command string) {
	info, err := w.Info(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	spec := w.Spec(command, "128")
	spec.MemoryBytes = 256 << 20 // the page cache counts
	w.Run(spec)
	exit := w.End(spec.ID)
	switch info.DiskQuota {
	case "driver":
		if exit.Code != 28 {
			w.Errorf("128MiB of 64MiB ended as %+v, want ENOSPC", exit)
		}
	case "watcher":
		if !exit.DiskQuota || !strings.HasPrefix(exit.Message, "disk quota exceeded (") || !strings.HasSuffix(exit.Message, " of 64MiB)") {
			w.Errorf("128MiB of 64MiB ended as %+v", exit)
		}
		if found, ok := w.Find(spec.ID); !ok || found.Exit == nil || *found.Exit != exit {
			w.Errorf("listed as %+v", found.Exit)
		}
	default:
		w.Errorf("nobody holds containers to their disk quota")
	}
	within := w.Spec("disk", "32")
	within.MemoryBytes = 256 << 20
	w.Run(within)
	w.AwaitLine(within.ID, "filled")
}

func pids(w *World) {
	spec := w.Spec("fork", "300")
	spec.Pids = 32
	w.Run(spec)
	var forked int
	err := w.Logs(w.Context(), spec.ID, runtime.LogOptions{Follow: true, Tail: -1}, func(line runtime.LogLine) error {
		if _, err := fmt.Sscanf(line.Text, "forked %d", &forked); err == nil {
			return io.EOF
		}
		return nil
	})
	if err != nil && err != io.EOF {
		w.Fatal(err)
	}
	// A bomb whose own runtime runs into the limit may also die of it; what counts is that it stays in its box.
	if forked >= 32 {
		w.Errorf("%d processes with a quota of 32", forked)
	}
	if err := w.Stop(w.Context(), spec.ID, 0); err != nil {
		w.Fatal(err)
	}
}
