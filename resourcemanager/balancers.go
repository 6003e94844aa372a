package resourcemanager

import (
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// BalancerConnected hears that a balancer has come.
func (rm *ResourceManager) BalancerConnected(balancer string) {
	rm.post(zone.BalancerConnected{Balancer: balancer})
}

// BalancerLost hears that a balancer's connection has ended.
func (rm *ResourceManager) BalancerLost(balancer, why string) {
	rm.post(zone.BalancerLost{Balancer: balancer, Why: why})
}

// Refused hears which services a balancer cannot route, and why.
func (rm *ResourceManager) Refused(balancer string, refusals []*companionv1.Refusal) {
	rm.post(zone.Refused{Balancer: balancer, Refusals: refusals})
}

// Counted hears what a balancer has counted.
func (rm *ResourceManager) Counted(_ string, traffic []*companionv1.Traffic) {
	rm.post(zone.Counted{Traffic: traffic})
}
