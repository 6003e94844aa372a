package world

import (
	"maps"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// lostAfter is how long a balancer of a world is waited for that is not connected.
const lostAfter = 30 * time.Second

// balancer is a program that routes requests by what the registry told it last, on a machine of its own.
type balancer struct {
	w       *World
	name    string
	process *process
	side    *side
	// applied is what it routes, by service. It keeps that over its own death.
	applied map[string]*apiv1.Service
	// told is what it was told last, of a generation; due is set while it is not applied yet.
	told       map[string]*apiv1.Service
	generation int64
	due        bool
}

func newBalancer(w *World, name string) *balancer {
	return &balancer{w: w, name: name, applied: map[string]*apiv1.Service{}}
}

// run starts the program.
func (b *balancer) run() {
	b.process, b.side, b.due = b.w.newProcess(b.name, b.name), nil, false
	b.connect()
}

func (b *balancer) kill() {
	b.process.kill()
	b.side = nil
}

func (b *balancer) connect() {
	hello := &companionv1.RouteReport{Balancer: b.name, LostAfter: durationpb.New(lostAfter)}
	b.side = b.process.dial(managerAddress, message{method: "Route", body: hello}, func(m message) {
		b.take(m.body.(*companionv1.RouteUpdate))
		d := b.w.between(20*time.Millisecond, 300*time.Millisecond)
		if b.w.config.Plant == BalancerLies {
			b.confirm()
			d += 20 * time.Second
		}
		if !b.due {
			b.due = true
			b.process.after(d, b.apply)
		}
	}, func(error) {
		b.side = nil
		b.process.after(b.w.between(100*time.Millisecond, time.Second), b.connect)
	})
}

// take notes what it is told: everything, or what has changed.
func (b *balancer) take(update *companionv1.RouteUpdate) {
	if update.GetSnapshot() {
		b.told = map[string]*apiv1.Service{}
	}
	for _, route := range update.GetRoutes() {
		b.told[route.GetService().GetName()] = route.GetService()
	}
	for _, name := range update.GetRemoved() {
		delete(b.told, name)
	}
	b.generation = update.GetGeneration()
}

// apply routes by the newest state, and confirms that.
func (b *balancer) apply() {
	b.due = false
	b.applied = maps.Clone(b.told)
	b.confirm()
}

func (b *balancer) confirm() {
	if b.side != nil {
		b.side.send(message{method: "Report", body: &companionv1.RouteReport{Applied: b.generation}})
	}
}

// routesTo reports whether it routes to a container.
func (b *balancer) routesTo(container string) bool {
	for _, service := range b.applied {
		for _, e := range service.GetEndpoints() {
			if e.GetContainerId() == container {
				return true
			}
		}
	}
	return false
}
