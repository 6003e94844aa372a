// Package registry is the zone's embedded registry: from a service's name to its endpoints. It is a projection
// that the ResourceManager publishes and could rebuild at any time; whoever watches it sees the newest state,
// not every state in between. Beside the endpoints it knows which balancers have applied what, so that an
// instance is stopped only once nobody routes to it any more.
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

// Registry holds every service of a zone, and answers look-ups over gRPC. Its methods are safe for concurrent use;
// no publisher ever waits for a watcher or a balancer.
type Registry struct {
	apiv1.UnimplementedRegistryServer
	companionv1.UnimplementedCompanionsServer

	mu sync.Mutex
	// Rises by one with every change in the zone.
	generation int64
	// When a service was last removed. It stands in for the index of services that do not exist, so that a
	// watcher that was not looking at that moment still learns of it.
	removedAt int64
	services  map[string]*service
	// Closed and replaced with every change, while somebody watches the whole registry.
	changed chan struct{}

	// Companions are sent nothing, and nobody hears that they confirmed.
	held bool

	balancers balancers
	observer  Observer
	// Signs the keys that apps register endpoints with; empty while they may not.
	secret []byte
	// The ids of apps by their names.
	apps map[string]string
}

// Observer hears what balancers say. Its methods are called by whoever serves the balancer, one call at a time for
// each balancer, and must not block.
type Observer interface {
	// BalancerConnected and BalancerLost tell about a balancer's connection.
	BalancerConnected(balancer string)
	BalancerLost(balancer, why string)
	// Refused says which services a balancer cannot route, and why; nil once it routes all.
	Refused(balancer string, refusals []*companionv1.Refusal)
	// Counted says what a balancer has counted since the last call.
	Counted(balancer string, traffic []*companionv1.Traffic)
}

// service is one name that is published, registered or waited for.
type service struct {
	// What the ResourceManager published; nil when it has not.
	instances []*apiv1.Endpoint
	// What the app itself registered, by endpoint id.
	leases map[string]*lease
	// Both together; nil when the service does not exist. It is never changed, only replaced.
	current *apiv1.Service
	// Closed and forgotten with every change; nil when nobody waits.
	changed chan struct{}
	// Watches that hold on to this name.
	watches int
}

// New returns an empty registry whose generations are above firstGeneration. A ResourceManager passes its epoch
// shifted left by 32, so that they rise over restarts too.
func New(firstGeneration int64) *Registry {
	return &Registry{
		generation: firstGeneration,
		services:   map[string]*service{},
		apps:       map[string]string{},
		balancers:  newBalancers(firstGeneration),
	}
}

// Publish makes endpoints the instances of a service; nil removes the service, while an empty list that is not nil
// says that it exists and has no instance just now. It returns the generation that holds this truth: a new one,
// or the one of the last change when this is none. The endpoints belong to the registry afterwards. Publish
// takes microseconds, however many watch.
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
	return r.settle(name, entry)
}

// entry is what is kept under a name. Callers hold the lock, and settle or watch the entry afterwards.
func (r *Registry) entry(name string) *service {
	entry := r.services[name]
	if entry == nil {
		entry = &service{}
		r.services[name] = entry
	}
	return entry
}

// settle makes an entry's present state the published one, if they differ, tells those who watch, and returns the
// generation that holds it. Callers hold the lock.
func (r *Registry) settle(name string, entry *service) int64 {
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
	wake(&entry.changed)
	wake(&r.changed)
	r.discard(name, entry)
	return r.generation
}

// discard forgets a name that nothing is known of and nobody waits for.
func (r *Registry) discard(name string, entry *service) {
	if entry.current == nil && entry.watches == 0 && len(entry.leases) == 0 {
		delete(r.services, name)
	}
}

// Expose says how balancers reach a service; nil says that they do not. It returns the generation that holds this.
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
		b.leaving[name] = r.generation
		b.forgetLeft()
	} else {
		delete(b.leaving, name)
		b.exposed[name] = expose
	}
	wake(&r.changed)
	return r.generation
}

// Observe makes o the one who hears what balancers say. It is called before any balancer can connect.
func (r *Registry) Observe(o Observer) { r.observer = o }

// Hold keeps changes from companions until Release: the registry may lack services that run, and a balancer that believed
// it would drop their instances. Whoever waits for balancers goes on waiting. A registry that is held already stays so.
func (r *Registry) Hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = true
}

// Release ends Hold: the registry lacks nothing any more.
func (r *Registry) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.held {
		return
	}
	r.held = false
	wake(&r.changed)
	for w := range r.balancers.waits {
		r.balancers.finish(w)
	}
}

// Services returns every service by name, and the generation that this is the state of. The answer must not be
// changed.
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

// state is the service as a watcher sees it, and whether it exists. Callers hold the lock.
func (r *Registry) state(name string, entry *service) (*apiv1.Service, bool) {
	if entry != nil && entry.current != nil {
		return entry.current, true
	}
	return &apiv1.Service{Name: name, Index: r.removedAt}, false
}

// wake tells everybody who waits on a channel, and forgets the channel. Closing wakes each waiter in turn, so a
// goroutine of its own does it: it ends at once, and a publisher does not pay for a thousand watchers.
func wake(changed *chan struct{}) {
	if *changed == nil {
		return
	}
	go close(*changed)
	*changed = nil
}

func byID(a, b *apiv1.Endpoint) int { return id.CompareNames(a.GetId(), b.GetId()) }

func same(a, b *apiv1.Endpoint) bool { return a == b || proto.Equal(a, b) }
