package endpoints

import (
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// State is what is published of one app, and what of it balancers have yet to confirm. What changes it is published at the end of a turn
// in which the app is touched.
type State struct {
	app id.App
	// published are the services as they were published last, by their names.
	published map[string]*publication
	// removed are the services that were removed since, each with the number of its removal, until balancers have confirmed that.
	removed  map[string]int
	removals int
	// withdrawals counts, by instance, how often it was withdrawn or put into service: a confirmation of an earlier withdrawal is dropped.
	withdrawals map[string]int
	// withdrawing are the instances whose withdrawal is to be confirmed, pending is what else follows once balancers have confirmed
	// the state at the end of the turn. Confirmations are asked for unless the endpoints are held back.
	withdrawing []string
	pending     []Then
	// unconfirmed counts the states that balancers have not confirmed yet.
	unconfirmed int
	// withdrawsAll is set while balancers have yet to confirm the withdrawal of all instances, which are stopped then.
	withdrawsAll bool
	// heldBack is set while a step of the master's waits for the report of a node; it began at heldBackSince.
	heldBack      bool
	heldBackSince time.Time
	// traffic is what balancers have counted since the master's stream was opened, by instance.
	traffic map[string]*masterv1.Traffic
}

// publication is one service as it was published last.
type publication struct {
	// endpoints are nil once the service is removed.
	endpoints []*apiv1.Endpoint
	// expose is how the service is reached from outside; nil if it is not.
	expose *apiv1.Expose
	// due is set while it is yet to be published.
	due bool
}

// NewState is the state of an app of which nothing is published.
func NewState(app id.App) State {
	return State{app: app, published: map[string]*publication{}, removed: map[string]int{}, withdrawals: map[string]int{}, traffic: map[string]*masterv1.Traffic{}}
}

// HeldBack reports whether the endpoints wait for the report of a node.
func (s *State) HeldBack() bool { return s.heldBack }

// Withdraw withdraws an instance. Its master is to be sent the withdrawal once every balancer has confirmed it.
func (s *State) Withdraw(instance string) {
	s.withdrawals[instance]++
	if !slices.Contains(s.withdrawing, instance) {
		s.withdrawing = append(s.withdrawing, instance)
	}
}

// CancelWithdrawal drops the withdrawal of an instance that is in service again.
func (s *State) CancelWithdrawal(instance string) { s.withdrawals[instance]++ }

// Forget forgets the withdrawals of an instance that is gone, ForgetAll those of all instances.
func (s *State) Forget(instance string) { delete(s.withdrawals, instance) }

func (s *State) ForgetAll() { clear(s.withdrawals) }

// StopAll has all instances stopped once balancers have confirmed what is published at the end of this turn. It reports whether that was
// not wanted before.
func (s *State) StopAll() bool {
	if s.withdrawsAll {
		return false
	}
	s.withdrawsAll = true
	s.OnConfirmed(Then{StopsAll: true})
	return true
}

// Count adds what a balancer has counted of an instance, and returns the sum since ResetTraffic.
func (s *State) Count(count *companionv1.Traffic) *masterv1.Traffic {
	sum := &masterv1.Traffic{Instance: count.GetEndpoint(), Requests: count.GetRequests(), Errors: count.GetErrors()}
	if before := s.traffic[sum.GetInstance()]; before != nil {
		sum.Requests += before.GetRequests()
		sum.Errors += before.GetErrors()
	}
	s.traffic[sum.GetInstance()] = sum
	return sum
}

// ResetTraffic forgets what balancers have counted.
func (s *State) ResetTraffic() { clear(s.traffic) }
