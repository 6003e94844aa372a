package process_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/nodemanager/network"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/process"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/runtimetest"
)

// With this in its environment the test binary is a NodeManager that starts one container and waits to be killed.
const (
	nodeManagerDir     = "MAMMOTH_TEST_NODEMANAGER"
	nodeManagerProgram = "MAMMOTH_TEST_PROGRAM"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(nodeManagerDir); dir != "" {
		if err := nodeManager(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

var lonely = id.Container{Epoch: 3, App: id.App{ClusterStart: 1, Seq: 1}, Seq: 1}

func config(dir string) process.Config {
	return process.Config{
		Dir: dir + "/state", LogDir: dir + "/logs", Zone: "restart", Node: fmt.Sprint("node-", os.Getpid()),
		Ports: network.Range{First: 28600, Last: 28699},
	}
}

func nodeManager(dir string) error {
	c := config(dir)
	c.Node = os.Getenv("MAMMOTH_TEST_NODE")
	r, err := process.New(c)
	if err != nil {
		return err
	}
	container, err := r.Start(context.Background(), runtime.Spec{
		ID: lonely, Command: []string{os.Getenv(nodeManagerProgram), "tick", "100000", "10"}, Ports: []runtime.Port{{Name: "http"}},
		MemoryBytes: 64 << 20, Pids: 50, DiskBytes: 10 << 20,
	})
	if err != nil {
		return err
	}
	fmt.Println("started", container.Pid, container.StartedAt.UnixNano(), container.Ports[0].Host)
	select {}
}

// startAndKill makes another process start the container, which runs for a quarter of an hour, and kills that process. The
// container ends with the test.
func startAndKill(t *testing.T, dir, program string) (pid int, started int64, port int) {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), nodeManagerDir+"="+dir, nodeManagerProgram+"="+program, "MAMMOTH_TEST_NODE="+config(dir).Node)
	command.Stderr = os.Stderr
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if _, scan := fmt.Sscanf(line, "started %d %d %d", &pid, &started, &port); scan != nil {
		t.Fatal(line, err, scan)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		_ = unix.Close(pidfd)
	})
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait()
	return pid, started, port
}

