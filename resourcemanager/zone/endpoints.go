package zone

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// publication is one service as it was published last.
type publication struct {
	// endpoints are nil once the service is removed.
	endpoints []*apiv1.Endpoint
	// expose is how the service is reached from outside; nil if it is not.
	expose *apiv1.Expose
	// due is set while it is yet to be published.
	due bool
}

// appEndpoints is what is published of an app, and what of it balancers have yet to confirm.
type appEndpoints struct {
	// published are the services as they were published last, by their names.
	published map[string]*publication
	// withdrawals counts, by instance, how often it was withdrawn or put into service: a confirmation of an earlier withdrawal is dropped.
	withdrawals map[string]int
	// withdrawing are the instances whose withdrawal is to be confirmed, pending is what else follows once balancers have confirmed
	// the state at the end of the turn. Confirmations are asked for unless the endpoints are held back.
	withdrawing []string
	pending     []confirmation
	// unconfirmed counts the states that balancers have not confirmed yet.
	unconfirmed int
	// withdrawsAll is set while balancers have yet to confirm the withdrawal of all instances, which are stopped then.
	withdrawsAll bool
	// heldBack is set while a step of the master's waits for the report of a node; it began at heldBackSince.
	heldBack      bool
	heldBackSince time.Time
	// traffic is what balancers have counted since the master's stream was opened, by instance.
	traffic map[string]*masterv1.Traffic
}

func newAppEndpoints() appEndpoints {
	return appEndpoints{published: map[string]*publication{}, withdrawals: map[string]int{}, traffic: map[string]*masterv1.Traffic{}}
}

// endpoints are what is published of apps. An instance is withdrawn: no balancer is to route to it any more. A confirmation says that every
// balancer routes by what was published, and something follows from it. Endpoints are held back while the report of a node is missing.
type endpoints struct {
	*turn
	apps      *apps
	masters   *masters
	leases    *leases
	nodes     *nodes
	balancers *balancers
	versions  *versions
}

// areUnconfirmed reports whether a balancer has yet to confirm the newest endpoints of an app.
func (es *endpoints) areUnconfirmed(a *app) bool {
	return a.endpoints.unconfirmed > 0 && es.balancers.any()
}

// areHeldBack reports whether the endpoints of an app wait for the report of a node.
func (es *endpoints) areHeldBack(a *app) bool { return a.endpoints.heldBack }

// cancelWithdrawal drops the withdrawal of an instance that is in service again.
func (es *endpoints) cancelWithdrawal(a *app, instance string) { a.endpoints.withdrawals[instance]++ }

func (es *endpoints) forgetInstance(a *app, instance string) {
	delete(a.endpoints.withdrawals, instance)
}

func (es *endpoints) forgetInstances(a *app) { clear(a.endpoints.withdrawals) }

// resetTraffic forgets what balancers have counted of an app.
func (es *endpoints) resetTraffic(a *app) { clear(a.endpoints.traffic) }

// update publishes the services of every touched app. An endpoint is published exactly while the master reports that its instance is in
// service, and the node that its container runs and does not fail its probes.
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

// reportWithin is how long the report of a node is waited for of something that a master has reported already.
const reportWithin = 5 * time.Second

// holdBack holds the endpoints of an app back if its master is ahead of a node. Both report that an instance has become healthy, each
// on a stream of its own, and the master's report can be the first. What the master does because of it, to take an older instance out of
// service or to report a step done, has to wait until the new instance is published.
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

