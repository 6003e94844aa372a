// Package appmaster is the library for application masters. A Client keeps one stream to the ResourceManager and one watch
// of each node that holds a container of the app. It reconnects when a connection is lost, when the ResourceManager
// restarts, and when a NodeManager moves. A master's calls (SetAsk, Release, ReportInstance) do not wait; what happens
// arrives on one channel (Events).
//
// A restarted master registers again and receives the containers that the app still holds. Nothing is lost or doubled: asks
// and reports are absolute and sent again after each reconnection, releases are repeated until they are acknowledged, and
// each grant and each end is one event.
//
// Vocabulary: an attempt is one run of an app's master; an ask is a request for a number of equal containers; the memo is
// what an attempt saves for the next one.
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

// batchDelay is how long a change waits, so that others are sent with it.
const batchDelay = 2 * time.Millisecond

// callTimeout is how long one call may take before it is repeated.
const callTimeout = 5 * time.Second

// ErrSuperseded means that a newer attempt has taken over, or that the app is gone.
var ErrSuperseded = fmt.Errorf("this attempt of the application master has been replaced: %w", errdefs.ErrAborted)

// Client is an application master's connection to its zone. Its methods may be called from any goroutine.
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
	// held are the leases of the app's containers, by container id. Only the session's goroutine writes it.
	held map[string]*corev1.Lease
	// traffic is the newest count of each instance on the present stream.
	traffic map[string]*masterv1.Traffic
	nodes   map[string]*node
	// missing are the leases that were held before the last registration and are not in its answer.
	missing []*corev1.Lease
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
	return &Client{
		config: config, log: log, outbox: newOutbox(), events: make(chan Event, 64),
		ctx: ctx, cancel: cancel, done: make(chan struct{}),
		held: map[string]*corev1.Lease{}, traffic: map[string]*masterv1.Traffic{}, nodes: map[string]*node{},
	}
}

// Register registers the attempt and keeps the connection until Close. While the ResourceManager cannot be reached, it tries
// until ctx ends. The answer has the desired state of the app, the containers that it holds, and the memo of the attempt
// before. It is called once. It fails with ErrSuperseded if this is not the newest attempt.
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
		c.track(allocation)
	}
	go c.run()
	return answer, nil
}

// Events is the channel of events. It is closed after Superseded and by Close. While the master does not read it, events
// wait; none is lost.
func (c *Client) Events() <-chan Event { return c.events }

// SetAsk asks for containers: ask.Count in total under ask.Id. It replaces the ask of that id. The message must not be
// changed afterwards.
func (c *Client) SetAsk(ask *masterv1.Ask) { c.outbox.setAsk(ask) }

// WithdrawAsk ends the ask of that id. A container that was granted meanwhile still arrives.
func (c *Client) WithdrawAsk(id string) { c.outbox.withdrawAsk(id) }

// Release gives a container back; if it runs, it is stopped. Completed follows when it was seen gone, and needs no release.
func (c *Client) Release(container string) { c.outbox.release(container) }

// ReportInstance reports the state of an instance. It replaces the report before.
func (c *Client) ReportInstance(report *masterv1.InstanceReport) { c.outbox.reportInstance(report) }

// ForgetInstance reports that an instance does not exist any more.
func (c *Client) ForgetInstance(id string) { c.outbox.forgetInstance(id) }

// ReportRollout reports how far the change to the desired version has come.
func (c *Client) ReportRollout(report *masterv1.RolloutReport) {
	c.outbox.change(func() { c.outbox.rollout.put(report) })
}

// Revert requests the version before.
func (c *Client) Revert(revert *masterv1.Revert) {
	c.outbox.change(func() { c.outbox.revert.put(revert) })
}

// SaveMemo saves at most 64 KiB for the next attempt.
func (c *Client) SaveMemo(memo []byte) {
	c.outbox.change(func() { c.outbox.memo.put(memo) })
}

// ReportGeneration reports the newest generation of the desired state that was acted upon.
func (c *Client) ReportGeneration(generation int64) {
	c.outbox.change(func() { c.outbox.generation.put(generation) })
}

