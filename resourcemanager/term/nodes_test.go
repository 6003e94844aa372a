package term

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// statesOf are the states of a node that a master was told, in their order.
func statesOf(node string, answers []*masterv1.AllocateResponse) (states []apiv1.NodeState) {
	for _, answer := range answers {
		for _, update := range answer.GetNodes() {
			if update.GetNodeId() == node {
				states = append(states, update.GetState())
			}
		}
	}
	return states
}

func TestALostNodesContainersStayHeldAndMayBeKept(t *testing.T) {
	inZone(t, func(z *testZone) {
		home, n := z.addNode("node-1"), (*fakeNode)(nil)
		z.deploy(webSpec(1))
		m := home.launchMaster()
		n = z.addNode("node-2")
		container := m.startInstance(n, "web-1")
		if z.app("web").GetInstances()[0].GetNode() != "node-2" {
			t.Fatal("the instance is not where the test wants it")
		}
		n.cut()
		z.pass(12 * time.Second)
		node := z.node("node-2")
		if node.GetState() != apiv1.NodeState_LOST || node.GetUsed().GetCpuMillis() != 500 {
			t.Errorf("a silent node is %v and holds %v", node.GetState(), node.GetUsed())
		}
		states := statesOf("node-2", m.heard())
		if !slices.Contains(states, apiv1.NodeState_LOST) {
			t.Errorf("the master heard of %v", states)
		}
		if got := z.app("web").GetInstances()[0].GetState(); got != apiv1.Instance_UNREACHABLE {
			t.Errorf("its instance is %v", got)
		}
		n.register()
		if len(n.reap) != 0 {
			t.Errorf("it has to give up %v", n.reap)
		}
		if app := z.app("web"); app.GetRunning() != 1 || app.GetInstances()[0].GetContainerId() != container {
			t.Errorf("after its return %d run", app.GetRunning())
		}
	})
}

// A NodeManager that was restarted within the node timeout never was anything but ready: masters are told where it is all the same.
func TestMastersAreToldTheNewAddressOfANode(t *testing.T) {
	inZone(t, func(z *testZone) {
		home := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := home.launchMaster()
		n := z.addNode("node-2")
		m.startInstance(n, "web-1")
		m.heard()
		n.cut()
		n.restarts++
		n.register()
		var told []string
		for _, answer := range m.heard() {
			for _, update := range answer.GetNodes() {
				told = append(told, update.GetNodeId()+" at "+update.GetContainerManager())
			}
		}
		if !slices.Contains(told, "node-2 at node-2:7072") {
			t.Errorf("the master was told %q", told)
		}
	})
}

// A master hears of the nodes on which it has containers. One that comes back to a node hears what has become of that meanwhile: else it would
// leave an open node that it knows as drained, and be given the same node again, for ever.
func TestAMasterThatComesBackToANodeIsToldItsState(t *testing.T) {
	inZone(t, func(z *testZone) {
		home := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := home.launchMaster()
		n := z.addNode("node-2")
		nodes := apiv1.NewNodesClient(z.conn)
		container := m.startInstance(n, "web-1")
		if z.nodeOf(container) != "node-2" {
			t.Fatal("the instance is not where the test wants it")
		}
		m.heard()
		if _, err := nodes.DrainNode(context.Background(), &apiv1.DrainNodeRequest{Name: "node-2"}); err != nil {
			t.Fatal(err)
		}
		answers := m.say(&masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: container}}, GoneInstances: []string{"web-1"}})
		if states := statesOf("node-2", answers); len(states) == 0 || states[len(states)-1] != apiv1.NodeState_DRAINING {
			t.Errorf("of the drain it is told %v", states)
		}
		z.pass(3 * time.Second)
		if _, err := nodes.UndrainNode(context.Background(), &apiv1.GetNodeRequest{Name: "node-2"}); err != nil {
			t.Fatal(err)
		}
		if states := statesOf("node-2", m.heard()); slices.Contains(states, apiv1.NodeState_READY) {
			t.Errorf("a master that has nothing there is told %v", states)
		}
		answers = m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask1("web-2")}})
		granted := allocated(answers)
		if len(granted) != 1 || granted[0].GetLease().GetNodeId() != "node-2" {
			t.Fatalf("%v is granted", granted)
		}
		if states := statesOf("node-2", answers); len(states) != 1 || states[0] != apiv1.NodeState_READY {
			t.Errorf("with a container on the node it is told %v", states)
		}
	})
}

