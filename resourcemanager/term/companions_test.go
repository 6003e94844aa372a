package term

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
)

func edgeSpec() *apiv1.AppSpec {
	return &apiv1.AppSpec{Name: "edge", Framework: "dynamicdeploy", Kind: apiv1.AppSpec_COMPANION, Roles: []*apiv1.RoleSpec{{
		Instances: 1, Command: []string{"mammoth", "companion", "nginx"},
		Resources: &corev1.Resources{CpuMillis: 500, MemoryBytes: 64 << 20, DiskBytes: 64 << 20},
	}}}
}

// deployCompanion has an operator deploy it.
func (z *testZone) deployCompanion() {
	z.t.Helper()
	spec := edgeSpec()
	spec.Queue = "default"
	if err := service.Complete(spec); err != nil {
		z.t.Fatal(err)
	}
	if _, err := z.rm.Deploy(as("root"), &apiv1.DeployRequest{Spec: spec, IfGeneration: -1}); err != nil {
		z.t.Fatal(err)
	}
	synctest.Wait()
}

// told is what the node was told to end since the last call.
func (n *fakeNode) told() []string {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	ended := n.ended
	n.ended = nil
	return ended
}

func TestACompanionIsEndedWhereItWillNotComeBack(t *testing.T) {
	inZone(t, func(z *testZone) {
		first := z.addNode("node-1")
		z.deployCompanion()
		m := first.launchMaster()
		container := m.startInstance(first, "edge-1")
		second := z.addNode("node-2")

		// It dies: the next one may come back to what it has left.
		first.done(container, &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 137})
		if told := first.told(); told != nil {
			t.Errorf("node-1 was told to end %q, and the next container may be given to it", told)
		}
		// The next one comes to another node.
		ask := ask1("edge-1")
		ask.Id, ask.AvoidNodes = "edge-1/2", []string{"node-1"}
		granted := allocated(m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask}}))
		if len(granted) != 1 || granted[0].GetLease().GetNodeId() != "node-2" {
			t.Fatalf("granted %v", granted)
		}
		if !granted[0].GetLease().GetCompanion() {
			t.Errorf("its lease does not say that it is a companion app: %v", granted[0].GetLease())
		}
		if told := first.told(); told != nil {
			t.Errorf("node-1 was told to end %q before the other runs", told)
		}
		second.run(granted[0].GetLease().GetContainerId(), map[string]string{"instance": "edge-1", "version": "1"})
		if told := first.told(); !slices.Equal(told, []string{"edge"}) {
			t.Errorf("node-1 was told to end %q once the app is whole elsewhere", told)
		}
		if expected := z.board.Expected(); !slices.Equal(expected, []string{"edge.node-1 for 0s"}) {
			t.Errorf("balancers that are waited for: %q", expected)
		}

		// It is stopped: nothing is left anywhere, and what a node that was away brings back is ended too.
		if _, err := z.apps().StopApp(context.Background(), &apiv1.StopAppRequest{Name: "edge"}); err != nil {
			t.Fatal(err)
		}
		m.say(&masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: granted[0].GetLease().GetContainerId()}}, GoneInstances: []string{"edge-1"}})
		if told := second.told(); !slices.Equal(told, []string{"edge"}) {
			t.Errorf("node-2 was told to end %q", told)
		}
		second.cut()
		second.companions = []string{"edge", "dns.gone"}
		second.register()
		if told := second.told(); !slices.Equal(told, []string{"edge", "dns.gone"}) && !slices.Equal(told, []string{"dns.gone", "edge"}) {
			t.Errorf("node-2 was told to end %q", told)
		}
	})
}

func TestAnAppDoesNotBecomeACompanionApp(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		z.deploy(webSpec(1))
		spec := edgeSpec()
		spec.Name = "web"
		if _, err := z.rm.Deploy(as("root"), &apiv1.DeployRequest{Spec: spec, IfGeneration: -1}); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("got %v", err)
		}
	})
}

