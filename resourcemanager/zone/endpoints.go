package zone

import (
	"fmt"
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

// appEndpoints is what is published of an app, and what of it balancers have yet to confirm.
type appEndpoints struct {
	// published is what the registry was last told, by service.
	published map[string]*publication
	// withdrawals counts, by instance, how often it was taken out of service: a confirmation that was overtaken is dropped.
	withdrawals map[string]int
	// withdrawing are the instances whose withdrawal is to be confirmed, pending is what else follows once balancers route by the
	// state at the end of the turn. Both wait while awaitsReport is set.
	withdrawing []string
	pending     []confirmation
	// unconfirmed counts the states that balancers have not confirmed yet.
	unconfirmed int
	// withdrawsAll is set while balancers are waited for, after which every instance is stopped.
	withdrawsAll bool
	// awaitsReport is set while a step of the master's waits for the report of a node, since awaitsSince.
	heldBack bool
	heldBackSince  time.Time
	// traffic is what balancers have counted since the master's stream was opened, by instance.
	traffic map[string]*masterv1.Traffic
}

func newAppEndpoints() appEndpoints {
	return appEndpoints{published: map[string]*publication{}, withdrawals: map[string]int{}, traffic: map[string]*masterv1.Traffic{}}
}

// endpoints are what the registry is told: which instances serve, which are withdrawn, and what follows once balancers know.
type endpoints struct {
	*turn
	apps      *apps
	masters   *masters
	leases    *leases
	nodes     *nodes
	balancers *balancers
	rollouts  *rollouts
}

// areUnconfirmed reports whether a balancer has yet to confirm the newest endpoints of an app.
func (es *endpoints) areUnconfirmed(a *app) bool {
	return a.endpoints.unconfirmed > 0 && es.balancers.any()
}

// awaitReport reports whether the endpoints of an app wait for the report of a node.
func (es *endpoints) areHeldBack(a *app) bool { return a.endpoints.heldBack }

// cancelWithdrawal has an earlier withdrawal of an instance, which is in service again, never be confirmed.
func (es *endpoints) cancelWithdrawal(a *app, instance string) { a.endpoints.withdrawals[instance]++ }

func (es *endpoints) forgetInstance(a *app, instance string) {
	delete(a.endpoints.withdrawals, instance)
}

func (es *endpoints) forgetInstances(a *app) { clear(a.endpoints.withdrawals) }

// resetTraffic forgets what balancers have counted of an app.
func (es *endpoints) resetTraffic(a *app) { clear(a.endpoints.traffic) }

// update computes the services of every touched app. An endpoint is there exactly while the master says that its
// instance is in service and the node says that its container runs and is not failing its probes.
func (es *endpoints) update() {
	for _, a := range es.apps.touchedInOrder() {
		es.holdBack(a)
		services := es.services(a)
		for name, now := range services {
			before := a.endpoints.published[name]
			if before != nil && sameEndpoints(before.endpoints, now.endpoints) && proto.Equal(before.expose, now.expose) {
				continue
			}
			now.due = true
			a.endpoints.published[name] = now
		}
		for name, before := range a.endpoints.published {
			if services[name] == nil && before.endpoints != nil {
				a.endpoints.published[name] = &publication{due: true}
			}
		}
		es.publish(a)
	}
}

// nodesWord is how long the word of a node is waited for that its master has passed on already.
const reportWithin = 5 * time.Second

// awaitReports finds out whether a master is ahead of a node. Both tell the ResourceManager of an instance that has become
// healthy, each on a way of its own, and the master's word can be the first. What the master does because of it, to take
// an older instance out or to call a step done, has to wait until the new one is in the registry.
func (es *endpoints) holdBack(a *app) {
	switch {
	case !es.missesReport(a):
		a.endpoints.heldBack, a.endpoints.heldBackSince = false, time.Time{}
		return
	case a.endpoints.heldBackSince.IsZero():
		a.endpoints.heldBackSince = es.now
	}
	a.endpoints.heldBack = es.now.Before(a.endpoints.heldBackSince.Add(reportWithin))
	if a.endpoints.heldBack {
		es.wakeBy(a.endpoints.heldBackSince.Add(reportWithin))
	}
}

// missesReport reports whether a node has yet to say of an instance what its master says.
func (es *endpoints) missesReport(a *app) bool {
	for _, instance := range a.instances {
		report := instance.GetReport()
		cid, err := id.ParseContainer(report.GetContainerId())
		c := a.containers[cid]
		if err != nil || c == nil || c.record.GetStopping() || report.GetState() != apiv1.Instance_RUNNING || !report.GetInService() {
			continue
		}
		if n := es.nodes.get(c.node); n == nil || !n.registered() || n.state() == lifecycle.NodeLost {
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
	routed := a.endpoints.published[a.record.GetName()]
	if report.GetInService() || !a.endpoints.heldBack || routed == nil {
		return report.GetInService()
	}
	return slices.ContainsFunc(routed.endpoints, func(e *apiv1.Endpoint) bool {
		return e.GetId() == report.GetId() && e.GetContainerId() == report.GetContainerId()
	})
}

func (es *endpoints) services(a *app) map[string]*publication {
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
		endpoint := es.endpoint(a, instance)
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

func (es *endpoints) endpoint(a *app, instance *storev1.Instance) *apiv1.Endpoint {
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
	n := es.nodes.get(c.node)
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

// publish has the registry told what has changed, and asks to hear when balancers route by it.
func (es *endpoints) publish(a *app) {
	for _, name := range sortedKeys(a.endpoints.published) {
		p := a.endpoints.published[name]
		if !p.due {
			continue
		}
		p.due = false
		es.out.Services = append(es.out.Services, ServiceChange{name, p.expose, p.endpoints})
		if p.endpoints == nil {
			delete(a.endpoints.published, name)
		}
	}
	if a.endpoints.heldBack {
		return
	}
	leaving, routed := a.endpoints.withdrawing, a.endpoints.pending
	a.endpoints.withdrawing, a.endpoints.pending = nil, nil
	for _, instance := range leaving {
		es.awaitBalancers(a, confirmation{withdrawn: instance, withdrawal: a.endpoints.withdrawals[instance]})
	}
	for _, then := range routed {
		es.awaitBalancers(a, then)
	}
}

// withdraw has the master told once the instance is in no registry and no balancer any more.
func (es *endpoints) withdraw(a *app, instance string) {
	a.endpoints.withdrawals[instance]++
	if !slices.Contains(a.endpoints.withdrawing, instance) {
		a.endpoints.withdrawing = append(a.endpoints.withdrawing, instance)
	}
	es.apps.touch(a)
}

// confirmation is what follows once every balancer of an app's services routes by the state that they had. One of withdrawn, step
// and stopsAll is set.
type confirmation struct {
	app *app
	// withdrawn is an instance that no balancer routes to any more, unless it was put into service, or withdrawn again, since it
	// was withdrawn for the withdrawal-th time.
	withdrawn  string
	withdrawal int
	// step is one of a rollout.
	step *rolloutStep
	// stopsAll has every instance of an app that ends stopped.
	stopsAll bool
}

// onConfirmed has something follow once what this turn changes in the registry is known to every balancer.
func (es *endpoints) onConfirmed(a *app, then confirmation) {
	a.endpoints.pending = append(a.endpoints.pending, then)
	es.apps.touch(a)
}

// awaitBalancers has something follow once every balancer of the app's services has confirmed their present state.
func (es *endpoints) awaitBalancers(a *app, then confirmation) {
	then.app = a
	a.endpoints.unconfirmed++
	es.balancers.requestConfirmation(sortedKeys(a.endpoints.published), then)
}

// confirmed is the balancers' confirmation that was asked for under a number.
func (es *endpoints) confirmed(number int64) {
	then, ok := es.balancers.confirmed(number)
	if !ok {
		return
	}
	a := then.app
	a.endpoints.unconfirmed--
	switch {
	case then.stopsAll:
		es.stopAll(a)
	case a.removed:
	case then.step != nil:
		es.rollouts.confirmed(a, *then.step)
	case a.instances[then.withdrawn] != nil && a.endpoints.withdrawals[then.withdrawn] == then.withdrawal:
		es.masters.response(a).Withdrawn = append(es.masters.response(a).Withdrawn, then.withdrawn)
	}
}

// withdrawAll takes every instance out of the registry and stops its container once balancers know.
func (es *endpoints) withdrawAll(a *app) {
	if a.endpoints.withdrawsAll {
		return
	}
	a.endpoints.withdrawsAll = true
	es.masters.takeOutOfService(a)
	es.onConfirmed(a, confirmation{stopsAll: true})
}

// stopAll stops the instances of an app that no balancer routes to any more.
func (es *endpoints) stopAll(a *app) {
	a.endpoints.withdrawsAll = false
	for _, c := range sortedContainers(a.containers) {
		if !c.record.GetLease().GetMaster() {
			es.leases.stop(c, corev1.Exit_STOPPED, fmt.Sprintf("%s is ended without an application master", a.record.GetName()))
		}
	}
}
