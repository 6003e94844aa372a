package term

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

func (z *testZone) removeNode(name string) (*apiv1.Node, error) {
	return apiv1.NewNodesClient(z.conn).RemoveNode(context.Background(), &apiv1.GetNodeRequest{Name: name})
}

func TestARemovedNodesContainersCountAsGoneAndAreEndedShouldItComeBack(t *testing.T) {
	inZone(t, func(z *testZone) {
		home := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := home.launchMaster()
		n := z.addNode("node-2")
		container := m.startInstance(n, "web-1")
		n.cut()
		z.pass(12 * time.Second)
		m.heard()
		removed, err := z.removeNode("node-2")
		if err != nil {
			t.Fatal(err)
		}
		if removed.GetState() != apiv1.NodeState_LOST || len(removed.GetContainers()) != 1 {
			t.Errorf("what was removed is %v", removed)
		}
		var exits []corev1.Exit_Reason
		for _, answer := range m.heard() {
			for _, status := range answer.GetCompleted() {
				exits = append(exits, status.GetExit().GetReason())
			}
		}
		if !slices.Equal(exits, []corev1.Exit_Reason{corev1.Exit_NODE_LOST}) {
			t.Errorf("the master heard of %v", exits)
		}
		if _, err := z.removeNode("node-2"); status.Code(err) != codes.NotFound {
			t.Errorf("a node that is removed is removed again: %v", err)
		}
		told := z.events("")
		if !slices.ContainsFunc(told, func(e *apiv1.Event) bool {
			return e.GetNode() == "node-2" && strings.Contains(e.GetMessage(), "node-2 is removed: a person says that it is gone for good")
		}) {
			t.Error("no event tells of it")
		}
		// It runs on, and comes back, even to a ResourceManager that was restarted since.
		z.restart()
		n.register()
		if !slices.Equal(n.reap, []string{container}) {
			t.Errorf("it is told to end %v", n.reap)
		}
		if node := z.node("node-2"); node.GetState() != apiv1.NodeState_READY || node.GetUsed().GetCpuMillis() != 0 {
			t.Errorf("after its return it is %v and holds %v", node.GetState(), node.GetUsed())
		}
	})
}

func TestAnAppThatWaitsForALostNodeEndsWithItsRemoval(t *testing.T) {
	inZone(t, func(z *testZone) {
		home := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := home.launchMaster()
		n := z.addNode("node-2")
		container := m.startInstance(n, "web-1")
		n.cut()
		z.pass(12 * time.Second)
		if _, err := z.apps().RemoveApp(context.Background(), &apiv1.RemoveAppRequest{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		// The master gives up what is on the lost node, and still reports an instance whose container is gone.
		m.say(&masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: container}}, GoneInstances: []string{"web-1"}, Instances: []*masterv1.InstanceReport{{
			Id: "web-2", ContainerId: "container_e1_1_0001_000077", State: apiv1.Instance_STOPPING, Version: 1,
		}}})
		app := z.app("web")
		if want := `it waits for node-2, which is lost and holds 1 of its containers; if it is gone for good, "mammoth node rm node-2" says so`; app.GetReason() != want {
			t.Errorf("it says %q", app.GetReason())
		}
		if len(app.GetInstances()) != 1 {
			t.Fatalf("left are %v", app.GetInstances())
		}
		if left := app.GetInstances()[0]; left.GetId() != "web-1" || left.GetNode() != "node-2" || left.GetState() != apiv1.Instance_UNREACHABLE || left.GetVersion() != 1 {
			t.Errorf("left is %v", left)
		}
		explanation, err := z.apps().ExplainApp(context.Background(), &apiv1.GetAppRequest{Name: "web"})
		if err != nil || !strings.Contains(explanation.GetSummary(), "it waits for node-2") {
			t.Errorf("the explanation is %v, %v", explanation, err)
		}
		if _, err := z.removeNode("node-2"); err != nil {
			t.Fatal(err)
		}
		z.pass(time.Second)
		if _, err := z.apps().GetApp(context.Background(), &apiv1.GetAppRequest{Name: "web"}); status.Code(err) != codes.NotFound {
			t.Errorf("the app is still there: %v", err)
		}
		n.register()
		if !slices.Equal(n.reap, []string{container}) {
			t.Errorf("the node that came back is told to end %v", n.reap)
		}
	})
}

func TestTheMasterOfARemovedNodeIsFollowedByAnother(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		n.launchMaster()
		other := z.addNode("node-2")
		n.cut()
		z.pass(12 * time.Second)
		if _, err := z.removeNode("node-1"); err != nil {
			t.Fatal(err)
		}
		other.launchMaster()
		if app := z.app("web"); app.GetState() != apiv1.App_RUNNING || app.GetMaster().GetNode() != "node-2" {
			t.Errorf("it is %v, its master on %s", app.GetState(), app.GetMaster().GetNode())
		}
	})
}

func TestANodeThatMayAnswerIsNotRemoved(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		refused := func(when, sentence string) {
			t.Helper()
			if _, err := z.removeNode("node-1"); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), sentence) {
				t.Errorf("%s: %v", when, err)
			}
		}
		refused("ready", "node-1 answers")
		n.reportHealth(&corev1.NodeHealth{Reason: "its disk is full"})
		refused("unhealthy", "node-1 answers")
		n.cut()
		refused("silent for a moment", "wait until it is lost")
		n.register()
		if _, err := apiv1.NewNodesClient(z.conn).DrainNode(context.Background(), &apiv1.DrainNodeRequest{Name: "node-1"}); err != nil {
			t.Fatal(err)
		}
		z.pass(2 * time.Second)
		if got := z.node("node-1").GetState(); got != apiv1.NodeState_DRAINED {
			t.Fatalf("it is %v", got)
		}
		refused("drained", "stop its NodeManager")
		z.restart()
		refused("just after a restart", "wait until it is lost")
		n.register()
		z.pass(2 * time.Second)
		n.cut()
		if _, err := z.removeNode("node-1"); err != nil {
			t.Errorf("drained, and its NodeManager is stopped: %v", err)
		}
	})
}
