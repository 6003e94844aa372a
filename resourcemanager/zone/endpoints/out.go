package endpoints

import (
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Out is what a turn publishes, and what it asks of balancers.
type Out struct {
	// Secret is what the apps' keys for the registry are derived from. Only the first turn after a start has it.
	Secret []byte
	// Balancers are to be waited for, or not any longer.
	Balancers []ExpectedBalancer
	// Services are those whose endpoints or whose exposure have changed.
	Services []ServiceChange
	// Confirm are the numbers that the zone wants back as confirmed.
	Confirm []ConfirmRequest
}

// ExpectedBalancer is a balancer that was connected before and is waited for; within zero ends the wait.
type ExpectedBalancer struct {
	Name   string
	Within time.Duration
}

// ServiceChange is all of a service as it is published from now on. Its Endpoints are nil if the service is removed, and empty if no
// instance serves.
type ServiceChange struct {
	Service   string
	Expose    *apiv1.Expose
	Endpoints []*apiv1.Endpoint
}

// ConfirmRequest asks for a Confirmed with its number once every balancer of the services routes by their present state.
type ConfirmRequest struct {
	Number   int64
	Services []string
}
