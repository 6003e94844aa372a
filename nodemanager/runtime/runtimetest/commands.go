package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// members is how many processes a container has, once there are as many as expected or time is up.
func (w *World) members(container runtime.Container, want int) int {
	w.Helper()
	group := w.Group(container)
	for deadline := time.Now().Add(time.Minute); ; {
		members, err := group.Pids()
		if err != nil {
			w.Fatal(err)
		}
		if len(members) == want || time.Now().After(deadline) {
			return len(members)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// A command has ended when its own process has, even if a process that it left behind holds its output.
func execLeaves(w *World) {
	container := w.Run(w.Spec("serve"))
	for _, tty := range []bool{false, true} {
		var out bytes.Buffer
		began := time.Now()
		code, err := w.Exec(w.Context(), container.ID, runtime.Exec{Command: w.Command("leave", "3"), TTY: tty, Stdout: &out})
		if code != 3 || err != nil || !bytes.HasPrefix(out.Bytes(), []byte("left")) {
			w.Errorf("with a terminal %v: %d, %v, %q", tty, code, err, &out)
		}
		if took := time.Since(began); took > time.Minute { // what is left goes on for ever
			w.Errorf("with a terminal %v it took %v", tty, took)
		}
		if left := w.members(container, 1); left != 1 {
			w.Errorf("with a terminal %v: the container has %d processes", tty, left)
		}
	}
}

// A command with a terminal ends when the terminal is closed.
func execTerminalEnds(w *World) {
	container := w.Run(w.Spec("serve"))
	code, err := w.Exec(w.Context(), container.ID, runtime.Exec{Command: w.Command("brood"), TTY: true})
	if code != 0 || err != nil {
		w.Errorf("it ended with %d, %v", code, err)
	}
	if left := w.members(container, 1); left != 1 {
		w.Errorf("the container has %d processes", left)
	}
}

// When the caller disconnects, the command and everything that it has started is killed, in any group or session.
func execGone(w *World) {
	container := w.Run(w.Spec("serve"))
	for _, tty := range []bool{false, true} {
		ctx, cancel := context.WithCancel(w.Context())
		out := &awaited{text: "all are there", then: cancel}
		if _, err := w.Exec(ctx, container.ID, runtime.Exec{Command: w.Command("family"), TTY: tty, Stdout: out}); !errors.Is(err, context.Canceled) {
			w.Errorf("with a terminal %v: %v", tty, err)
		}
		cancel()
		if left := w.members(container, 1); left != 1 {
			w.Errorf("with a terminal %v: the container has %d processes", tty, left)
		}
	}
}

// awaited calls then once a text was written.
type awaited struct {
	text string
	then func()
	mu   sync.Mutex
	seen bytes.Buffer
}

func (a *awaited) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen.Write(p)
	if bytes.Contains(a.seen.Bytes(), []byte(a.text)) {
		a.then()
	}
	return len(p), nil
}
