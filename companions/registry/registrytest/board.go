// Package registrytest has the conformance suite of registries, Run, and Board, a registry for tests of its publishers. Only tests
// import it.
package registrytest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/mammoth-os/mammoth/companions/registry"
)

// Board is the zone's registry with methods for tests: they read its state and delay confirmations, without a balancer. It wraps
// the real one, because a separate fake could behave differently.
type Board struct {
	*registry.Registry

	mu sync.Mutex
	// slow is true while AwaitBalancers also waits for Confirm.
	slow     bool
	waiting  []func()
	expected []string
	held     bool
}

// NewBoard makes a registry for a ResourceManager of this epoch.
func NewBoard(epoch int64) *Board { return &Board{Registry: registry.New(epoch << 32)} }

// Serving returns the ids of a service's endpoints, and whether it exists.
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

// Generation is the generation of the newest change.
func (b *Board) Generation() int64 {
	_, generation := b.Services()
	return generation
}

// HoldBack delays confirmations until Confirm.
func (b *Board) HoldBack() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slow = true
}

// Confirm ends HoldBack: delayed confirmations come now, and later ones at once.
func (b *Board) Confirm() {
	b.mu.Lock()
	waiting := b.waiting
	b.slow, b.waiting = false, nil
	b.mu.Unlock()
	for _, done := range waiting {
		done()
	}
}

// AwaitBalancers waits for the registry's balancers, and after HoldBack for Confirm.
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

// Held reports whether the registry is held.
func (b *Board) Held() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

// Hold holds the registry and records it for Held.
func (b *Board) Hold() { b.hold(true, b.Registry.Hold) }

// Release ends Hold.
func (b *Board) Release() { b.hold(false, b.Registry.Release) }

func (b *Board) hold(held bool, pass func()) {
	b.mu.Lock()
	b.held = held
	b.mu.Unlock()
	pass()
}

// Expected lists the calls of ExpectBalancer as "NAME for DURATION", by name.
func (b *Board) Expected() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(slices.Values(b.expected))
}

// ExpectBalancer passes on and records the call.
func (b *Board) ExpectBalancer(name string, within time.Duration) {
	b.mu.Lock()
	b.expected = append(b.expected, fmt.Sprintf("%s for %v", name, within))
	b.mu.Unlock()
	b.Registry.ExpectBalancer(name, within)
}
