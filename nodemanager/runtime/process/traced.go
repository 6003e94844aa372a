package process

import (
	"errors"
	"fmt"
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

// startTraced starts a process, which must ask to be traced, and calls ready before its first instruction. If ready fails,
// or if this whole process is killed meanwhile, the new one is killed.
func startTraced(start func() (pid int, err error), ready func(pid int) error) error {
	// The thread that forks is the tracer, and only the tracer can continue the process.
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	pid, err := start()
	if err != nil {
		return err
	}
	if err = awaitTrap(pid); err == nil {
		err = unix.PtraceSetOptions(pid, unix.PTRACE_O_EXITKILL)
	}
	if err == nil {
		err = ready(pid)
	}
	if err == nil {
		err = unix.PtraceDetach(pid)
	}
	if err == nil {
		return nil
	}
	_ = unix.Kill(pid, unix.SIGKILL)
	for {
		var status unix.WaitStatus
		if _, reap := unix.Wait4(pid, &status, 0, nil); errors.Is(reap, unix.EINTR) || reap == nil && status.Stopped() {
			continue
		}
		return err
	}
}

func awaitTrap(pid int) error {
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(pid, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("waiting for process %d to stop at its start: %w", pid, err)
		case !status.Stopped():
			return fmt.Errorf("process %d ended before it began", pid)
		}
		return nil
	}
}
