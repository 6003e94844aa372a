// Package appmaster is the library that an application master is written with. It keeps one stream to the ResourceManager and one
// watch to each node with a container of the app, and opens them again after a lost connection, a restart of the ResourceManager or
// a change of a NodeManager's address. The methods for requests and reports (SetAsk, Release, ReportInstance) do not wait; what
// happens arrives on one channel (Events).
//
// A master that was restarted registers again and receives the containers that the app still holds. Nothing is lost or doubled: incomplete
// asks and reports are absolute and sent again in full after each reconnection, releases are repeated until they are acknowledged,
// and each grant and each end is one event.
package appmaster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/wire"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// batchDelay is how long a change waits, so that others are sent with it.
const batchDelay = 2 * time.Millisecond

// callTimeout is how long one call may take before it is repeated.
const callTimeout = 5 * time.Second

// minStream is the duration below which a stream counts as failed, so that the next one waits.
const minStream = 10 * time.Second

// ErrSuperseded means that the ResourceManager refuses this attempt: a newer one has registered, the app is gone, or the Config is not of
// an attempt.
var ErrSuperseded = fmt.Errorf("the ResourceManager refuses this attempt of the application master: %w", errdefs.ErrAborted)

// Client is an application master's connection to its zone. Its methods may be called from any goroutine.
type Client struct {
	*Outbox
	config Config
	log    *slog.Logger
	events chan Event
	// session belongs to the goroutine of run, except its Next, which belongs to that of send.
	session *Session

	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{}
	conn   *grpc.ClientConn
	rm     masterv1.ApplicationMasterClient

	mu      sync.Mutex
	nodes   map[string]*node
	watches sync.WaitGroup
	// endStream ends the present stream, so that the master registers again.
	endStream context.CancelFunc
}

// New returns a Client that does nothing before Register.
func New(config Config) *Client {
	log := config.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	c := &Client{
		config: config, log: log, events: make(chan Event, 64),
		ctx: ctx, cancel: cancel, done: make(chan struct{}),
		nodes: map[string]*node{},
	}
	c.session = NewSession(c.listener())
	c.Outbox = c.session.Outbox
	return c
}

// listener hands a session's events to the master, and watches nodes.
func (c *Client) listener() Listener {
	return Listener{Emit: c.emit, Watch: c.watchContainer, Unwatch: c.unwatchContainer, UpdateNode: c.updateNode}
}

// updateNode sets the address of a node's ContainerManager.
func (c *Client) updateNode(name, containerManager string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n, ok := c.nodes[name]; ok {
		n.update(containerManager, nil)
	}
}

// Register registers the attempt and keeps the connection until Close. While the ResourceManager cannot be reached, it tries
// until ctx ends. The answer has the desired state of the app, the containers that it holds, and the memo of the attempt
// before. It is called once. It fails with ErrSuperseded if the ResourceManager refuses the attempt.
func (c *Client) Register(ctx context.Context) (*masterv1.RegisterResponse, error) {
	if err := c.config.Validate(); err != nil {
		return nil, err
	}
	conn, err := c.config.dial(c.config.ResourceManager, grpc.WithPerRPCCredentials(bearer(c.config.Token)))
	if err != nil {
		return nil, err
	}
	c.conn, c.rm = conn, masterv1.NewApplicationMasterClient(conn)
	answer, err := c.register(ctx)
	if err != nil {
		_ = conn.Close()
		c.conn = nil
		return nil, err
	}
	c.session.Begin(answer)
	go c.run()
	return answer, nil
}

// Events is the channel of events. It is closed after Superseded, and by Close if the attempt has registered. While the master does
// not read it, events wait; none is lost.
func (c *Client) Events() <-chan Event { return c.events }

// Plan asks where asks would be granted if they were made now, without making them; see the protocol. It may be called from any
// goroutine.
func (c *Client) Plan(ctx context.Context, request *masterv1.PlanRequest) (*masterv1.PlanResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := c.rm.Plan(ctx, request)
	return response, wire.Error(err)
}

// Finish ends the app, whose work has succeeded, with a reason that people are shown. While the ResourceManager cannot be reached, it
// tries until ctx ends. Containers that are still held are stopped.
func (c *Client) Finish(ctx context.Context, reason string) error {
	return c.finish(ctx, &masterv1.FinishRequest{Reason: reason})
}

// Fail is Finish for an app whose work has failed.
func (c *Client) Fail(ctx context.Context, reason string) error {
	return c.finish(ctx, &masterv1.FinishRequest{Failed: true, Reason: reason})
}

func (c *Client) finish(ctx context.Context, request *masterv1.FinishRequest) error {
	return c.callUntilAnswered(ctx, func(ctx context.Context) error {
		_, err := c.rm.Finish(ctx, request, grpc.WaitForReady(true))
		return err
	})
}

