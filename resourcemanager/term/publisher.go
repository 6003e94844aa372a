package term

import (
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/resourcemanager/zone"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/endpoints"
)

// publisher performs what a turn has decided for the registry. The loop's goroutine alone uses it.
type publisher struct {
	registry Registry
	post     func(zone.Input)
	// generations are those that hold the present state of each service.
	generations map[string]int64
}

// newPublisher keeps companions waiting until the first turn is published.
func newPublisher(registry Registry, post func(zone.Input)) *publisher {
	registry.Hold()
	return &publisher{registry: registry, post: post, generations: map[string]int64{}}
}

func (p *publisher) perform(out *zone.Ready) {
	p.open(out)
	if out.Incomplete {
		p.registry.Hold()
	}
	for _, change := range out.Services {
		p.registry.Expose(change.Service, proto.CloneOf(change.Expose))
		// The registry owns what it is given.
		if change.Endpoints == nil {
			p.registry.Publish(change.Service, nil)
			delete(p.generations, change.Service)
			continue
		}
		p.generations[change.Service] = p.registry.Publish(change.Service, cloneAll(change.Endpoints))
	}
	for _, request := range out.Confirm {
		p.confirm(request)
	}
	if !out.Incomplete {
		p.registry.Release()
	}
}

// open performs what does not depend on endpoints. After a start it need not wait until there is room for what has changed.
func (p *publisher) open(out *zone.Ready) {
	if out.Secret != nil {
		p.registry.AllowRegistration(out.Secret)
	}
	for _, balancer := range out.Balancers {
		p.registry.ExpectBalancer(balancer.Name, balancer.Within)
	}
	for _, app := range out.Named {
		p.registry.KnowApp(app.Name, app.ID)
	}
}

// confirm posts a number back once every balancer of the services has confirmed their present state.
func (p *publisher) confirm(request endpoints.ConfirmRequest) {
	generations := make([]int64, len(request.Services))
	for i, service := range request.Services {
		generations[i] = p.generations[service]
	}
	var next func(int)
	next = func(i int) {
		if i == len(generations) {
			p.post(zone.Confirmed{Number: request.Number})
			return
		}
		p.registry.AwaitBalancers(request.Services[i], generations[i], func() { next(i + 1) })
	}
	next(0)
}

func cloneAll[M proto.Message](messages []M) []M {
	clones := make([]M, len(messages))
	for i, message := range messages {
		clones[i] = proto.CloneOf(message)
	}
	return clones
}
