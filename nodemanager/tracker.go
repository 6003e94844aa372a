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
	// registerWithin is how long a registration may take.
	registerWithin = 10 * time.Second
	// wholeWithin is how long the first registration waits for the engines, so that it tells the whole truth.
	wholeWithin = 2 * time.Second
	// shortSession is one that ended too soon for the next to begin at once.
	shortSession = 500 * time.Millisecond
	// coalesce is how long changes are gathered before they are sent.
	coalesce = 2 * time.Millisecond
	// defaultReportInterval is used until the ResourceManager names one.
	defaultReportInterval = time.Second
)

var errReregister = errors.New("the node has to register again")

// dialTracker makes the connection to the ResourceManager; it connects when it is used, and reconnects quickly.
func dialTracker(config Config) (*grpc.ClientConn, error) {
	// Its reports carry what containers and engines said, which is not always UTF-8.
	options := append([]grpc.DialOption{grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec()))}, config.DialOptions...)
	return credentials.Dial(config.ResourceManager, options...)
}

// track registers and reports for ever. While the ResourceManager is away the containers go on.
func (nm *NodeManager) track(ctx context.Context, client trackerv1.ResourceTrackerClient) {
	select {
	case <-nm.whole:
	case <-time.After(wholeWithin):
	case <-ctx.Done():
		return
	}
	pace := retry.Policy{Min: 100 * time.Millisecond, Max: time.Second}
	said := ""
	for failures := 0; ctx.Err() == nil; {
		began := time.Now()
		registered, err := nm.session(ctx, client)
		nm.counters.connected.Store(false)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errReregister) || registered && status.Code(err) == codes.Aborted:
			nm.log.Info("registering again", "node", nm.config.NodeID)
			if time.Since(began) > shortSession {
				failures = 0
				continue
			}
			failures++ // two nodes of one name would drive each other out without a pause
		case registered:
			failures, said = 1, ""
			nm.log.Warn("lost the ResourceManager", "node", nm.config.NodeID, "error", err)
		default:
			failures++
			// A ResourceManager that is away says it in many ways; what it answers itself is said whenever it is new.
			if why := status.Convert(err); failures == 1 || why.Code() != codes.Unavailable && why.Message() != said {
				said = why.Message()
				nm.log.Warn("cannot register with the ResourceManager", "node", nm.config.NodeID, "address", nm.config.ResourceManager, "error", said)
			}
		}
		if retry.Sleep(ctx, pace.After(failures)) != nil {
			return
		}
	}
}

// session registers, then reports and obeys until the stream breaks.
func (nm *NodeManager) session(ctx context.Context, client trackerv1.ResourceTrackerClient) (registered bool, err error) {
	select { // what was asked for before is satisfied by this registration
	case <-nm.again:
	default:
	}
	changes := newFeed(func(*corev1.ContainerStatus) bool { return true })
	request, err := ask(ctx, nm, func(o *owner) (*trackerv1.RegisterRequest, error) { return o.truth(changes), nil })
	if err != nil {
		return false, err
	}
	request.Frameworks = nm.places()
	within, cancel := context.WithTimeout(ctx, registerWithin)
	response, err := client.Register(within, request, grpc.WaitForReady(true))
	cancel()
	if err != nil {
		return false, err
	}
	if _, err := ask(ctx, nm, func(o *owner) (struct{}, error) { return struct{}{}, o.registered(response) }); err != nil {
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
	nm.waiting.Go(func() { received <- nm.obey(stream) })
	interval := response.GetReportInterval().AsDuration()
	err = nm.report(ctx, reporting{stream: stream, session: response.GetSession(), changes: changes, interval: interval, received: received})
	return true, err
}

// receiveError is why a stream was ended: the sender of a stream learns only that it was.
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

// report sends changes at once, and an empty report each interval.
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
		case <-nm.again:
			return errReregister
		case <-beat.C:
		case <-r.changes.wake:
			if retry.Sleep(ctx, coalesce) != nil {
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

// obey passes on what the ResourceManager commands.
func (nm *NodeManager) obey(stream trackerv1.ResourceTracker_SessionClient) error {
	for {
		command, err := stream.Recv()
		if err != nil {
			return err
		}
		nm.inbox.put(func(o *owner) { o.obey(command) })
	}
}

func (o *owner) obey(command *trackerv1.NodeCommand) {
	if end := command.GetEndFramework(); end != nil {
		o.endPlace(end.GetPlace())
		return
	}
	o.node.Obey(command)
}

// truth is the whole of it; what changes from now on goes to changes.
func (o *owner) truth(changes *feed) *trackerv1.RegisterRequest {
	o.perform()
	o.tracker = changes
	config := o.nm.config
	request := &trackerv1.RegisterRequest{
		NodeId: config.NodeID, Address: config.Address, ContainerManager: o.nm.Address(),
		Capacity: wire.Resources(config.Schema, config.Capacity), Attributes: o.attributes,
		Containers: o.node.Statuses(changes.wants), Health: o.node.Health(), Version: config.Version,
		FolderId: o.nm.folder, ProcessId: o.nm.process,
	}
	return request
}

func (o *owner) registered(response *trackerv1.RegisterResponse) error {
	o.node.Registered(response)
	o.nm.log.Info("registered", "node", o.nm.config.NodeID, "zone", response.GetZone(), "epoch", response.GetEpoch(), "reaped", len(response.GetReap()))
	o.nm.counters.registrations.Add(1)
	return nil
}
