package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/processes"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// Exec implements runtime.Runtime. The end of ctx kills the command. A Stdin whose Read blocks is abandoned.
func (r *Runtime) Exec(ctx context.Context, key id.Container, request runtime.Exec) (int, error) {
	options := container.ExecOptions{
		Cmd: request.Command, Tty: request.TTY, AttachStdin: request.Stdin != nil, AttachStdout: true, AttachStderr: true,
	}
	for key, value := range request.Env {
		options.Env = append(options.Env, key+"="+value)
	}
	command := processes.New()
	options.Env = append(options.Env, command.Environment())
	slices.Sort(options.Env)
	created, err := r.engine.ContainerExecCreate(ctx, r.ids.handle(key), options)
	switch {
	case errdefs.IsConflict(err):
		return 0, fmt.Errorf("container %v is not running: %w", key, errdefs.ErrFailedPrecondition)
	case errdefs.IsNotFound(err):
		return 0, fmt.Errorf("no container %v: %w", key, errdefs.ErrNotFound)
	case err != nil:
		return 0, r.engine.failure(ctx, err)
	}
	running := execution{engine: r.engine, id: created.ID, logger: r.logger}
	attached, err := r.engine.ContainerExecAttach(ctx, created.ID, container.ExecAttachOptions{Tty: request.TTY})
	if err != nil {
		return 0, r.engine.failure(ctx, err)
	}
	defer attached.Close()
	// The engine does not end a command when its connection is lost.
	stop := context.AfterFunc(ctx, func() {
		running.kill(ctx, command)
		attached.Close()
	})
	defer stop()
	if request.Stdin != nil {
		go func() {
			_, _ = io.Copy(attached.Conn, request.Stdin)
			_ = attached.CloseWrite()
		}()
	}
	ended := make(chan struct{})
	defer close(ended)
	if request.TTY && request.Resize != nil {
		go running.resize(ctx, request.Resize, ended)
	}
	// The engine's error about a command that it cannot start arrives as the command's output.
	var flow runtime.OutputMonitor
	stdout, stderr := &refusalFilter{out: request.Stdout}, &refusalFilter{out: request.Stderr}
	copied, failed := make(chan struct{}), error(nil)
	go func() {
		defer close(copied)
		if request.TTY {
			_, failed = io.Copy(flow.To(stdout), attached.Reader)
		} else {
			_, failed = stdcopy.StdCopy(flow.To(stdout), flow.To(stderr), attached.Reader)
		}
	}()
	running.await(ctx, command, &flow, copied)
	<-copied
	if err = failed; request.TTY {
		running.killRemaining(ctx, command) // its terminal is gone
	}
	if ctx.Err() != nil {
		return 0, errors.Join(context.Cause(ctx), stdout.flush(), stderr.flush())
	}
	if err != nil {
		return 0, r.engine.failure(ctx, err)
	}
	code, err := running.code(ctx)
	if err != nil {
		return 0, err
	}
	if words := string(stdout.held) + string(stderr.held); strings.HasPrefix(words, refusalPrefix) && code > 125 {
		why, ok := notRunnable(words)
		if !ok {
			why.Reason = strings.TrimSpace(strings.TrimPrefix(words, refusalPrefix))
		}
		return request.CannotRun(why)
	}
	return code, errors.Join(stdout.flush(), stderr.flush())
}

const (
	// refusalPrefix is the start of the engine's error about a command that it cannot start.
	refusalPrefix = "OCI runtime exec failed: "
	// maxRefusal is longer than any such error.
	maxRefusal = 4 << 10
)

// refusalFilter writes the output of a command, but holds back a possible error of the engine, which arrives in one piece.
type refusalFilter struct {
	out  io.Writer // nil discards
	held []byte
	// passing is true once the output is the command's own.
	passing bool
}

func (r *refusalFilter) Write(p []byte) (int, error) {
	if !r.passing && (len(r.held) > 0 || bytes.HasPrefix(p, []byte(refusalPrefix))) {
		r.held = append(r.held, p...)
		if len(r.held) <= maxRefusal {
			return len(p), nil
		}
		return len(p), r.flush()
	}
	r.passing = true
	if r.out == nil {
		return len(p), nil
	}
	return r.out.Write(p)
}

// flush writes what was held back.
func (r *refusalFilter) flush() error {
	held := r.held
	r.held, r.passing = nil, true
	if r.out == nil || len(held) == 0 {
		return nil
	}
	_, err := r.out.Write(held)
	return err
}

// execution is one command that the engine runs in a container.
type execution struct {
	engine *engine
	// id is the engine's.
	id     string
	logger *slog.Logger
}

