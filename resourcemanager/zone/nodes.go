package zone

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/resource"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// forgetNodeAfter is how long a lost node that holds nothing is remembered.
const forgetNodeAfter = time.Hour

// registerNode takes a node's whole truth. It replaces the node's earlier session.
func (z *Core) registerNode(request *trackerv1.RegisterRequest) (*trackerv1.RegisterResponse, error) {
	name := id.Node(request.GetNodeId())
	if _, err := z.units.vector(request.GetCapacity()); err != nil {
		return nil, fmt.Errorf("register node %q: %w", name, err)
	}
	if err := z.config.reachable(request); err != nil {
		return nil, err
	}
	n := z.nodes[name]
	if n == nil {
		n = &node{id: name, record: &storev1.Node{Id: string(name)}, containers: map[id.Container]*container{}}
		z.nodes[name] = n
	}
	if err := z.mayRegister(n, request); err != nil {
		return nil, err
	}
	z.endSession(n, fmt.Errorf("node %q has registered anew: %w", name, errdefs.ErrAborted))
	n.session = z.secrets.text()
	z.registered[n.session] = n
	n.heard = z.now

	r := n.record
	moved := r.GetContainerManager() != "" && (r.GetContainerManager() != request.GetContainerManager() || r.GetAddress() != request.GetAddress())
	r.Address, r.ContainerManager = request.GetAddress(), request.GetContainerManager()
	r.Version = request.GetVersion()
	r.Capacity, r.Attributes, r.Health = request.GetCapacity(), request.GetAttributes(), request.GetHealth()
	r.RegisteredAt, r.FolderId, n.process = timestamppb.New(z.now), request.GetFolderId(), request.GetProcessId()
	n.twin = ""

	n.takePlaces(request.GetFrameworks())
	n.unknown = nil
	reap := z.takeTruth(n, request.GetContainers())
	z.moveNode(n, lifecycle.NodeRegisters, "the node registered")
	z.judgeHealth(n)
	if r.GetDrain() {
		z.moveNode(n, lifecycle.NodeDrain, r.GetDrainReason())
	}
	if moved {
		z.tellMasters(n)
	}
	z.nodeChanged(n)
	return &trackerv1.RegisterResponse{
		Zone:           z.config.Name,
		Epoch:          z.config.identity.Epoch,
		Session:        n.session,
		ReportInterval: durationpb.New(z.config.ReportInterval),
		Reap:           reap,
		Keys:           z.record.GetKeys(),
	}, nil
}

// takeTruth compares what a node has with its leases, both ways, and gives what has no lease.
func (z *Core) takeTruth(n *node, statuses []*corev1.ContainerStatus) (reap []string) {
	seen := map[id.Container]bool{}
	for _, status := range statuses {
		cid, err := id.ParseContainer(status.GetLease().GetContainerId())
		c := z.containers[cid]
		if err != nil || c == nil || c.node != n.id || (!c.held() && status.GetState() != corev1.ContainerStatus_DONE) {
			if !z.hasEnded(n, status) {
				continue
			}
			reap = append(reap, status.GetLease().GetContainerId())
			continue
		}
		seen[cid] = true
		z.observe(c, status)
		if !c.held() {
			reap = append(reap, cid.String()) // its end is stored when the node reads this
		}
	}
	for _, c := range sortedContainers(n.containers) {
		if !seen[c.id] {
			z.missing(c)
		}
	}
	return reap
}

// openSession begins the stream of commands to a node, with everything that it may not have been told.
func (z *Core) openSession(session string, stream StreamID) error {
	n := z.registered[session]
	if n == nil {
		return errRegisterAgain
	}
	z.hangUp(n, fmt.Errorf("node %q has opened another stream: %w", n.id, errdefs.ErrAborted))
	n.stream = stream
	n.heard = z.now
	for _, c := range sortedContainers(n.containers) {
		switch {
		case c.record.GetStopping():
			z.command(n, c.stopCommand())
		case c.record.GetLease().GetMaster() && c.state() == lifecycle.ContainerNew:
			z.launch(c)
		}
	}
	z.checkPlaces(n)
	return nil
}

