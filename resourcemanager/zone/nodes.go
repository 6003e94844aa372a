package zone

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/fsm"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/endpoints"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/keys"
)

// node is one NodeManager and what it offers.
type node struct {
	id     id.Node
	record *storev1.Node
	// containers are the containers that are held on the node.
	containers map[id.Container]*container
	session    nodeSession
	view       nodeView
	// inScheduler says that the node was added to the scheduler.
	inScheduler bool
	// unknown are the containers that the node runs and that the zone has no record of, by their ids.
	unknown map[string]*corev1.ContainerStatus
	// companions are the roles of companion apps, APP or ROLE.APP, that may have something running on the node.
	companions map[string]struct{}
}

// nodes are the nodes of the zone: which there are, which state each is in, what they report, and what operators want of them.
type nodes struct {
	*turn
	config     *config
	access     *access.Rules
	scheduler  *scheduling
	units      *units
	table      fsm.Table[lifecycle.NodeState, lifecycle.NodeEvent]
	apps       *apps
	sessions   *sessions
	companions *companions
	damage     *damage
	leases     *leases
	keys       *keys.Keys
	attempts   *attempts
	masters    *masters
	byID       map[id.Node]*node
}

// register takes in all that a node has, and gives it a new session.
func (ns *nodes) register(request *trackerv1.RegisterRequest) (*trackerv1.RegisterResponse, error) {
	name := id.Node(request.GetNodeId())
	if _, err := ns.units.Vector(request.GetCapacity()); err != nil {
		return nil, fmt.Errorf("register node %q: %w", name, err)
	}
	if err := ns.config.reachable(request); err != nil {
		return nil, err
	}
	n := ns.byID[name]
	if n == nil {
		n = &node{id: name, record: &storev1.Node{Id: string(name)}, containers: map[id.Container]*container{}}
		ns.byID[name] = n
	}
	if err := overtaken(n, request); err != nil {
		return nil, err
	}
	if err := ns.sessions.mayRegister(n, request); err != nil {
		return nil, err
	}
	session := ns.sessions.start(n, request.GetProcessId())

	r := n.record
	moved := r.GetContainerManager() != "" && (r.GetContainerManager() != request.GetContainerManager() || r.GetAddress() != request.GetAddress())
	r.Address, r.ContainerManager = request.GetAddress(), request.GetContainerManager()
	r.Version = request.GetVersion()
	r.Capacity, r.Attributes, r.Health = request.GetCapacity(), request.GetAttributes(), request.GetHealth()
	r.RegisteredAt, r.FolderId = timestamppb.New(ns.now), request.GetFolderId()
	r.Processes = withProcess(r.GetProcesses(), request)

	ns.companions.set(n, request.GetStateDirs())
	ns.damage.forgetUnknown(n)
	reap := ns.reconcile(n, request.GetContainers())
	ns.move(n, lifecycle.NodeRegisters, "the node registered")
	ns.judgeHealth(n)
	if r.GetDrain() {
		ns.move(n, lifecycle.NodeDrain, r.GetDrainReason())
	}
	if moved {
		ns.notifyMasters(n)
	}
	ns.changed(n)
	return &trackerv1.RegisterResponse{
		Zone:           ns.config.Name,
		Epoch:          ns.config.identity.Epoch,
		Session:        session,
		ReportInterval: durationpb.New(ns.config.ReportInterval),
		Reap:           reap,
		Keys:           ns.keys.Messages(),
	}, nil
}

// sendKeys sends every node the keys after one has been made.
func (ns *nodes) sendKeys() {
	for _, n := range ns.sorted() {
		ns.sessions.send(n, &trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Keys_{
			Keys: &trackerv1.NodeCommand_Keys{Keys: ns.keys.Messages()},
		}})
	}
}

// move applies an event to the state of a node.
func (ns *nodes) move(n *node, event lifecycle.NodeEvent, reason string) {
	from := n.state()
	to, ok := ns.table.Next(from, event)
	if !ok {
		return
	}
	why := reason
	switch to {
	case lifecycle.NodeReady:
		why = ""
	case lifecycle.NodeDraining, lifecycle.NodeDrained:
		why = n.record.GetDrainReason() // whatever happens to the node meanwhile
	}
	if to == from {
		if to != lifecycle.NodeLost && n.record.GetReason() != why {
			n.record.Reason = why
			ns.changed(n)
		}
		return
	}
	n.record.State, n.record.Reason = apiv1.NodeState(to), why
	ns.Emit(&apiv1.Event{Kind: "node", Node: string(n.id), From: stateName(from), To: to.String(), Message: nodeSentence(n.id, to, reason)})
	ns.changed(n)
	ns.notifyMasters(n)
}

// hosts reports whether an app has containers on the node. Only then is its master sent the state of the node whenever that changes.
func (n *node) hosts(a *app) bool {
	for _, c := range n.containers {
		if c.app == a {
			return true
		}
	}
	return false
}

// notifyMasters has the masters of apps with containers on a node sent its state and its address: a NodeManager that was restarted may
// listen elsewhere. A master that has none there is sent them with its next container there.
func (ns *nodes) notifyMasters(n *node) {
	update := ns.update(n)
	for _, a := range ns.appsOn(n) {
		response := ns.masters.response(a)
		response.Nodes = append(response.Nodes, update)
		ns.apps.touch(a) // its endpoints and its instances depend on the node
	}
}

