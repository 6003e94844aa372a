package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// cleanup is a context for what must be done even after the caller's has ended.
func cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
}

// failure classifies an error of the engine's client, as one sentence.
func (r *Runtime) failure(ctx context.Context, err error) error {
	var network net.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("engine: %w", context.Cause(ctx))
	case client.IsErrConnectionFailed(err), errors.As(err, &network),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errdefs.IsUnavailable(err):
		r.mu.Lock()
		r.engine = nil // it may return as another version
		r.mu.Unlock()
		return fmt.Errorf("the Docker engine at %s does not answer: %w", r.config.Socket, errdefs.ErrUnavailable)
	}
	text := sentence(err)
	if goingDown(text) {
		return fmt.Errorf("the Docker engine at %s is going down: %w", r.config.Socket, errdefs.ErrUnavailable)
	}
	for _, class := range []error{
		errdefs.ErrNotFound, errdefs.ErrConflict, errdefs.ErrInvalidArgument, errdefs.ErrPermissionDenied, errdefs.ErrNotImplemented,
	} {
		if errors.Is(err, class) {
			return fmt.Errorf("%s: %w", text, class)
		}
	}
	if exhausted(text) {
		return fmt.Errorf("%s: %w", text, errdefs.ErrResourceExhausted)
	}
	return fmt.Errorf("engine: %s: %w", text, errdefs.ErrInternal)
}

// goingDown reports whether an engine's answer means that it, or containerd, is stopping.
func goingDown(text string) bool {
	for _, fragment := range []string{
		"context canceled", "shutting down", "connection refused", "transport is closing", "client connection is closing",
		"ttrpc: closed", "error reading from server: EOF", "containerd.sock", "code = Unavailable", "broken pipe", "connection reset by peer",
	} {
		if strings.Contains(text, fragment) {
			return true
		}
	}
	return false
}

// exhausted reports whether an engine's answer means that the machine has run out of something.
func exhausted(text string) bool {
	for _, fragment := range []string{"no space left on device", "too many open files", "cannot allocate memory", "resource temporarily unavailable", "input/output error"} {
		if strings.Contains(text, fragment) {
			return true
		}
	}
	return false
}

// sentence is the engine's answer without its prefix.
func sentence(err error) string {
	text := wire.Text(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", " "))
	return strings.TrimPrefix(text, "Error response from daemon: ")
}

// startFailure is one sentence about why a container could not be started.
func (r *Runtime) startFailure(ctx context.Context, spec runtime.Spec, err error) error {
	text, program := sentence(err), first(spec.Command)
	if why, ok := noWorkingDir(text); ok {
		if spec.WorkingDir == "" {
			return fmt.Errorf("the image's WORKDIR %s: %w", why, errdefs.ErrInvalidArgument)
		}
		return fmt.Errorf("workingDir is %q, but it %s: %w", spec.WorkingDir, why, errdefs.ErrInvalidArgument)
	}
	if why, ok := notRunnable(text); ok && (strings.Contains(text, "exec:") || strings.Contains(text, "runtime create failed") || strings.Contains(text, badFormat)) {
		if program == "" {
			program = "the image's command"
		}
		return fmt.Errorf("cannot run %s: %s: %w", program, why.Reason, errdefs.ErrInvalidArgument)
	}
	return r.failure(ctx, err)
}

// noWorkingDir finds in the engine's words why a program cannot start in its working directory.
func noWorkingDir(text string) (why string, ok bool) {
	lower := strings.ToLower(text)
	making, entering := strings.Contains(lower, "mkdir"), strings.Contains(lower, "chdir to cwd")
	switch {
	case (making || entering) && strings.Contains(lower, "not a directory"):
		return "is a file in the image, or below one; name a folder, or a path where nothing is", true
	case entering && strings.Contains(lower, "permission denied"):
		return "may not be entered by the container's user; name a folder that the user may enter", true
	}
	return "", false
}

const badFormat = "exec format error"

// notRunnable finds in the engine's answer why a program cannot be run.
func notRunnable(text string) (runtime.NotRunnable, bool) {
	for _, known := range []struct {
		fragment string
		why      runtime.NotRunnable
	}{
		{"no such file or directory", runtime.NotRunnable{Missing: true, Reason: "there is no such program in the image"}},
		{"executable file not found", runtime.NotRunnable{Missing: true, Reason: "there is no such program in the image"}},
		{badFormat, runtime.NotRunnable{Reason: runtime.WrongMachine}},
		{"is a directory", runtime.NotRunnable{Reason: "it is a folder"}},
		{"permission denied", runtime.NotRunnable{Reason: runtime.NotExecutable}},
	} {
		if strings.Contains(text, known.fragment) {
			return known.why, true
		}
	}
	return runtime.NotRunnable{}, false
}

// portTaken reports whether a start failed because its host port is taken.
func portTaken(err error) bool {
	text := err.Error()
	for _, fragment := range []string{
		"port is already allocated", "address already in use", "all ports are allocated", "failed to bind host port", "failed to bind port",
	} {
		if strings.Contains(text, fragment) {
			return true
		}
	}
	return false
}
