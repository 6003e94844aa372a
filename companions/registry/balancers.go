package registry

import (
	"slices"
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// ConfirmTimeout is how long a connected balancer that does not confirm can delay the removal of an instance.
const ConfirmTimeout = time.Minute

// balancers has the zone's balancers and what they route to. Registry.mu guards it.
type balancers struct {
	// Services that balancers route to.
	exposed map[string]*apiv1.Expose
	// Services that they may route to until they have confirmed this generation.
	withdrawing map[string]int64
	// The newest generation that was sent to balancers. They cannot confirm a newer one.
	routed   int64
	sessions map[string]*balancer
	// waits are open, in the order in which they began.
	waits []*wait
}

// balancer is the state of one balancer over all its connections.
type balancer struct {
	registry  *Registry
	name      string
	confirmed int64
	// How long the zone waits for it after its connection was lost.
	lostAfter time.Duration
	// The newest connection; reports of earlier ones are ignored.
	connection *Connection
}

// Connection is one connection of a balancer.
type Connection struct {
	balancer *balancer
	replaced chan struct{}
}

// wait is one call of AwaitBalancers.
type wait struct {
	generation int64
	// The balancers that have yet to confirm.
	missing map[*balancer]struct{}
	done    func()
	// late is true once ConfirmTimeout has passed.
	late bool
	// stop stops the timer for that.
	stop func()
}

func newBalancers(firstGeneration int64) balancers {
	return balancers{
		exposed:     map[string]*apiv1.Expose{},
		withdrawing: map[string]int64{},
		routed:      firstGeneration,
		sessions:    map[string]*balancer{},
	}
}

// AwaitBalancers calls done once every balancer that serves the service has confirmed the generation, has been away for
// longer than its lostAfter, or has not confirmed for ConfirmTimeout; at once if no balancer serves the service. done runs
// in a goroutine of its own: neither the caller nor the registry waits for it.
func (r *Registry) AwaitBalancers(name string, generation int64, done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &r.balancers
	generation = min(generation, b.routed)
	w := &wait{generation: generation, missing: map[*balancer]struct{}{}, done: done}
	if at, leaving := b.withdrawing[name]; leaving || b.exposed[name] != nil {
		w.generation = max(generation, at)
		for _, session := range b.sessions {
			if session.confirmed < w.generation {
				w.missing[session] = struct{}{}
			}
		}
	}
	b.waits = append(b.waits, w)
	w.stop = r.clock.AfterFunc(ConfirmTimeout, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		clear(w.missing)
		w.late = true
		r.finishWaits()
	})
	r.finishWaits()
}

// ConnectBalancer begins a connection of the named balancer; an earlier one is replaced. After the connection is lost, the
// zone waits for the balancer for lostAfter, because its proxy may still serve.
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
	// It is unknown whether this is the proxy that confirmed before.
	session.confirmed = 0
	session.lostAfter = lostAfter
	session.connection = &Connection{balancer: session, replaced: make(chan struct{})}
	return session.connection
}

// ExpectBalancer adds a balancer that has not connected yet, and waits for it as if its connection had just been lost: a
// restarted ResourceManager adds those that it knew.
func (r *Registry) ExpectBalancer(name string, lostAfter time.Duration) {
	r.ConnectBalancer(name, lostAfter).Lost()
}

// Replaced is closed when another connection has replaced this one.
func (c *Connection) Replaced() <-chan struct{} { return c.replaced }

// Confirm records that the balancer routes by this generation, and by nothing older.
func (c *Connection) Confirm(generation int64) {
	b := c.balancer
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	if b.connection != c || generation <= b.confirmed {
		return
	}
	b.confirmed = generation
	b.registry.balancers.dropWithdrawn()
	for _, w := range b.registry.balancers.waits {
		if w.generation <= generation {
			delete(w.missing, b)
		}
	}
	b.registry.finishWaits()
}

// Lost records that the connection has ended without Leave. It reports whether it was the balancer's newest one.
func (c *Connection) Lost() bool {
	b := c.balancer
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	if b.connection != c {
		return false
	}
	b.registry.clock.AfterFunc(b.lostAfter, c.forget)
	return true
}

// Leave records that the balancer does not route any more: nobody waits for it.
func (c *Connection) Leave() { c.forget() }

// forget ends all waits for the balancer, unless it has connected again.
func (c *Connection) forget() {
	b := c.balancer
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	all := &b.registry.balancers
	if b.connection != c || all.sessions[b.name] != b {
		return
	}
	delete(all.sessions, b.name)
	all.dropWithdrawn()
	for _, w := range all.waits {
		delete(w.missing, b)
	}
	b.registry.finishWaits()
}

// dropWithdrawn drops services that every balancer has withdrawn.
func (b *balancers) dropWithdrawn() {
	for name, at := range b.withdrawing {
		open := false
		for _, session := range b.sessions {
			open = open || session.confirmed < at
		}
		if !open {
			delete(b.withdrawing, name)
		}
	}
}

// finishWaits ends the waits with no missing balancers. While the registry is held, only those end that have lasted for ConfirmTimeout.
func (r *Registry) finishWaits() {
	r.balancers.waits = slices.DeleteFunc(r.balancers.waits, func(w *wait) bool {
		if len(w.missing) > 0 || r.held && !w.late {
			return false
		}
		w.stop()
		r.clock.Go(w.done)
		return true
	})
}
