package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

// Exec implements runtime.Runtime. The end of ctx kills the command. A Stdin that blocks is left behind in its
// Read.
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
	created, err := r.client.ContainerExecCreate(ctx, r.handle(key), options)
	switch {
	case errdefs.IsConflict(err):
		return 0, fmt.Errorf("container %v does not run: %w", key, errdefs.ErrFailedPrecondition)
	case errdefs.IsNotFound(err):
		return 0, fmt.Errorf("no container %v: %w", key, errdefs.ErrNotFound)
	case err != nil:
		return 0, r.failure(ctx, err)
	}
	attached, err := r.client.ContainerExecAttach(ctx, created.ID, container.ExecAttachOptions{Tty: request.TTY})
	if err != nil {
		return 0, r.failure(ctx, err)
	}
	defer attached.Close()
	// The engine does not end a command whose connection is lost.
	stop := context.AfterFunc(ctx, func() {
		r.killExec(ctx, created.ID, command)
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
		go r.resize(ctx, created.ID, request.Resize, ended)
	}
	// The engine's words about a command that it cannot start come as the command's output.
	var flow runtime.Outflow
	stdout, stderr := &refusals{out: request.Stdout}, &refusals{out: request.Stderr}
	copied, failed := make(chan struct{}), error(nil)
	go func() {
		defer close(copied)
		if request.TTY {
			_, failed = io.Copy(flow.To(stdout), attached.Reader)
		} else {
			_, failed = stdcopy.StdCopy(flow.To(stdout), flow.To(stderr), attached.Reader)
		}
	}()
	r.awaitExec(ctx, created.ID, command, &flow, copied)
	<-copied
	if err = failed; request.TTY {
		r.endLeft(ctx, command) // there is no terminal for it any more
	}
	if ctx.Err() != nil {
		return 0, errors.Join(context.Cause(ctx), stdout.flush(), stderr.flush())
	}
	if err != nil {
		return 0, r.failure(ctx, err)
	}
	code, err := r.execCode(ctx, created.ID)
	if err != nil {
		return 0, err
	}
	if words := string(stdout.held) + string(stderr.held); strings.HasPrefix(words, refusal) && code > 125 {
		why, ok := whyNot(words)
		if !ok {
			why.Reason = strings.TrimSpace(strings.TrimPrefix(words, refusal))
		}
		return request.CannotRun(why)
	}
	return code, errors.Join(stdout.flush(), stderr.flush())
}

const (
	// refusal begins what the engine says of a command that it cannot start.
	refusal = "OCI runtime exec failed: "
	// longestRefusal is more than any of them has.
	longestRefusal = 4 << 10
)

// refusals writes what a command says, but holds back what begins like the engine's refusal to start it, which comes in one
// piece.
type refusals struct {
	out  io.Writer // nil for nowhere
	held []byte
	// passing: it is the command that speaks.
	passing bool
}

func (r *refusals) Write(p []byte) (int, error) {
	if !r.passing && (len(r.held) > 0 || bytes.HasPrefix(p, []byte(refusal))) {
		r.held = append(r.held, p...)
		if len(r.held) <= longestRefusal {
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
func (r *refusals) flush() error {
	held := r.held
	r.held, r.passing = nil, true
	if r.out == nil || len(held) == 0 {
		return nil
	}
	_, err := r.out.Write(held)
	return err
}

// execCode asks for the exit code, which the engine may learn a moment after the output has ended.
func (r *Runtime) execCode(ctx context.Context, exec string) (int, error) {
	wait := time.Millisecond
	for {
		inspected, err := r.client.ContainerExecInspect(ctx, exec)
		if err != nil {
			return 0, r.failure(ctx, err)
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

// resize passes sizes on. The first may come before the engine has started the command; it is tried again then.
func (r *Runtime) resize(ctx context.Context, exec string, sizes <-chan runtime.WindowSize, ended <-chan struct{}) {
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
				err := r.client.ContainerExecResize(ctx, exec, container.ResizeOptions{Height: size.Rows, Width: size.Columns})
				if err == nil || backoff.Sleep(ctx, 10*time.Millisecond) != nil {
					break
				}
			}
		}
	}
}

// lookAfter is how long a command has run before it is watched for its end; most have ended by then.
const lookAfter = 100 * time.Millisecond

// awaitExec returns when the output of a command has come to its end. What the command leaves behind may hold on to it, and the engine
// tells of no end before two seconds have passed for that: it is ended sooner.
func (r *Runtime) awaitExec(ctx context.Context, exec string, command processes.Command, flow *runtime.Outflow, copied <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	known, ended := false, make(chan struct{})
	go func() {
		defer close(ended)
		known = r.ended(ctx, exec, &command)
	}()
	select {
	case <-copied:
	case <-ended:
		if !known {
			break
		}
		flow.Await(ctx, copied, runtime.Silence)
		select {
		case <-copied:
		default:
			r.endLeft(ctx, command)
		}
	}
	cancel()
	<-ended
}

// endLeft ends what a command has left.
func (r *Runtime) endLeft(ctx context.Context, command processes.Command) {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	if err := command.Kill(ctx); err != nil {
		r.config.Logger.Warn("what a command has left is not ended", "error", err)
	}
}

// ended returns true when the process of a command has ended, of which it learns the number, and false if that cannot be known or ctx
// has ended.
func (r *Runtime) ended(ctx context.Context, exec string, command *processes.Command) bool {
	if backoff.Sleep(ctx, lookAfter) != nil {
		return false
	}
	inspected := make(chan container.ExecInspect, 1)
	go func() {
		defer close(inspected)
		for ctx.Err() == nil {
			found, err := r.client.ContainerExecInspect(ctx, exec)
			if err != nil {
				return
			}
			if found.Pid > 1 || found.ExitCode != 0 {
				inspected <- found
				return
			}
			if backoff.Sleep(ctx, lookAfter) != nil {
				return
			}
		}
	}()
	ticker := time.NewTicker(lookAfter)
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
		case <-ticker.C: // the engine answers nothing about a command whose end it is busy with
			if command.Orphaned() {
				return true
			}
		}
	}
}

// inContainer says whether a process of the machine is in a container. None is where the engine's processes are not in our pid
// namespace.
func inContainer(runtimeID string) func(pid int) bool {
	return func(pid int) bool {
		groups, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
		return err == nil && strings.Contains(string(groups), runtimeID)
	}
}

// killExec kills the command of an exec with all that it has started, which the engine has no call for.
func (r *Runtime) killExec(ctx context.Context, exec string, command processes.Command) {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	err := command.Kill(ctx)
	inspected, unknown := r.client.ContainerExecInspect(ctx, exec)
	// A command may speak before the engine has written down which process it is; one that never started has none.
	for tries := 0; unknown == nil && inspected.Pid <= 1 && inspected.ExitCode == 0 && tries < 100; tries++ {
		if backoff.Sleep(ctx, 10*time.Millisecond) != nil {
			return
		}
		inspected, unknown = r.client.ContainerExecInspect(ctx, exec)
	}
	if unknown == nil && inspected.Pid > 1 {
		command.Session, command.Belongs = inspected.Pid, inContainer(inspected.ContainerID)
		err = errors.Join(err, command.Kill(ctx))
	}
	if err != nil {
		r.config.Logger.Warn("command of an ended exec not killed", "error", err)
	}
}
