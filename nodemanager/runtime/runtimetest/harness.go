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

// Harness is what the suite needs of an implementation.
type Harness struct {
	// New makes empty state of a node of its own. Each call of the function it returns gives a runtime on that
	// state, as a NodeManager has it that was started again; the one before is closed if it is an io.Closer.
	New func(t *testing.T) (open func() runtime.Runtime)
	// Command runs the test program with arguments; see the folder program.
	Command func(args ...string) []string
	// Image of the specs, if any, and one that does not exist anywhere.
	Image, MissingImage string
	// Network of the specs, and whether their ports can be reached over 127.0.0.1.
	Network runtime.Network
	Dial    bool
	// HostNetwork says that specs with network: host are allowed.
	HostNetwork bool
	// Foreign, if set, starts a container that is not the node's, until the test ends.
	Foreign func(t *testing.T)
	// Copy, if set, runs a container made of another one with all that is written on it, until the test ends or the copy
	// is ended by the function that it gives.
	Copy func(t *testing.T, of runtime.Container) (end func())
	// Signal, if set, sends a signal to a container of a node as somebody does who uses the engine by hand.
	Signal func(t *testing.T, to runtime.Container, number int)
	// Again, if set, starts an ended container of a node as somebody does who uses the engine by hand.
	Again func(t *testing.T, ended runtime.Container)
	// Kernel says that the quotas are the kernel's, so that its files tell them.
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

// Specs makes specs of containers that run the test program, each with an id of its own.
type Specs struct {
	harness Harness
	app     id.App
	seq     int64
}

// NewSpecs makes specs for an implementation; of the harness it needs Command, Image and Network.
func NewSpecs(harness Harness) *Specs {
	return &Specs{harness: harness, app: id.App{ClusterStart: rand.Int64N(1e12) + 1, Seq: 1}}
}

// Spec is a container that runs the test program.
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

// patience is how long one test may take. Some wait for the disk, which others may keep busy.
const patience = 5 * time.Minute

// World is one node with a runtime under test.
type World struct {
	*testing.T
	Harness
	runtime.Runtime
	*Specs
	open func() runtime.Runtime
}

// NewWorld gives a runtime's own tests the means of the suite.
func NewWorld(t *testing.T, harness Harness) *World { return newWorld(t, harness) }

func newWorld(t *testing.T, harness Harness) *World {
	w := &World{T: t, Harness: harness, Specs: NewSpecs(harness), open: harness.New(t)}
	w.Runtime = w.open()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
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
	ctx, cancel := context.WithTimeout(w.T.Context(), patience)
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

// End waits until a container has ended, and says how.
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
	w.Fatalf("%v did not end: %v; %s", container, context.Cause(ctx), w.standing(container))
	return runtime.Exit{}
}

// standing says how it stands with a container, and what its first process is busy with in the kernel.
func (w *World) standing(container id.Container) string {
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

// Find looks a container up in the list.
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

// AwaitLine follows a container's output until it prints text.
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

// Output reads what a container has printed.
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
