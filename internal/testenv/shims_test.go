package testenv

import (
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

func TestOnlyTheShimsOfOneEngineEnd(t *testing.T) {
	const shim = "/usr/bin/containerd-shim-runc-v2"
	start := func(program, dir string) *exec.Cmd {
		// A shell that waits, so that the folder may stand among the arguments.
		process := exec.Command("/bin/sh", "-c", "read line", "sh", "-address", filepath.Join(dir, "containerd.sock"))
		process.Args[0] = program
		if _, err := process.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
		return process
	}
	gone, other := t.TempDir(), t.TempDir()
	ours, theirs, another := start(shim, gone), start(shim, other), start("reader", gone)
	if err := EndShims(gone); err != nil {
		t.Fatal(err)
	}
	_ = ours.Wait()
	if status := ours.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Errorf("the shim of the engine that is gone ended with %v", ours.ProcessState)
	}
	for name, process := range map[string]*exec.Cmd{"the shim of another engine": theirs, "a program that is no shim": another} {
		if err := process.Process.Signal(syscall.Signal(0)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = process.Process.Kill()
		_ = process.Wait()
	}
}