// The node of the master itself is one on which the app has a container: a new stream says how it is, since its state may have changed while
// there was none.
func TestAStreamBeginsWithTheStateOfTheMastersNode(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		m.connect()
		states := statesOf("node-1", m.heard())
		if !slices.Equal(states, []apiv1.NodeState{apiv1.NodeState_READY}) {
			t.Errorf("the master is told %v", states)
		}
	})
}

// What a node knows to be healthy, and for long enough, runs, though its master has not been able to hear of it.
func TestWhatANodeKnowsToBeHealthyIsNotCalledStarting(t *testing.T) {
	inZone(t, func(z *testZone) {
		home := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := home.launchMaster()
		n := z.addNode("node-2")
		container := m.startInstance(n, "web-1")
		starting := &masterv1.InstanceReport{Id: "web-1", ContainerId: container, Version: 1, State: apiv1.Instance_STARTING, InService: true, Weight: 100}
		m.say(&masterv1.AllocateRequest{Instances: []*masterv1.InstanceReport{starting}})
		n.report(container, func(s *corev1.ContainerStatus) { s.HealthySince = timestamppb.Now() })
		z.pass(time.Minute)
		if got := z.app("web").GetInstances()[0].GetState(); got != apiv1.Instance_STARTING {
			t.Errorf("its master does not say how long it takes, and it is %v", got)
		}
		starting = proto.CloneOf(starting)
		starting.CountsAfter = durationpb.New(10 * time.Second)
		m.say(&masterv1.AllocateRequest{Instances: []*masterv1.InstanceReport{starting}})
		n.report(container, func(s *corev1.ContainerStatus) { s.HealthySince = timestamppb.Now() })
		if got := z.app("web").GetInstances()[0].GetState(); got != apiv1.Instance_STARTING {
			t.Errorf("at first it is %v", got)
		}
		z.pass(13 * time.Second)
		if app := z.app("web"); app.GetInstances()[0].GetState() != apiv1.Instance_RUNNING || app.GetRunning() != 1 {
			t.Errorf("after thirteen seconds it is %v", app.GetInstances()[0])
		}
	})
}

func TestWhatEndedWhileANodeWasAwayIsReaped(t *testing.T) {
	inZone(t, func(z *testZone) {
		home := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := home.launchMaster()
		n := z.addNode("node-2")
		container := m.startInstance(n, "web-1")
		n.deaf.Store(true)
		n.cut()
		m.say(&masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: container}}})
		if got := z.node("node-2").GetUsed().GetCpuMillis(); got != 500 {
			t.Errorf("a lease that was not seen gone is free: %d", got)
		}
		n.register()
		if !n.stopped(container) {
			t.Error("the node was not told to stop it when it came back")
		}
		n.done(container, &corev1.Exit{Reason: corev1.Exit_STOPPED})
		if got := z.node("node-2").GetUsed().GetCpuMillis(); got != 0 {
			t.Errorf("after it was seen gone %d is held", got)
		}
		// A container that nobody knows has no lease.
		n.cut()
		nobodys := fmt.Sprintf("container_e1_%d_0001_000099", z.rm.store.Identity().ClusterStart.UnixMilli())
		n.containers[nobodys] = &corev1.ContainerStatus{
			Lease: &corev1.Lease{ContainerId: nobodys}, State: corev1.ContainerStatus_RUNNING,
		}
		n.register()
		if !slices.Equal(n.reap, []string{nobodys}) {
			t.Errorf("to be reaped: %v", n.reap)
		}
	})
}

func TestAContainerThatANodeNoLongerHasHasVanished(t *testing.T) {
	inZone(t, func(z *testZone) {
		home := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := home.launchMaster()
		n := z.addNode("node-2")
		container := m.startInstance(n, "web-1")
		n.cut()
		delete(n.containers, container)
		n.register()
		var exits []corev1.Exit_Reason
		for _, answer := range m.heard() {
			for _, status := range answer.GetCompleted() {
				exits = append(exits, status.GetExit().GetReason())
			}
		}
		if !slices.Equal(exits, []corev1.Exit_Reason{corev1.Exit_VANISHED}) {
			t.Errorf("the master heard of %v", exits)
		}
	})
}

func TestAGrantThatWasNotStartedYetOutlivesARegistration(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		granted := allocated(m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask1("web-1")}}))
		n.cut()
		n.register()
		if got := z.node("node-1").GetUsed().GetCpuMillis(); got != 600 {
			t.Errorf("%d is held, want the master's 100 and the grant's 500", got)
		}
		z.pass(10*time.Minute + time.Minute + 2*time.Second)
		if got := z.node("node-1").GetUsed().GetCpuMillis(); got != 100 {
			t.Errorf("%d is held long after %s could be started", got, granted[0].GetLease().GetContainerId())
		}
	})
}

