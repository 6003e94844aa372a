package zone

import (
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/commands"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/endpoints"
)

// Ready is what a turn has decided, as data. The shell stores the batch, then publishes what is for the registry, then shows what has changed,
// and only then sends anything to anybody, who may look into either because of it. Secret, Balancers and Named of a start do not wait for
// the batch.
type Ready struct {
	// Batch holds the records and events to store.
	Batch store.Batch
	// Secret is what the apps' keys for the registry are derived from. Only the first one after a start has it.
	Secret []byte
	// Balancers are to be waited for, or not any longer.
	Balancers []endpoints.ExpectedBalancer
	// Named are the apps that have come and gone.
	Named []NamedApp
	// Incomplete says that records are lost: apps may run that the zone does not know, so that companions keep what they have.
	Incomplete bool
	// Services are those whose endpoints or whose exposure have changed.
	Services []endpoints.ServiceChange
	// Confirm are the numbers that the zone wants back as confirmed.
	Confirm []endpoints.ConfirmRequest
	// Commands are sent to nodes, and Responses to masters.
	Commands  []CommandSend
	Responses []ResponseSend
	// Answered are answers to those who have sent a master a command.
	Answered []commands.Answered
	// Ends are the streams to end, after all that is sent.
	Ends []StreamEnd
	// Faults are for the log.
	Faults []Fault
	// Events are what has happened, in its order.
	Events []*apiv1.Event
	// shown is no decision: it follows from the zone, and a recording leaves it out.
	shown []Shown
}

// Shown are the objects that look different since the turn, in the order of their changes.
func (r *Ready) Shown() []Shown { return r.shown }

// NamedApp is an app that has a name from now on. With an empty id nobody has the name any more.
type NamedApp struct{ Name, ID string }
