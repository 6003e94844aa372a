// Package registrytest is what tests have of the zone's registry: Run, the suite that a registry passes, and Board, the registry
// for tests of who publishes to one. Only tests import it.
package registrytest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/mammoth-os/mammoth/companions/registry"
)

// Board is a registry that a test looks into. It is the zone's own: a second one of its kind would only be wrong in other ways. What
// is added is what no zone does: confirmations are held back for as long as the test likes, without a balancer and its patience.
type Board struct {
	*registry.Registry

	mu sync.Mutex
	// slow: who awaits balancers waits for Confirm.
	slow     bool
	waiting  []func()
	expected []string
	held     bool
}

// NewBoard makes a registry for a ResourceManager of this epoch.
func NewBoard(epoch int64) *Board { return &Board{Registry: registry.New(epoch << 32)} }

// Serving gives the ids of a service's endpoints, and whether it exists.
func (b *Board) Serving(name string) (ids []string, exists bool) {
	services, _ := b.Services()
	ids = []string{}
	for _, service := range services {
		if service.GetName() != name {
			continue
		}
		exists = true
		for _, endpoint := range service.GetEndpoints() {
			ids = append(ids, endpoint.GetId())
		}
	}
	slices.Sort(ids)
	return ids, exists
}

// Generation is that of the newest change.
func (b *Board) Generation() int64 {
	_, generation := b.Services()
	return generation
}

// HoldBack has confirmations wait for Confirm.
func (b *Board) HoldBack() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slow = true
}

// Confirm gives the confirmations that were held back, and those to come at once.
func (b *Board) Confirm() {
	b.mu.Lock()
	waiting := b.waiting
	b.slow, b.waiting = false, nil
	b.mu.Unlock()
	for _, done := range waiting {
		done()
	}
}

// AwaitBalancers waits for those of the registry, and for Confirm.
func (b *Board) AwaitBalancers(service string, generation int64, done func()) {
	b.Registry.AwaitBalancers(service, generation, func() {
		b.mu.Lock()
		slow := b.slow
		if slow {
			b.waiting = append(b.waiting, done)
		}
		b.mu.Unlock()
		if !slow {
			done()
		}
	})
}

// Held reports whether companions are sent nothing.
func (b *Board) Held() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

// Hold notes that companions are sent nothing.
func (b *Board) Hold() { b.hold(true, b.Registry.Hold) }

// Release notes that they are sent what there is.
func (b *Board) Release() { b.hold(false, b.Registry.Release) }

func (b *Board) hold(held bool, pass func()) {
	b.mu.Lock()
	b.held = held
	b.mu.Unlock()
	pass()
}

// Expected lists the balancers that were to be expected, and for how long, by name.
func (b *Board) Expected() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(slices.Values(b.expected))
}

// ExpectBalancer notes the balancer.
func (b *Board) ExpectBalancer(name string, within time.Duration) {
	b.mu.Lock()
	b.expected = append(b.expected, fmt.Sprintf("%s for %v", name, within))
	b.mu.Unlock()
	b.Registry.ExpectBalancer(name, within)
}
