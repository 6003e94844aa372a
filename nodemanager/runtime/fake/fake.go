package fake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/signal"
	"github.com/mammoth-os/mammoth/internal/sockets"
	"github.com/mammoth-os/mammoth/nodemanager/network"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// Config is how a node uses an engine.
type Config struct {
	// Engine has the containers; a new Runtime on the same one is a restarted NodeManager.
	Engine *Engine
	// Node distinguishes the nodes of a shared engine.
	Node string
	// Programs are the programs by the first word of a command, tried before the built-in ones (see Builtin).
	Programs map[string]Program
	// Ports is the range of ports; none of the host is bound unless Listen. Zero is 20000-29999.
	Ports network.Range
	// Leases leases host ports; nil uses new ones of Ports.
	Leases *network.Leases
	// Listen opens each host port on 127.0.0.1 and answers every connection with HTTP's 200.
	Listen           bool
	AllowHostNetwork bool
	// These are the durations of the phases.
	DownloadTime, LoadTime, StartTime time.Duration
	// ImageBytes is what a download reports.
	ImageBytes int64
}

// Runtime implements runtime.Runtime.
type Runtime struct {
	config Config
	engine *Engine
}

var _ runtime.Runtime = (*Runtime)(nil)

// New returns a Runtime on config.Engine, or on a new one.
func New(config Config) *Runtime {
	if config.Engine == nil {
		config.Engine = NewEngine()
	}
	if config.Ports == (network.Range{}) {
		config.Ports = network.Range{First: 20000, Last: 29999}
	}
	if config.Leases == nil {
		inUse := func() (map[int]bool, error) { return nil, nil }
		if config.Listen {
			inUse = sockets.BoundPorts
		}
		config.Leases = network.NewLeases(config.Ports, inUse)
	}
	r := &Runtime{config: config, engine: config.Engine}
	r.engine.mu.Lock()
	defer r.engine.mu.Unlock()
	for k, c := range r.engine.containers {
		if k.node != config.Node || c.exit != nil {
			continue
		}
		for _, port := range c.seen.Ports {
			config.Leases.Hold(k.id, port.Host)
		}
	}
	return r
}

// reach returns the engine's error; while it is down, the call may wait for its context.
func (r *Runtime) reach(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	r.engine.mu.Lock()
	defer r.engine.mu.Unlock()
	return r.engine.down
}

// Info implements runtime.Runtime.
func (r *Runtime) Info(ctx context.Context) (runtime.Info, error) {
	if err := r.reach(ctx); err != nil {
		return runtime.Info{}, err
	}
	return runtime.Info{Name: "fake", Version: "1", DiskQuota: "watcher", CgroupVersion: 2}, nil
}

// Prepare implements runtime.Runtime.
func (r *Runtime) Prepare(ctx context.Context, spec runtime.Spec, progress func(runtime.Progress)) error {
	if err := r.reach(ctx); err != nil {
		return err
	}
	r.engine.mu.Lock()
	present, missing, failure := r.engine.images[spec.Image], r.engine.missing[spec.Image], r.engine.prepareErr
	r.engine.mu.Unlock()
	switch {
	case spec.Image == "" || present:
		return nil
	case missing:
		return fmt.Errorf("image %q does not exist: %w", spec.Image, errdefs.ErrNotFound)
	case failure != nil:
		return failure
	}
	if err := backoff.Sleep(ctx, r.config.DownloadTime); err != nil {
		return err
	}
	progress(runtime.Progress{Phase: "download", Bytes: r.config.ImageBytes})
	if err := backoff.Sleep(ctx, r.config.LoadTime); err != nil {
		return err
	}
	progress(runtime.Progress{Phase: "load", Bytes: r.config.ImageBytes})
	r.engine.mu.Lock()
	defer r.engine.mu.Unlock()
	r.engine.images[spec.Image] = true
	return r.engine.down
}

// Start implements runtime.Runtime.
func (r *Runtime) Start(ctx context.Context, spec runtime.Spec) (runtime.Container, error) {
	if err := r.reach(ctx); err != nil {
		return runtime.Container{}, err
	}
	if spec.Network == runtime.Host && !r.config.AllowHostNetwork {
		return runtime.Container{}, fmt.Errorf("network: host is not allowed on this node: %w", errdefs.ErrPermissionDenied)
	}
	if found, ok := r.find(spec.ID); ok {
		return found, nil
	}
	if err := backoff.Sleep(ctx, r.config.StartTime); err != nil {
		return runtime.Container{}, err
	}
	program, err := r.program(spec)
	if err != nil {
		return runtime.Container{}, err
	}
	ports, closePorts, err := r.bind(spec)
	if err != nil {
		return runtime.Container{}, err
	}
	term, sigterm := context.WithCancel(context.Background())
	c := &container{
		engine: r.engine, key: key{r.config.Node, spec.ID}, spec: spec, term: term, sigterm: sigterm,
		done: make(chan struct{}), ports: closePorts, program: program, output: newOutput(),
	}
	c.spec.Env = environment(spec, ports)

	e := r.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if other, ok := e.containers[c.key]; ok { // a concurrent start was faster
		sigterm()
		closePorts()
		return other.view(), nil
	}
	e.starts++
	c.seen = runtime.Container{
		ID: spec.ID, RuntimeID: "fake-" + strconv.Itoa(e.starts), AppName: spec.AppName, Attempt: spec.Attempt,
		Labels: maps.Clone(spec.Labels), Ports: ports, StartedAt: time.Now(),
	}
	e.containers[c.key], e.logs[c.key] = c, c.output
	e.send(r.config.Node, runtime.Event{ID: spec.ID, Kind: runtime.Started, At: c.seen.StartedAt})
	go c.run()
	if e.lost > 0 {
		e.lost--
		return runtime.Container{}, fmt.Errorf("the engine did not answer: %w", errdefs.ErrUnavailable)
	}
	return c.view(), nil
}

