// Package registry is the zone's embedded registry: from a service's name to its endpoints. It is a projection that the
// ResourceManager publishes and could rebuild at any time. A watcher receives the newest state, not every state in between.
// The registry also knows which balancers have applied which generation, so that an instance is stopped only once nothing
// routes to it any more.
//
// Vocabulary: a generation numbers the changes of the zone; the index of a service is the generation of its last change; a
// balancer confirms a generation; a lease is what an app has registered itself.
//
// It owns the services with their watches, the leases of what apps register, and the connections of balancers with what each has
// confirmed.
package registry

import (
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// Registry has every service of a zone, and answers look-ups over gRPC. Its methods are safe for concurrent use; a publisher
// never waits for a watcher or a balancer.
type Registry struct {
	apiv1.UnimplementedRegistryServer
	companionv1.UnimplementedCompanionsServer

	clock Clock

	mu sync.Mutex
	// Rises by one with every change in the zone.
	generation int64
	// The generation of the last removal. It is the index of services that do not exist, so that a watcher that missed the
	// removal notices it.
	removedAt int64
	services  map[string]*service
	// Closed and replaced with every change, while the whole registry is watched.
	changed chan struct{}

	// While held, companions receive nothing and their confirmations have no effect.
	held bool

	balancers balancers
	observer  Observer
	// Held while a connection of a balancer begins or ends and the observer is told, so that it is told of both in their order.
	observing sync.Mutex
	// The secret of apps' keys; empty while registrations are not allowed.
	secret []byte
	// The ids of apps by their names.
	apps map[string]string
}

// Observer receives the reports of balancers. Its methods are called by the goroutine that serves the balancer, one call at
// a time for each balancer, and must not block.
type Observer interface {
	// BalancerConnected and BalancerLost report a balancer's connection.
	BalancerConnected(balancer string)
	BalancerLost(balancer, why string)
	// Refused reports the services that a balancer cannot route, and why; nil once it routes all.
	Refused(balancer string, refusals []*companionv1.Refusal)
	// Counted reports the counts of a balancer since the last call.
	Counted(balancer string, traffic []*companionv1.Traffic)
}

// service is one name that was published, registered or waited for.
type service struct {
	// The instances that the ResourceManager published; nil if none.
	instances []*apiv1.Endpoint
	// The app's own registrations, by endpoint id.
	leases map[string]*lease
	// Both together; nil when the service does not exist. It is never changed, only replaced.
	current *apiv1.Service
	// Closed and set to nil with every change; nil when nobody waits.
	changed chan struct{}
	// The number of watches of this name.
	watches int
}

// New returns an empty registry whose generations are above firstGeneration. A ResourceManager passes its epoch shifted left
// by 32, so that generations also rise over restarts.
func New(firstGeneration int64) *Registry { return NewOn(realClock{}, firstGeneration) }

// NewOn is New with another clock.
func NewOn(clock Clock, firstGeneration int64) *Registry {
	return &Registry{
		clock:      clock,
		generation: firstGeneration,
		services:   map[string]*service{},
		apps:       map[string]string{},
		balancers:  newBalancers(firstGeneration),
	}
}

// Publish sets the endpoints of a service's instances; nil removes the service, while an empty list means that it exists
// without instances. It returns the generation with this state: a new one, or that of the last change if nothing changed.
// The registry owns the endpoints afterwards. Publish takes microseconds, however many watch.
func (r *Registry) Publish(name string, endpoints []*apiv1.Endpoint) int64 {
	var sorted []*apiv1.Endpoint
	if endpoints != nil {
		sorted = slices.Clone(endpoints)
		slices.SortFunc(sorted, byID)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	entry := r.entry(name)
	entry.instances = sorted
	if sorted == nil {
		entry.dropLeases()
	}
	return r.publish(name, entry)
}

// entry returns the entry of a name. Callers hold the lock, and publish or watch the entry afterwards.
func (r *Registry) entry(name string) *service {
	entry := r.services[name]
	if entry == nil {
		entry = &service{}
		r.services[name] = entry
	}
	return entry
}

// publish replaces an entry's published state if it differs, wakes watchers, and returns its generation. Callers hold the
// lock.
func (r *Registry) publish(name string, entry *service) int64 {
	merged := entry.merged()
	switch {
	case merged == nil && entry.current == nil:
		r.discard(name, entry)
		return r.generation
	case merged != nil && entry.current != nil && slices.EqualFunc(entry.current.GetEndpoints(), merged, same):
		return entry.current.GetIndex()
	}
	r.generation++
	entry.current = nil
	if merged == nil {
		r.removedAt = r.generation
	} else {
		entry.current = &apiv1.Service{Name: name, Endpoints: merged, Index: r.generation}
	}
	if r.balancers.exposed[name] != nil {
		r.balancers.routed = r.generation
	}
	r.wake(&entry.changed)
	r.wake(&r.changed)
	r.discard(name, entry)
	return r.generation
}

// discard drops a name without content and watches.
func (r *Registry) discard(name string, entry *service) {
	if entry.current == nil && entry.watches == 0 && len(entry.leases) == 0 {
		delete(r.services, name)
	}
}

// Expose sets how balancers reach a service; nil means that they do not. It returns the generation with this state.
func (r *Registry) Expose(name string, expose *apiv1.Expose) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &r.balancers
	if proto.Equal(b.exposed[name], expose) {
		return b.routed
	}
	r.generation++
	b.routed = r.generation
	if expose == nil {
		delete(b.exposed, name)
		b.withdrawing[name] = r.generation
		b.dropWithdrawn()
	} else {
		delete(b.withdrawing, name)
		b.exposed[name] = expose
	}
	r.wake(&r.changed)
	return r.generation
}

// Observe sets the Observer. It is called before any balancer can connect.
func (r *Registry) Observe(o Observer) { r.observer = o }

// Hold keeps changes from companions until Release: while services may be missing, balancers must not drop their instances.
// Waits for balancers continue. It may be repeated.
func (r *Registry) Hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = true
}

// Release ends Hold.
func (r *Registry) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.held {
		return
	}
	r.held = false
	r.wake(&r.changed)
	r.finishWaits()
}

// Services returns every service by name, and the generation of this state. The answer must not be changed.
func (r *Registry) Services() ([]*apiv1.Service, int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*apiv1.Service, 0, len(r.services))
	for _, name := range slices.SortedFunc(maps.Keys(r.services), id.CompareNames) {
		if current := r.services[name].current; current != nil {
			list = append(list, current)
		}
	}
	return list, r.generation
}

// state is the service for a watcher, and whether it exists. Callers hold the lock.
func (r *Registry) state(name string, entry *service) (*apiv1.Service, bool) {
	if entry != nil && entry.current != nil {
		return entry.current, true
	}
	return &apiv1.Service{Name: name, Index: r.removedAt}, false
}

// wake closes and drops a channel. Closing wakes each waiter in turn, so a short goroutine does it, and a publisher does not
// wait for a thousand watchers.
func (r *Registry) wake(changed *chan struct{}) {
	if closing := *changed; closing != nil {
		r.clock.Go(func() { close(closing) })
		*changed = nil
	}
}

func byID(a, b *apiv1.Endpoint) int { return id.CompareNames(a.GetId(), b.GetId()) }

func same(a, b *apiv1.Endpoint) bool { return a == b || proto.Equal(a, b) }