// code returns the exit code, which the engine may learn shortly after the end of the output.
func (e execution) code(ctx context.Context) (int, error) {
	wait := time.Millisecond
	for {
		inspected, err := e.engine.ContainerExecInspect(ctx, e.id)
		if err != nil {
			return 0, e.engine.failure(ctx, err)
		}
		if !inspected.Running {
			return inspected.ExitCode, nil
		}
		if err := backoff.Sleep(ctx, wait); err != nil {
			return 0, err
		}
		wait = min(2*wait, 100*time.Millisecond)
	}
}

// resize applies terminal sizes. The first may arrive before the engine has started the command and is applied again then.
func (e execution) resize(ctx context.Context, sizes <-chan runtime.WindowSize, ended <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			for range 20 {
				err := e.engine.ContainerExecResize(ctx, e.id, container.ResizeOptions{Height: size.Rows, Width: size.Columns})
				if err == nil || backoff.Sleep(ctx, 10*time.Millisecond) != nil {
					break
				}
			}
		}
	}
}

// watchAfter is how long a command has run before its end is watched; most have ended by then.
const watchAfter = 100 * time.Millisecond

// await returns when the output of a command is complete, or when nothing more can be done for it. Processes that the command leaves behind may hold the output,
// and the engine reports the end only after two seconds then: they are killed earlier.
func (e execution) await(ctx context.Context, command processes.Command, flow *runtime.OutputMonitor, copied <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	known, ended := false, make(chan struct{})
	go func() {
		defer close(ended)
		known = e.ended(ctx, &command)
	}()
	select {
	case <-copied:
	case <-ended:
		if !known {
			break
		}
		flow.Await(ctx, copied, runtime.OutputTimeout)
		select {
		case <-copied:
		default:
			e.killRemaining(ctx, command)
		}
	}
	cancel()
	<-ended
}

// killRemaining kills the processes that a command has left behind.
func (e execution) killRemaining(ctx context.Context, command processes.Command) {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	if err := command.Kill(ctx); err != nil {
		e.logger.Warn("cannot kill the remaining processes of a command", "error", err)
	}
}

// ended returns true when the process of a command has ended, whose number it learns, and false if that is unknown or ctx
// has ended.
func (e execution) ended(ctx context.Context, command *processes.Command) bool {
	if backoff.Sleep(ctx, watchAfter) != nil {
		return false
	}
	inspected := make(chan container.ExecInspect, 1)
	go func() {
		defer close(inspected)
		for ctx.Err() == nil {
			found, err := e.engine.ContainerExecInspect(ctx, e.id)
			if err != nil {
				return
			}
			if found.Pid > 1 || found.ExitCode != 0 {
				inspected <- found
				return
			}
			if backoff.Sleep(ctx, watchAfter) != nil {
				return
			}
		}
	}()
	ticker := time.NewTicker(watchAfter)
	defer ticker.Stop()
	for {
		select {
		case found, ok := <-inspected:
			if !ok || found.Pid <= 1 {
				return false
			}
			command.Session, command.Belongs = found.Pid, inContainer(found.ContainerID)
			if _, err := os.Stat("/proc/" + strconv.Itoa(found.Pid)); err == nil && !command.Belongs(found.Pid) {
				return false
			}
			return processes.Await(ctx, found.Pid)
		case <-ticker.C: // the engine does not answer while it is ending the command
			if command.Orphaned() {
				return true
			}
		}
	}
}

// inContainer reports whether a process of the machine is in a container. None is if the engine's processes are in another
// pid namespace.
func inContainer(runtimeID string) func(pid int) bool {
	return func(pid int) bool {
		groups, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
		return err == nil && strings.Contains(string(groups), runtimeID)
	}
}

// kill kills the command of an exec and all that it has started; the engine has no call for that.
func (e execution) kill(ctx context.Context, command processes.Command) {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	err := command.Kill(ctx)
	inspected, unknown := e.engine.ContainerExecInspect(ctx, e.id)
	// A command may have output before the engine has recorded its process; one that never started has none.
	for tries := 0; unknown == nil && inspected.Pid <= 1 && inspected.ExitCode == 0 && tries < 100; tries++ {
		if backoff.Sleep(ctx, 10*time.Millisecond) != nil {
			return
		}
		inspected, unknown = e.engine.ContainerExecInspect(ctx, e.id)
	}
	if unknown == nil && inspected.Pid > 1 {
		command.Session, command.Belongs = inspected.Pid, inContainer(inspected.ContainerID)
		err = errors.Join(err, command.Kill(ctx))
	}
	if err != nil {
		e.logger.Warn("cannot kill the command of an ended exec", "error", err)
	}
}
