package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// drain is how long the output of an ended command is waited for when something it started holds on to it.
const drain = 2 * time.Second

// Exec implements runtime.Runtime: the command runs in the container's control group, with its user, environment
// and working directory. The end of ctx kills it. A Stdin that blocks is left behind in its Read.
func (r *Runtime) Exec(ctx context.Context, key id.Container, request runtime.Exec) (int, error) {
	c := r.find(key)
	switch {
	case c == nil:
		return 0, fmt.Errorf("no container %v: %w", key, errdefs.ErrNotFound)
	case c.hasEnded():
		return 0, fmt.Errorf("container %v has ended: %w", key, errdefs.ErrFailedPrecondition)
	case len(request.Command) == 0:
		return 0, fmt.Errorf("no command to run: %w", errdefs.ErrInvalidArgument)
	}
	command, err := c.command(ctx, request)
	if err != nil {
		return 0, err
	}
	wait := func() error { return nil }
	if request.TTY {
		wait, err = connectTerminal(command, request)
	} else {
		command.Stdout, command.Stderr = request.Stdout, request.Stderr
		err = connectStdin(command, request.Stdin)
	}
	if err != nil {
		return 0, err
	}
	err = hold(
		func() (int, error) {
			if err := command.Start(); err != nil {
				return 0, fmt.Errorf("cannot run %s (%w): %w", request.Command[0], err, errdefs.ErrInvalidArgument)
			}
			return command.Process.Pid, nil
		},
		func(pid int) error {
			if c.group == nil {
				return nil
			}
			return c.group.Add(pid)
		})
	if why, ok := whyNot(err); ok {
		left := wait() // it writes to the same place
		code, err := request.CannotRun(why)
		return code, errors.Join(err, left)
	}
	if err != nil {
		return 0, errors.Join(err, wait())
	}
	err = command.Wait()
	if left := wait(); left != nil && err == nil {
		err = left
	}
	var exited *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case errors.As(err, &exited):
		status := exited.Sys().(syscall.WaitStatus)
		if status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return status.ExitStatus(), nil
	case errors.Is(err, exec.ErrWaitDelay):
		return 0, nil
	}
	return 0, err
}

// whyNot tells a program that cannot be run from other reasons why a command did not start.
func whyNot(err error) (runtime.WhyNot, bool) {
	var path *fs.PathError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return runtime.WhyNot{Missing: true}, true
	case !errors.As(err, &path) || path.Op != "fork/exec":
		return runtime.WhyNot{}, false
	case errors.Is(err, fs.ErrNotExist):
		return runtime.WhyNot{Missing: true}, true
	case errors.Is(err, syscall.ENOEXEC):
		return runtime.WhyNot{Reason: "it is not a program for this kind of machine"}, true
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EISDIR):
		return runtime.WhyNot{Reason: "it may not be executed"}, true
	}
	return runtime.WhyNot{}, false
}

// command is the request's in the container's surroundings.
func (c *container) command(ctx context.Context, request runtime.Exec) (*exec.Cmd, error) {
	environ, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.state.Pid), "environ"))
	if err != nil {
		return nil, fmt.Errorf("container %v has ended: %w", c.id, errdefs.ErrFailedPrecondition)
	}
	owner, err := credential(c.state.User)
	if err != nil {
		return nil, err
	}
	program := request.Command[0]
	if self := c.runtime.config.Self; program == "mammoth" && self != "" {
		program = self
	}
	command := exec.CommandContext(ctx, program, request.Command[1:]...)
	command.Dir = c.state.WorkingDir
	command.WaitDelay = drain
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Ptrace: true, Credential: owner}
	for entry := range bytes.SplitSeq(bytes.TrimSuffix(environ, []byte{0}), []byte{0}) {
		command.Env = append(command.Env, string(entry))
	}
	for key, value := range request.Env {
		command.Env = append(command.Env, key+"="+value)
	}
	if request.TTY && !strings.Contains(string(environ), "TERM=") {
		command.Env = append(command.Env, "TERM=xterm")
	}
	return command, nil
}

// connectStdin feeds the command without making its end wait for a reader that blocks.
func connectStdin(command *exec.Cmd, stdin io.Reader) error {
	if stdin == nil {
		return nil
	}
	pipe, err := command.StdinPipe()
	if err != nil {
		return err
	}
	go func() {
		// An error means that the command does not want to read on.
		_, _ = io.Copy(pipe, stdin)
		_ = pipe.Close()
	}()
	return nil
}

// connectTerminal gives the command a terminal of its own. wait must be called after its end.
func connectTerminal(command *exec.Cmd, request runtime.Exec) (wait func() error, err error) {
	master, slave, err := openTerminal()
	if err != nil {
		return nil, err
	}
	command.Stdin, command.Stdout, command.Stderr = slave, slave, slave
	command.SysProcAttr.Setctty = true
	out := request.Stdout
	if out == nil {
		out = io.Discard
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		// The read fails once nobody has the terminal open any more.
		_, _ = io.Copy(out, master)
	}()
	if request.Stdin != nil {
		go func() { _, _ = io.Copy(master, request.Stdin) }()
	}
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case <-ended:
				return
			case size, ok := <-request.Resize:
				if !ok {
					return
				}
				_ = resize(master, size)
			}
		}
	}()
	return func() error {
		close(ended)
		err := slave.Close()
		timer := time.NewTimer(drain)
		defer timer.Stop()
		select {
		case <-copied:
		case <-timer.C:
		}
		return errors.Join(err, master.Close())
	}, nil
}

func openTerminal() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("opening a terminal: %w", err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	master = os.NewFile(uintptr(fd), "terminal")
	if err == nil {
		slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("opening a terminal: %w", err), master.Close())
	}
	return master, slave, nil
}

// resize does not go through Fd, which would make the file's reads block a thread.
func resize(master *os.File, size runtime.WindowSize) error {
	conn, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = conn.Control(func(fd uintptr) {
		set = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size.Rows), Col: uint16(size.Columns)})
	})
	return errors.Join(err, set)
}
