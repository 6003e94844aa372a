package term

import (
	"errors"
	"fmt"
	"log/slog"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/eventlog"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// readEvents gives what everybody reads the zone's events from, with those that are stored.
func readEvents(opened store.Store, retained int) (*eventlog.Log, error) {
	past := eventlog.New(retained)
	var bad error
	err := opened.Events(0, func(sequence int64, raw []byte) bool {
		event := &apiv1.Event{}
		if bad = proto.Unmarshal(raw, event); bad != nil {
			bad = fmt.Errorf("the event %d: %w", sequence, bad)
			return false
		}
		past.Add(event)
		return true
	})
	if err := errors.Join(err, bad); err != nil {
		return nil, fmt.Errorf("read what is stored: %w", err)
	}
	return past, nil
}

// Events implements service.Zone.
func (t *Term) Events(request *apiv1.WatchEventsRequest) service.Stream[*apiv1.Event] {
	return t.past.Read(request)
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
