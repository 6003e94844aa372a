package term

import (
	"context"
	"sync/atomic"

	"github.com/mammoth-os/mammoth/internal/peer"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// calls are the requests of people and their programs. Each is given to the loop, and is answered once what follows from it is stored; what
// only looks is answered also while nothing can be stored.
type calls struct {
	// inbox is for what may change something; looks is for what does not.
	inbox, looks *mailbox[task]
	// noRoom is why nothing that grows is taken; nil while there is room.
	noRoom atomic.Pointer[error]
	// stopped is closed when the loop has ended.
	stopped chan struct{}
}

// Deploy implements service.Apps.
func (c *calls) Deploy(ctx context.Context, request *apiv1.DeployRequest) (*apiv1.DeployResponse, error) {
	who := peer.From(ctx)
	return grow[*apiv1.DeployResponse](ctx, c, zone.Deploy{Who: who, Request: request})
}

// Scale implements service.Apps.
func (c *calls) Scale(ctx context.Context, request *apiv1.ScaleAppRequest) (*apiv1.App, error) {
	who := peer.From(ctx)
	return grow[*apiv1.App](ctx, c, zone.Scale{Who: who, Request: request})
}

// Restart implements service.Apps.
func (c *calls) Restart(ctx context.Context, name string) (*apiv1.App, error) {
	who := peer.From(ctx)
	return grow[*apiv1.App](ctx, c, zone.RestartApp{AppRequest: zone.AppRequest{Who: who, App: name}})
}

// Stop implements service.Apps.
func (c *calls) Stop(ctx context.Context, name string) (*apiv1.App, error) {
	who := peer.From(ctx)
	return ask[*apiv1.App](ctx, c, zone.StopApp{AppRequest: zone.AppRequest{Who: who, App: name}})
}

// Remove implements service.Apps.
func (c *calls) Remove(ctx context.Context, name string) (*apiv1.App, error) {
	who := peer.From(ctx)
	return ask[*apiv1.App](ctx, c, zone.RemoveApp{AppRequest: zone.AppRequest{Who: who, App: name}})
}

// Rollback implements service.Apps.
func (c *calls) Rollback(ctx context.Context, name string, version int32) (*apiv1.App, error) {
	who := peer.From(ctx)
	return grow[*apiv1.App](ctx, c, zone.Rollback{AppRequest: zone.AppRequest{Who: who, App: name}, Version: version})
}

// StartMaster implements service.Apps.
func (c *calls) StartMaster(ctx context.Context, spec *apiv1.AppSpec) (*apiv1.StartMasterResponse, error) {
	return grow[*apiv1.StartMasterResponse](ctx, c, zone.StartMaster{Who: peer.From(ctx), Spec: spec})
}

// History implements service.Apps.
func (c *calls) History(ctx context.Context, name string) (*apiv1.AppHistory, error) {
	return look(ctx, c, func(z *zone.Core) (*apiv1.AppHistory, error) { return z.History(name) })
}

// Explain implements service.Apps.
func (c *calls) Explain(ctx context.Context, name string) (*apiv1.Explanation, error) {
	return look(ctx, c, func(z *zone.Core) (*apiv1.Explanation, error) { return z.Explain(name) })
}

// Targets implements service.Apps.
func (c *calls) Targets(ctx context.Context, which zone.Containers) ([]zone.Target, error) {
	return look(ctx, c, func(z *zone.Core) ([]zone.Target, error) { return z.Targets(which) })
}

// MayExec implements service.Apps.
func (c *calls) MayExec(ctx context.Context, name string) error {
	who := peer.From(ctx)
	return lookOnly(ctx, c, func(z *zone.Core) error { return z.MayExec(who, name) })
}

// Drain implements service.Zone.
func (c *calls) Drain(ctx context.Context, name, reason string) (*apiv1.Node, error) {
	who := peer.From(ctx)
	return ask[*apiv1.Node](ctx, c, zone.Drain{Who: who, Node: name, Reason: reason})
}

// Undrain implements service.Zone.
func (c *calls) Undrain(ctx context.Context, name string) (*apiv1.Node, error) {
	who := peer.From(ctx)
	return ask[*apiv1.Node](ctx, c, zone.Undrain{Who: who, Node: name})
}

// RemoveNode implements service.Zone.
func (c *calls) RemoveNode(ctx context.Context, name string) (*apiv1.Node, error) {
	who := peer.From(ctx)
	return ask[*apiv1.Node](ctx, c, zone.RemoveNode{Who: who, Node: name})
}

// SetQueues implements service.Zone.
func (c *calls) SetQueues(ctx context.Context, request *apiv1.SetQueuesRequest) (*apiv1.ListQueuesResponse, error) {
	who := peer.From(ctx)
	return grow[*apiv1.ListQueuesResponse](ctx, c, zone.SetQueues{Who: who, Request: request})
}

// ImageUnused implements service.Zone.
func (c *calls) ImageUnused(ctx context.Context, name, digest string) error {
	return lookOnly(ctx, c, func(z *zone.Core) error { return z.ImageUnused(name, digest) })
}

// MayMoveImage is nil if whoever ctx is of may have an image's name mean another image.
func (c *calls) MayMoveImage(ctx context.Context, name string) error {
	who := peer.From(ctx)
	return tell(ctx, c, zone.MoveImage{Who: who, Name: name})
}

// MayRoute implements service.Zone.
func (c *calls) MayRoute(ctx context.Context) error {
	who := peer.From(ctx)
	return lookOnly(ctx, c, func(z *zone.Core) error { return z.MayRoute(who) })
}

// AcceptLoss implements service.Zone.
func (c *calls) AcceptLoss(ctx context.Context) (*apiv1.AcceptLossResponse, error) {
	who := peer.From(ctx)
	return ask[*apiv1.AcceptLossResponse](ctx, c, zone.AcceptLoss{Who: who})
}

// InstallFramework implements service.Frameworks.
func (c *calls) InstallFramework(ctx context.Context, request *apiv1.InstallFrameworkRequest) (*apiv1.Framework, error) {
	return grow[*apiv1.Framework](ctx, c, zone.InstallFramework{Who: peer.From(ctx), Request: request})
}

// Frameworks implements service.Frameworks.
func (c *calls) Frameworks(ctx context.Context) (*apiv1.ListFrameworksResponse, error) {
	return look(ctx, c, func(z *zone.Core) (*apiv1.ListFrameworksResponse, error) { return z.Frameworks(), nil })
}

// Framework implements service.Frameworks.
func (c *calls) Framework(ctx context.Context, name string) (*apiv1.Framework, error) {
	return look(ctx, c, func(z *zone.Core) (*apiv1.Framework, error) { return z.Framework(name) })
}

// RemoveFramework implements service.Frameworks.
func (c *calls) RemoveFramework(ctx context.Context, name string) (*apiv1.Framework, error) {
	return ask[*apiv1.Framework](ctx, c, zone.RemoveFramework{Who: peer.From(ctx), Name: name})
}

// AddContracts implements service.Lending.
func (c *calls) AddContracts(ctx context.Context, request *apiv1.AddContractsRequest) (*apiv1.ListContractsResponse, error) {
	who := peer.From(ctx)
	return grow[*apiv1.ListContractsResponse](ctx, c, zone.AddContracts{Who: who, Request: request})
}

// RemoveContract implements service.Lending.
func (c *calls) RemoveContract(ctx context.Context, name string) error {
	who := peer.From(ctx)
	return tell(ctx, c, zone.RemoveContract{Who: who, Name: name})
}

// LendNow implements service.Lending.
func (c *calls) LendNow(ctx context.Context, request *apiv1.LendNowRequest) (*apiv1.Contract, error) {
	who := peer.From(ctx)
	return grow[*apiv1.Contract](ctx, c, zone.LendNow{Who: who, Request: request})
}

// StopLending implements service.Lending.
func (c *calls) StopLending(ctx context.Context, name string) (*apiv1.Contract, error) {
	who := peer.From(ctx)
	return ask[*apiv1.Contract](ctx, c, zone.StopLending{Who: who, Name: name})
}

// LendingReport implements service.Lending.
func (c *calls) LendingReport(ctx context.Context) (*apiv1.LendingReport, error) {
	return look(ctx, c, func(z *zone.Core) (*apiv1.LendingReport, error) { return z.LendingReport(), nil })
}

// checkRoom is why nothing that grows is taken; nil while there is room.
func (c *calls) checkRoom() error {
	if why := c.noRoom.Load(); why != nil {
		return *why
	}
	return nil
}

// ask gives the loop an input and waits until what follows from it is stored. The answer of its step is a T.
func ask[T any](ctx context.Context, c *calls, in zone.Input) (T, error) {
	return askTask[T](ctx, c, c.inbox, task{in: in})
}

// askTask puts a task into an inbox and waits for its answer.
func askTask[T any](ctx context.Context, c *calls, inbox *mailbox[task], todo task) (T, error) {
	type answer struct {
		value any
		err   error
	}
	answers := make(chan answer, 1)
	todo.done = func(value any, err error) { answers <- answer{value, err} }
	inbox.put(todo)
	var none T
	select {
	case got := <-answers:
		if got.err != nil || got.value == nil {
			return none, got.err
		}
		return got.value.(T), nil
	case <-ctx.Done():
		return none, context.Cause(ctx)
	case <-c.stopped:
		return none, errStopped
	}
}

// tell is ask without an answer.
func tell(ctx context.Context, c *calls, in zone.Input) error {
	_, err := ask[any](ctx, c, in)
	return err
}

// grow is ask for what needs room: it is refused while the disk is full, when what is reserved is for what ends things.
func grow[T any](ctx context.Context, c *calls, in zone.Input) (T, error) {
	if err := c.checkRoom(); err != nil {
		var none T
		return none, err
	}
	return ask[T](ctx, c, in)
}

// look is ask for what changes nothing: it is answered also while nothing can be stored.
func look[T any](ctx context.Context, c *calls, do func(*zone.Core) (T, error)) (T, error) {
	return askTask[T](ctx, c, c.looks, task{look: func(z *zone.Core) (any, error) { return do(z) }})
}

// lookOnly is look without an answer.
func lookOnly(ctx context.Context, c *calls, do func(*zone.Core) error) error {
	_, err := look(ctx, c, func(z *zone.Core) (struct{}, error) { return struct{}{}, do(z) })
	return err
}
