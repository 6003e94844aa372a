// Package appmaster is the library that an application master is written with. It keeps one stream to the
// ResourceManager and one watch to each node that holds a container of the app, for ever: over lost connections, a
// restarted ResourceManager, NodeManagers that moved. A master says what it wants (SetAsk, Release, ReportInstance)
// without waiting, and is told what happened on one channel (Events).
//
// A master that was restarted registers again and is given the containers that the app still holds. Nothing is lost
// and nothing doubled: asks and reports are absolute and sent again in full after each reconnection, releases until
// they are acknowledged, and each grant and each end is told once.
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

// coalesce is how long a change waits for others to travel with.
const coalesce = 2 * time.Millisecond

// answerWithin is how long one call may take before it is tried anew.
const answerWithin = 5 * time.Second

// ErrSuperseded says that a newer attempt has taken over, or that the app is gone.
var ErrSuperseded = fmt.Errorf("this attempt of the application master has been replaced: %w", errdefs.ErrAborted)

// Client is an application master's side of its protocols. Its methods may be called from any goroutine.
type Client struct {
	*Outbox
	config Config
	log    *slog.Logger
	events chan Event
	// session belongs to the goroutine of run.
	session *Session

	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{}
	conn   *grpc.ClientConn
	rm     masterv1.ApplicationMasterClient

	mu      sync.Mutex
	nodes   map[string]*node
	watches sync.WaitGroup
	// redo ends the present stream so that the master registers again.
	redo context.CancelFunc
}

// New makes a Client. It does nothing before Register.
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

// listener has a session's events told, and nodes watched.
func (c *Client) listener() Listener {
	return Listener{Tell: c.tell, Watch: c.watchContainer, Unwatch: c.unwatchContainer, Moved: c.nodeMoved}
}

// nodeMoved tells where a node is reached now.
func (c *Client) nodeMoved(name, containerManager string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n, ok := c.nodes[name]; ok {
		n.move(containerManager, nil)
	}
}

// Register announces the attempt, trying until ctx ends while the ResourceManager cannot be reached, and then keeps in
// touch until Close. The answer names what people want of the app, the containers it holds already, and the memo of
// the attempt before. It is called once. It fails with ErrSuperseded if this is not the newest attempt.
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

// Events tells everything that happens. It is closed after Superseded and by Close. A master that does not read it is
// told nothing more, but loses nothing.
func (c *Client) Events() <-chan Event { return c.events }

// Finish ends the app for a reason that people are shown, trying until ctx ends. Containers that are still held are stopped.
func (c *Client) Finish(ctx context.Context, reason string) error {
	return c.insist(ctx, func(ctx context.Context) error {
		_, err := c.rm.Finish(ctx, &masterv1.FinishRequest{Reason: reason}, grpc.WaitForReady(true))
		return err
	})
}

// Close lets go of every connection and waits for the end of all that the Client runs. Containers go on running.
func (c *Client) Close() {
	c.cancel(errors.New("the application master is closing"))
	if c.conn == nil {
		return
	}
	<-c.done
}

func (c *Client) register(ctx context.Context) (*masterv1.RegisterResponse, error) {
	var answer *masterv1.RegisterResponse
	err := c.insist(ctx, func(ctx context.Context) (err error) {
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

// insist calls the ResourceManager until it answers. A refusal means that somebody else is in charge.
func (c *Client) insist(ctx context.Context, call func(context.Context) error) error {
	for failures := 1; ; failures++ {
		err := c.once(ctx, call)
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

func (c *Client) once(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
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

// run is the session: a stream for as long as it holds, then a new registration, then the next stream.
func (c *Client) run() {
	defer close(c.done)
	defer close(c.events)
	defer func() {
		c.cancel(ErrSuperseded)
		c.watches.Wait()
		_ = c.conn.Close()
	}()
	for {
		err := c.stream()
		if errors.Is(err, ErrSuperseded) {
			c.tell(Superseded{Reason: "a newer attempt has registered"})
			return
		}
		if c.ctx.Err() != nil {
			return
		}
		c.log.Warn("the stream to the ResourceManager ended", "app", c.config.App, "attempt", c.config.Attempt, "error", err)
		c.tell(Disconnected{Err: err})
		answer, err := c.register(c.ctx)
		if err != nil {
			if errors.Is(err, ErrSuperseded) && c.ctx.Err() == nil {
				c.tell(Superseded{Reason: wire.Sentence(err)})
			}
			return
		}
		c.session.Resume(answer)
	}
}

// stream holds one Allocate stream open until it fails.
func (c *Client) stream() error {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	c.mu.Lock()
	c.redo = cancel
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
		c.session.Heed(answer)
	}
}

// send writes what is due, a little after it became due, until ctx ends.
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
		if backoff.Sleep(ctx, coalesce) != nil {
			return
		}
	}
}

// tell hands an event to the master and waits until it takes it or the Client is closed.
func (c *Client) tell(event Event) {
	select {
	case c.events <- event:
	case <-c.ctx.Done():
	}
}

// reregister has the session begin anew, to be given fresh tokens.
func (c *Client) reregister() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.redo != nil {
		c.redo()
	}
}

// bearer is a token as gRPC call credentials.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }
