// Package runtimetest is the suite that every implementation of runtime.Runtime passes: each sentence of the
// interface's comments is a case.
package runtimetest

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// Harness is what the suite needs to know of an implementation.
type Harness struct {
	// New creates the empty state of a new node. Each call of the returned function opens a runtime on that state, like a
	// restarted NodeManager; the one before is closed if it is an io.Closer.
	New func(t *testing.T) (open func() runtime.Runtime)
	// Command runs the test program with arguments; see the folder program.
	Command func(args ...string) []string
	// Image of the specs, if any, and one that does not exist anywhere.
	Image, MissingImage string
	// Network is the network of the specs, and Dial whether their ports can be reached over 127.0.0.1.
	Network runtime.Network
	Dial    bool
	// HostNetwork is true if specs with network: host are allowed.
	HostNetwork bool
	// Foreign, if set, starts a container that is not the node's and runs until the test ends.
	Foreign func(t *testing.T)
	// Copy, if set, runs a copy of a container with the same labels, until the test ends or the returned function is called.
	Copy func(t *testing.T, of runtime.Container) (end func())
	// Signal, if set, sends a signal to a container of a node like a command of the engine from outside.
	Signal func(t *testing.T, to runtime.Container, number int)
	// StartAgain, if set, starts an ended container of a node like a command of the engine from outside.
	StartAgain func(t *testing.T, ended runtime.Container)
	// Kernel is true if the kernel enforces the quotas, so that its files can be read.
	Kernel bool
	// Bubble runs every case inside a testing/synctest bubble.
	Bubble bool
}

// Build compiles the test program without cgo and returns its path.
func Build(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path,
		"github.com/mammoth-os/mammoth/nodemanager/runtime/runtimetest/program")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the test program does not build: %v\n%s", err, out)
	}
	return path
}

// Run runs the suite.
func Run(t *testing.T, harness Harness) {
	all := cases
	if harness.Kernel {
		all = append(slices.Clone(cases), kernelCases...)
	}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			if harness.Bubble {
				synctest.Test(t, func(t *testing.T) { c.run(newWorld(t, harness)) })
				return
			}
			c.run(newWorld(t, harness))
		})
	}
}

// Specs creates specs of containers that run the test program, each with a new id.
type Specs struct {
	harness Harness
	app     id.App
	seq     int64
}

// NewSpecs returns Specs for an implementation; it needs Command, Image and Network of the harness.
func NewSpecs(harness Harness) *Specs {
	return &Specs{harness: harness, app: id.App{ClusterStart: rand.Int64N(1e12) + 1, Seq: 1}}
}

// Spec is a container of the test program.
func (s *Specs) Spec(args ...string) runtime.Spec {
	return runtime.Spec{
		ID:          id.Container{Epoch: 1, App: s.app, Seq: atomic.AddInt64(&s.seq, 1)},
		AppName:     "conformance",
		Attempt:     7,
		Labels:      map[string]string{"instance": "web/1", "role": "main"},
		Image:       s.harness.Image,
		Command:     s.harness.Command(args...),
		Network:     s.harness.Network,
		CPUMillis:   1000,
		MemoryBytes: 64 << 20,
		DiskBytes:   64 << 20,
		Pids:        128,
	}
}

// caseTimeout is how long one case may take. Some wait for a busy disk.
const caseTimeout = 5 * time.Minute

// World is one node with a runtime under test.
type World struct {
	*testing.T
	Harness
	runtime.Runtime
	*Specs
	open func() runtime.Runtime
}

// NewWorld lets a runtime's own tests use the suite.
func NewWorld(t *testing.T, harness Harness) *World { return newWorld(t, harness) }

func newWorld(t *testing.T, harness Harness) *World {
	w := &World{T: t, Harness: harness, Specs: NewSpecs(harness), open: harness.New(t)}
	w.Runtime = w.open()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), caseTimeout)
		defer cancel()
		containers, err := w.List(ctx)
		if err != nil {
			t.Errorf("the last look found: %v", err)
		}
		for _, c := range containers {
			if err := w.Stop(ctx, c.ID, 0); err != nil {
				t.Errorf("stopping %v: %v", c.ID, err)
			}
			if err := w.Remove(ctx, c.ID); err != nil {
				t.Errorf("removing %v: %v", c.ID, err)
			}
			if err := w.Purge(ctx, c.ID); err != nil {
				t.Errorf("purging %v: %v", c.ID, err)
			}
		}
		w.close()
	})
	return w
}

func (w *World) close() {
	if closer, ok := w.Runtime.(io.Closer); ok {
		if err := closer.Close(); err != nil {
			w.Errorf("closing the runtime: %v", err)
		}
	}
}

// Restart replaces the runtime by a new one on the same state.
func (w *World) Restart() {
	w.Helper()
	w.close()
	w.Runtime = w.open()
}

// Context ends before the test does.
func (w *World) Context() context.Context {
	ctx, cancel := context.WithTimeout(w.T.Context(), caseTimeout)
	w.Cleanup(cancel)
	return ctx
}

// Run prepares and starts a container.
func (w *World) Run(spec runtime.Spec) runtime.Container {
	w.Helper()
	ctx := w.Context()
	if err := w.Prepare(ctx, spec, func(runtime.Progress) {}); err != nil {
		w.Fatalf("prepare: %v", err)
	}
	container, err := w.Start(ctx, spec)
	if err != nil {
		w.Fatalf("start: %v", err)
	}
	return container
}

// End waits until a container has ended, and returns its exit.
func (w *World) End(container id.Container) runtime.Exit {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	defer cancel()
	events, err := w.Watch(ctx)
	if err != nil {
		w.Fatalf("watch: %v", err)
	}
	if found, ok := w.Find(container); ok && found.Exit != nil {
		return *found.Exit
	}
	for event := range events {
		if event.ID == container && event.Kind == runtime.Ended {
			if event.Exit == nil {
				w.Fatal("an end without an exit")
			}
			return *event.Exit
		}
	}
	w.Fatalf("%v did not end: %v; %s", container, context.Cause(ctx), w.describe(container))
	return runtime.Exit{}
}

// describe is the state of a container, and what its first process does in the kernel.
func (w *World) describe(container id.Container) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.Context()), 10*time.Second)
	defer cancel()
	containers, err := w.List(ctx)
	if err != nil {
		return fmt.Sprintf("it cannot be listed: %v", err)
	}
	for _, found := range containers {
		if found.ID == container {
			state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", found.Pid))
			stack, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stack", found.Pid))
			return fmt.Sprintf("it is %+v, its process\n%s\nin\n%s", found, state, stack)
		}
	}
	return "it is not there any more"
}

// Find searches the list for a container.
func (w *World) Find(container id.Container) (runtime.Container, bool) {
	w.Helper()
	containers, err := w.List(w.Context())
	if err != nil {
		w.Fatalf("list: %v", err)
	}
	for _, c := range containers {
		if c.ID == container {
			return c, true
		}
	}
	return runtime.Container{}, false
}

// AwaitLine waits until a container prints text.
func (w *World) AwaitLine(container id.Container, text string) {
	w.Helper()
	var lines []string
	found := io.EOF
	err := w.Logs(w.Context(), container, runtime.LogOptions{Follow: true, Tail: -1}, func(line runtime.LogLine) error {
		lines = append(lines, line.Text)
		if line.Text == text {
			return found
		}
		return nil
	})
	if err != found {
		w.Fatalf("%v never printed %q: %v; it printed %q", container, text, err, lines)
	}
}

// Output is what a container has printed.
func (w *World) Output(container id.Container, options runtime.LogOptions) string {
	w.Helper()
	var lines []string
	err := w.Logs(w.Context(), container, options, func(line runtime.LogLine) error {
		lines = append(lines, line.Text)
		return nil
	})
	if err != nil {
		w.Fatalf("logs: %v", err)
	}
	return strings.Join(lines, "\n")
}
