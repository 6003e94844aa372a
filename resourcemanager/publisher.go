package resourcemanager

import "google.golang.org/protobuf/proto"

// publisher performs what a turn has decided for the registry. The loop's goroutine alone uses it.
type publisher struct {
	registry Registry
	post     func(input)
	// generations are those that hold the present state of each service.
	generations map[string]int64
}

func newPublisher(registry Registry, post func(input)) *publisher {
	return &publisher{registry: registry, post: post, generations: map[string]int64{}}
}

func (p *publisher) perform(out *ready) {
	p.open(out)
	for _, change := range out.services {
		p.registry.Expose(change.service, proto.CloneOf(change.expose))
		// The registry owns what it is given.
		if change.endpoints == nil {
			p.registry.Publish(change.service, nil)
			delete(p.generations, change.service)
			continue
		}
		p.generations[change.service] = p.registry.Publish(change.service, cloneAll(change.endpoints))
	}
	for _, request := range out.confirm {
		p.confirm(request)
	}
}

// open performs what does not depend on endpoints. After a start it need not wait until there is room for what has changed.
func (p *publisher) open(out *ready) {
	if out.secret != nil {
		p.registry.AllowRegistration(out.secret)
	}
	for _, balancer := range out.balancers {
		p.registry.ExpectBalancer(balancer.name, balancer.within)
	}
	for _, app := range out.named {
		p.registry.KnowApp(app.name, app.id)
	}
	out.secret, out.balancers, out.named = nil, nil, nil
}

// confirm posts a number back once every balancer of the services has confirmed their present state.
func (p *publisher) confirm(request confirmRequest) {
	generations := make([]int64, len(request.services))
	for i, service := range request.services {
		generations[i] = p.generations[service]
	}
	var next func(int)
	next = func(i int) {
		if i == len(generations) {
			p.post(confirmedInput{request.number})
			return
		}
		p.registry.AwaitBalancers(request.services[i], generations[i], func() { next(i + 1) })
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
