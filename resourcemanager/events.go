package resourcemanager

import (
	"log/slog"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/eventlog"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// longestMessage is how many bytes of an event's message are kept: some hold what an engine or a program said.
const longestMessage = 4 << 10

// tell records a transition. It is stored with the turn and told after that.
func (z *zone) tell(event *apiv1.Event) {
	z.lastEvent++
	if err := eventlog.CheckKind(event.GetKind()); err != nil {
		z.log.Error("nobody can look for an event", "error", err)
	}
	event.Sequence, event.Time = z.lastEvent, timestamppb.New(z.now)
	event.Message = wire.Text(event.GetMessage())
	if len(event.GetMessage()) > longestMessage {
		event.Message = strings.ToValidUTF8(event.GetMessage()[:longestMessage], "") + " …"
	}
	raw, err := proto.Marshal(event)
	if err != nil {
		z.log.Error("encode an event", "error", err)
		return
	}
	z.events = append(z.events, store.Event{Sequence: event.GetSequence(), Value: raw})
	z.told = append(z.told, event)
}

// Events implements service.Zone.
func (rm *ResourceManager) Events(request *apiv1.WatchEventsRequest) service.Stream[*apiv1.Event] {
	return rm.zone.past.Read(request)
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
