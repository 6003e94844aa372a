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
	"github.com/mammoth-os/mammoth/resourcemanager/zone/commands"
)

var (
	_ service.Apps       = (*Term)(nil)
	_ service.Zone       = (*Term)(nil)
	_ service.Frameworks = (*Term)(nil)
	_ service.Lending    = (*Term)(nil)
	_ service.Tracker    = (*Term)(nil)
	_ service.Masters    = (*Term)(nil)
)

// Command implements service.Apps.
func (t *Term) Command(ctx context.Context, request *apiv1.CommandAppRequest) (*apiv1.CommandAppResponse, error) {
	call, answers := t.streams.nextCall(), make(chan commands.Answered, 1)
	forget := func() { delete(t.streams.calls, call) }
	_, err := askTask[any](ctx, t.calls, t.inbox, task{
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

// RegisterNode implements service.Tracker.
func (t *Term) RegisterNode(ctx context.Context, request *trackerv1.RegisterRequest) (*trackerv1.RegisterResponse, error) {
	in := zone.RegisterNode{Who: peer.From(ctx), Request: request}
	return askTask[*trackerv1.RegisterResponse](ctx, t.calls, t.inbox, task{before: func(todo *task) {
		if session := t.streams.nodes[t.zone.StreamOf(request.GetNodeId())]; session != nil {
			in.Last = session.lastBeat()
		}
		todo.in = in
	}})
}

// OpenSession implements service.Tracker.
func (t *Term) OpenSession(ctx context.Context, name string, stream service.NodeStream) (service.NodeSession, error) {
	s := &session{term: t, id: t.streams.next(), name: name, stream: stream}
	if _, err := askTask[any](ctx, t.calls, t.inbox, task{
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
	response, err := ask[*masterv1.RegisterResponse](ctx, t.calls, zone.RegisterMaster{Bearer: bearer, Request: request})
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
	if _, err := askTask[any](ctx, t.calls, t.inbox, task{
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
	return ask[*masterv1.PlanResponse](ctx, t.calls, zone.PlanAsks{Bearer: bearer, Request: request})
}

// LeaveMaster implements service.Masters.
func (t *Term) LeaveMaster(ctx context.Context, bearer, reason string) error {
	return tell(ctx, t.calls, zone.LeaveMaster{Bearer: bearer, Reason: reason})
}

// Finish implements service.Masters.
func (t *Term) Finish(ctx context.Context, bearer string, request *masterv1.FinishRequest) error {
	return tell(ctx, t.calls, zone.Finish{Bearer: bearer, Request: request})
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
	s.term.inbox.put(task{in: zone.MasterStreamEnded{Stream: s.id}, done: func(any, error) { s.term.streams.forget(s.id) }})
}

// mostUnstored is how many requests of a master may be on their way to the store. With one alone a master would be held
// to one request a commit.
const mostUnstored = 64

// weightOf is how many tokens a request takes: the largest takes all of them, so that what a master can have the loop do in one turn does
// not grow with the number of its requests.
func weightOf(request *masterv1.AllocateRequest) int {
	items := len(request.GetAsks()) + len(request.GetRelease()) + len(request.GetInstances()) + len(request.GetGoneInstances()) +
		len(request.GetCheckpoints()) + len(request.GetAnswers()) + len(request.GetNotes())
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