// missesReport reports whether a node has yet to report of an instance what its master reports.
func (es *endpoints) missesReport(a *app) bool {
	for _, instance := range a.instances {
		report := instance.GetReport()
		if report.GetState() != apiv1.Instance_RUNNING || !report.GetInService() {
			continue
		}
		c := a.container(report.GetContainerId())
		if c == nil || c.record.GetStopping() {
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

// serves reports whether an instance is to be published by what its master reports. One that is published stays while endpoints are held
// back.
func (a *app) serves(report *masterv1.InstanceReport) bool {
	if report.GetInService() || !a.endpoints.heldBack {
		return report.GetInService()
	}
	for _, routed := range a.endpoints.published {
		if slices.ContainsFunc(routed.endpoints, func(e *apiv1.Endpoint) bool {
			return e.GetId() == report.GetId() && e.GetContainerId() == report.GetContainerId()
		}) {
			return true
		}
	}
	return false
}

// services are what is to be published of an app. Each role is a service of its own, and the main one is that of the app too. What an
// app without roles runs is its master's affair, and all of it is one service.
func (es *endpoints) services(a *app) map[string]*publication {
	services := map[string]*publication{}
	if a.removed {
		return services
	}
	name, spec := a.record.GetName(), a.record.GetSpec()
	whole, main := &publication{endpoints: []*apiv1.Endpoint{}}, specs.MainRole(spec)
	services[name] = whole
	for _, role := range spec.GetRoles() {
		service := specs.ServiceName(spec, role)
		if services[service] == nil {
			services[service] = &publication{endpoints: []*apiv1.Endpoint{}}
		}
		services[service].expose = role.GetExpose()
	}
	for _, instanceID := range a.instanceNames() {
		instance := a.instances[instanceID]
		endpoint := es.endpoint(a, instance)
		if endpoint == nil {
			continue
		}
		role := instance.GetReport().GetRole()
		if len(spec.GetRoles()) < 2 || role == main.GetName() {
			whole.endpoints = append(whole.endpoints, endpoint)
		}
		if one := services[specs.RoleName(name, role)]; one != nil && one != whole {
			one.endpoints = append(one.endpoints, proto.CloneOf(endpoint))
		}
	}
	return services
}

func (es *endpoints) endpoint(a *app, instance *storev1.Instance) *apiv1.Endpoint {
	report := instance.GetReport()
	c := a.container(report.GetContainerId())
	if c == nil || !a.serves(report) {
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
		endpoint.State = apiv1.Endpoint_UNHEALTHY // it may serve, but nobody sees whether it does
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

// publish publishes what has changed of an app, and asks for confirmations.
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

// withdraw withdraws an instance. Its master is sent the withdrawal once every balancer has confirmed it.
func (es *endpoints) withdraw(a *app, instance string) {
	a.endpoints.withdrawals[instance]++
	if !slices.Contains(a.endpoints.withdrawing, instance) {
		a.endpoints.withdrawing = append(a.endpoints.withdrawing, instance)
	}
	es.apps.touch(a)
}

// confirmation is what follows once every balancer of an app's services has confirmed a state of them. One of withdrawn, step and
// stopsAll is set.
type confirmation struct {
	app *app
	// withdrawn is an instance. Its master is sent the withdrawal, unless it was withdrawn again or put into service since: then its
	// count of withdrawals is not withdrawal any more.
	withdrawn  string
	withdrawal int
	// status is what a master says of its work, which counts then.
	status *heldStatus
	// stopsAll has every instance of an app stopped, since the app ends.
	stopsAll bool
}

// onConfirmed has something follow once every balancer has confirmed what is published at the end of this turn.
func (es *endpoints) onConfirmed(a *app, then confirmation) {
	a.endpoints.pending = append(a.endpoints.pending, then)
	es.apps.touch(a)
}

// awaitBalancers has something follow once every balancer of the app's services has confirmed what is published now.
func (es *endpoints) awaitBalancers(a *app, then confirmation) {
	then.app = a
	a.endpoints.unconfirmed++
	es.balancers.requestConfirmation(sortedKeys(a.endpoints.published), then)
}

// confirmed does what follows from the confirmation that was asked for under a number.
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
	case then.status != nil:
		es.versions.confirmed(a, *then.status)
	case a.instances[then.withdrawn] != nil && a.endpoints.withdrawals[then.withdrawn] == then.withdrawal:
		response := es.masters.response(a)
		response.Withdrawn = append(response.Withdrawn, then.withdrawn)
	}
}

// withdrawAll withdraws every instance of an app, and stops the containers once balancers have confirmed that.
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