var errRegisterAgain = fmt.Errorf("this session is over; the node has to register again: %w", errdefs.ErrAborted)

// report takes what has changed on a node.
func (z *Core) report(session string, report *trackerv1.NodeReport) error {
	n := z.registered[session]
	if n == nil {
		return errRegisterAgain
	}
	changed := false
	if attributes := report.GetAttributes(); attributes != nil {
		n.record.Attributes, changed = attributes, true
	}
	if health := report.GetHealth(); health != nil {
		n.record.Health, changed = health, true
		z.judgeHealth(n)
	}
	if changed {
		z.nodeChanged(n)
	}
	var forget []string
	for _, status := range report.GetContainers() {
		cid, err := id.ParseContainer(status.GetLease().GetContainerId())
		c := z.containers[cid]
		done := status.GetState() == corev1.ContainerStatus_DONE
		switch {
		case err == nil && c != nil && c.node == n.id && (c.held() || done):
			if status.GetSequence() >= c.record.GetStatus().GetSequence() {
				z.observe(c, status)
			}
		case !done && z.hasEnded(n, status):
			z.command(n, stopCommand(status.GetLease().GetContainerId(), corev1.Exit_LEASE_ENDED, "the ResourceManager holds no lease for it"))
		}
		if done {
			z.dropUnknown(n, status.GetLease().GetContainerId())
			forget = append(forget, status.GetLease().GetContainerId())
		}
	}
	if len(forget) > 0 {
		z.command(n, &trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Forget_{
			Forget: &trackerv1.NodeCommand_Forget{ContainerIds: forget},
		}})
	}
	return nil
}

func (z *Core) judgeHealth(n *node) {
	if n.record.GetHealth() == nil || n.record.GetHealth().GetHealthy() {
		z.moveNode(n, lifecycle.NodeRecovers, "the node is healthy again")
		return
	}
	z.moveNode(n, lifecycle.NodeFails, n.record.GetHealth().GetReason())
}

// moveNode applies an event to a node and tells of it.
func (z *Core) moveNode(n *node, event lifecycle.NodeEvent, reason string) {
	from := n.state()
	to, ok := z.tables.nodes.Next(from, event)
	if !ok {
		return
	}
	if to == from {
		if to == lifecycle.NodeUnhealthy && n.record.GetReason() != reason {
			n.record.Reason = reason
			z.nodeChanged(n)
		}
		return
	}
	n.record.State = apiv1.NodeState(to)
	n.record.Reason = ""
	if to != lifecycle.NodeReady && to != lifecycle.NodeDrained {
		n.record.Reason = reason
	}
	z.tell(&apiv1.Event{Kind: "node", Node: string(n.id), From: stateName(from), To: to.String(), Message: nodeSentence(n.id, to, reason)})
	z.nodeChanged(n)
	z.tellMasters(n)
}

