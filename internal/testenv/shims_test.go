package testenv

import (
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

func TestOnlyTheShimsOfOneEngineEnd(t *testing.T) {
	const shim = "/usr/bin/containerd-shim-runc-v2"
	// A shell that says that it is there and waits, so that the folder may stand among the arguments.
	start := func(program, dir string) (process *exec.Cmd, end io.Closer) {
		process = exec.Command("/bin/sh", "-c", "echo; read line", "sh", "-address", filepath.Join(dir, "containerd.sock"))
		process.Args[0] = program
		end, err := process.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		said, err := process.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(said, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return process, end
	}
	gone, other := t.TempDir(), t.TempDir()
	ours, _ := start(shim, gone)
	theirs, endTheirs := start(shim, other)
	another, endAnother := start("reader", gone)
	if err := EndShims(gone); err != nil {
		t.Fatal(err)
	}
	_ = ours.Wait()
	if status := ours.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Errorf("the shim of the engine that is gone ended with %v", ours.ProcessState)
	}
	_, _ = endTheirs.Close(), endAnother.Close()
	for name, process := range map[string]*exec.Cmd{"the shim of another engine": theirs, "a program that is no shim": another} {
		_ = process.Wait()
		if !process.ProcessState.Exited() {
			t.Errorf("%s ended with %v", name, process.ProcessState)
		}
	}
}
