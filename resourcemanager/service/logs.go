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
	// readTogether is how many containers' logs are read at once by a call that does not follow.
	readTogether = 16
	// mostFollowed is how many instances one call may follow: each takes a stream from its node.
	mostFollowed = 512
	// lastWords is how long the logs of an app that has ended are still read: its containers have ended too.
	lastWords = 3 * time.Second
)

// logRetry spaces the attempts to go on reading from a node that does not answer.
var logRetry = backoff.Policy{Min: 200 * time.Millisecond, Max: 5 * time.Second}

// AppLogs merges the logs of an app's instances, as they come from their nodes. With follow it goes on with the containers
// that take their place, until the app is stopped or removed.
func (s *apps) AppLogs(request *apiv1.AppLogsRequest, stream grpc.ServerStreamingServer[corev1.LogChunk]) error {
	if request.Tail != nil && request.GetTail() < 0 {
		return wire.Status(invalid("%d is not a number of lines; leave the tail out for all of them", request.GetTail()))
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	m := &merger{apps: s, request: request, chunks: make(chan *corev1.LogChunk), nodes: map[string]*grpc.ClientConn{}, ended: map[string]bool{}}
	defer m.hangUp()
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
			continue // the readers are drained: their context has ended
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
	// nodes are connections by the address of their ContainerManager.
	nodes map[string]*grpc.ClientConn
	// ended are the followed containers that write no more; over says that none does.
	ended map[string]bool
	over  bool
}

// present are the containers whose logs a person who asks now looks for: of each instance the one that runs or, until its next one
// has been started, the last one that it had; of an app without instances the last ones of those that it had.
func present(targets []zone.Target, previous bool) []zone.Target {
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
		return gone // of an app that is stopped
	}
	return chosen
}

func (m *merger) targets(ctx context.Context) ([]zone.Target, error) {
	return m.apps.loop.Targets(ctx, m.request.GetName(), m.request.GetInstance(), true)
}

// readAll reads what has been written. A node that does not answer keeps nobody from the logs of the others.
func (m *merger) readAll(ctx context.Context) error {
	targets, err := m.targets(ctx)
	if err != nil {
		return err
	}
	var readers sync.WaitGroup
	slots := make(chan struct{}, readTogether)
	failures := newFailures()
	for _, target := range present(targets, m.request.GetPrevious()) {
		slots <- struct{}{}
		readers.Go(func() {
			defer func() { <-slots }()
			failures.add(target, m.read(ctx, target, &position{options: m.options()}))
		})
	}
	readers.Wait()
	return failures.err()
}

// follow reads the containers that are there, and those that come, until the app ends.
func (m *merger) follow(ctx context.Context) error {
	changes, err := m.apps.loop.WatchApp(ctx, m.request.GetName())
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
		case errdefs.IsNotFound(err): // it was removed
			m.lastWords(&readers)
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
			wanted = present(all, m.request.GetPrevious())
		}
		if len(known)+len(wanted) > mostFollowed && first {
			return fmt.Errorf("%s has %d containers, and at most %d can be followed at once; name an instance: %w", m.request.GetName(), len(wanted), mostFollowed, errdefs.ErrInvalidArgument)
		}
		for _, target := range wanted {
			if known[target.Container] || target.Starting {
				continue // What starts is read from its first line on, once it runs.
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
			m.lastWords(&readers)
			return nil
		}
	}
}

// lastWords waits for what is still to come from containers that have ended.
func (m *merger) lastWords(readers *sync.WaitGroup) {
	m.mu.Lock()
	m.over = true
	m.mu.Unlock()
	done := make(chan struct{})
	go func() {
		readers.Wait() // the caller ends them
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(lastWords):
	}
}

// keepReading reads one container's log until the container has ended, over failures of its node. The log of a container
// that somebody restarts in the engine ends before that, and goes on.
func (m *merger) keepReading(ctx context.Context, target zone.Target, at *position) {
	for failures := 1; ; failures++ {
		ended, before := m.hasEnded(target), at.options
		if m.read(ctx, target, at) == nil && ended {
			return
		}
		if at.options != before {
			failures = 1 // it wrote something
		}
		if backoff.Sleep(ctx, logRetry.After(failures)) != nil {
			return
		}
	}
}

// hasEnded reports whether a container writes no more.
func (m *merger) hasEnded(target zone.Target) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return target.Ended || m.ended[target.Container] || m.over
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

// passed goes on after the lines that were read.
func (p *position) passed(chunk *corev1.LogChunk) {
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
		at.passed(chunk)
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

func (m *merger) hangUp() {
	for _, connection := range m.nodes {
		_ = connection.Close()
	}
}

// failures keep one sentence for each node that could not be read from.
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