func TestADrainedNodeLosesItsMasterLast(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		container := m.startInstance(n, "web-1")
		master := masterContainer(z, "web")
		other := z.addNode("node-2")
		nodes := apiv1.NewNodesClient(z.conn)
		if _, err := nodes.DrainNode(context.Background(), &apiv1.DrainNodeRequest{Name: "node-1", Reason: "new disk"}); err != nil {
			t.Fatal(err)
		}
		z.pass(3 * time.Second)
		if n.stopped(master) {
			t.Error("the master was moved before the instances")
		}
		moved := m.startInstance(other, "web-2")
		if got := z.nodeOf(moved); got != "node-2" {
			t.Errorf("a new container came to %s", got)
		}
		m.say(&masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: container}}, GoneInstances: []string{"web-1"}})
		z.pass(3 * time.Second)
		if !n.stopped(master) {
			t.Fatal("the master stayed on the drained node")
		}
		other.launchMaster()
		z.pass(2 * time.Second)
		if got := z.node("node-1"); got.GetState() != apiv1.NodeState_DRAINED || got.GetReason() != "new disk" {
			t.Errorf("the empty node is %v, %q", got.GetState(), got.GetReason())
		}
		if got, err := nodes.DrainNode(context.Background(), &apiv1.DrainNodeRequest{Name: "node-1", Reason: "newer disk"}); err != nil || got.GetReason() != "newer disk" {
			t.Errorf("drained for another reason it is %v, %v", got, err)
		}
		if got := z.app("web"); got.GetState() != apiv1.App_RUNNING || got.GetMaster().GetNode() != "node-2" {
			t.Errorf("the app is %v, its master on %s", got.GetState(), got.GetMaster().GetNode())
		}
		n.cut()
		n.register()
		if got := z.node("node-1"); got.GetState() != apiv1.NodeState_DRAINING && got.GetState() != apiv1.NodeState_DRAINED || got.GetReason() != "newer disk" {
			t.Errorf("after it registered again it is %v, %q", got.GetState(), got.GetReason())
		}
		if _, err := nodes.UndrainNode(context.Background(), &apiv1.GetNodeRequest{Name: "node-1"}); err != nil {
			t.Fatal(err)
		}
		if got := z.node("node-1"); got.GetState() != apiv1.NodeState_READY || got.GetReason() != "" {
			t.Errorf("undrained it is %v, %q", got.GetState(), got.GetReason())
		}
	})
}

func (z *testZone) nodeOf(container string) string {
	z.t.Helper()
	for _, name := range []string{"node-1", "node-2"} {
		for _, c := range z.node(name).GetContainers() {
			if c.GetId() == container {
				return name
			}
		}
	}
	return ""
}

func TestAnOldSessionIsRefused(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		old := n.stream
		n.register()
		z.pass(2 * time.Second)
		if _, err := old.Recv(); status.Code(err) != codes.Aborted {
			t.Errorf("the earlier session ended with %v", err)
		}
		if got := z.node("node-1").GetState(); got != apiv1.NodeState_READY {
			t.Errorf("the node is %v", got)
		}
	})
}

func TestAnUnhealthyNodeSaysWhyAndKeepsWhatItHas(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(2))
		m := n.launchMaster()
		m.startInstance(n, "web-1")
		n.reportHealth(&corev1.NodeHealth{Reason: "Docker does not answer"})
		if node := z.node("node-1"); node.GetState() != apiv1.NodeState_UNHEALTHY || node.GetReason() != "Docker does not answer" {
			t.Errorf("the node is %v: %s", node.GetState(), node.GetReason())
		}
		if got := allocated(m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask1("web-2")}})); len(got) != 0 {
			t.Error("a container was placed on an unhealthy node")
		}
		explanation, err := z.apps().ExplainApp(context.Background(), &apiv1.GetAppRequest{Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		if text := explanation.String(); !strings.Contains(text, "Docker does not answer") {
			t.Errorf("the explanation does not say why: %s", text)
		}
		if z.app("web").GetRunning() != 1 {
			t.Error("the instance that it has does not count any more")
		}
		n.reportHealth(&corev1.NodeHealth{Healthy: true})
		if got := allocated(m.heard()); len(got) != 1 {
			t.Errorf("after its recovery %d containers were granted", len(got))
		}
	})
}
