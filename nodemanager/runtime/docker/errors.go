package docker

import (
	"strings"

	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

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