func TestKillOfTheNodeManagerIsNotNoticed(t *testing.T) {
	testenv.Need(t, "cgroup")
	dir, program := t.TempDir(), runtimetest.Build(t)
	pid, started, port := startAndKill(t, dir, program)

	r, err := process.New(config(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	list, err := r.List(ctx)
	if err != nil || len(list) != 1 || !list[0].Running || list[0].Pid != pid || list[0].StartedAt.UnixNano() != started || list[0].Ports[0].Host != port {
		t.Fatalf("lists %+v, %v", list, err)
	}
	// Its output continues, without a gap and in order. The batch that was written during the kill may be there twice.
	next, repeated := 1, false
	err = r.Logs(ctx, lonely, runtime.LogOptions{Follow: true, Tail: -1}, func(line runtime.LogLine) error {
		var number int
		if _, err := fmt.Sscanf(line.Text, "line %d", &number); err != nil || number > next || number < next && repeated {
			t.Errorf("%q instead of line %d", line.Text, next)
		}
		repeated = repeated || number < next
		if next = number + 1; next > 100 {
			return os.ErrProcessDone
		}
		return nil
	})
	if !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	events, err := r.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Stop(ctx, lonely, 10*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if event := <-events; event.Kind != runtime.Ended || event.Exit == nil || event.Exit.Code != -1 {
		t.Errorf("the end of an adopted process: %+v", event)
	}
	if err := r.Remove(ctx, lonely); err != nil {
		t.Error(err)
	}
}

func TestEndWhileTheNodeManagerWasAway(t *testing.T) {
	testenv.Need(t, "cgroup")
	dir, program := t.TempDir(), runtimetest.Build(t)
	pid, _, _ := startAndKill(t, dir, program)
	// No NodeManager runs while it prints a line, which only its spool has.
	for spool := filepath.Join(config(dir).Dir, lonely.String(), "stdout"); ; {
		if said, err := os.ReadFile(spool); err != nil {
			t.Fatal(err)
		} else if strings.HasSuffix(string(said), "\n") {
			break
		}
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 30_000); n != 1 {
		t.Fatal(n, err)
	}
	r, err := process.New(config(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	events, err := r.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("lists %+v, %v", list, err)
	}
	exit := list[0].Exit
	if exit == nil { // the end is seen, only not yet
		exit = (<-events).Exit
	}
	if exit.Code != -1 || exit.OOM {
		t.Errorf("ended as %+v", exit)
	}
	if err := r.Stop(t.Context(), lonely, time.Second); err != nil {
		t.Error(err)
	}
	if err := r.Remove(t.Context(), lonely); err != nil {
		t.Error(err)
	}
	var last string
	if err := r.Logs(t.Context(), lonely, runtime.LogOptions{Tail: 1}, func(line runtime.LogLine) error {
		last = line.Text
		return nil
	}); err != nil || !strings.HasPrefix(last, "line ") {
		t.Errorf("its last words %q, %v", last, err)
	}
}

func TestWithoutControlGroups(t *testing.T) {
	c := config(t.TempDir())
	c.Unlimited, c.Self = true, runtimetest.Build(t)
	r, err := process.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// "mammoth" is the NodeManager's own program.
	spec := runtime.Spec{ID: lonely, Command: []string{"mammoth", "serve"}, Ports: []runtime.Port{{Name: "http"}}}
	if _, err := r.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if code, err := r.Exec(t.Context(), lonely, runtime.Exec{Command: []string{"mammoth", "exit", "4"}}); err != nil || code != 4 {
		t.Errorf("exec: %d, %v", code, err)
	}
	if err := r.Stop(t.Context(), lonely, time.Minute); err != nil {
		t.Fatal(err)
	}
	if list, err := r.List(t.Context()); err != nil || len(list) != 1 || list[0].Exit == nil {
		t.Errorf("%+v, %v", list, err)
	}
	if err := r.Remove(t.Context(), lonely); err != nil {
		t.Error(err)
	}
}

// What a container writes between two measurements of the watcher is found at its end.
func TestDiskQuotaOfAShortLife(t *testing.T) {
	c := config(t.TempDir())
	c.Unlimited = true
	r, err := process.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	events, err := r.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for command, over := range map[string]bool{
		"head -c 8388608 /dev/zero >fill": true, "head -c 524288 /dev/zero >fill": false,
	} {
		spec := runtime.Spec{ID: lonely, Command: []string{"/bin/sh", "-c", command}, DiskBytes: 1 << 20}
		if _, err := r.Start(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		event := <-events
		for event.Kind != runtime.Ended {
			event = <-events
		}
		if exit := event.Exit; exit.DiskQuota != over || strings.HasPrefix(exit.Message, "disk quota exceeded (") != over {
			t.Errorf("%s ended as %+v", command, exit)
		}
		if err := errors.Join(r.Remove(t.Context(), lonely), r.Purge(t.Context(), lonely)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSpecsThatCannotRun(t *testing.T) {
	c := config(t.TempDir())
	c.Unlimited = true
	r, err := process.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for name, spec := range map[string]runtime.Spec{
		"no command":     {},
		"read-only root": {Command: []string{"true"}, ReadOnlyRoot: true},
		"unknown user":   {Command: []string{"true"}, User: "nobody-of-this-name"},
		"not a program":  {Command: []string{"/etc/passwd"}},
	} {
		spec.ID = lonely
		if _, err := r.Start(t.Context(), spec); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if entries, err := os.ReadDir(c.Dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// A changed character may leave a valid state file, for example of another process.
func TestAContainerWhoseNoteIsDamagedIsEnded(t *testing.T) {
	testenv.Need(t, "cgroup")
	dir, program := t.TempDir(), runtimetest.Build(t)
	pid, _, _ := startAndKill(t, dir, program)
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	path := filepath.Join(config(dir).Dir, lonely.String(), "state.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := regexp.MustCompile(`"startTicks": \d`).ReplaceAllFunc(text, func(said []byte) []byte {
		last := len(said) - 1
		return append(bytes.Clone(said[:last]), '1'+(said[last]-'0')%9) // another digit, and no leading zero
	})
	if bytes.Equal(text, changed) {
		t.Fatalf("%s says no start time", text)
	}
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := process.New(config(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	list, err := r.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Exit == nil || list[0].Exit.Message != "its record on the node was damaged" {
		t.Fatalf("lists %+v, %v", list, err)
	}
	// A process that was killed leaves its control group a moment before it ends.
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 30_000); n != 1 {
		t.Errorf("its process goes on: %d, %v", n, err)
	}
	if err := r.Remove(t.Context(), lonely); err != nil {
		t.Error(err)
	}
}
