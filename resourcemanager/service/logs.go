package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

const (
	// maxReaders is how many containers' logs one call reads at the same time, unless it follows.
	maxReaders = 16
	// maxFollowed is how many containers one call may follow when it begins: each needs a stream from its node.
	maxFollowed = 512
	// drainTime is how long the logs of an ended app are still read: its containers have ended too.
	drainTime = 3 * time.Second
)

// logRetry is the pause before a node that does not answer is asked again.
var logRetry = backoff.Policy{Min: 200 * time.Millisecond, Max: 5 * time.Second}

// AppLogs merges the logs of an app's instances in the order in which their nodes send them. With follow it continues with
// replacements, until the app is stopped or removed.
func (s *apps) AppLogs(request *apiv1.AppLogsRequest, stream grpc.ServerStreamingServer[corev1.LogChunk]) error {
	if request.Tail != nil && request.GetTail() < 0 {
		return wire.Status(invalid("%d is not a number of lines; leave the tail out for all of them", request.GetTail()))
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	m := &merger{apps: s, request: request, chunks: make(chan *corev1.LogChunk), nodes: map[string]*grpc.ClientConn{}, ended: map[string]bool{}}
	defer m.close()
	read := make(chan error, 1)
	go func() {
		if request.GetFollow() {
			read <- m.follow(ctx)
		} else {
			read <- m.readAll(ctx)
		}
		close(m.chunks)
	}()
	var broken error
	for chunk := range m.chunks {
		if broken != nil {
			continue // drains the readers, whose context has ended
		}
		if broken = stream.Send(chunk); broken != nil {
			cancel()
		}
	}
	if err := <-read; broken == nil {
		return wire.Status(err)
	}
	return broken
}

// merger reads the logs of several containers for one call.
type merger struct {
	apps    *apps
	request *apiv1.AppLogsRequest
	chunks  chan *corev1.LogChunk

	mu sync.Mutex
	// nodes are the connections by address of the ContainerManager.
	nodes map[string]*grpc.ClientConn
	// ended are the followed containers that will write nothing more; finished is true when all are.
	ended    map[string]bool
	finished bool
}

// currentTargets returns the running container of each instance or, until its next one is started, the last one. For an app without
// instances it returns the last container of each former instance.
func currentTargets(targets []zone.Target, previous bool) []zone.Target {
	if previous {
		return targets
	}
	var chosen, gone []zone.Target
	for i := 0; i < len(targets); {
		var last, lost *zone.Target
		runs, instance := false, targets[i].Instance
		for ; i < len(targets) && targets[i].Instance == instance; i++ {
			switch target := targets[i]; {
			case target.Ended:
				last = &target
			case target.Lost: // Another container may run in its place.
				lost = &target
			case !target.Starting:
				chosen, runs = append(chosen, target), true
			}
		}
		switch {
		case runs:
		case lost != nil:
			chosen = append(chosen, *lost)
		case last == nil:
		case last.Listed:
			chosen = append(chosen, *last)
		default:
			gone = append(gone, *last)
		}
	}
	if len(chosen) == 0 {
		return gone // the app is stopped
	}
	return chosen
}

func (m *merger) targets(ctx context.Context) ([]zone.Target, error) {
	return m.apps.loop.Targets(ctx, zone.Containers{
		App: m.request.GetName(), Role: m.request.GetRole(), Instance: m.request.GetInstance(), Ended: true,
	})
}

// readAll reads what was written so far. A node that does not answer does not affect the logs of others.
func (m *merger) readAll(ctx context.Context) error {
	targets, err := m.targets(ctx)
	if err != nil {
		return err
	}
	var readers sync.WaitGroup
	slots := make(chan struct{}, maxReaders)
	failures := newFailures()
	for _, target := range currentTargets(targets, m.request.GetPrevious()) {
		slots <- struct{}{}
		readers.Go(func() {
			defer func() { <-slots }()
			failures.add(target, m.read(ctx, target, &position{options: m.options()}))
		})
	}
	readers.Wait()
	return failures.err()
}

// follow reads present and new containers until the app ends.
func (m *merger) follow(ctx context.Context) error {
	changes, err := m.apps.loop.WatchApp(m.request.GetName())
	if err != nil {
		return err
	}
	defer changes.Close()
	reading, stop := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	known := map[string]bool{}
	first := true
	for {
		views, err := changes.Next(ctx)
		switch {
		case errdefs.IsNotFound(err): // the app was removed
			m.drain(&readers)
			return nil
		case err != nil:
			return err
		}
		all, err := m.targets(ctx)
		if err != nil && (first || !errdefs.IsNotFound(err)) {
			return err
		}
		wanted := all
		if first {
			wanted = currentTargets(all, m.request.GetPrevious())
		}
		if len(known)+len(wanted) > maxFollowed && first {
			return fmt.Errorf("%s has %d containers, and at most %d can be followed at once; name an instance: %w", m.request.GetName(), len(wanted), maxFollowed, errdefs.ErrInvalidArgument)
		}
		for _, target := range wanted {
			if known[target.Container] || target.Starting {
				continue // A new container is read from its first line once it runs.
			}
			at := &position{options: &corev1.LogOptions{Follow: true, Tail: -1}}
			if first {
				at.options = m.options()
			}
			readers.Go(func() { m.keepReading(reading, target, at) })
		}
		m.mu.Lock()
		for _, target := range all {
			known[target.Container] = known[target.Container] || !target.Starting
			m.ended[target.Container] = target.Ended
		}
		m.mu.Unlock()
		first = false
		if state := views[len(views)-1].App.GetState(); state == apiv1.App_STOPPED {
			m.drain(&readers)
			return nil
		}
	}
}

// drain waits for the rest of ended containers' logs.
func (m *merger) drain(readers *sync.WaitGroup) {
	m.mu.Lock()
	m.finished = true
	m.mu.Unlock()
	done := make(chan struct{})
	go func() {
		readers.Wait() // the caller ends them
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(drainTime):
	}
}

// keepReading reads one container's log until the container has ended, and retries while its node does not answer. The log
// of a container that a person restarts in the engine ends earlier and continues.
func (m *merger) keepReading(ctx context.Context, target zone.Target, at *position) {
	for failures := 1; ; failures++ {
		ended, before := m.hasEnded(target), at.options
		if m.read(ctx, target, at) == nil && ended {
			return
		}
		if at.options != before {
			failures = 1 // something arrived
		}
		if backoff.Sleep(ctx, logRetry.After(failures)) != nil {
			return
		}
	}
}

// hasEnded reports whether a container will write nothing more.
func (m *merger) hasEnded(target zone.Target) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return target.Ended || m.ended[target.Container] || m.finished
}