// Leave ends an attempt that has no Client any more, for example because its program has ended. Containers keep running, and the
// next attempt receives them. Without Leave the attempt ends a minute after the ResourceManager last heard from its program.
func Leave(ctx context.Context, config Config, reason string) error {
	conn, err := config.dial(config.ResourceManager, grpc.WithPerRPCCredentials(bearer(config.Token)))
	if err != nil {
		return fmt.Errorf("connect to the ResourceManager: %w", err)
	}
	defer conn.Close()
	_, err = masterv1.NewApplicationMasterClient(conn).Leave(ctx, &masterv1.LeaveRequest{Reason: reason})
	return wire.Error(err)
}

// Close closes every connection and waits for the goroutines of the Client. Containers keep running.
func (c *Client) Close() {
	c.cancel(errors.New("the application master is closing"))
	if c.conn == nil {
		return
	}
	<-c.done
}

func (c *Client) register(ctx context.Context) (*masterv1.RegisterResponse, error) {
	var answer *masterv1.RegisterResponse
	err := c.callUntilAnswered(ctx, func(ctx context.Context) (err error) {
		answer, err = c.rm.Register(ctx, &masterv1.RegisterRequest{
			AppId: c.config.AppID, Attempt: c.config.Attempt,
		}, grpc.WaitForReady(true))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("register attempt %d of app %q: %w", c.config.Attempt, c.config.App, err)
	}
	return answer, nil
}

// callUntilAnswered repeats a call until the ResourceManager answers. A refusal is ErrSuperseded.
func (c *Client) callUntilAnswered(ctx context.Context, call func(context.Context) error) error {
	for failures := 1; ; failures++ {
		err := c.callOnce(ctx, call)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%w (last: %v)", context.Cause(ctx), err)
		case refused(err):
			return fmt.Errorf("%w: %s", ErrSuperseded, wire.Sentence(err))
		}
		c.log.Warn("the ResourceManager does not answer", "app", c.config.App, "attempt", c.config.Attempt, "error", err)
		if backoff.Sleep(ctx, retry.After(failures)) != nil {
			return fmt.Errorf("%w (last: %v)", context.Cause(ctx), err)
		}
	}
}

func (c *Client) callOnce(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return wire.Error(call(ctx))
}

func refused(err error) bool {
	for _, class := range []error{
		errdefs.ErrAborted, errdefs.ErrFailedPrecondition, errdefs.ErrInvalidArgument, errdefs.ErrNotFound,
		errdefs.ErrPermissionDenied, errdefs.ErrUnauthenticated, errdefs.ErrAlreadyExists,
	} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// run keeps the session: a stream until it fails, then a new registration, then the next stream.
func (c *Client) run() {
	defer close(c.done)
	defer close(c.events)
	defer func() {
		c.cancel(ErrSuperseded)
		c.watches.Wait()
		_ = c.conn.Close()
	}()
	// A ResourceManager that refuses what is sent is not asked again at once, since the next stream begins with the same.
	for failures := 0; ; {
		begun := time.Now()
		err := c.stream()
		if failures++; time.Since(begun) > minStream {
			failures = 0
		}
		if errors.Is(err, ErrSuperseded) {
			c.emitLast(Superseded{Reason: "a newer attempt has registered"})
			return
		}
		if c.ctx.Err() != nil {
			return
		}
		c.log.Warn("the stream to the ResourceManager ended", "app", c.config.App, "attempt", c.config.Attempt, "error", err)
		c.emit(Disconnected{Err: err})
		if failures > 1 && backoff.Sleep(c.ctx, retry.After(failures-1)) != nil {
			return
		}
		answer, err := c.register(c.ctx)
		if err != nil {
			if errors.Is(err, ErrSuperseded) && c.ctx.Err() == nil {
				c.emitLast(Superseded{Reason: wire.Sentence(err)})
			}
			return
		}
		c.session.Resume(answer)
	}
}

// stream keeps one Allocate stream open until it fails.
func (c *Client) stream() error {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	c.mu.Lock()
	c.endStream = cancel
	c.mu.Unlock()
	stream, err := c.rm.Allocate(ctx)
	if err != nil {
		return err
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		defer cancel()
		c.send(ctx, stream)
	}()
	defer func() {
		cancel()
		<-sent
	}()
	for {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if answer.GetSuperseded() {
			return ErrSuperseded
		}
		c.session.Apply(answer)
	}
}

// send sends the outbox, batchDelay after each change, until ctx ends.
func (c *Client) send(ctx context.Context, stream masterv1.ApplicationMaster_AllocateClient) {
	for {
		for request := c.session.Next(); request != nil; request = c.session.Next() {
			if err := stream.Send(request); err != nil {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		if backoff.Sleep(ctx, batchDelay) != nil {
			return
		}
	}
}

// emit hands an event to the master. It waits until the master takes it or the Client is closed.
func (c *Client) emit(event Event) {
	select {
	case c.events <- event:
	case <-c.ctx.Done():
	}
}

// emitLast is emit for the last event: no watch of a node emits anything after it.
func (c *Client) emitLast(event Event) {
	c.mu.Lock()
	for _, n := range c.nodes {
		n.cancel()
	}
	c.mu.Unlock()
	c.watches.Wait()
	c.emit(event)
}

// reregister ends the stream, so that the next registration brings new tokens.
func (c *Client) reregister() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.endStream != nil {
		c.endStream()
	}
}

// bearer is a token as gRPC call credentials.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }
