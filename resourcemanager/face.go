package resourcemanager

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/peer"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
)

var (
	_ service.Apps    = (*ResourceManager)(nil)
	_ service.Zone    = (*ResourceManager)(nil)
	_ service.Lending = (*ResourceManager)(nil)
	_ service.Tracker = (*ResourceManager)(nil)
	_ service.Masters = (*ResourceManager)(nil)
)

// errGone ends the watch of an app that was removed.
var errGone = fmt.Errorf("the app is removed: %w", errdefs.ErrNotFound)

// Deploy implements service.Apps.
func (rm *ResourceManager) Deploy(ctx context.Context, request *apiv1.DeployRequest) (*apiv1.DeployResponse, error) {
	who := peer.From(ctx)
	return grow(ctx, rm, func(z *zone) (*apiv1.DeployResponse, error) { return z.deploy(who, request) })
}

// ListApps implements service.Apps.
func (rm *ResourceManager) ListApps(ctx context.Context, queue string) ([]*service.AppView, error) {
	return look(ctx, rm, func(z *zone) ([]*service.AppView, error) {
		if queue != "" {
			if _, err := z.queue(queue); err != nil {
				return nil, err
			}
		}
		var views []*service.AppView
		for _, a := range z.sortedApps() {
			if queue == "" || queue == a.record.GetSpec().GetQueue() {
				views = append(views, z.show(a))
			}
		}
		return views, nil
	})
}

// App implements service.Apps.
func (rm *ResourceManager) App(ctx context.Context, name string) (*service.AppView, error) {
	return look(ctx, rm, func(z *zone) (*service.AppView, error) {
		a, err := z.app(name)
		if err != nil {
			return nil, err
		}
		return z.show(a), nil
	})
}

// WatchApp implements service.Apps.
func (rm *ResourceManager) WatchApp(ctx context.Context, name string) (service.Stream[*service.AppView], error) {
	return open(ctx, rm, rm.looks, func(z *zone) (service.Stream[*service.AppView], error) {
		a, err := z.app(name)
		if err != nil {
			return nil, err
		}
		watcher := newMailbox[*service.AppView]()
		a.watchers[watcher] = struct{}{}
		watcher.put(z.show(a))
		return &stream[*service.AppView]{watcher, func() { rm.post(func(*zone) { delete(a.watchers, watcher) }) }}, nil
	})
}

// Scale implements service.Apps.
func (rm *ResourceManager) Scale(ctx context.Context, request *apiv1.ScaleAppRequest) (*apiv1.App, error) {
	who := peer.From(ctx)
	return grow(ctx, rm, func(z *zone) (*apiv1.App, error) { return z.scale(who, request) })
}

// Restart implements service.Apps.
func (rm *ResourceManager) Restart(ctx context.Context, name string) (*apiv1.App, error) {
	who := peer.From(ctx)
	return grow(ctx, rm, func(z *zone) (*apiv1.App, error) { return z.restart(who, name) })
}

// Stop implements service.Apps.
func (rm *ResourceManager) Stop(ctx context.Context, name string) (*apiv1.App, error) {
	who := peer.From(ctx)
	return ask(ctx, rm, func(z *zone) (*apiv1.App, error) { return z.stop(who, name) })
}

// Remove implements service.Apps.
func (rm *ResourceManager) Remove(ctx context.Context, name string) (*apiv1.App, error) {
	who := peer.From(ctx)
	return ask(ctx, rm, func(z *zone) (*apiv1.App, error) { return z.remove(who, name) })
}

// Rollback implements service.Apps.
func (rm *ResourceManager) Rollback(ctx context.Context, name string, version int32) (*apiv1.App, error) {
	who := peer.From(ctx)
	return grow(ctx, rm, func(z *zone) (*apiv1.App, error) { return z.rollback(who, name, version) })
}