func (r *Runtime) find(container id.Container) (runtime.Container, bool) {
	r.engine.mu.Lock()
	defer r.engine.mu.Unlock()
	c, ok := r.engine.containers[key{r.config.Node, container}]
	if !ok {
		return runtime.Container{}, false
	}
	return c.view(), true
}

func (r *Runtime) bind(spec runtime.Spec) ([]runtime.Port, func(), error) {
	hosts, err := r.config.Leases.Lease(spec.ID, len(spec.Ports))
	if err != nil {
		return nil, nil, err
	}
	ports := slices.Clone(spec.Ports)
	var listeners []net.Listener
	free := func() {
		for _, listener := range listeners {
			_ = listener.Close()
		}
		r.config.Leases.Release(spec.ID)
	}
	for i := range ports {
		ports[i].Host = hosts[i]
		if !r.config.Listen {
			continue
		}
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", hosts[i]))
		if err != nil {
			free()
			return nil, nil, fmt.Errorf("host port %d: %w", hosts[i], errors.Join(err, errdefs.ErrUnavailable))
		}
		listeners = append(listeners, listener)
		go answer(listener)
	}
	return ports, free, nil
}

// Stop implements runtime.Runtime.
func (r *Runtime) Stop(ctx context.Context, container id.Container, grace time.Duration) error {
	if err := r.reach(ctx); err != nil {
		return err
	}
	r.engine.mu.Lock()
	c := r.engine.containers[key{r.config.Node, container}]
	r.engine.mu.Unlock()
	if c == nil {
		return nil
	}
	if number, err := signal.Number(cmp.Or(c.spec.StopSignal, "TERM")); err == nil {
		c.send(number)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		c.send(int(unix.SIGKILL))
	}
	return nil
}

// Remove implements runtime.Runtime.
func (r *Runtime) Remove(ctx context.Context, container id.Container) error {
	if err := r.reach(ctx); err != nil {
		return err
	}
	r.engine.mu.Lock()
	defer r.engine.mu.Unlock()
	k := key{r.config.Node, container}
	if c := r.engine.containers[k]; c != nil && c.exit == nil {
		return fmt.Errorf("container %v is running: %w", container, errdefs.ErrFailedPrecondition)
	}
	delete(r.engine.containers, k)
	return nil
}

// Purge implements runtime.Runtime.
func (r *Runtime) Purge(ctx context.Context, container id.Container) error {
	if err := r.reach(ctx); err != nil {
		return err
	}
	r.engine.mu.Lock()
	defer r.engine.mu.Unlock()
	delete(r.engine.logs, key{r.config.Node, container})
	return nil
}

// List implements runtime.Runtime.
func (r *Runtime) List(ctx context.Context) ([]runtime.Container, error) {
	if err := r.reach(ctx); err != nil {
		return nil, err
	}
	r.engine.mu.Lock()
	defer r.engine.mu.Unlock()
	var list []runtime.Container
	for k, c := range r.engine.containers {
		if k.node == r.config.Node {
			list = append(list, c.view())
		}
	}
	slices.SortFunc(list, func(a, b runtime.Container) int {
		return cmp.Or(a.StartedAt.Compare(b.StartedAt), a.ID.Compare(b.ID))
	})
	return list, nil
}

// Watch implements runtime.Runtime.
func (r *Runtime) Watch(ctx context.Context) (<-chan runtime.Event, error) {
	if err := r.reach(ctx); err != nil {
		return nil, err
	}
	r.engine.mu.Lock()
	defer r.engine.mu.Unlock()
	return r.engine.eventsOf(r.config.Node).Watch(ctx), nil
}

// Logs implements runtime.Runtime.
func (r *Runtime) Logs(ctx context.Context, container id.Container, options runtime.LogOptions, line func(runtime.LogLine) error) error {
	if err := r.reach(ctx); err != nil {
		return err
	}
	r.engine.mu.Lock()
	out := r.engine.logs[key{r.config.Node, container}]
	r.engine.mu.Unlock()
	if out == nil {
		return fmt.Errorf("no logs of container %v: %w", container, errdefs.ErrNotFound)
	}
	return out.read(ctx, options, line)
}

// Exec implements runtime.Runtime. It runs the same programs as a container.
func (r *Runtime) Exec(ctx context.Context, container id.Container, exec runtime.Exec) (int, error) {
	if err := r.reach(ctx); err != nil {
		return 0, err
	}
	r.engine.mu.Lock()
	c := r.engine.containers[key{r.config.Node, container}]
	running := c != nil && c.exit == nil
	r.engine.mu.Unlock()
	if c == nil {
		return 0, fmt.Errorf("no container %v: %w", container, errdefs.ErrNotFound)
	}
	if !running {
		return 0, fmt.Errorf("container %v has ended: %w", container, errdefs.ErrFailedPrecondition)
	}
	spec := c.spec
	spec.Env = maps.Clone(spec.Env)
	maps.Copy(spec.Env, exec.Env)
	spec.Command, spec.Args = exec.Command, nil
	return r.exec(ctx, spec, exec)
}
