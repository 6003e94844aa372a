package term

import (
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// observer hands what balancers say to the loop.
type observer struct{ term *Term }

// BalancerConnected implements Observer.
func (o observer) BalancerConnected(balancer string) {
	o.term.post(zone.BalancerConnected{Balancer: balancer})
}

// BalancerLost implements Observer.
func (o observer) BalancerLost(balancer, why string) {
	o.term.post(zone.BalancerLost{Balancer: balancer, Why: why})
}

// Refused implements Observer.
func (o observer) Refused(balancer string, refusals []*companionv1.Refusal) {
	o.term.post(zone.Refused{Balancer: balancer, Refusals: refusals})
}

// Counted implements Observer.
func (o observer) Counted(_ string, traffic []*companionv1.Traffic) {
	o.term.post(zone.Counted{Traffic: traffic})
}