// Pause implements service.Apps.
func (rm *ResourceManager) Pause(ctx context.Context, name string) (*apiv1.App, error) {
	who := peer.From(ctx)
	return ask(ctx, rm, func(z *zone) (*apiv1.App, error) { return z.pause(who, name) })
}

// Resume implements service.Apps.
func (rm *ResourceManager) Resume(ctx context.Context, name string) (*apiv1.App, error) {
	who := peer.From(ctx)
	return grow(ctx, rm, func(z *zone) (*apiv1.App, error) { return z.resume(who, name) })
}

// Promote implements service.Apps.
func (rm *ResourceManager) Promote(ctx context.Context, name string, percent int32) (*apiv1.App, error) {
	who := peer.From(ctx)
	return grow(ctx, rm, func(z *zone) (*apiv1.App, error) { return z.promote(who, name, percent) })
}

// History implements service.Apps.
func (rm *ResourceManager) History(ctx context.Context, name string) (*apiv1.AppHistory, error) {
	return look(ctx, rm, func(z *zone) (*apiv1.AppHistory, error) { return z.history(name) })
}

// Explain implements service.Apps.
func (rm *ResourceManager) Explain(ctx context.Context, name string) (*apiv1.Explanation, error) {
	return look(ctx, rm, func(z *zone) (*apiv1.Explanation, error) { return z.explain(name) })
}

// Targets implements service.Apps.
func (rm *ResourceManager) Targets(ctx context.Context, app, instance string, ended bool) ([]service.Target, error) {
	return look(ctx, rm, func(z *zone) ([]service.Target, error) { return z.targets(app, instance, ended) })
}

// MayExec implements service.Apps.
func (rm *ResourceManager) MayExec(ctx context.Context, name string) error {
	who := peer.From(ctx)
	return lookOnly(ctx, rm, func(z *zone) error { return z.mayExec(who, name) })
}

// Zone implements service.Zone.
func (rm *ResourceManager) Zone(ctx context.Context) (*apiv1.Zone, error) {
	return look(ctx, rm, func(z *zone) (*apiv1.Zone, error) { return z.viewZone(), nil })
}

// Nodes implements service.Zone.
func (rm *ResourceManager) Nodes(ctx context.Context) ([]*apiv1.Node, error) {
	return look(ctx, rm, func(z *zone) ([]*apiv1.Node, error) {
		var views []*apiv1.Node
		for _, n := range z.sortedNodes() {
			views = append(views, z.viewNode(n))
		}
		return views, nil
	})
}

// Node implements service.Zone.
func (rm *ResourceManager) Node(ctx context.Context, name string) (*apiv1.Node, error) {
	return look(ctx, rm, func(z *zone) (*apiv1.Node, error) {
		n, err := z.node(name)
		if err != nil {
			return nil, err
		}
		view := z.viewNode(n)
		view.Waiting = z.waitsToLeave(n)
		return view, nil
	})
}

// Drain implements service.Zone.
func (rm *ResourceManager) Drain(ctx context.Context, name, reason string) (*apiv1.Node, error) {
	who := peer.From(ctx)
	return ask(ctx, rm, func(z *zone) (*apiv1.Node, error) { return z.drain(who, name, reason) })
}

// Undrain implements service.Zone.
func (rm *ResourceManager) Undrain(ctx context.Context, name string) (*apiv1.Node, error) {
	who := peer.From(ctx)
	return ask(ctx, rm, func(z *zone) (*apiv1.Node, error) { return z.undrain(who, name) })
}

// RemoveNode implements service.Zone.
func (rm *ResourceManager) RemoveNode(ctx context.Context, name string) (*apiv1.Node, error) {
	who := peer.From(ctx)
	return ask(ctx, rm, func(z *zone) (*apiv1.Node, error) { return z.removeNode(who, name) })
}

// Queues implements service.Zone.
func (rm *ResourceManager) Queues(ctx context.Context) ([]*apiv1.Queue, error) {
	return look(ctx, rm, func(z *zone) ([]*apiv1.Queue, error) { return z.viewQueues(), nil })
}