// Finish ends the app with a reason that people are shown. While the ResourceManager cannot be reached, it tries until ctx
// ends. Containers that are still held are stopped.
func (c *Client) Finish(ctx context.Context, reason string) error {
	return c.callUntilAnswered(ctx, func(ctx context.Context) error {
		_, err := c.rm.Finish(ctx, &masterv1.FinishRequest{Reason: reason}, grpc.WaitForReady(true))
		return err
	})
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

// callUntilAnswered repeats a call until the ResourceManager answers. A refusal means that this attempt was superseded.
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
	for {
		err := c.stream()
		if errors.Is(err, ErrSuperseded) {
			c.emit(Superseded{Reason: "a newer attempt has registered"})
			return
		}
		if c.ctx.Err() != nil {
			return
		}
		c.log.Warn("the stream to the ResourceManager ended", "app", c.config.App, "attempt", c.config.Attempt, "error", err)
		c.emit(Disconnected{Err: err})
		answer, err := c.register(c.ctx)
		if err != nil {
			if errors.Is(err, ErrSuperseded) && c.ctx.Err() == nil {
				c.emit(Superseded{Reason: wire.Sentence(err)})
			}
			return
		}
		c.reconcile(answer)
		c.outbox.reset()
		clear(c.traffic)
	}
}

// reconcile reports what has changed while the ResourceManager could not be reached.
func (c *Client) reconcile(answer *masterv1.RegisterResponse) {
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
		c.emit(DesiredChanged{Desired: answer.GetWanted()})
	}
}

// completeMissing reports the end of each missing lease for which the first answer of the stream had no exit.
func (c *Client) completeMissing() {
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
	for first := true; ; first = false {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if answer.GetSuperseded() {
			return ErrSuperseded
		}
		c.apply(answer)
		if first {
			c.completeMissing()
			c.emit(Connected{})
		}
	}
}

// send sends the outbox, batchDelay after each change, until ctx ends.
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
		if backoff.Sleep(ctx, batchDelay) != nil {
			return
		}
	}
}

func (c *Client) apply(answer *masterv1.AllocateResponse) {
	c.outbox.acknowledge(answer.GetAppliedSequence())
	for _, update := range answer.GetNodes() {
		c.mu.Lock()
		if n, ok := c.nodes[update.GetNodeId()]; ok {
			n.update(update.GetContainerManager(), nil)
		}
		c.mu.Unlock()
		c.emit(NodeChanged{Node: update.GetNodeId(), State: update.GetState(), Reason: update.GetReason()})
	}
	if answer.GetWanted() != nil {
		c.emit(DesiredChanged{Desired: answer.GetWanted()})
	}
	for _, allocation := range answer.GetAllocated() {
		c.allocated(allocation)
	}
	for _, status := range answer.GetCompleted() {
		c.completed(status)
	}
	for _, notice := range answer.GetPreemptions() {
		event := Preemption{ContainerID: notice.GetContainerId(), Reason: notice.GetReason()}
		if !notice.GetWithdrawn() {
			event.Deadline = notice.GetDeadline().AsTime()
		}
		c.emit(event)
	}
	for _, instance := range answer.GetWithdrawn() {
		c.emit(Withdrawn{Instance: instance})
	}
	if answer.GetWaits() != nil {
		c.emit(WaitingChanged{Waiting: answer.GetWaits().GetWaiting()})
	}
	for _, traffic := range answer.GetTraffic() {
		// Counts start at zero with every stream.
		before := c.traffic[traffic.GetInstance()]
		c.traffic[traffic.GetInstance()] = traffic
		c.emit(Traffic{
			Instance: traffic.GetInstance(),
			Requests: traffic.GetRequests() - before.GetRequests(), Errors: traffic.GetErrors() - before.GetErrors(),
		})
	}
}

func (c *Client) track(allocation *masterv1.Allocation) {
	c.held[allocation.GetLease().GetContainerId()] = allocation.GetLease()
	c.watchContainer(allocation)
}

// allocated emits a grant once.
func (c *Client) allocated(allocation *masterv1.Allocation) {
	lease := allocation.GetLease()
	_, known := c.held[lease.GetContainerId()]
	c.track(allocation)
	if known {
		return
	}
	c.outbox.countGrant(lease.GetAskId())
	c.emit(Allocated{Allocation: allocation})
}

// completed emits an end once. The ResourceManager repeats an end on every new stream until it is acknowledged by a release.
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
	c.emit(Completed{Status: status})
}

// emit hands an event to the master. It waits until the master takes it or the Client is closed.
func (c *Client) emit(event Event) {
	select {
	case c.events <- event:
	case <-c.ctx.Done():
	}
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