func (m *merger) options() *corev1.LogOptions {
	options := &corev1.LogOptions{Follow: m.request.GetFollow(), Tail: -1, Since: m.request.GetSince()}
	if m.request.Tail != nil {
		options.Tail = m.request.GetTail()
	}
	return options
}

// position is how far a container's log was read.
type position struct{ options *corev1.LogOptions }

// advance continues after the lines that were read.
func (p *position) advance(chunk *corev1.LogChunk) {
	lines := chunk.GetLines()
	if len(lines) == 0 || lines[len(lines)-1].GetTime() == nil {
		return
	}
	p.options = proto.CloneOf(p.options)
	p.options.Tail, p.options.Since = -1, timestamppb.New(lines[len(lines)-1].GetTime().AsTime().Add(1))
}

// read reads one container's log until there is no more.
func (m *merger) read(ctx context.Context, target zone.Target, at *position) error {
	if target.Lost && !at.options.GetFollow() {
		return unreachable(target, "read the logs of", target.Trouble)
	}
	connection, err := m.connect(target)
	if err != nil {
		return err
	}
	logs, err := nodev1.NewContainerManagerClient(connection).Logs(ctx, &nodev1.LogsRequest{
		Token: target.Token, ContainerId: target.Container, Options: at.options,
	})
	if err != nil {
		return nodeError(target, "read the logs of", err)
	}
	for {
		chunk, err := logs.Recv()
		switch {
		case errors.Is(err, io.EOF), errdefs.IsNotFound(wire.Error(err)): // or its retention is over
			return nil
		case err != nil:
			return nodeError(target, "read the logs of", err)
		}
		at.advance(chunk)
		chunk.ContainerId, chunk.Instance = target.Container, target.Instance
		select {
		case m.chunks <- chunk:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (m *merger) connect(target zone.Target) (*grpc.ClientConn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if connection := m.nodes[target.ContainerManager]; connection != nil {
		return connection, nil
	}
	connection, err := m.apps.connect(target)
	if err == nil {
		m.nodes[target.ContainerManager] = connection
	}
	return connection, err
}

func (m *merger) close() {
	for _, connection := range m.nodes {
		_ = connection.Close()
	}
}

// failures collects one error for each node that could not be read.
type failures struct {
	mu    sync.Mutex
	nodes map[string]bool
	all   []error
}

func newFailures() *failures { return &failures{nodes: map[string]bool{}} }

func (f *failures) add(target zone.Target, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil || f.nodes[target.Node] {
		return
	}
	f.nodes[target.Node] = true
	f.all = append(f.all, err)
}

func (f *failures) err() error { return errors.Join(f.all...) }
