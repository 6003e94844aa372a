package world

import (
	"fmt"
	"maps"
	"slices"
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

const (
	// patience is how long a balancer that is connected, but does not confirm, is waited for; lostAfter one that is not connected.
	patience  = time.Minute
	lostAfter = 30 * time.Second
)

// registry is the embedded registry of a ResourceManager, which dies with it. Balancers are sent the whole of it.
type registry struct {
	m *manager
	// generation rises with every change; since is that of a service's present state.
	generation int64
	services   map[string][]*apiv1.Endpoint
	since      map[string]int64
	held       bool
	// known are the balancers that are waited for, by name.
	known map[string]*balancerSession
	waits []*wait
	// sending is set while changes gather to be sent.
	sending bool
}

type balancerSession struct {
	side      *side
	confirmed int64
}

// wait is for the confirmation of a state by every balancer.
type wait struct {
	generation int64
	missing    map[string]bool
	done       func()
	over       bool
}

func newRegistry(m *manager, epoch int64) *registry {
	return &registry{
		m: m, generation: epoch << 32, services: map[string][]*apiv1.Endpoint{}, since: map[string]int64{}, held: true, known: map[string]*balancerSession{},
	}
}

// routes is what a balancer is sent: all services.
type routes struct {
	generation int64
	services   map[string][]*apiv1.Endpoint
}

// String is what of it goes into the hash of a run.
func (r routes) String() string {
	text := fmt.Sprint(r.generation)
	for _, name := range slices.Sorted(maps.Keys(r.services)) {
		text += " " + name
		for _, e := range r.services[name] {
			text += fmt.Sprintf(",%s=%s:%d/%d", e.GetId(), e.GetAddress(), e.GetPort(), e.GetWeight())
		}
	}
	return text
}

type confirmed int64

func (c confirmed) String() string { return fmt.Sprint(int64(c)) }

// perform does what a turn has decided for the registry, in the order of package resourcemanager's publisher.
func (r *registry) perform(out *zone.Ready) {
	for _, balancer := range out.Balancers {
		if balancer.Within > 0 && r.known[balancer.Name] == nil {
			r.known[balancer.Name] = &balancerSession{}
			r.lost(balancer.Name, r.known[balancer.Name], balancer.Within)
		}
	}
	if out.Incomplete {
		r.held = true
	}
	for _, change := range out.Services {
		r.generation++
		if change.Endpoints == nil {
			delete(r.services, change.Service)
		} else {
			r.services[change.Service] = r.spoilt(change)
			if r.m.w.config.Plant == RegistryBlinks {
				r.m.w.laws.goesOn(r.m, zone.ServiceChange{Service: change.Service})
			}
		}
		r.since[change.Service] = r.generation
		r.send()
	}
	for _, request := range out.Confirm {
		generation := int64(0)
		for _, service := range request.Services {
			generation = max(generation, r.since[service])
		}
		r.await(generation, func() { r.m.put(task{in: zone.Confirmed{Number: request.Number}}) })
	}
	if !out.Incomplete && r.held {
		r.held = false
		r.send()
		for _, w := range r.waits {
			r.finish(w)
		}
	}
}

// spoilt is what of a change a planted fault leaves.
func (r *registry) spoilt(change zone.ServiceChange) []*apiv1.Endpoint {
	if r.m.w.config.Plant != RegistryKeeps {
		return change.Endpoints
	}
	kept := slices.Clone(change.Endpoints)
	for _, old := range r.services[change.Service] {
		if !slices.ContainsFunc(kept, func(e *apiv1.Endpoint) bool { return e.GetId() == old.GetId() }) {
			kept = append(kept, old)
		}
	}
	return kept
}

func (r *registry) await(generation int64, done func()) {
	w := &wait{generation: generation, missing: map[string]bool{}, done: done}
	for name, b := range r.known {
		if b.confirmed < generation {
			w.missing[name] = true
		}
	}
	r.waits = append(slices.DeleteFunc(r.waits, func(w *wait) bool { return w.over }), w)
	r.m.process.after(patience, func() {
		clear(w.missing)
		r.finish(w)
	})
	r.finish(w)
}

func (r *registry) finish(w *wait) {
	if w.over || len(w.missing) > 0 || r.held {
		return
	}
	w.over = true
	r.m.process.after(0, w.done)
}

// send has every balancer sent the present state, a little later.
func (r *registry) send() {
	if r.sending {
		return
	}
	r.sending = true
	r.m.process.after(r.m.w.between(time.Millisecond, 20*time.Millisecond), func() {
		r.sending = false
		if r.held {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(r.known)) {
			if b := r.known[name]; b.side != nil {
				r.sendTo(b)
			}
		}
	})
}

func (r *registry) sendTo(b *balancerSession) {
	b.side.send(message{method: "Routes", value: routes{r.generation, maps.Clone(r.services)}})
}

// connect begins the connection of a balancer. One that it still has is replaced.
func (r *registry) connect(name string, s *side) {
	if before := r.known[name]; before != nil && before.side != nil {
		before.side.close(errOver)
	}
	b := &balancerSession{side: s}
	r.known[name] = b
	s.heard = func(m message) {
		generation := int64(m.value.(confirmed))
		b.confirmed = max(b.confirmed, generation)
		for _, w := range r.waits {
			if w.generation <= generation && r.known[name] == b {
				delete(w.missing, name)
				r.finish(w)
			}
		}
	}
	s.ended = func(error) {
		if r.known[name] == b {
			b.side = nil
			r.m.put(task{in: zone.BalancerLost{Balancer: name, Why: "the connection was lost"}})
			r.lost(name, b, lostAfter)
		}
	}
	r.m.put(task{in: zone.BalancerConnected{Balancer: name}})
	if !r.held {
		r.sendTo(b)
	}
}

// lost has nobody wait for a balancer any more after a while, unless it connects again.
func (r *registry) lost(name string, b *balancerSession, within time.Duration) {
	r.m.process.after(within, func() {
		if r.known[name] != b || b.side != nil {
			return
		}
		delete(r.known, name)
		for _, w := range r.waits {
			delete(w.missing, name)
			r.finish(w)
		}
	})
}

// balancer is a program that routes requests by what the registry told it last, on a machine of its own.
type balancer struct {
	w       *World
	name    string
	process *process
	side    *side
	// applied is what it routes by. It keeps that over its own death.
	applied routes
	next    *routes
}

func newBalancer(w *World, name string) *balancer { return &balancer{w: w, name: name} }

// run starts the program.
func (b *balancer) run() {
	b.process, b.side, b.next = b.w.newProcess(b.name, b.name), nil, nil
	b.connect()
}

func (b *balancer) kill() {
	b.process.kill()
	b.side = nil
}

func (b *balancer) connect() {
	b.side = b.process.dial(managerAddress, message{method: "Balance", credential: b.name}, func(m message) {
		now := m.value.(routes)
		reloading := b.next != nil
		b.next = &now
		d := b.w.between(20*time.Millisecond, 300*time.Millisecond)
		if b.w.config.Plant == BalancerLies {
			b.side.send(message{method: "Confirm", value: confirmed(now.generation)})
			d += 20 * time.Second
		}
		if !reloading {
			b.process.after(d, b.apply)
		}
	}, func(error) {
		b.side = nil
		b.process.after(b.w.between(100*time.Millisecond, time.Second), b.connect)
	})
}

// apply routes by the newest state, and confirms that.
func (b *balancer) apply() {
	if b.next == nil {
		return
	}
	b.applied, b.next = *b.next, nil
	if b.side != nil {
		b.side.send(message{method: "Confirm", value: confirmed(b.applied.generation)})
	}
}

// routesTo reports whether it routes to a container.
func (b *balancer) routesTo(container string) bool {
	for _, endpoints := range b.applied.services {
		for _, e := range endpoints {
			if e.GetContainerId() == container {
				return true
			}
		}
	}
	return false
}
