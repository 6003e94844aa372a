package registry

import (
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Patience is how long a balancer that is connected, but does not confirm, can hold back the removal of an
// instance. Every wait has a deadline, this one too.
const Patience = time.Minute

// balancers is who routes to what. Registry.mu guards it.
type balancers struct {
	// Services that balancers route to.
	exposed map[string]*apiv1.Expose
	// Services that they may still route to until they have confirmed this generation.
	leaving map[string]int64
	// The newest change that balancers are told of. They confirm nothing above it.
	routed   int64
	sessions map[string]*balancer
	waits    map[*wait]struct{}
}

// balancer is one balancer's standing with the registry, over all its connections.
type balancer struct {
	registry  *Registry
	name      string
	confirmed int64
	// How long it is waited for after its connection was lost.
	lostAfter time.Duration
	// The newest; what earlier ones say does not count any more.
	connection *Connection
}

// Connection is one connection of a balancer.
type Connection struct {
	balancer *balancer
	replaced chan struct{}
}

// wait is one caller of AwaitBalancers and what it waits for.
type wait struct {
	generation int64
	// The balancers that have yet to confirm.
	missing map[*balancer]struct{}
	done    func()
	timer   *time.Timer
}

func newBalancers(firstGeneration int64) balancers {
	return balancers{
		exposed:  map[string]*apiv1.Expose{},
		leaving:  map[string]int64{},
		routed:   firstGeneration,
		sessions: map[string]*balancer{},
		waits:    map[*wait]struct{}{},
	}
}

// AwaitBalancers calls done once every balancer that serves the service has confirmed the generation, or has
// been away for longer than it asked to be waited for, or has kept silent for Patience. If no balancer serves the
// service that is at once. done runs on a goroutine of its own: neither the caller nor the registry waits for it.
func (r *Registry) AwaitBalancers(name string, generation int64, done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &r.balancers
	generation = min(generation, b.routed)
	w := &wait{generation: generation, missing: map[*balancer]struct{}{}, done: done}
	if at, leaving := b.leaving[name]; leaving || b.exposed[name] != nil {
		w.generation = max(generation, at)
		for _, session := range b.sessions {
			if session.confirmed < w.generation {
				w.missing[session] = struct{}{}
			}
		}
	}
	b.waits[w] = struct{}{}
	w.timer = time.AfterFunc(Patience, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		clear(w.missing)
		b.finish(w)
	})
	if !r.held {
		b.finish(w)
	}
}

// ConnectBalancer begins a connection of the named balancer; one that it still has is replaced. After the
// connection's loss the balancer goes on being waited for, for lostAfter: its proxy may well be serving still.
func (r *Registry) ConnectBalancer(name string, lostAfter time.Duration) *Connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	session := r.balancers.sessions[name]
	if session == nil {
		session = &balancer{registry: r, name: name}
		r.balancers.sessions[name] = session
	}
	if session.connection != nil {
		close(session.connection.replaced)
	}
	// Whether this is the proxy that confirmed before, nobody knows.
	session.confirmed = 0
	session.lostAfter = lostAfter
	session.connection = &Connection{balancer: session, replaced: make(chan struct{})}
	return session.connection
}

// ExpectBalancer makes a balancer waited for that has yet to connect, for as long as if its connection had been lost
// just now: a ResourceManager that was restarted names those that it knew.
func (r *Registry) ExpectBalancer(name string, lostAfter time.Duration) {
	r.ConnectBalancer(name, lostAfter).Lost()
}

// Replaced is closed when another connection has taken this one's place.
func (c *Connection) Replaced() <-chan struct{} { return c.replaced }

// Confirm says that the balancer routes by the state of this generation, and by nothing older.
func (c *Connection) Confirm(generation int64) {
	b := c.balancer
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	if b.connection != c || generation <= b.confirmed {
		return
	}
	b.confirmed = generation
	b.registry.balancers.forgetLeft()
	for w := range b.registry.balancers.waits {
		if w.generation <= generation {
			delete(w.missing, b)
			b.registry.finish(w)
		}
	}
}

// Lost says that the connection has ended without a word.
func (c *Connection) Lost() {
	b := c.balancer
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	if b.connection == c {
		time.AfterFunc(b.lostAfter, c.forget)
	}
}

// Leave says that the balancer routes to nothing any more: nobody has to wait for it.
func (c *Connection) Leave() { c.forget() }

// forget has nobody wait for the balancer any more, unless it has connected again.
func (c *Connection) forget() {
	b := c.balancer
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	all := &b.registry.balancers
	if b.connection != c || all.sessions[b.name] != b {
		return
	}
	delete(all.sessions, b.name)
	all.forgetLeft()
	for w := range all.waits {
		delete(w.missing, b)
		b.registry.finish(w)
	}
}

// forgetLeft forgets services that every balancer has let go.
func (b *balancers) forgetLeft() {
	for name, at := range b.leaving {
		open := false
		for _, session := range b.sessions {
			open = open || session.confirmed < at
		}
		if !open {
			delete(b.leaving, name)
		}
	}
}

// finish ends a wait that nothing is missing from, unless the registry is held.
func (r *Registry) finish(w *wait) {
	if !r.held {
		r.balancers.finish(w)
	}
}

func (b *balancers) finish(w *wait) {
	if _, open := b.waits[w]; !open || len(w.missing) > 0 {
		return
	}
	delete(b.waits, w)
	w.timer.Stop()
	go w.done()
}