// Queue implements service.Zone.
func (rm *ResourceManager) Queue(ctx context.Context, name string) (*apiv1.Queue, error) {
	return look(ctx, rm, func(z *zone) (*apiv1.Queue, error) { return z.queue(name) })
}

// SetQueues implements service.Zone.
func (rm *ResourceManager) SetQueues(ctx context.Context, request *apiv1.SetQueuesRequest) (*apiv1.ListQueuesResponse, error) {
	who := peer.From(ctx)
	return grow(ctx, rm, func(z *zone) (*apiv1.ListQueuesResponse, error) { return z.setQueues(who, request) })
}

// ImageUnused implements service.Zone.
func (rm *ResourceManager) ImageUnused(ctx context.Context, name, digest string) error {
	return lookOnly(ctx, rm, func(z *zone) error { return z.imageUnused(name, digest) })
}

// MayMoveImage is nil if whoever ctx is of may have an image's name mean another image.
func (rm *ResourceManager) MayMoveImage(ctx context.Context, name string) error {
	who := peer.From(ctx)
	return tell(ctx, rm, func(z *zone) error { return z.mayMoveImage(who, name) })
}

// MayRoute implements service.Zone.
func (rm *ResourceManager) MayRoute(ctx context.Context) error {
	who := peer.From(ctx)
	return lookOnly(ctx, rm, func(z *zone) error { return z.mayRoute(who) })
}

// AcceptLoss implements service.Zone.
func (rm *ResourceManager) AcceptLoss(ctx context.Context) (*apiv1.AcceptLossResponse, error) {
	who := peer.From(ctx)
	return ask(ctx, rm, func(z *zone) (*apiv1.AcceptLossResponse, error) { return z.acceptLosses(who) })
}

// Contracts implements service.Lending.
func (rm *ResourceManager) Contracts(ctx context.Context) (*apiv1.ListContractsResponse, error) {
	return look(ctx, rm, func(z *zone) (*apiv1.ListContractsResponse, error) { return z.viewContracts(), nil })
}

// Contract implements service.Lending.
func (rm *ResourceManager) Contract(ctx context.Context, name string) (*apiv1.Contract, error) {
	return look(ctx, rm, func(z *zone) (*apiv1.Contract, error) {
		k, err := z.contract(name)
		if err != nil {
			return nil, err
		}
		return z.viewContract(k, z.ledgers()[name]), nil
	})
}

// AddContracts implements service.Lending.
func (rm *ResourceManager) AddContracts(ctx context.Context, request *apiv1.AddContractsRequest) (*apiv1.ListContractsResponse, error) {
	who := peer.From(ctx)
	return grow(ctx, rm, func(z *zone) (*apiv1.ListContractsResponse, error) { return z.addContracts(who, request) })
}

// RemoveContract implements service.Lending.
func (rm *ResourceManager) RemoveContract(ctx context.Context, name string) error {
	who := peer.From(ctx)
	return tell(ctx, rm, func(z *zone) error { return z.removeContract(who, name) })
}

// LendNow implements service.Lending.
func (rm *ResourceManager) LendNow(ctx context.Context, request *apiv1.LendNowRequest) (*apiv1.Contract, error) {
	who := peer.From(ctx)
	return grow(ctx, rm, func(z *zone) (*apiv1.Contract, error) { return z.lendNow(who, request) })
}

// StopLending implements service.Lending.
func (rm *ResourceManager) StopLending(ctx context.Context, name string) (*apiv1.Contract, error) {
	who := peer.From(ctx)
	return ask(ctx, rm, func(z *zone) (*apiv1.Contract, error) { return z.stopLending(who, name) })
}

