package nodemanager

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	retry "github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/wire"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

const (
	// registerTimeout is how long a registration may take.
	registerTimeout = 10 * time.Second
	// readyTimeout is how long the first registration waits for the engines, so that it has the whole state.
	readyTimeout = 2 * time.Second
	// minSession is the duration below which a session counts as failed, so that the next one waits.
	minSession = 500 * time.Millisecond
	// batchDelay is how long changes are collected before they are sent.
	batchDelay = 2 * time.Millisecond
	// defaultReportInterval is used until the ResourceManager names one.
	defaultReportInterval = time.Second
)

var errReregister = errors.New("the node has to register again")

// dialTracker opens the connection to the ResourceManager. It connects on use and reconnects quickly.
func dialTracker(config Config) (*grpc.ClientConn, error) {
	// Reports have texts of containers and engines, which are not always UTF-8.
	options := append([]grpc.DialOption{grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec()))}, config.DialOptions...)
	return credentials.Dial(config.ResourceManager, options...)
}

// track registers and reports until ctx ends. While the ResourceManager is away, the containers keep running.
func (nm *NodeManager) track(ctx context.Context, client trackerv1.ResourceTrackerClient) {
	select {
	case <-nm.ready:
	case <-time.After(readyTimeout):
	case <-ctx.Done():
		return
	}
	pace := retry.Policy{Min: 100 * time.Millisecond, Max: time.Second}
	lastError := ""
	for failures := 0; ctx.Err() == nil; {
		began := time.Now()
		registered, err := nm.session(ctx, client)
		nm.counters.connected.Store(false)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errReregister) || registered && status.Code(err) == codes.Aborted:
			nm.log.Info("registering again", "node", nm.config.NodeID)
			if time.Since(began) > minSession {
				failures = 0
				continue
			}
			failures++ // two nodes of one name would replace each other without a pause
		case registered:
			failures, lastError = 1, ""
			nm.log.Warn("lost the connection to the ResourceManager", "node", nm.config.NodeID, "error", err)
		default:
			failures++
			// The errors of an absent ResourceManager vary and are logged once; its own answers are logged when they change.
			if why := status.Convert(err); failures == 1 || why.Code() != codes.Unavailable && why.Message() != lastError {
				lastError = why.Message()
				nm.log.Warn("cannot register with the ResourceManager", "node", nm.config.NodeID, "address", nm.config.ResourceManager, "error", lastError)
			}
		}
		if retry.Sleep(ctx, pace.After(failures)) != nil {
			return
		}
	}
}

// session registers, then reports and receives commands until the stream ends.
func (nm *NodeManager) session(ctx context.Context, client trackerv1.ResourceTrackerClient) (registered bool, err error) {
	select { // this registration satisfies earlier requests
	case <-nm.registerAgain:
	default:
	}
	changes := newFeed(func(*corev1.ContainerStatus) bool { return true })
	request, err := ask(ctx, nm, func(o *owner) (*trackerv1.RegisterRequest, error) { return o.registration(changes), nil })
	if err != nil {
		return false, err
	}
	request.StateDirs = nm.stateDirs()
	within, cancel := context.WithTimeout(ctx, registerTimeout)
	response, err := client.Register(within, request, grpc.WaitForReady(true))
	cancel()
	if err != nil {
		return false, err
	}
	if _, err := ask(ctx, nm, func(o *owner) (struct{}, error) { return struct{}{}, o.applyRegistration(response) }); err != nil {
		return false, err
	}
	ctx, cancelStream := context.WithCancelCause(ctx)
	defer cancelStream(nil)
	stream, err := client.Session(ctx)
	if err != nil {
		return true, err
	}
	if err := stream.Send(&trackerv1.NodeReport{Session: response.GetSession()}); err != nil {
		return true, receiveError(stream, err)
	}
	nm.counters.connected.Store(true)
	received := make(chan error, 1)
	nm.goroutines.Go(func() { received <- nm.receiveCommands(stream) })
	interval := response.GetReportInterval().AsDuration()
	err = nm.report(ctx, reporting{stream: stream, session: response.GetSession(), changes: changes, interval: interval, received: received})
	return true, err
}

// receiveError is why a stream ended: Send only reports that it did.
func receiveError(stream trackerv1.ResourceTracker_SessionClient, sendErr error) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		if stream.Context().Err() != nil {
			return sendErr
		}
	}
}

type reporting struct {
	stream   trackerv1.ResourceTracker_SessionClient
	session  string
	changes  *feed
	interval time.Duration
	received <-chan error
}

// report sends changes at once, and an empty report at each interval.
func (nm *NodeManager) report(ctx context.Context, r reporting) error {
	if r.interval <= 0 {
		r.interval = defaultReportInterval
	}
	beat := time.NewTicker(r.interval)
	defer beat.Stop()
	for {
		message := &trackerv1.NodeReport{Session: r.session}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-r.received:
			return err
		case <-nm.registerAgain:
			return errReregister
		case <-beat.C:
		case <-r.changes.wake:
			if retry.Sleep(ctx, batchDelay) != nil {
				return context.Cause(ctx)
			}
			var node nodeChange
			message.Containers, node = r.changes.take()
			message.Health, message.Attributes = node.health, node.attributes
		}
		if err := r.stream.Send(message); err != nil {
			return <-r.received
		}
	}
}

// receiveCommands hands the ResourceManager's commands to the owner.
func (nm *NodeManager) receiveCommands(stream trackerv1.ResourceTracker_SessionClient) error {
	for {
		command, err := stream.Recv()
		if err != nil {
			return err
		}
		nm.inbox.put(func(o *owner) { o.applyCommand(command) })
	}
}

func (o *owner) applyCommand(command *trackerv1.NodeCommand) {
	if end := command.GetRemoveStateDir(); end != nil {
		o.removeStateDir(end.GetName())
		return
	}
	o.node.ApplyCommand(command)
}

// registration is the whole state of the node. Later changes go to the feed.
func (o *owner) registration(changes *feed) *trackerv1.RegisterRequest {
	o.perform()
	o.tracker = changes
	o.registrations++
	config := o.nm.config
	request := &trackerv1.RegisterRequest{
		NodeId: config.NodeID, Address: config.Address, ContainerManager: o.nm.Address(),
		Capacity: wire.Resources(config.Schema, config.Capacity), Attributes: o.attributes,
		Containers: o.node.Statuses(changes.matches), Health: o.node.Health(), Version: config.Version,
		FolderId: o.nm.folder, ProcessId: o.nm.process, Registration: o.registrations,
	}
	return request
}

func (o *owner) applyRegistration(response *trackerv1.RegisterResponse) error {
	o.node.ApplyRegistration(response)
	o.nm.log.Info("registered", "node", o.nm.config.NodeID, "zone", response.GetZone(), "epoch", response.GetEpoch(), "reaped", len(response.GetReap()))
	o.nm.counters.registrations.Add(1)
	return nil
}
