package zone

import (
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/eventlog"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/commands"
)

// turn is the present turn: its time, its secrets, and what it has decided so far. Every part of the zone adds to it.
type turn struct {
	changes
	now     time.Time
	secrets secrets
	// out is what the turn has decided so far, without the batch.
	out *Ready
	// wake is when all deadlines are looked at next; zero is in this turn. next is when a turn begins though no deadline has come; zero is
	// none.
	wake, next time.Time
	// lastEvent is the sequence number of the newest event.
	lastEvent int64
}

func (t *turn) begin(now time.Time, fresh Seed) {
	t.now, t.secrets, t.out = now, secrets{seed: fresh}, &Ready{}
	if !now.Before(t.next) {
		t.next = time.Time{}
	}
}

// NewSecret is a secret that the turn gives nowhere else.
func (t *turn) NewSecret() []byte { return t.secrets.bytes() }

// Now is the time of the turn.
func (t *turn) Now() time.Time { return t.now }

// WakeBy has all deadlines looked at by an instant, though nothing may have happened until then.
func (t *turn) WakeBy(instant time.Time) {
	if instant.Before(t.wake) {
		t.wake = instant
	}
}

// nextBy has a turn begin by an instant, for what every turn does. It is far cheaper than WakeBy in a large zone.
func (t *turn) nextBy(instant time.Time) {
	if t.next.IsZero() || instant.Before(t.next) {
		t.next = instant
	}
}

// nextTurn is when a turn begins though nothing may have happened until then.
func (t *turn) nextTurn() time.Time {
	if !t.next.IsZero() && t.next.Before(t.wake) {
		return t.next
	}
	return t.wake
}

// Answer has somebody answered once the turn is stored.
func (t *turn) Answer(answered commands.Answered) { t.out.Answered = append(t.out.Answered, answered) }

// Fault is a line of the program's log about something that should not be. About are pairs of a key and a value.
type Fault struct {
	Text  string
	About []any
	// Severe: the program itself is at fault, or what it depends on.
	Severe bool
}

// Fault has a fault of the program logged.
func (t *turn) Fault(text string, about ...any) {
	t.out.Faults = append(t.out.Faults, Fault{text, about, true})
}

// warn has something logged that an operator may want to look into.
func (t *turn) warn(text string, about ...any) {
	t.out.Faults = append(t.out.Faults, Fault{text, about, false})
}

// longestMessage is how many bytes of an event's message are kept: some quote an engine or a program.
const longestMessage = 4 << 10

// Emit adds an event to the turn. It is stored with the turn and published after that.
func (t *turn) Emit(event *apiv1.Event) {
	t.lastEvent++
	if err := eventlog.CheckKind(event.GetKind()); err != nil {
		t.Fault("nobody can look for an event", "error", err)
	}
	event.Sequence, event.Time = t.lastEvent, timestamppb.New(t.now)
	event.Message = wire.Text(event.GetMessage())
	if len(event.GetMessage()) > longestMessage {
		event.Message = strings.ToValidUTF8(event.GetMessage()[:longestMessage], "") + " …"
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(event)
	if err != nil {
		t.Fault("encode an event", "error", err)
		return
	}
	t.events = append(t.events, store.Event{Sequence: event.GetSequence(), Value: raw})
	t.out.Events = append(t.out.Events, event)
}