// LendingReport implements service.Lending.
func (rm *ResourceManager) LendingReport(ctx context.Context) (*apiv1.LendingReport, error) {
	return look(ctx, rm, func(z *zone) (*apiv1.LendingReport, error) { return z.lendingReport(), nil })
}

// RegisterNode implements service.Tracker.
func (rm *ResourceManager) RegisterNode(ctx context.Context, request *trackerv1.RegisterRequest) (*trackerv1.RegisterResponse, error) {
	who := peer.From(ctx)
	return ask(ctx, rm, func(z *zone) (*trackerv1.RegisterResponse, error) {
		if err := z.mayJoin(who, request.GetNodeId()); err != nil {
			return nil, err
		}
		return z.registerNode(request)
	})
}

// OpenSession implements service.Tracker.
func (rm *ResourceManager) OpenSession(ctx context.Context, name string, stream service.NodeStream) (service.NodeSession, error) {
	s := &session{rm: rm, name: name, stream: stream}
	if err := tell(ctx, rm, func(z *zone) error { return z.openSession(s) }); err != nil {
		s.drop(err) // the loop may have opened it, or may still do so
		return nil, err
	}
	return s, nil
}

// RegisterMaster implements service.Masters.
func (rm *ResourceManager) RegisterMaster(ctx context.Context, bearer string, request *masterv1.RegisterRequest) (*masterv1.RegisterResponse, error) {
	return ask(ctx, rm, func(z *zone) (*masterv1.RegisterResponse, error) { return z.registerMaster(bearer, request) })
}

// OpenAllocate implements service.Masters.
func (rm *ResourceManager) OpenAllocate(ctx context.Context, bearer string) (service.MasterStream, error) {
	return open(ctx, rm, rm.inbox, func(z *zone) (service.MasterStream, error) {
		answers, err := z.openAllocate(bearer)
		if err != nil {
			return nil, err
		}
		return &masterStream{
			stream: stream[*masterv1.AllocateResponse]{answers, func() {
				rm.post(func(z *zone) { z.closeAllocate(bearer, answers) })
			}},
			rm: rm, bearer: bearer, unstored: make(chan struct{}, mostUnstored),
		}, nil
	})
}

// Finish implements service.Masters.
func (rm *ResourceManager) Finish(ctx context.Context, bearer string, request *masterv1.FinishRequest) error {
	return tell(ctx, rm, func(z *zone) error { return z.finish(bearer, request) })
}

// stream is the reader's end of a mailbox.
type stream[T any] struct {
	*mailbox[T]
	left func()
}

// Close implements service.Stream.
func (s *stream[T]) Close() { s.left() }

type masterStream struct {
	stream[*masterv1.AllocateResponse]
	rm     *ResourceManager
	bearer string
	// unstored holds the tokens of the requests that are on their way to the store.
	unstored chan struct{}
}

// mostUnstored is how many requests of a master may be on their way to the store. With one alone a master would be held
// to one request a commit.
const mostUnstored = 64

// weightOf is how many tokens a request takes: a large one takes nearly all, so that what a master can have the loop look at
// in one turn does not grow with the number of its requests.
func weightOf(request *masterv1.AllocateRequest) int {
	items := len(request.GetAsks()) + len(request.GetRelease()) + len(request.GetInstances()) + len(request.GetGoneInstances())
	return min(1+items*mostUnstored/service.MostItems, mostUnstored)
}

// Allocate implements service.MasterStream. A request that is refused ends the stream, and none after it is applied.
func (s *masterStream) Allocate(ctx context.Context, request *masterv1.AllocateRequest) error {
	weight := weightOf(request)
	for range weight {
		select {
		case s.unstored <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.rm.stopped:
			return errStopped
		}
	}
	s.rm.post(func(z *zone) {
		z.after(func() {
			for range weight {
				<-s.unstored
			}
		})
		if err := z.allocate(s.bearer, s.mailbox, request); err != nil {
			z.refuseStream(s.bearer, s.mailbox, err)
		}
	})
	return nil
}
