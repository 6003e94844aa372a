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
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/processes"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// Exec implements runtime.Runtime. The command runs in the container's control group, with its user, environment and working
// directory. A Stdin whose Read blocks is abandoned.
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
	mine := processes.New()
	command, err := c.command(request, mine)
	if err != nil {
		return 0, err
	}
	connect := connectPipes
	if request.TTY {
		connect = connectTerminal
	}
	var flow runtime.OutputMonitor
	out, err := connect(command, request, &flow)
	if err != nil {
		return 0, err
	}
	err = startTraced(
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
	out.started()
	if why, ok := notRunnable(err); ok {
		out.close() // it writes to the same output
		return request.CannotRun(why)
	}
	if err != nil {
		out.close()
		return 0, err
	}
	mine.Session, mine.Belongs = command.Process.Pid, c.owns
	stop := context.AfterFunc(ctx, func() { c.endCommand(mine) })
	err = command.Wait()
	flow.Await(ctx, out.copied, runtime.OutputTimeout)
	select {
	case <-out.copied:
		if request.TTY { // remaining processes have lost their terminal
			c.endCommand(mine)
		}
	default:
		c.endCommand(mine)
		// Its output has an end now. What it printed may not have been read yet, however long ago that was.
		flow.Await(ctx, out.copied, lastOutput)
	}
	if !stop() && ctx.Err() != nil {
		c.endCommand(mine) // all of its processes are gone when this returns
	}
	out.close()
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
	}
	return 0, err
}

// lastOutput is how long to wait for more output once no process of the command is left. A process that cannot be attributed to
// the command any more may keep its output open for ever.
const lastOutput = 5 * time.Second

// owns reports whether a process is in the container.
func (c *container) owns(pid int) bool {
	if c.group == nil {
		return true // without control groups, in tests
	}
	members, err := c.group.Pids()
	return err == nil && slices.Contains(members, pid)
}

// endCommand kills a command and everything that it has started.
func (c *container) endCommand(command processes.Command) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := command.Kill(ctx); err != nil {
		c.runtime.config.Logger.Warn("cannot end a command", "container", c.id.String(), "error", err)
	}
}

// notRunnable distinguishes a program that cannot be run from other reasons why a command did not start.
func notRunnable(err error) (runtime.NotRunnable, bool) {
	var path *fs.PathError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return runtime.NotRunnable{Missing: true}, true
	case !errors.As(err, &path) || path.Op != "fork/exec":
		return runtime.NotRunnable{}, false
	case errors.Is(err, fs.ErrNotExist):
		return runtime.NotRunnable{Missing: true}, true
	case errors.Is(err, syscall.ENOEXEC):
		return runtime.NotRunnable{Reason: runtime.WrongMachine}, true
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EISDIR):
		return runtime.NotRunnable{Reason: runtime.NotExecutable}, true
	}
	return runtime.NotRunnable{}, false
}

// command builds the request's command in the container's environment.
func (c *container) command(request runtime.Exec, mark processes.Command) (*exec.Cmd, error) {
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
	command := exec.Command(program, request.Command[1:]...)
	command.Dir = c.state.WorkingDir
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Ptrace: true, Credential: owner}
	for entry := range bytes.SplitSeq(bytes.TrimSuffix(environ, []byte{0}), []byte{0}) {
		command.Env = append(command.Env, string(entry))
	}
	for key, value := range request.Env {
		command.Env = append(command.Env, key+"="+value)
	}
	command.Env = append(command.Env, mark.Environment())
	if request.TTY && !strings.Contains(string(environ), "TERM=") {
		command.Env = append(command.Env, "TERM=xterm")
	}
	return command, nil
}

// output copies the output of a command.
type output struct {
	// copied is closed when everything was copied.
	copied chan struct{}
	// commandEnds are the command's ends of the pipes, which started closes; close closes ownEnds.
	commandEnds, ownEnds []*os.File
	ended                chan struct{}
}

func newOutput() *output {
	return &output{copied: make(chan struct{}), ended: make(chan struct{})}
}

// started closes the command's ends.
func (o *output) started() {
	for _, file := range o.commandEnds {
		_ = file.Close()
	}
}

// close ends the copying, and returns when it has ended.
func (o *output) close() {
	close(o.ended)
	for _, file := range o.ownEnds {
		_ = file.Close()
	}
	<-o.copied
}

// connectPipes connects the command with pipes, so that its end does not wait for a reader that blocks.
func connectPipes(command *exec.Cmd, request runtime.Exec, flow *runtime.OutputMonitor) (*output, error) {
	out := newOutput()
	var copying sync.WaitGroup
	for _, one := range []struct {
		to    io.Writer
		their *io.Writer
	}{{request.Stdout, &command.Stdout}, {request.Stderr, &command.Stderr}} {
		read, write, err := os.Pipe()
		if err != nil {
			out.started()
			close(out.copied)
			out.close()
			return nil, fmt.Errorf("opening a pipe: %w", err)
		}
		out.commandEnds, out.ownEnds = append(out.commandEnds, write), append(out.ownEnds, read)
		*one.their = write
		to := flow.To(one.to)
		copying.Go(func() {
			if _, err := io.Copy(to, read); err != nil { // the reader is gone; the command must not wait for it
				_, _ = io.Copy(io.Discard, read)
			}
		})
	}
	go func() {
		defer close(out.copied)
		copying.Wait()
	}()
	if request.Stdin == nil {
		return out, nil
	}
	pipe, err := command.StdinPipe()
	if err != nil {
		out.started()
		out.close()
		return nil, err
	}
	go func() {
		// An error means that the command does not read any more.
		_, _ = io.Copy(pipe, request.Stdin)
		_ = pipe.Close()
	}()
	return out, nil
}

// connectTerminal connects the command with a terminal.
func connectTerminal(command *exec.Cmd, request runtime.Exec, flow *runtime.OutputMonitor) (*output, error) {
	master, slave, err := openTerminal()
	if err != nil {
		return nil, err
	}
	out := newOutput()
	out.commandEnds, out.ownEnds = []*os.File{slave}, []*os.File{master}
	command.Stdin, command.Stdout, command.Stderr = slave, slave, slave
	command.SysProcAttr.Setctty = true
	go func() {
		defer close(out.copied)
		// The read fails once no process has the terminal open.
		_, _ = io.Copy(flow.To(request.Stdout), master)
	}()
	if request.Stdin != nil {
		go func() { _, _ = io.Copy(master, request.Stdin) }()
	}
	go func() {
		for {
			select {
			case <-out.ended:
				return
			case size, ok := <-request.Resize:
				if !ok {
					return
				}
				_ = resize(master, size)
			}
		}
	}()
	return out, nil
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

// resize does not use Fd, which would let the file's reads block a thread.
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
