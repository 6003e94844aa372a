// Package fake is a runtime in memory with the semantics of a real one, for tests and for simulations of
// thousands of containers. Programs are scripted by Spec.Command or are functions of the test. Without Listen it
// does no input or output, so that it works inside a testing/synctest bubble.
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

// Program is what a container runs. Its context is cancelled by SIGTERM and by SIGKILL; after a SIGKILL the
// container counts as gone and what the program still does is not seen. The result is the exit code.
type Program func(ctx context.Context, spec runtime.Spec, output io.Writer) int

// Engine is what outlives a NodeManager: containers, images, logs. Runtimes of the same node on the same engine
// see the same; those of other nodes see their own.
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

// NewEngine is an engine that has every image anybody asks for.
func NewEngine() *Engine {
	return &Engine{
		containers: make(map[key]*container),
		logs:       make(map[key]*output),
		images:     make(map[string]bool),
		missing:    make(map[string]bool),
		events:     make(map[string]*runtime.Events),
	}
}

// SetDown makes every call fail with err, which should wrap errdefs.ErrUnavailable, and ends every watch; nil
// brings the engine back. Its containers go on.
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

// LoseAnswers makes the next n starts that succeed tell their caller that they did not get an answer.
func (e *Engine) LoseAnswers(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost = n
}

// LoseEvents makes the next n events reach nobody.
func (e *Engine) LoseEvents(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lostEvents = n
}

// send tells a node's watchers of an event; the engine's lock is held.
func (e *Engine) send(node string, event runtime.Event) {
	if e.lostEvents > 0 {
		e.lostEvents--
		return
	}
	e.eventsOf(node).Send(event)
}

// FailPrepares makes each Prepare of an image that is not there yet fail with err, until called with nil.
func (e *Engine) FailPrepares(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.prepareErr = err
}

// Missing makes an image one that does not exist.
func (e *Engine) Missing(image string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.missing[image] = true
}

// Kill ends a container of a node as an outsider's `kill -9` does. It reports whether there was one running.
func (e *Engine) Kill(node string, container id.Container) bool {
	e.mu.Lock()
	c := e.containers[key{node, container}]
	e.mu.Unlock()
	return c != nil && c.end(runtime.Exit{Code: 137})
}

// Signal sends a signal to a container of a node as somebody does who uses the engine by hand. Every signal has a program end.
// It reports whether there was one running.
func (e *Engine) Signal(node string, id id.Container, number int) bool {
	e.mu.Lock()
	c := e.containers[key{node, id}]
	e.mu.Unlock()
	return c != nil && c.send(number)
}

// Again starts an ended container of a node again, as somebody does who uses the engine by hand. It reports whether there
// was one.
func (e *Engine) Again(node string, id id.Container) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.containers[key{node, id}]
	if before == nil || before.exit == nil {
		return false
	}
	term, sigterm := context.WithCancel(context.Background())
	c := &container{
		engine: e, key: before.key, spec: before.spec, seen: before.seen, program: before.program, output: before.output.again(),
		term: term, sigterm: sigterm, done: make(chan struct{}), ports: func() {},
	}
	c.seen.StartedAt = time.Now()
	e.containers[c.key] = c
	e.send(node, runtime.Event{ID: id, Kind: runtime.Started, At: c.seen.StartedAt})
	go c.run()
	return true
}

// Starts counts the containers that were ever started, to prove that none was started twice.
func (e *Engine) Starts() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.starts
}

// Running counts the containers that run, on all nodes.
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

// container is one that was started. exit and finished are guarded by the engine's lock.
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
	// signal is the last that the engine was asked to send; guarded by its lock.
	signal int
	// ports closes what listens.
	ports func()
}

// send has the program end of a signal. It reports whether it was still running.
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

// end records how the container ended, once. It reports whether this call was the one.
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

// view is the container as List tells it; the engine's lock is held.
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
	c.end(c.output.verdict(code))
}
