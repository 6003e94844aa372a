package endpoints

import (
	"maps"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Then is what follows once every balancer of an app's services has confirmed a state of them. One of Withdrawn, Status and StopsAll is
// set.
type Then struct {
	App id.App
	// Withdrawn is an instance: its master is sent the withdrawal.
	Withdrawn string
	// Status is what a master says of its work, which counts then; Report is the number of the report.
	Status *apiv1.MasterStatus
	Report int
	// StopsAll has every instance of an app stopped, since the app ends.
	StopsAll bool
}

// confirmation is what balancers are asked to confirm.
type confirmation struct {
	then  Then
	state *State
	// withdrawal is the count of the instance's withdrawals. If it is another one by then, the instance was withdrawn again or put into
	// service since, and nothing follows.
	withdrawal int
	// removals is how many services of the app were removed before.
	removals int
}

// OnConfirmed has something follow once every balancer has confirmed what is published at the end of this turn.
func (s *State) OnConfirmed(then Then) { s.pending = append(s.pending, then) }

// awaitBalancers has something follow once every balancer of the app's services has confirmed what is published now, of those too that are
// removed: their instances are routed to until then.
func (es *Endpoints) awaitBalancers(s *State, then Then) {
	then.App = s.app
	s.unconfirmed++
	services := append(id.SortedKeys(s.published), id.SortedKeys(s.removed)...)
	es.balancers.requestConfirmation(services, confirmation{then, s, s.withdrawals[then.Withdrawn], s.removals})
}

// Confirmed takes in the confirmation that was asked for under a number. It returns what follows; ok is false if nothing does.
func (es *Endpoints) Confirmed(number int64) (then Then, ok bool) {
	asked, ok := es.balancers.confirmed(number)
	if !ok {
		return Then{}, false
	}
	s := asked.state
	s.unconfirmed--
	maps.DeleteFunc(s.removed, func(_ string, removal int) bool { return removal <= asked.removals })
	if asked.then.StopsAll {
		s.withdrawsAll = false
	}
	withdrawn := asked.then.Withdrawn
	return asked.then, withdrawn == "" || s.withdrawals[withdrawn] == asked.withdrawal
}
