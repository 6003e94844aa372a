package world

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/companions/registry"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/endpoints"
)

// clock has a registry wait under the clock of a world. What it waits for ends with the process that it is in.
type clock struct{ process *process }

// AfterFunc implements registry.Clock.
func (c clock) AfterFunc(d time.Duration, f func()) (stop func()) {
	stopped := false
	c.process.after(d, func() {
		if !stopped {
			f()
		}
	})
	return func() { stopped = true }
}

// Go implements registry.Clock.
func (c clock) Go(f func()) { c.process.after(0, f) }

// publisher is what a ResourceManager does with its embedded registry, which dies with it: it performs what a turn has decided, in the
// order of package resourcemanager/term, and serves balancers, as the registry's own service does.
type publisher struct {
	m        *manager
	registry *registry.Registry
	// generations are those that hold the present state of each service.
	generations map[string]int64
	// connected are the balancers that have a stream, in the order in which they connected.
	connected []*routing
	// sending is set while changes gather to be sent.
	sending bool
}

// routing is the connection of a balancer.
type routing struct {
	name       string
	side       *side
	watch      *registry.WatchRoutes
	connection *registry.Connection
}

// newPublisher keeps balancers waiting until the first turn is published.
func newPublisher(m *manager, epoch int64) *publisher {
	p := &publisher{m: m, registry: registry.NewOn(clock{m.process}, epoch<<32), generations: map[string]int64{}}
	p.registry.Hold()
	return p
}

// perform does what a turn has decided for the registry.
func (p *publisher) perform(out *zone.Ready) {
	if out.Secret != nil {
		p.registry.AllowRegistration(out.Secret)
	}
	for _, balancer := range out.Balancers {
		p.registry.ExpectBalancer(balancer.Name, balancer.Within)
	}
	for _, app := range out.Named {
		p.registry.KnowApp(app.Name, app.ID)
	}
	if out.Incomplete {
		p.registry.Hold()
	}
	for _, change := range out.Services {
		p.registry.Expose(change.Service, proto.CloneOf(change.Expose))
		if change.Endpoints == nil {
			p.registry.Publish(change.Service, nil)
			delete(p.generations, change.Service)
			continue
		}
		if p.m.w.config.Plant == RegistryBlinks {
			p.m.w.laws.goesOn(p.m, endpoints.ServiceChange{Service: change.Service})
		}
		p.generations[change.Service] = p.registry.Publish(change.Service, p.spoilt(change))
	}
	for _, request := range out.Confirm {
		p.confirm(request)
	}
	if !out.Incomplete {
		p.registry.Release()
	}
	p.send()
}

// confirm gives a number back once every balancer of the services has confirmed their present state.
func (p *publisher) confirm(request endpoints.ConfirmRequest) {
	generations := make([]int64, len(request.Services))
	for i, service := range request.Services {
		generations[i] = p.generations[service]
	}
	var next func(int)
	next = func(i int) {
		if i == len(generations) {
			p.m.put(task{in: zone.Confirmed{Number: request.Number}})
			return
		}
		p.registry.AwaitBalancers(request.Services[i], generations[i], func() { next(i + 1) })
	}
	next(0)
}

// endpoints are those of a service, as anybody may look them up.
func (p *publisher) endpoints(name string) []*apiv1.Endpoint {
	services, _ := p.registry.Services()
	for _, service := range services {
		if service.GetName() == name {
			return service.GetEndpoints()
		}
	}
	return nil
}

// spoilt is what of a change a planted fault leaves.
func (p *publisher) spoilt(change endpoints.ServiceChange) []*apiv1.Endpoint {
	var kept []*apiv1.Endpoint
	for _, e := range change.Endpoints {
		kept = append(kept, proto.CloneOf(e)) // the registry owns what it is given
	}
	if p.m.w.config.Plant == RegistryKeeps {
		for _, old := range p.endpoints(change.Service) {
			if !slices.ContainsFunc(kept, func(e *apiv1.Endpoint) bool { return e.GetId() == old.GetId() }) {
				kept = append(kept, old)
			}
		}
	}
	return append([]*apiv1.Endpoint{}, kept...)
}

// send has every balancer sent what is new, a little later.
func (p *publisher) send() {
	if p.sending || len(p.connected) == 0 {
		return
	}
	p.sending = true
	p.m.process.after(p.m.w.between(time.Millisecond, 20*time.Millisecond), func() {
		p.sending = false
		for _, r := range p.connected {
			r.send()
		}
	})
}

func (r *routing) send() {
	if update, _ := r.watch.Poll(); update != nil {
		r.side.send(message{method: "Routes", body: update})
	}
}

// connect begins the connection of a balancer. One that it still has is replaced, which is no loss of the balancer.
func (p *publisher) connect(hello *companionv1.RouteReport, s *side) {
	name := hello.GetBalancer()
	r := &routing{name: name, side: s, watch: p.registry.WatchRoutes(), connection: p.registry.ConnectBalancer(name, hello.GetLostAfter().AsDuration())}
	p.m.put(task{in: zone.BalancerConnected{Balancer: name}})
	for _, before := range slices.Clone(p.connected) {
		if before.name == name {
			before.side.close(errOver)
			p.lost(before)
		}
	}
	p.connected = append(p.connected, r)
	s.heard = func(m message) {
		report := m.body.(*companionv1.RouteReport)
		if report.GetApplied() > 0 {
			p.m.put(task{in: zone.Refused{Balancer: name, Refusals: report.GetRefusals()}})
			r.connection.Confirm(report.GetApplied())
		}
	}
	s.ended = func(error) { p.lost(r) }
	r.send()
}

func (p *publisher) lost(r *routing) {
	p.connected = slices.DeleteFunc(p.connected, func(other *routing) bool { return other == r })
	if r.connection.Lost() {
		p.m.put(task{in: zone.BalancerLost{Balancer: r.name, Why: "the connection was lost"}})
	}
}
