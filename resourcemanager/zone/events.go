package zone

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/eventlog"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// longestMessage is how many bytes of an event's message are kept: some hold what an engine or a program said.
const longestMessage = 4 << 10

// tell records a transition. It is stored with the turn and told after that.
func (z *Core) tell(event *apiv1.Event) {
	z.lastEvent++
	if err := eventlog.CheckKind(event.GetKind()); err != nil {
		z.fault("nobody can look for an event", "error", err)
	}
	event.Sequence, event.Time = z.lastEvent, timestamppb.New(z.now)
	event.Message = wire.Text(event.GetMessage())
	if len(event.GetMessage()) > longestMessage {
		event.Message = strings.ToValidUTF8(event.GetMessage()[:longestMessage], "") + " …"
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(event)
	if err != nil {
		z.fault("encode an event", "error", err)
		return
	}
	z.events = append(z.events, store.Event{Sequence: event.GetSequence(), Value: raw})
	z.out.Events = append(z.out.Events, event)
}
