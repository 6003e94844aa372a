// Package fake is an in-memory runtime with the semantics of a real one, for tests and for simulations of thousands of
// containers. Programs are scripted by Spec.Command or are functions of the test. Without Listen it does no input or output,
// so that it works inside a testing/synctest bubble.
package fake

import (
	"context"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// Program is what a container runs. Its context is cancelled by SIGTERM and by SIGKILL; after a SIGKILL the container is
// gone and the rest of the program is not seen. The result is the exit code.
type Program func(ctx context.Context, spec runtime.Spec, output io.Writer) int

// Engine is what outlives a NodeManager: containers, images, logs. Runtimes of the same node on one engine share its
// containers; other nodes have their own.
type Engine struct {
	mu         sync.Mutex
	containers map[key]*container
	logs       map[key]*output
	images     map[string]bool
	missing    map[string]bool
	down       error
	prepareErr error
	lost       int
	lostEvents int
	starts     int
	events     map[string]*runtime.Events
}

type key struct {
	node string
	id   id.Container
}

// NewEngine returns an engine that has every image.
func NewEngine() *Engine {
	return &Engine{
		containers: make(map[key]*container),
		logs:       make(map[key]*output),
		images:     make(map[string]bool),
		missing:    make(map[string]bool),
		events:     make(map[string]*runtime.Events),
	}
}

// SetDown makes every call fail with err, which should wrap errdefs.ErrUnavailable, and ends every watch; nil brings the
// engine back. Its containers keep running.
func (e *Engine) SetDown(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = err
	if err == nil {
		return
	}
	for _, events := range e.events {
		events.Disconnect()
	}
}

// LoseAnswers lets the next n successful starts report that there was no answer.
func (e *Engine) LoseAnswers(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost = n
}

// LoseEvents drops the next n events.
func (e *Engine) LoseEvents(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lostEvents = n
}

// send sends an event to a node's watchers; the engine's lock is held.
func (e *Engine) send(node string, event runtime.Event) {
	if e.lostEvents > 0 {
		e.lostEvents--
		return
	}
	e.eventsOf(node).Send(event)
}

// FailPrepares makes each Prepare of an image that is not on the host fail with err, until it is called with nil.
func (e *Engine) FailPrepares(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.prepareErr = err
}

// Missing removes an image.
func (e *Engine) Missing(image string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.missing[image] = true
}

// Kill ends a container like `kill -9` from outside. It reports whether it was running.
func (e *Engine) Kill(node string, container id.Container) bool {
	e.mu.Lock()
	c := e.containers[key{node, container}]
	e.mu.Unlock()
	return c != nil && c.end(runtime.Exit{Code: 137})
}

// Signal sends a signal to a container like a command of the engine from outside. Every signal ends a program. It reports
// whether it was running.
func (e *Engine) Signal(node string, id id.Container, number int) bool {
	e.mu.Lock()
	c := e.containers[key{node, id}]
	e.mu.Unlock()
	return c != nil && c.send(number)
}

// StartAgain starts an ended container like a command of the engine from outside. It reports whether there was one.
func (e *Engine) StartAgain(node string, id id.Container) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.containers[key{node, id}]
	if before == nil || before.exit == nil {
		return false
	}
	term, sigterm := context.WithCancel(context.Background())
	c := &container{
		engine: e, key: before.key, spec: before.spec, seen: before.seen, program: before.program, output: before.output.reopen(),
		term: term, sigterm: sigterm, done: make(chan struct{}), ports: func() {},
	}
	c.seen.StartedAt = time.Now()
	e.containers[c.key] = c
	e.send(node, runtime.Event{ID: id, Kind: runtime.Started, At: c.seen.StartedAt})
	go c.run()
	return true
}

// Starts is how many containers were ever started, to prove that none was started twice.
func (e *Engine) Starts() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.starts
}

// Running is how many containers run, on all nodes.
func (e *Engine) Running() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	running := 0
	for _, c := range e.containers {
		if c.exit == nil {
			running++
		}
	}
	return running
}

func (e *Engine) eventsOf(node string) *runtime.Events {
	if e.events[node] == nil {
		e.events[node] = new(runtime.Events)
	}
	return e.events[node]
}

// container is a started container. The engine's lock guards exit and finished.
type container struct {
	engine  *Engine
	key     key
	spec    runtime.Spec
	seen    runtime.Container
	program Program
	output  *output
	// term is cancelled by SIGTERM and at the end.
	term     context.Context
	sigterm  context.CancelFunc
	done     chan struct{}
	exit     *runtime.Exit
	finished time.Time
	// signal is the last signal that the engine was asked to send; guarded by its lock.
	signal int
	// ports closes its listeners.
	ports func()
}

// send ends the program with a signal. It reports whether it was running.
func (c *container) send(number int) bool {
	c.engine.mu.Lock()
	running := c.exit == nil
	c.signal = number
	c.engine.mu.Unlock()
	if number == int(unix.SIGKILL) {
		return c.end(runtime.Exit{Code: 137})
	}
	c.sigterm()
	return running
}

// end records how the container ended, once. It reports whether this call did.
func (c *container) end(exit runtime.Exit) bool {
	c.engine.mu.Lock()
	if c.exit != nil {
		c.engine.mu.Unlock()
		return false
	}
	exit.Signal = c.signal
	c.exit = &exit
	c.finished = time.Now()
	c.output.end()
	c.engine.send(c.key.node, runtime.Event{ID: c.key.id, Kind: runtime.Ended, Exit: &exit, At: c.finished})
	c.engine.mu.Unlock()
	c.sigterm()
	c.ports()
	close(c.done)
	return true
}

// view is the container for List; the engine's lock is held.
func (c *container) view() runtime.Container {
	view := c.seen
	view.Running = c.exit == nil
	if c.exit != nil {
		exit := *c.exit
		view.Exit, view.FinishedAt, view.Pid = &exit, c.finished, 0
	}
	return view
}

func (c *container) run() {
	code := c.program(c.term, c.spec, c.output)
	c.end(c.output.exitFor(code))
}
