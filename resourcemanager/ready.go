package resourcemanager

import (
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// ready is what a turn has decided, as data. The shell performs it field by field in this order: nothing before the batch is stored,
// and the registry before anybody who may look into it because of what he was told.
type ready struct {
	// batch holds the records and events to store.
	batch store.Batch
	// secret is what the apps' keys for the registry are derived from. Only the first one after a start has it.
	secret []byte
	// balancers are to be waited for, or not any longer.
	balancers []expectedBalancer
	// named are the apps that have come and gone.
	named []namedApp
	// services are those whose endpoints or whose exposure have changed.
	services []serviceChange
	// confirm are the numbers that the zone wants back as confirmed.
	confirm []confirmRequest
	// commands, answers and views are sent to nodes, masters and watchers; then the streams of ends are ended.
	commands []commandSend
	answers  []answerSend
	views    []viewSend
	ends     []streamEnd
	// faults are for the log.
	faults []fault
	// events are what has happened, in its order.
	events []*apiv1.Event
}

// expectedBalancer is a balancer that was connected before and is waited for; within zero ends the wait.
type expectedBalancer struct {
	name   string
	within time.Duration
}

// namedApp is an app that has a name from now on. With an empty id nobody has the name any more.
type namedApp struct{ name, id string }

// serviceChange is the whole truth about a service; without endpoints it is nil or empty: nil removes the service.
type serviceChange struct {
	service   string
	expose    *apiv1.Expose
	endpoints []*apiv1.Endpoint
}

// confirmRequest asks for confirmed(number) once every balancer of the services routes by their present state.
type confirmRequest struct {
	number   int64
	services []string
}