func TestOnlyAnOperatorDeploysACompanionApp(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		deploy := func(who string) error {
			spec := edgeSpec()
			spec.Queue = "default"
			_, err := z.rm.Deploy(as(who), &apiv1.DeployRequest{Spec: spec, IfGeneration: -1, DryRun: true})
			return err
		}
		want := `user "analyst" may not deploy the companion app edge, which runs programs of the nodes themselves; ask an administrator of queue root (root, or the user that runs the zone)`
		if got := refusal(t, deploy("analyst")); got != want {
			t.Errorf("without any list: %s", got)
		}
		if _, err := z.rm.SetQueues(as("root"), &apiv1.SetQueuesRequest{Queues: guardedQueues()}); err != nil {
			t.Fatal(err)
		}
		refusal(t, deploy("shift"))
		refusal(t, deploy("")) // from another machine
		for _, who := range []string{"root", "chief"} {
			if err := deploy(who); err != nil {
				t.Errorf("%s: %v", who, err)
			}
		}
	})
}

// A command in a companion app runs as root on the node itself, so that whoever looks after its queue is not enough.
func TestOnlyAnOperatorRunsCommandsInACompanionApp(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		z.deployCompanion()
		want := `user "analyst" may not run commands in the companion app edge, which runs programs of the nodes themselves; ask an administrator of queue root (root, or the user that runs the zone)`
		if got := refusal(t, z.rm.MayExec(as("analyst"), "edge")); got != want {
			t.Errorf("without any list: %s", got)
		}
		if _, err := z.rm.SetQueues(as("root"), &apiv1.SetQueuesRequest{Queues: guardedQueues()}); err != nil {
			t.Fatal(err)
		}
		spec := edgeSpec()
		spec.Queue = "batch"
		if err := service.Complete(spec); err != nil {
			t.Fatal(err)
		}
		if _, err := z.rm.Deploy(as("chief"), &apiv1.DeployRequest{Spec: spec, IfGeneration: -1}); err != nil {
			t.Fatal(err)
		}
		for _, who := range []string{"shift", "guest", ""} {
			refusal(t, z.rm.MayExec(as(who), "edge"))
		}
		for _, who := range []string{"root", "chief"} {
			if err := z.rm.MayExec(as(who), "edge"); err != nil {
				t.Errorf("%s: %v", who, err)
			}
		}
	})
}

// startRole runs an instance of a role.
func (m *fakeMaster) startRole(n *fakeNode, role string, ask *masterv1.Ask) string {
	m.z.t.Helper()
	ask.Role = role
	granted := allocated(m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask}}))
	if len(granted) != 1 || granted[0].GetLease().GetNodeId() != n.name {
		m.z.t.Fatalf("granted %v, want a container on %s", granted, n.name)
	}
	container := granted[0].GetLease().GetContainerId()
	n.run(container, map[string]string{"instance": role + "-1", "version": "1"})
	synctest.Wait()
	return container
}

// A node that keeps one role of a companion app is rid of the other, also if it has registered anew before that one ran.
func TestARoleOfACompanionAppIsEndedWhereItWillNotComeBack(t *testing.T) {
	inZone(t, func(z *testZone) {
		first := z.addNode("node-1")
		spec := edgeSpec()
		spec.Queue = "default"
		front, dns := spec.GetRoles()[0], proto.CloneOf(spec.GetRoles()[0])
		front.Name, dns.Name = "front", "dns"
		spec.Roles = append(spec.Roles, dns)
		if err := service.Complete(spec); err != nil {
			t.Fatal(err)
		}
		if _, err := z.rm.Deploy(as("root"), &apiv1.DeployRequest{Spec: spec, IfGeneration: -1}); err != nil {
			t.Fatal(err)
		}
		m := first.launchMaster()
		m.startRole(first, "dns", ask1("dns-1"))

		ask := ask1("front-1")
		ask.Role = "front"
		granted := allocated(m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask}}))
		if len(granted) != 1 {
			t.Fatalf("granted %v", granted)
		}
		container := granted[0].GetLease().GetContainerId()
		first.report(container, func(s *corev1.ContainerStatus) { s.State = corev1.ContainerStatus_NEW })
		first.cut()
		first.register()
		first.run(container, map[string]string{"instance": "front-1", "version": "1"})
		synctest.Wait()

		second := z.addNode("node-2")
		first.done(container, &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 137})
		again := ask1("front-1")
		again.Id, again.AvoidNodes = "front-1/2", []string{"node-1"}
		if told := first.told(); told != nil {
			t.Errorf("node-1 was told to end %q, and the next container may be given to it", told)
		}
		m.startRole(second, "front", again)
		if told := first.told(); !slices.Equal(told, []string{"front.edge"}) {
			t.Errorf("node-1 was told to end %q once the role is whole elsewhere, want front.edge alone", told)
		}
	})
}
