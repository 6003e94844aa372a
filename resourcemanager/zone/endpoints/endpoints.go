// Package endpoints says which endpoints of the apps are published, which balancers route for the zone, and what they have confirmed of
// it. It publishes nothing itself: what a turn publishes and asks for is its Out.
//
// Words:
//   - publish: let everybody who looks services up know their endpoints, balancers among them
//   - withdraw: have no balancer route to an instance any more, before it is stopped
//   - confirm: a balancer says that it routes by what was published; something follows once every balancer has
//   - held back: the endpoints stay as they are, because a master reports what its node has not reported yet
//   - refusal: a service that a balancer cannot route
package endpoints

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/id"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// Turn is the present turn of the zone. None of its methods fails.
type Turn interface {
	Now() time.Time
	// WakeBy has all deadlines looked at by an instant, though nothing may have happened until then.
	WakeBy(instant time.Time)
	// NewSecret is a secret that nobody else is given.
	NewSecret() []byte
	// Save has a record stored with the turn.
	Save(kind store.Kind, key string, record proto.Message)
	// Emit adds an event to the turn.
	Emit(event *apiv1.Event)
}

// App is an app whose endpoints are published. Nothing that it returns is changed here.
type App interface {
	Name() string
	Spec() *apiv1.AppSpec
	// Removed: the app is gone, and its services with it.
	Removed() bool
	// Instances are what the app's master reports, by their names.
	Instances() map[string]*storev1.Instance
	// Names are the names of the instances in the order in which people count.
	Names() []string
	// Container is the container with an id; ok is false if the app does not have it.
	Container(id string) (c Container, ok bool)
}

// Container is what its node reports of a container.
type Container struct {
	Node   id.Node
	Status *corev1.ContainerStatus
	// Stopping: the zone has its node stop it.
	Stopping bool
}

func (c Container) state() lifecycle.ContainerState {
	return lifecycle.ContainerState(c.Status.GetState())
}

// Nodes are the nodes that containers are on.
type Nodes interface {
	// Node is the node with a name; ok is false if there is none.
	Node(name id.Node) (n Node, ok bool)
}

// Node is what is known of a node.
type Node struct {
	State lifecycle.NodeState
	// Registered: the node has registered since the ResourceManager was started.
	Registered bool
	Address    string
}

// AddressOf is the address at which the rest of the zone reaches a container on a node with an address.
func AddressOf(status *corev1.ContainerStatus, node string) string {
	if ports := status.GetPorts(); len(ports) > 0 {
		if address := ports[0].GetHostAddress(); address != "" && address != "0.0.0.0" && address != "::" {
			return address
		}
	}
	return node
}

// New makes the endpoints of a zone without apps and balancers.
func New(turn Turn, nodes Nodes) (*Endpoints, *Balancers) {
	out := &Out{}
	balancers := &Balancers{
		turn: turn, out: out, record: &storev1.Balancers{},
		lost: map[string]time.Time{}, refused: map[string]map[string]string{}, confirming: map[int64]confirmation{},
	}
	return &Endpoints{turn: turn, out: out, nodes: nodes, balancers: balancers}, balancers
}

// Endpoints are what is published of apps.
type Endpoints struct {
	turn Turn
	// out is what the present turn publishes.
	out       *Out
	nodes     Nodes
	balancers *Balancers
}

// Begin begins a turn.
func (es *Endpoints) Begin() { *es.out = Out{} }

// Out is what the present turn publishes and asks for so far.
func (es *Endpoints) Out() Out { return *es.out }

// AreUnconfirmed reports whether a balancer has yet to confirm the newest endpoints of an app.
func (es *Endpoints) AreUnconfirmed(s *State) bool { return s.unconfirmed > 0 && es.balancers.Any() }

// Update publishes the services of an app that has changed. An instance is published if its master reports that it is in service, and its node
// has reported last that its container runs and is healthy or has no check. While endpoints are held back, one that is published stays. On
// a lost node it is published as unhealthy.
func (es *Endpoints) Update(s *State, a App) {
	es.holdBack(s, a)
	services := es.services(s, a)
	for name, now := range services {
		before := s.published[name]
		if before != nil && sameEndpoints(before.endpoints, now.endpoints) && proto.Equal(before.expose, now.expose) {
			continue
		}
		now.due = true
		s.published[name] = now
	}
	for name, before := range s.published {
		if services[name] == nil && before.endpoints != nil {
			s.published[name] = &publication{due: true}
		}
	}
	es.publish(s)
}

// nodeReportsWithin is how long the report of a node is waited for of something that a master has reported already.
const nodeReportsWithin = 5 * time.Second

