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
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/wire"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
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
	config Config
	log    *slog.Logger
	outbox *outbox
	events chan Event

	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{}
	conn   *grpc.ClientConn
	rm     masterv1.ApplicationMasterClient

	mu sync.Mutex
	// containers that are held, and their nodes. Written by the session's goroutine alone.
	held map[string]*corev1.Lease
	// counted is what balancers have counted since the present stream was opened, by instance.
	counted map[string]*masterv1.Traffic
	nodes   map[string]*node
	// missing were held before the last registration and are no more.
	missing []*corev1.Lease
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
	return &Client{
		config: config, log: log, outbox: newOutbox(), events: make(chan Event, 64),
		ctx: ctx, cancel: cancel, done: make(chan struct{}),
		held: map[string]*corev1.Lease{}, counted: map[string]*masterv1.Traffic{}, nodes: map[string]*node{},
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
	for _, allocation := range answer.GetContainers() {
		c.hold(allocation)
	}
	go c.run()
	return answer, nil
}

// Events tells everything that happens. It is closed after Superseded and by Close. A master that does not read it is
// told nothing more, but loses nothing.
func (c *Client) Events() <-chan Event { return c.events }

// SetAsk asks for containers: in total ask.Count under ask.Id. It replaces the ask of that id. The message must not be
// changed afterwards.
func (c *Client) SetAsk(ask *masterv1.Ask) { c.outbox.setAsk(ask) }

// WithdrawAsk asks for no more containers under the id. One that was granted meanwhile is still told.
func (c *Client) WithdrawAsk(id string) { c.outbox.withdrawAsk(id) }

// Release gives a container back: it is stopped if it runs. Completed tells when it was seen gone, and needs no release.
func (c *Client) Release(container string) { c.outbox.release(container) }

// ReportInstance tells what the master thinks of an instance. It replaces the report before it.
func (c *Client) ReportInstance(report *masterv1.InstanceReport) { c.outbox.reportInstance(report) }

// ForgetInstance says that an instance exists no more.
func (c *Client) ForgetInstance(id string) { c.outbox.forgetInstance(id) }

// ReportRollout tells how far the change to the wanted version has come.
func (c *Client) ReportRollout(report *masterv1.RolloutReport) {
	c.outbox.change(func() { c.outbox.rollout.put(report) })
}

// Revert asks to go back to the version before.
func (c *Client) Revert(revert *masterv1.Revert) {
	c.outbox.change(func() { c.outbox.revert.put(revert) })
}

// SaveMemo keeps at most 64 KiB for the next attempt.
func (c *Client) SaveMemo(memo []byte) {
	c.outbox.change(func() { c.outbox.memo.put(memo) })
}

// Observe says which wish of the people has been acted upon.
func (c *Client) Observe(generation int64) {
	c.outbox.change(func() { c.outbox.observed.put(generation) })
}

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
		c.compare(answer)
		c.outbox.reset()
		clear(c.counted)
	}
}

// compare tells what happened while the ResourceManager was out of reach.
func (c *Client) compare(answer *masterv1.RegisterResponse) {
	still := map[string]bool{}
	for _, allocation := range answer.GetContainers() {
		still[allocation.GetLease().GetContainerId()] = true
		c.allocated(allocation)
	}
	c.missing = nil
	for container, lease := range c.held {
		if !still[container] {
			c.missing = append(c.missing, lease)
		}
	}
	slices.SortFunc(c.missing, func(a, b *corev1.Lease) int { return cmp.Compare(a.GetContainerId(), b.GetContainerId()) })
	if answer.GetWanted() != nil {
		c.tell(WantedChanged{Wanted: answer.GetWanted()})
	}
}

// conclude tells the end of what is held no more, where the first answer of the stream did not say how it ended.
func (c *Client) conclude() {
	for _, lease := range c.missing {
		c.completed(&corev1.ContainerStatus{
			Lease: lease,
			State: corev1.ContainerStatus_DONE,
			Exit: &corev1.Exit{
				Reason: corev1.Exit_VANISHED, Code: -1,
				Message: "it ended while the ResourceManager could not be reached",
			},
		})
	}
	c.missing = nil
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
	for first := true; ; first = false {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if answer.GetSuperseded() {
			return ErrSuperseded
		}
		c.heed(answer)
		if first {
			c.conclude()
			c.tell(Connected{})
		}
	}
}

// send writes what is due, a little after it became due, until ctx ends.
func (c *Client) send(ctx context.Context, stream masterv1.ApplicationMaster_AllocateClient) {
	for {
		for request := c.outbox.next(); request != nil; request = c.outbox.next() {
			if err := stream.Send(request); err != nil {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-c.outbox.wake:
		}
		if backoff.Sleep(ctx, coalesce) != nil {
			return
		}
	}
}

func (c *Client) heed(answer *masterv1.AllocateResponse) {
	c.outbox.acknowledge(answer.GetAppliedSequence())
	for _, update := range answer.GetNodes() {
		c.mu.Lock()
		if n, ok := c.nodes[update.GetNodeId()]; ok {
			n.move(update.GetContainerManager(), nil)
		}
		c.mu.Unlock()
		c.tell(NodeChanged{Node: update.GetNodeId(), State: update.GetState(), Reason: update.GetReason()})
	}
	if answer.GetWanted() != nil {
		c.tell(WantedChanged{Wanted: answer.GetWanted()})
	}
	for _, allocation := range answer.GetAllocated() {
		c.allocated(allocation)
	}
	for _, status := range answer.GetCompleted() {
		c.completed(status)
	}
	for _, notice := range answer.GetPreemptions() {
		told := Preempted{ContainerID: notice.GetContainerId(), Reason: notice.GetReason()}
		if !notice.GetWithdrawn() {
			told.Deadline = notice.GetDeadline().AsTime()
		}
		c.tell(told)
	}
	for _, instance := range answer.GetWithdrawn() {
		c.tell(Withdrawn{Instance: instance})
	}
	if answer.GetWaits() != nil {
		c.tell(Waits{Waiting: answer.GetWaits().GetWaiting()})
	}
	for _, traffic := range answer.GetTraffic() {
		// Counts begin at zero with every stream.
		before := c.counted[traffic.GetInstance()]
		c.counted[traffic.GetInstance()] = traffic
		c.tell(Traffic{
			Instance: traffic.GetInstance(),
			Requests: traffic.GetRequests() - before.GetRequests(), Errors: traffic.GetErrors() - before.GetErrors(),
		})
	}
}

func (c *Client) hold(allocation *masterv1.Allocation) {
	c.held[allocation.GetLease().GetContainerId()] = allocation.GetLease()
	c.watchContainer(allocation)
}

// allocated tells of a grant unless it is known.
func (c *Client) allocated(allocation *masterv1.Allocation) {
	lease := allocation.GetLease()
	_, known := c.held[lease.GetContainerId()]
	c.hold(allocation)
	if known {
		return
	}
	c.outbox.granted(lease.GetAskId())
	c.tell(Allocated{Allocation: allocation})
}

// completed tells of an end unless it was told. The ResourceManager repeats an end on every new stream until it is
// acknowledged, which is done by releasing what has ended.
func (c *Client) completed(status *corev1.ContainerStatus) {
	container := status.GetLease().GetContainerId()
	lease, held := c.held[container]
	if !held && c.outbox.releasing(container) {
		return
	}
	if held {
		delete(c.held, container)
		c.unwatchContainer(lease.GetNodeId(), container)
	}
	c.outbox.release(container)
	c.tell(Completed{Status: status})
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
