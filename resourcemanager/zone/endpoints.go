package zone

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// publication is one service as the registry was told of it.
type publication struct {
	endpoints []*apiv1.Endpoint
	expose    *apiv1.Expose
	// due is set while the registry is still to be told.
	due bool
}

// project computes the services of every touched app. An endpoint is there exactly while the master says that its
// instance is in service and the node says that its container runs and is not failing its probes.
func (z *Core) project() {
	for _, a := range z.apps.touchedInOrder() {
		z.catchUp(a)
		services := z.services(a)
		for name, now := range services {
			before := a.published[name]
			if before != nil && sameEndpoints(before.endpoints, now.endpoints) && proto.Equal(before.expose, now.expose) {
				continue
			}
			now.due = true
			a.published[name] = now
		}
		for name, before := range a.published {
			if services[name] == nil && before.endpoints != nil {
				a.published[name] = &publication{due: true}
			}
		}
		z.publishEndpoints(a)
	}
}

// nodesWord is how long the word of a node is waited for that its master has passed on already.
const nodesWord = 5 * time.Second

// catchUp finds out whether a master is ahead of a node. Both tell the ResourceManager of an instance that has become
// healthy, each on a way of its own, and the master's word can be the first. What the master does because of it, to take
// an older instance out or to call a step done, has to wait until the new one is in the registry.
func (z *Core) catchUp(a *app) {
	switch {
	case !z.masterAhead(a):
		a.ahead, a.aheadSince = false, time.Time{}
		return
	case a.aheadSince.IsZero():
		a.aheadSince = z.now
	}
	a.ahead = z.now.Before(a.aheadSince.Add(nodesWord))
	if a.ahead {
		z.wakeBy(a.aheadSince.Add(nodesWord))
	}
}

// masterAhead reports whether a node has yet to say of an instance what its master says.
func (z *Core) masterAhead(a *app) bool {
	for _, instance := range a.instances {
		report := instance.GetReport()
		cid, err := id.ParseContainer(report.GetContainerId())
		c := a.containers[cid]
		if err != nil || c == nil || c.record.GetStopping() || report.GetState() != apiv1.Instance_RUNNING || !report.GetInService() {
			continue
		}
		if n := z.nodes.get(c.node); n == nil || !n.registered() || n.state() == lifecycle.NodeLost {
			continue
		}
		switch c.state() {
		case lifecycle.ContainerNew, lifecycle.ContainerLocalizing, lifecycle.ContainerLaunching:
			return true
		case lifecycle.ContainerRunning:
			if c.record.GetStatus().GetHealth() == corev1.ContainerStatus_STARTING {
				return true
			}
		}
	}
	return false
}

// serves reports whether an instance is to be routed to, as far as its master goes.
func (a *app) serves(report *masterv1.InstanceReport) bool {
	routed := a.published[a.record.GetName()]
	if report.GetInService() || !a.ahead || routed == nil {
		return report.GetInService()
	}
	return slices.ContainsFunc(routed.endpoints, func(e *apiv1.Endpoint) bool {
		return e.GetId() == report.GetId() && e.GetContainerId() == report.GetContainerId()
	})
}

func (z *Core) services(a *app) map[string]*publication {
	services := map[string]*publication{}
	if a.removed {
		return services
	}
	name, roles := a.record.GetName(), a.record.GetSpec().GetRoles()
	whole := &publication{endpoints: []*apiv1.Endpoint{}}
	services[name] = whole
	for _, role := range roles {
		if len(roles) == 1 {
			whole.expose = role.GetExpose()
			continue
		}
		services[role.GetName()+"."+name] = &publication{endpoints: []*apiv1.Endpoint{}, expose: role.GetExpose()}
	}
	for _, instanceID := range a.instanceNames() {
		instance := a.instances[instanceID]
		endpoint := z.endpoint(a, instance)
		if endpoint == nil {
			continue
		}
		whole.endpoints = append(whole.endpoints, endpoint)
		if one := services[instance.GetReport().GetRole()+"."+name]; one != nil {
			one.endpoints = append(one.endpoints, proto.CloneOf(endpoint))
		}
	}
	return services
}

func (z *Core) endpoint(a *app, instance *storev1.Instance) *apiv1.Endpoint {
	report := instance.GetReport()
	cid, err := id.ParseContainer(report.GetContainerId())
	c := a.containers[cid]
	if err != nil || c == nil || !a.serves(report) {
		return nil
	}
	status := c.record.GetStatus()
	serving := status.GetHealth() == corev1.ContainerStatus_HEALTHY || status.GetHealth() == corev1.ContainerStatus_NONE
	if c.state() != lifecycle.ContainerRunning || !serving {
		return nil
	}
	n := z.nodes.get(c.node)
	endpoint := &apiv1.Endpoint{
		Id:           report.GetId(),
		Address:      n.addressFor(status),
		Weight:       report.GetWeight(),
		State:        apiv1.Endpoint_HEALTHY,
		Ports:        map[string]int32{},
		ContainerId:  report.GetContainerId(),
		Node:         string(c.node),
		Version:      report.GetVersion(),
		RegisteredAt: instance.GetRegisteredAt(),
	}
	if n == nil || n.state() == lifecycle.NodeLost {
		endpoint.State = apiv1.Endpoint_UNHEALTHY // it may serve, but nobody sees it
	}
	for i, port := range status.GetPorts() {
		if i == 0 {
			endpoint.Port = port.GetHostPort()
		}
		endpoint.Ports[port.GetName()] = port.GetHostPort()
	}
	return endpoint
}

func sameEndpoints(a, b []*apiv1.Endpoint) bool {
	return (a == nil) == (b == nil) && slices.EqualFunc(a, b, func(x, y *apiv1.Endpoint) bool { return proto.Equal(x, y) })
}

// publishEndpoints has the registry told what has changed, and asks to hear when balancers route by it.
func (z *Core) publishEndpoints(a *app) {
	for _, name := range sortedKeys(a.published) {
		p := a.published[name]
		if !p.due {
			continue
		}
		p.due = false
		z.out.Services = append(z.out.Services, ServiceChange{name, p.expose, p.endpoints})
		if p.endpoints == nil {
			delete(a.published, name)
		}
	}
	if a.ahead {
		return
	}
	leaving, routed := a.withdrawing, a.routed
	a.withdrawing, a.routed = nil, nil
	for _, instance := range leaving {
		z.awaitBalancers(a, confirmation{withdrawn: instance, withdrawal: a.withdrawals[instance]})
	}
	for _, then := range routed {
		z.awaitBalancers(a, then)
	}
}

// withdraw has the master told once the instance is in no registry and no balancer any more.
func (z *Core) withdraw(a *app, instance string) {
	a.withdrawals[instance]++
	if !slices.Contains(a.withdrawing, instance) {
		a.withdrawing = append(a.withdrawing, instance)
	}
	z.apps.touch(a)
}

// confirmation is what follows once every balancer of an app's services routes by the state that they had. One of withdrawn, rollout
// and stopsAll is set.
type confirmation struct {
	app *app
	// withdrawn is an instance that no balancer routes to any more, unless it was put into service, or withdrawn again, since it
	// was withdrawn for the withdrawal-th time.
	withdrawn  string
	withdrawal int
	// rollout holds from then on, unless the master has reported since its report with the number.
	rollout *apiv1.Rollout
	report  int
	// stopsAll has every instance of an app that ends stopped.
	stopsAll bool
}

// whenRouted has something follow once what this turn changes in the registry is known to every balancer.
func (z *Core) whenRouted(a *app, then confirmation) {
	a.routed = append(a.routed, then)
	z.apps.touch(a)
}

// awaitBalancers has something follow once every balancer of the app's services has confirmed their present state.
func (z *Core) awaitBalancers(a *app, then confirmation) {
	then.app = a
	a.unconfirmed++
	z.balancers.await(sortedKeys(a.published), then)
}

// confirmed is the balancers' confirmation that was asked for under a number.
func (z *Core) confirmed(number int64) {
	then, ok := z.balancers.confirmed(number)
	if !ok {
		return
	}
	a := then.app
	a.unconfirmed--
	switch {
	case then.stopsAll:
		z.stopAll(a)
	case a.removed:
	case then.rollout != nil:
		if a.rolloutReports == then.report {
			z.setRollout(a, then.rollout)
		}
	case a.instances[then.withdrawn] != nil && a.withdrawals[then.withdrawn] == then.withdrawal:
		z.masters.response(a).Withdrawn = append(z.masters.response(a).Withdrawn, then.withdrawn)
	}
}
