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

// cleanup is a context for what must be done even though the caller's has ended.
func cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
}

// failure puts an error of the engine's client into the taxonomy, as one sentence.
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
		r.engine = nil // it may come back as another
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
	if outOf(text) {
		return fmt.Errorf("%s: %w", text, errdefs.ErrResourceExhausted)
	}
	return fmt.Errorf("engine: %s: %w", text, errdefs.ErrInternal)
}

// goingDown finds in an engine's answer that it, or what it is built on, ends: it takes back what it was asked.
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

// outOf finds in an engine's answer that the machine has no more of something, which no other program would be given either.
func outOf(text string) bool {
	for _, fragment := range []string{"no space left on device", "too many open files", "cannot allocate memory", "resource temporarily unavailable", "input/output error"} {
		if strings.Contains(text, fragment) {
			return true
		}
	}
	return false
}

// sentence is the engine's answer without its decoration.
func sentence(err error) string {
	text := wire.Text(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", " "))
	return strings.TrimPrefix(text, "Error response from daemon: ")
}

// startFailure says in one sentence why a container could not be started, where the engine takes several.
func (r *Runtime) startFailure(ctx context.Context, spec runtime.Spec, err error) error {
	text, program := sentence(err), first(spec.Command)
	if why, ok := noWorkingDir(text); ok {
		if spec.WorkingDir == "" {
			return fmt.Errorf("the image's WORKDIR %s: %w", why, errdefs.ErrInvalidArgument)
		}
		return fmt.Errorf("workingDir is %q, but it %s: %w", spec.WorkingDir, why, errdefs.ErrInvalidArgument)
	}
	if why, ok := whyNot(text); ok && (strings.Contains(text, "exec:") || strings.Contains(text, "runtime create failed") || strings.Contains(text, badFormat)) {
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

// whyNot finds in the engine's words why a program cannot be run.
func whyNot(text string) (runtime.WhyNot, bool) {
	for _, known := range []struct {
		fragment string
		why      runtime.WhyNot
	}{
		{"no such file or directory", runtime.WhyNot{Missing: true, Reason: "there is no such program in the image"}},
		{"executable file not found", runtime.WhyNot{Missing: true, Reason: "there is no such program in the image"}},
		{badFormat, runtime.WhyNot{Reason: "it is not a program for this kind of machine"}},
		{"is a directory", runtime.WhyNot{Reason: "it is a folder"}},
		{"permission denied", runtime.WhyNot{Reason: "it may not be executed"}},
	} {
		if strings.Contains(text, known.fragment) {
			return known.why, true
		}
	}
	return runtime.WhyNot{}, false
}

// portTaken reports whether a start failed because of the host port it was offered.
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
