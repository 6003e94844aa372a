package term

import (
	"context"
	"fmt"

	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/peer"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

var (
	_ service.Apps       = (*Term)(nil)
	_ service.Zone       = (*Term)(nil)
	_ service.Frameworks = (*Term)(nil)
	_ service.Lending    = (*Term)(nil)
	_ service.Tracker    = (*Term)(nil)
	_ service.Masters    = (*Term)(nil)
)

// Deploy implements service.Apps.
func (t *Term) Deploy(ctx context.Context, request *apiv1.DeployRequest) (*apiv1.DeployResponse, error) {
	who := peer.From(ctx)
	return grow[*apiv1.DeployResponse](ctx, t, zone.Deploy{Who: who, Request: request})
}

// Scale implements service.Apps.
func (t *Term) Scale(ctx context.Context, request *apiv1.ScaleAppRequest) (*apiv1.App, error) {
	who := peer.From(ctx)
	return grow[*apiv1.App](ctx, t, zone.Scale{Who: who, Request: request})
}

// Restart implements service.Apps.
func (t *Term) Restart(ctx context.Context, name string) (*apiv1.App, error) {
	who := peer.From(ctx)
	return grow[*apiv1.App](ctx, t, zone.RestartApp{AppRequest: zone.AppRequest{Who: who, App: name}})
}

// Stop implements service.Apps.
func (t *Term) Stop(ctx context.Context, name string) (*apiv1.App, error) {
	who := peer.From(ctx)
	return ask[*apiv1.App](ctx, t, zone.StopApp{AppRequest: zone.AppRequest{Who: who, App: name}})
}

// Remove implements service.Apps.
func (t *Term) Remove(ctx context.Context, name string) (*apiv1.App, error) {
	who := peer.From(ctx)
	return ask[*apiv1.App](ctx, t, zone.RemoveApp{AppRequest: zone.AppRequest{Who: who, App: name}})
}

// Rollback implements service.Apps.
func (t *Term) Rollback(ctx context.Context, name string, version int32, role string) (*apiv1.App, error) {
	who := peer.From(ctx)
	return grow[*apiv1.App](ctx, t, zone.Rollback{AppRequest: zone.AppRequest{Who: who, App: name}, Version: version, Role: role})
}

// StartMaster implements service.Apps.
func (t *Term) StartMaster(ctx context.Context, spec *apiv1.AppSpec) (*apiv1.StartMasterResponse, error) {
	return grow[*apiv1.StartMasterResponse](ctx, t, zone.StartMaster{Who: peer.From(ctx), Spec: spec})
}

// Command implements service.Apps.
func (t *Term) Command(ctx context.Context, request *apiv1.CommandAppRequest) (*apiv1.CommandAppResponse, error) {
	call, answers := t.streams.nextCall(), make(chan zone.CommandAnswered, 1)
	forget := func() { delete(t.streams.calls, call) }
	_, err := askTask[any](ctx, t, t.inbox, task{
		before: func(*task) { t.streams.calls[call] = answers },
		in:     zone.Command{AppRequest: zone.AppRequest{Who: peer.From(ctx), App: request.GetName()}, Command: request.GetCommand(), Call: call},
		did: func(_ any, err error) {
			if err != nil {
				forget()
			}
		},
	})
	if err != nil {
		return nil, err
	}
	select {
	case got := <-answers:
		return got.Response, got.Err
	case <-ctx.Done():
		t.looks.put(task{look: func(*zone.Core) (any, error) { forget(); return nil, nil }})
		return nil, context.Cause(ctx)
	case <-t.stopped:
		return nil, errStopped
	}
}

// History implements service.Apps.
func (t *Term) History(ctx context.Context, name string) (*apiv1.AppHistory, error) {
	return look(ctx, t, func(z *zone.Core) (*apiv1.AppHistory, error) { return z.History(name) })
}

// Explain implements service.Apps.
func (t *Term) Explain(ctx context.Context, name string) (*apiv1.Explanation, error) {
	return look(ctx, t, func(z *zone.Core) (*apiv1.Explanation, error) { return z.Explain(name) })
}

// Targets implements service.Apps.
func (t *Term) Targets(ctx context.Context, which zone.Containers) ([]zone.Target, error) {
	return look(ctx, t, func(z *zone.Core) ([]zone.Target, error) { return z.Targets(which) })
}

// MayExec implements service.Apps.
func (t *Term) MayExec(ctx context.Context, name string) error {
	who := peer.From(ctx)
	return lookOnly(ctx, t, func(z *zone.Core) error { return z.MayExec(who, name) })
}

// Drain implements service.Zone.
func (t *Term) Drain(ctx context.Context, name, reason string) (*apiv1.Node, error) {
	who := peer.From(ctx)
	return ask[*apiv1.Node](ctx, t, zone.Drain{Who: who, Node: name, Reason: reason})
}

// Undrain implements service.Zone.
func (t *Term) Undrain(ctx context.Context, name string) (*apiv1.Node, error) {
	who := peer.From(ctx)
	return ask[*apiv1.Node](ctx, t, zone.Undrain{Who: who, Node: name})
}

// RemoveNode implements service.Zone.
func (t *Term) RemoveNode(ctx context.Context, name string) (*apiv1.Node, error) {
	who := peer.From(ctx)
	return ask[*apiv1.Node](ctx, t, zone.RemoveNode{Who: who, Node: name})
}

// SetQueues implements service.Zone.
func (t *Term) SetQueues(ctx context.Context, request *apiv1.SetQueuesRequest) (*apiv1.ListQueuesResponse, error) {
	who := peer.From(ctx)
	return grow[*apiv1.ListQueuesResponse](ctx, t, zone.SetQueues{Who: who, Request: request})
}

// ImageUnused implements service.Zone.
func (t *Term) ImageUnused(ctx context.Context, name, digest string) error {
	return lookOnly(ctx, t, func(z *zone.Core) error { return z.ImageUnused(name, digest) })
}

// MayMoveImage is nil if whoever ctx is of may have an image's name mean another image.
func (t *Term) MayMoveImage(ctx context.Context, name string) error {
	who := peer.From(ctx)
	return tell(ctx, t, zone.MoveImage{Who: who, Name: name})
}

// MayRoute implements service.Zone.
func (t *Term) MayRoute(ctx context.Context) error {
	who := peer.From(ctx)
	return lookOnly(ctx, t, func(z *zone.Core) error { return z.MayRoute(who) })
}

// AcceptLoss implements service.Zone.
func (t *Term) AcceptLoss(ctx context.Context) (*apiv1.AcceptLossResponse, error) {
	who := peer.From(ctx)
	return ask[*apiv1.AcceptLossResponse](ctx, t, zone.AcceptLoss{Who: who})
}

// InstallFramework implements service.Frameworks.
func (t *Term) InstallFramework(ctx context.Context, request *apiv1.InstallFrameworkRequest) (*apiv1.Framework, error) {
	return grow[*apiv1.Framework](ctx, t, zone.InstallFramework{Who: peer.From(ctx), Request: request})
}

// Frameworks implements service.Frameworks.
func (t *Term) Frameworks(ctx context.Context) (*apiv1.ListFrameworksResponse, error) {
	return look(ctx, t, func(z *zone.Core) (*apiv1.ListFrameworksResponse, error) { return z.Frameworks(), nil })
}

// Framework implements service.Frameworks.
func (t *Term) Framework(ctx context.Context, name string) (*apiv1.Framework, error) {
	return look(ctx, t, func(z *zone.Core) (*apiv1.Framework, error) { return z.Framework(name) })
}

// RemoveFramework implements service.Frameworks.
func (t *Term) RemoveFramework(ctx context.Context, name string) (*apiv1.Framework, error) {
	return ask[*apiv1.Framework](ctx, t, zone.RemoveFramework{Who: peer.From(ctx), Name: name})
}

// AddContracts implements service.Lending.
func (t *Term) AddContracts(ctx context.Context, request *apiv1.AddContractsRequest) (*apiv1.ListContractsResponse, error) {
	who := peer.From(ctx)
	return grow[*apiv1.ListContractsResponse](ctx, t, zone.AddContracts{Who: who, Request: request})
}

// RemoveContract implements service.Lending.
func (t *Term) RemoveContract(ctx context.Context, name string) error {
	who := peer.From(ctx)
	return tell(ctx, t, zone.RemoveContract{Who: who, Name: name})
}

// LendNow implements service.Lending.
func (t *Term) LendNow(ctx context.Context, request *apiv1.LendNowRequest) (*apiv1.Contract, error) {
	who := peer.From(ctx)
	return grow[*apiv1.Contract](ctx, t, zone.LendNow{Who: who, Request: request})
}

// StopLending implements service.Lending.
func (t *Term) StopLending(ctx context.Context, name string) (*apiv1.Contract, error) {
	who := peer.From(ctx)
	return ask[*apiv1.Contract](ctx, t, zone.StopLending{Who: who, Name: name})
}

// LendingReport implements service.Lending.
func (t *Term) LendingReport(ctx context.Context) (*apiv1.LendingReport, error) {
	return look(ctx, t, func(z *zone.Core) (*apiv1.LendingReport, error) { return z.LendingReport(), nil })
}

// RegisterNode implements service.Tracker.
func (t *Term) RegisterNode(ctx context.Context, request *trackerv1.RegisterRequest) (*trackerv1.RegisterResponse, error) {
	in := zone.RegisterNode{Who: peer.From(ctx), Request: request}
	return askTask[*trackerv1.RegisterResponse](ctx, t, t.inbox, task{before: func(todo *task) {
		if session := t.streams.nodes[t.zone.StreamOf(request.GetNodeId())]; session != nil {
			in.Last = session.lastBeat()
		}
		todo.in = in
	}})
}

// OpenSession implements service.Tracker.
func (t *Term) OpenSession(ctx context.Context, name string, stream service.NodeStream) (service.NodeSession, error) {
	s := &session{term: t, id: t.streams.next(), name: name, stream: stream}
	if _, err := askTask[any](ctx, t, t.inbox, task{
		before: func(*task) { t.streams.nodes[s.id] = s },
		in:     zone.OpenSession{Session: name, Stream: s.id},
	}); err != nil {
		s.drop(err) // the loop may have opened it, or may still do so
		return nil, err
	}
	return s, nil
}

// RegisterMaster implements service.Masters.
func (t *Term) RegisterMaster(ctx context.Context, bearer string, request *masterv1.RegisterRequest) (*masterv1.RegisterResponse, error) {
	response, err := ask[*masterv1.RegisterResponse](ctx, t, zone.RegisterMaster{Bearer: bearer, Request: request})
	if err != nil {
		return nil, err
	}
	app := response.GetSpec().GetName()
	response.Registry = fmt.Sprintf("http://%s:%s@%s", app, t.publisher.registry.AppKey(app), credentials.FirstAddress(t.config.Settings.Advertised()))
	return response, nil
}

// OpenAllocate implements service.Masters.
func (t *Term) OpenAllocate(ctx context.Context, bearer string) (service.MasterStream, error) {
	master := &masterStream{
		mailbox: newMailbox[*masterv1.AllocateResponse](), term: t, bearer: bearer, id: t.streams.next(), unstored: make(chan struct{}, mostUnstored),
	}
	if _, err := askTask[any](ctx, t, t.inbox, task{
		before: func(*task) { t.streams.masters[master.id] = master },
		in:     zone.OpenAllocate{Bearer: bearer, Stream: master.id},
	}); err != nil {
		master.Close() // the loop may have opened it, or may still do so
		return nil, err
	}
	return master, nil
}

// PlanAsks implements service.Masters.
func (t *Term) PlanAsks(ctx context.Context, bearer string, request *masterv1.PlanRequest) (*masterv1.PlanResponse, error) {
	return ask[*masterv1.PlanResponse](ctx, t, zone.PlanAsks{Bearer: bearer, Request: request})
}

// LeaveMaster implements service.Masters.
func (t *Term) LeaveMaster(ctx context.Context, bearer, reason string) error {
	return tell(ctx, t, zone.LeaveMaster{Bearer: bearer, Reason: reason})
}

// Finish implements service.Masters.
func (t *Term) Finish(ctx context.Context, bearer string, request *masterv1.FinishRequest) error {
	return tell(ctx, t, zone.Finish{Bearer: bearer, Request: request})
}

// masterStream is the stream of an application master.
type masterStream struct {
	*mailbox[*masterv1.AllocateResponse]
	term   *Term
	id     zone.StreamID
	bearer string
	// unstored holds the tokens of the requests that are on their way to the store.
	unstored chan struct{}
}

// Close implements service.Stream.
func (s *masterStream) Close() {
	s.term.inbox.put(task{in: zone.MasterLeft{Stream: s.id}, done: func(any, error) { s.term.streams.forget(s.id) }})
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
		case <-s.term.stopped:
			return errStopped
		}
	}
	s.term.inbox.put(task{in: zone.Allocate{Bearer: s.bearer, Stream: s.id, Request: request}, done: func(any, error) {
		for range weight {
			<-s.unstored
		}
	}})
	return nil
}