// holdBack holds the endpoints of an app back if its master is ahead of a node. Both report that an instance has become healthy, each
// on a stream of its own, and the master's report can be the first. What the master does because of it, to take an older instance out of
// service or to report a step done, has to wait until the new instance is published.
func (es *Endpoints) holdBack(s *State, a App) {
	switch {
	case !es.missesReport(a):
		s.heldBack, s.heldBackSince = false, time.Time{}
		return
	case s.heldBackSince.IsZero():
		s.heldBackSince = es.turn.Now()
	}
	s.heldBack = es.turn.Now().Before(s.heldBackSince.Add(nodeReportsWithin))
	if s.heldBack {
		es.turn.WakeBy(s.heldBackSince.Add(nodeReportsWithin))
	}
}

// missesReport reports whether a node has yet to report of an instance what its master reports.
func (es *Endpoints) missesReport(a App) bool {
	for _, instance := range a.Instances() {
		report := instance.GetReport()
		if report.GetState() != apiv1.Instance_RUNNING || !report.GetInService() {
			continue
		}
		c, ok := a.Container(report.GetContainerId())
		if !ok || c.Stopping {
			continue
		}
		if n, _ := es.nodes.Node(c.Node); !n.Registered || n.State == lifecycle.NodeLost {
			continue
		}
		switch c.state() {
		case lifecycle.ContainerNew, lifecycle.ContainerLocalizing, lifecycle.ContainerLaunching:
			return true
		case lifecycle.ContainerRunning:
			if c.Status.GetHealth() == corev1.ContainerStatus_STARTING {
				return true
			}
		}
	}
	return false
}

// serves reports whether an instance is to be published by what its master reports. One that is published stays while endpoints are held
// back.
func (s *State) serves(report *masterv1.InstanceReport) bool {
	if report.GetInService() || !s.heldBack {
		return report.GetInService()
	}
	for _, routed := range s.published {
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
func (es *Endpoints) services(s *State, a App) map[string]*publication {
	services := map[string]*publication{}
	if a.Removed() {
		return services
	}
	name, spec := a.Name(), a.Spec()
	whole, main := &publication{endpoints: []*apiv1.Endpoint{}}, specs.MainRole(spec)
	services[name] = whole
	for _, role := range spec.GetRoles() {
		service := specs.ServiceName(spec, role)
		if services[service] == nil {
			services[service] = &publication{endpoints: []*apiv1.Endpoint{}}
		}
		services[service].expose = role.GetExpose()
	}
	instances := a.Instances()
	for _, instanceID := range a.Names() {
		instance := instances[instanceID]
		endpoint := es.endpoint(s, a, instance)
		if endpoint == nil {
			continue
		}
		role := instance.GetReport().GetRole()
		if main == nil || role == main.GetName() {
			whole.endpoints = append(whole.endpoints, endpoint)
		}
		if one := services[specs.RoleName(name, role)]; one != nil && one != whole {
			one.endpoints = append(one.endpoints, proto.CloneOf(endpoint))
		}
	}
	return services
}

func (es *Endpoints) endpoint(s *State, a App, instance *storev1.Instance) *apiv1.Endpoint {
	report := instance.GetReport()
	c, ok := a.Container(report.GetContainerId())
	if !ok || !s.serves(report) {
		return nil
	}
	status := c.Status
	serving := status.GetHealth() == corev1.ContainerStatus_HEALTHY || status.GetHealth() == corev1.ContainerStatus_NONE
	if c.state() != lifecycle.ContainerRunning || !serving {
		return nil
	}
	n, known := es.nodes.Node(c.Node)
	endpoint := &apiv1.Endpoint{
		Id:           report.GetId(),
		Address:      AddressOf(status, n.Address),
		Weight:       report.GetWeight(),
		State:        apiv1.Endpoint_HEALTHY,
		Ports:        map[string]int32{},
		ContainerId:  report.GetContainerId(),
		Node:         string(c.Node),
		Version:      report.GetVersion(),
		RegisteredAt: instance.GetRegisteredAt(),
	}
	if !known || n.State == lifecycle.NodeLost {
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
func (es *Endpoints) publish(s *State) {
	for _, name := range id.SortedKeys(s.published) {
		p := s.published[name]
		if !p.due {
			continue
		}
		p.due = false
		es.out.Services = append(es.out.Services, ServiceChange{name, p.expose, p.endpoints})
		delete(s.removed, name)
		if p.endpoints == nil {
			delete(s.published, name)
			s.removals++
			s.removed[name] = s.removals
		}
	}
	if s.heldBack {
		return
	}
	leaving, routed := s.withdrawing, s.pending
	s.withdrawing, s.pending = nil, nil
	for _, instance := range leaving {
		es.awaitBalancers(s, Then{Withdrawn: instance})
	}
	for _, then := range routed {
		es.awaitBalancers(s, then)
	}
}
