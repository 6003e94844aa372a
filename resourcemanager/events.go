package resourcemanager

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// mostUnread is how far a reader of events may fall behind before it is let go.
const mostUnread = 10_000

// eventWatch is one reader of the events to come.
type eventWatch struct {
	*mailbox[*apiv1.Event]
	request *apiv1.WatchEventsRequest
}

// tell records a transition. It is stored with the turn and told after that.
func (z *zone) tell(event *apiv1.Event) {
	z.lastEvent++
	event.Sequence, event.Time = z.lastEvent, timestamppb.New(z.now)
	raw, err := proto.Marshal(event)
	if err != nil {
		z.log.Error("encode an event", "error", err)
		return
	}
	z.events = append(z.events, store.Event{Sequence: event.GetSequence(), Value: raw})
	z.told = append(z.told, event)
}

func (z *zone) offer(watch *eventWatch, event *apiv1.Event) {
	if !matches(watch.request, event) {
		return
	}
	if watch.put(event) > mostUnread {
		delete(z.watchers, watch)
		watch.close(fmt.Errorf("you are more than %d events behind; watch again after the last one you have seen: %w", mostUnread, errdefs.ErrResourceExhausted))
	}
}

func matches(request *apiv1.WatchEventsRequest, event *apiv1.Event) bool {
	return (request.GetApp() == "" || request.GetApp() == event.GetApp()) &&
		(request.GetNode() == "" || request.GetNode() == event.GetNode()) &&
		(request.GetKind() == "" || request.GetKind() == event.GetKind()) &&
		event.GetSequence() > request.GetAfter()
}

// Events gives the stored events that match, oldest first, and with follow a stream of those after them.
func (rm *ResourceManager) Events(ctx context.Context, request *apiv1.WatchEventsRequest) ([]*apiv1.Event, service.Stream[*apiv1.Event], error) {
	// The loop says where the stored ones end and the new ones begin.
	var last int64
	if !request.GetFollow() {
		last, err := ask(ctx, rm, func(z *zone) (int64, error) { return z.lastEvent, nil })
		if err != nil {
			return nil, nil, err
		}
		stored, err := rm.storedEvents(request, last)
		return stored, nil, err
	}
	following, err := open(ctx, rm, func(z *zone) (service.Stream[*apiv1.Event], error) {
		watch := &eventWatch{newMailbox[*apiv1.Event](), request}
		z.after(func() { z.watchers[watch] = struct{}{} }) // after this turn's own events were offered
		last = z.lastEvent
		return &stream[*apiv1.Event]{watch.mailbox, func() {
			rm.post(func(z *zone) { delete(z.watchers, watch) })
		}}, nil
	})
	if err != nil {
		return nil, nil, err
	}
	stored, err := rm.storedEvents(request, last)
	if err != nil {
		following.Close()
		return nil, nil, err
	}
	return stored, following, nil
}

func (rm *ResourceManager) storedEvents(request *apiv1.WatchEventsRequest, last int64) ([]*apiv1.Event, error) {
	var events []*apiv1.Event
	var bad error
	err := rm.store.Events(request.GetAfter(), func(sequence int64, raw []byte) bool {
		if sequence > last {
			return false
		}
		event := &apiv1.Event{}
		if bad = proto.Unmarshal(raw, event); bad != nil {
			return false
		}
		if matches(request, event) {
			events = append(events, event)
		}
		return true
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return nil, fmt.Errorf("read the stored events: %w", err)
	}
	if tail := int(request.GetTail()); tail > 0 && len(events) > tail {
		events = events[len(events)-tail:]
	}
	return events, nil
}

func eventAttrs(event *apiv1.Event) []slog.Attr {
	attrs := []slog.Attr{slog.String("kind", event.GetKind())}
	for _, field := range []struct{ key, value string }{
		{"app", event.GetApp()},
		{"attempt", event.GetAttempt()},
		{"instance", event.GetInstance()},
		{"container", event.GetContainer()},
		{"node", event.GetNode()},
		{"queue", event.GetQueue()},
		{"from", event.GetFrom()},
		{"to", event.GetTo()},
		{"message", event.GetMessage()},
	} {
		if field.value != "" {
			attrs = append(attrs, slog.String(field.key, field.value))
		}
	}
	return attrs
}
