package processes_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/nodemanager/processes"
)

// start runs a shell script as the leader of a session, and returns once it has printed something.
func start(t *testing.T, script string, env ...string) *exec.Cmd {
	t.Helper()
	command := exec.Command("sh", "-c", script)
	command.Env = append(os.Environ(), env...)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return command
}

func TestNothingOfACommandIsLeft(t *testing.T) {
	other := start(t, "echo; exec sleep 100")
	for name, script := range map[string]string{
		"a child":          "sleep 100 & echo; wait",
		"another session":  "setsid sleep 100 & echo; wait",
		"an orphan":        "(sleep 100 & sleep 100 &) ; echo; exec sleep 100",
		"without its mark": "echo; exec env -i sleep 100",
	} {
		t.Run(name, func(t *testing.T) {
			command := processes.New()
			started := start(t, script, command.Environment())
			command.Session = started.Process.Pid
			command.Belongs = func(int) bool { return true }
			if command.Orphaned() {
				t.Error("it is orphaned while the command runs")
			}
			ended := make(chan error, 1)
			go func() { ended <- started.Wait() }()
			if err := command.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
			<-ended
		})
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("another command: %v", err)
	}
}

func TestWhatACommandLeavesIsAnOrphan(t *testing.T) {
	command := processes.New()
	started := start(t, "sleep 100 & echo", command.Environment())
	if !processes.Await(t.Context(), started.Process.Pid) {
		t.Fatal("it was not seen to end")
	}
	_ = started.Wait()
	if !command.Orphaned() {
		t.Error("what it has left is not seen")
	}
	if err := command.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if command.Orphaned() {
		t.Error("something is left")
	}
}

// A process that is replacing its program has no environment yet, however long that takes.
func TestAProcessThatReplacesItsProgramIsFound(t *testing.T) {
	for range 20 {
		command := processes.New()
		started := start(t, `echo; exec sh -c "$AGAIN"`, command.Environment(), `AGAIN=exec sh -c "$AGAIN"`)
		if err := command.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		_ = started.Wait()
		if status := started.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
			t.Errorf("it ended with %v", started.ProcessState)
		}
	}
}

func TestTheWaitForAnEndEndsWithItsContext(t *testing.T) {
	started := start(t, "echo; exec sleep 100")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if processes.Await(ctx, started.Process.Pid) {
		t.Error("it runs, and was seen to end")
	}
}