// tellMasters has every app with containers on the node told of it, and where it is reached: a NodeManager that was restarted
// may listen elsewhere, and nobody else could say where.
func (z *Core) tellMasters(n *node) {
	update := z.nodeUpdate(n)
	for _, a := range z.appsOn(n) {
		z.say(a).Nodes = append(z.say(a).Nodes, update)
		z.apps.touch(a) // its endpoints and its instances depend on the node
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

// nodeChanged stores a node and shows it to the scheduler.
func (z *Core) nodeChanged(n *node) {
	z.save(kindNode, string(n.id), n.record)
	z.showNode(n)
}

func (z *Core) showNode(n *node) {
	if !n.state().Answers() {
		z.hideNode(n)
		return
	}
	capacity, err := z.units.vector(n.record.GetCapacity())
	if err != nil {
		z.fault("node capacity is unreadable", "node", n.id, "error", err)
		return
	}
	z.scheduler.apply(scheduler.SetNode{Node: scheduler.NodeSpec{
		Name:       n.id,
		Capacity:   capacity.Sub(z.heldByUnknown(n)).Max(resource.Vector{}),
		Attributes: attributeValues(n.record.GetAttributes()),
		Closed:     n.closed(),
	}})
	n.shown = true
}

// hideNode takes a node away from the scheduler, which may never have known it: it was lost before this ResourceManager.
func (z *Core) hideNode(n *node) {
	if n.shown {
		z.scheduler.apply(scheduler.RemoveNode{Node: n.id})
		n.shown = false
	}
}

// closed says why nothing new is placed on the node.
func (n *node) closed() string {
	switch n.state() {
	case lifecycle.NodeUnhealthy:
		return because(fmt.Sprintf("%s is unhealthy", n.id), n.record.GetReason())
	case lifecycle.NodeDraining, lifecycle.NodeDrained:
		return fmt.Sprintf("%s is being drained", n.id)
	}
	if n.session == "" {
		return fmt.Sprintf("%s has not registered since the ResourceManager was started", n.id)
	}
	return ""
}

func (n *node) state() lifecycle.NodeState { return lifecycle.NodeState(n.record.GetState()) }

func (z *Core) nodeUpdate(n *node) *masterv1.NodeUpdate {
	return &masterv1.NodeUpdate{
		NodeId:           string(n.id),
		State:            n.record.GetState(),
		Reason:           n.record.GetReason(),
		ContainerManager: n.record.GetContainerManager(),
	}
}

// appsOn gives the apps that hold containers on a node, in the order of their submission.
func (z *Core) appsOn(n *node) []*app {
	var apps []*app
	for _, c := range sortedContainers(n.containers) {
		if len(apps) == 0 || apps[len(apps)-1] != c.app {
			apps = append(apps, c.app)
		}
	}
	return apps
}

func (z *Core) endSession(n *node, why error) {
	z.hangUp(n, why)
	delete(z.registered, n.session)
	n.session = ""
}

// hangUp ends a node's stream if it has one.
func (z *Core) hangUp(n *node, why error) {
	if n.stream == 0 {
		return
	}
	z.out.Ends = append(z.out.Ends, StreamEnd{n.stream, why})
	n.stream, n.outbox = 0, nil
}

// nodeLeft is about a stream that is over, with the last beat on it; it may be an earlier one.
func (z *Core) nodeLeft(stream StreamID, last Beat) {
	z.hear(last)
	if n := z.registered[last.Session]; n != nil && n.stream == stream {
		z.hangUp(n, errLeft)
	}
}

// streamOf is the stream that a node has open, if any.
func (z *Core) streamOf(name string) StreamID {
	if n := z.nodes[id.Node(name)]; n != nil {
		return n.stream
	}
	return 0
}

// hear notes when a node was last heard of.
func (z *Core) hear(last Beat) {
	if n := z.registered[last.Session]; n != nil && last.At.After(n.heard) {
		n.heard = last.At
	}
}

// command is told to the node once the turn is stored. A node that is not connected is told when it comes back,
// from what is stored.
func (z *Core) command(n *node, command *trackerv1.NodeCommand) {
	if n == nil || n.stream == 0 {
		return
	}
	n.outbox = append(n.outbox, command)
	z.speaking[n.id] = n
}

func (n *node) flush(out *Ready) {
	if n.stream != 0 && len(n.outbox) > 0 {
		out.Commands = append(out.Commands, CommandSend{n.stream, n.outbox})
	}
	n.outbox = nil
}

// dueNodes declares silent nodes lost, forgets those that are long gone, and empties those that are drained.
func (z *Core) dueNodes() {
	var due []*node
	for _, n := range z.nodes {
		deadline := n.heard.Add(z.config.NodeTimeout)
		if n.state() == lifecycle.NodeLost || n.state() == lifecycle.NodeDraining || z.now.After(deadline) {
			due = append(due, n)
			continue
		}
		z.at(deadline.Add(time.Millisecond))
	}
	slices.SortFunc(due, func(a, b *node) int { return id.CompareNames(string(a.id), string(b.id)) })
	for _, n := range due {
		silent := z.now.Sub(n.heard)
		switch {
		case n.state() == lifecycle.NodeLost:
			if len(n.containers) == 0 && silent > forgetNodeAfter {
				z.forgetNode(n)
				z.tell(&apiv1.Event{Kind: "node", Node: string(n.id), From: "LOST", Message: fmt.Sprintf("%s is forgotten: it was lost for an hour and holds nothing", n.id)})
			}
		case silent > z.config.NodeTimeout:
			z.endSession(n, errRegisterAgain)
			z.moveNode(n, lifecycle.NodeExpires, fmt.Sprintf("it was silent for %s", z.config.NodeTimeout))
		case n.state() == lifecycle.NodeDraining:
			z.drainStep(n)
		}
	}
}

// drainStep moves masters off a draining node once nothing else is left there, and sees that it is empty.
func (z *Core) drainStep(n *node) {
	if len(n.containers) == 0 {
		z.moveNode(n, lifecycle.NodeEmpty, "")
		return
	}
	for _, c := range n.containers {
		if !c.record.GetLease().GetMaster() {
			return
		}
	}
	for _, c := range sortedContainers(n.containers) {
		z.stopContainer(c, corev1.Exit_STOPPED, fmt.Sprintf("%s is being drained", n.id))
	}
}

func (z *Core) drain(who peer.User, name, reason string) (*apiv1.Node, error) {
	if err := z.access.MayOperate(who, "drain nodes"); err != nil {
		return nil, err
	}
	n, err := z.node(name)
	if err != nil {
		return nil, err
	}
	n.record.Drain, n.record.DrainReason = true, reason
	z.save(kindNode, name, n.record)
	z.moveNode(n, lifecycle.NodeDrain, reason)
	return z.viewNode(n), nil
}

func (z *Core) undrain(who peer.User, name string) (*apiv1.Node, error) {
	if err := z.access.MayOperate(who, "drain nodes"); err != nil {
		return nil, err
	}
	n, err := z.node(name)
	if err != nil {
		return nil, err
	}
	n.record.Drain, n.record.DrainReason = false, ""
	z.save(kindNode, name, n.record)
	z.moveNode(n, lifecycle.NodeUndrain, "")
	z.judgeHealth(n)
	return z.viewNode(n), nil
}

func (z *Core) node(name string) (*node, error) {
	if n := z.nodes[id.Node(name)]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("no node is named %q; \"mammoth node ls\" lists those that there are: %w", name, errdefs.ErrNotFound)
}

func (z *Core) viewNode(n *node) *apiv1.Node {
	r := n.record
	view := &apiv1.Node{
		Name:         string(n.id),
		State:        r.GetState(),
		Reason:       r.GetReason(),
		Address:      r.GetAddress(),
		Capacity:     r.GetCapacity(),
		Used:         z.units.resources(z.scheduler.Used(n.id)),
		Attributes:   r.GetAttributes(),
		LastReportAt: timestamppb.New(n.heard),
		RegisteredAt: r.GetRegisteredAt(),
		Version:      r.GetVersion(),
	}
	for _, c := range sortedContainers(n.containers) {
		view.Containers = append(view.Containers, &apiv1.NodeContainer{
			Id:        c.id.String(),
			App:       c.app.record.GetName(),
			Instance:  c.instance(),
			State:     c.state().String(),
			Resources: c.record.GetLease().GetResources(),
		})
	}
	view.Unknown = z.viewUnknown(n)
	return proto.CloneOf(view)
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

func because(sentence, reason string) string {
	if reason == "" {
		return sentence
	}
	return sentence + ": " + reason
}

// stateName is empty for the state before the first.
func stateName[S interface {
	~uint8
	String() string
}](state S) string {
	if state == 0 {
		return ""
	}
	return state.String()
}