func nodeSentence(name id.Node, state lifecycle.NodeState, reason string) string {
	switch state {
	case lifecycle.NodeReady:
		return fmt.Sprintf("%s is ready", name)
	case lifecycle.NodeDrained:
		return fmt.Sprintf("%s is drained: no container is left on it", name)
	case lifecycle.NodeLost:
		return fmt.Sprintf("%s is lost: %s; its containers stay held until it is back, or \"mammoth node rm %s\" says that it is gone for good", name, reason, name)
	}
	return because(fmt.Sprintf("%s is %s", name, strings.ToLower(state.String())), reason)
}

// changed stores a node and updates the scheduler.
func (ns *nodes) changed(n *node) {
	ns.Save(kindNode, string(n.id), n.record)
	ns.updateScheduler(n)
}

func (ns *nodes) updateScheduler(n *node) {
	if !n.state().Answers() {
		ns.removeFromScheduler(n)
		return
	}
	capacity, err := ns.units.Vector(n.record.GetCapacity())
	if err != nil {
		ns.Fault("node capacity is unreadable", "node", n.id, "error", err)
		return
	}
	ns.scheduler.apply(scheduler.SetNode{Node: scheduler.NodeSpec{
		Name:       n.id,
		Capacity:   capacity.Sub(ns.damage.usedByUnknown(n)).Max(resource.Vector{}),
		Attributes: attributeValues(n.record.GetAttributes()),
		Closed:     n.closed(),
	}})
	n.inScheduler = true
}

// removeFromScheduler takes a node away from the scheduler, if it was added: a node that was lost before the start was not.
func (ns *nodes) removeFromScheduler(n *node) {
	if n.inScheduler {
		ns.scheduler.apply(scheduler.RemoveNode{Node: n.id})
		n.inScheduler = false
	}
}

// closed is why nothing new is placed on a node; empty if the node is open.
func (n *node) closed() string {
	switch n.state() {
	case lifecycle.NodeUnhealthy:
		return because(fmt.Sprintf("%s is unhealthy", n.id), n.record.GetReason())
	case lifecycle.NodeDraining, lifecycle.NodeDrained:
		return fmt.Sprintf("%s is being drained", n.id)
	}
	if !n.registered() {
		return fmt.Sprintf("%s has not registered since the ResourceManager was started", n.id)
	}
	return ""
}

func (n *node) state() lifecycle.NodeState { return lifecycle.NodeState(n.record.GetState()) }

func (ns *nodes) update(n *node) *masterv1.NodeUpdate {
	return &masterv1.NodeUpdate{
		NodeId:           string(n.id),
		State:            n.record.GetState(),
		Reason:           n.record.GetReason(),
		ContainerManager: n.record.GetContainerManager(),
	}
}

// appsOn are the apps that have containers on a node, in the order of their submission.
func (ns *nodes) appsOn(n *node) []*app {
	var apps []*app
	for _, c := range sortedContainers(n.containers) {
		if len(apps) == 0 || apps[len(apps)-1] != c.app {
			apps = append(apps, c.app)
		}
	}
	return apps
}

// get is the node with a name; nil if there is none.
func (ns *nodes) get(name id.Node) *node { return ns.byID[name] }

// all are the nodes in no order, for sums.
func (ns *nodes) all() iter.Seq[*node] { return maps.Values(ns.byID) }

func (ns *nodes) count() int { return len(ns.byID) }

func (ns *nodes) sorted() []*node {
	return slices.SortedFunc(maps.Values(ns.byID), byName)
}

func byName(a, b *node) int { return id.CompareNames(string(a.id), string(b.id)) }

func (ns *nodes) named(name string) (*node, error) {
	if n := ns.byID[id.Node(name)]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("no node is named %q; \"mammoth node ls\" lists those that there are: %w", name, errdefs.ErrNotFound)
}

func (ns *nodes) anyRegistered() bool {
	for _, n := range ns.byID {
		if n.state().Answers() && n.registered() {
			return true
		}
	}
	return false
}

func (ns *nodes) load(stored Records) error {
	return loadRecords(stored, kindNode, func(record *storev1.Node) error {
		n := &node{id: id.Node(record.GetId()), record: record, containers: map[id.Container]*container{}, session: nodeSession{heard: ns.now}}
		ns.byID[n.id] = n
		ns.updateScheduler(n)
		return nil
	})
}

func attributeValues(attributes map[string]*corev1.Attribute) map[string]scheduler.Value {
	values := make(map[string]scheduler.Value, len(attributes))
	for name, attribute := range attributes {
		switch value := attribute.GetValue().(type) {
		case *corev1.Attribute_Text:
			values[name] = scheduler.Value{Kind: scheduler.TextValue, Text: value.Text}
		case *corev1.Attribute_Number:
			values[name] = scheduler.Value{Kind: scheduler.NumberValue, Number: value.Number}
		case *corev1.Attribute_Flag:
			values[name] = scheduler.Value{Kind: scheduler.FlagValue, Flag: value.Flag}
		}
	}
	return values
}

// addressFor is the address at which the rest of the zone reaches a container on the node.
func (n *node) addressFor(status *corev1.ContainerStatus) string {
	address := ""
	if n != nil {
		address = n.record.GetAddress()
	}
	return endpoints.AddressOf(status, address)
}

// countOf counts the containers of an app on a node.
func (ns *nodes) countOf(n *node, a *app) (count int) {
	for _, c := range n.containers {
		if c.app == a {
			count++
		}
	}
	return count
}
