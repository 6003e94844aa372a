package term

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

func TestAnAppRunsFromDeployToRemove(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(2))
		m := n.launchMaster()
		if got := z.app("web"); got.GetState() != apiv1.App_RUNNING || got.GetMaster().GetState() != apiv1.Master_REGISTERED {
			t.Fatalf("after its master registered the app is %v, its master %v", got.GetState(), got.GetMaster().GetState())
		}
		one := m.startInstance(n, "web-1")
		m.startInstance(n, "web-2")
		app := z.app("web")
		if app.GetRunning() != 2 || app.GetWanted() != 2 {
			t.Errorf("%d of %d instances run", app.GetRunning(), app.GetWanted())
		}
		if phases := app.GetInstances()[0].GetPhases(); len(phases) != 1 {
			t.Errorf("phases: %v", phases)
		}
		if ids, _ := z.board.Serving("web"); !slices.Equal(ids, []string{"web-1", "web-2"}) {
			t.Errorf("in the registry: %v", ids)
		}
		n.done(one, &corev1.Exit{Reason: corev1.Exit_OOM_KILLED, Code: 137, Message: "killed at its memory quota of 64MiB"})
		var ended []*corev1.ContainerStatus
		for _, answer := range m.heard() {
			ended = append(ended, answer.GetCompleted()...)
		}
		if len(ended) != 1 || ended[0].GetExit().GetReason() != corev1.Exit_OOM_KILLED {
			t.Errorf("the master was told of the ends %v", ended)
		}
		if !slices.ContainsFunc(z.events("web"), func(e *apiv1.Event) bool { return strings.Contains(e.GetMessage(), "OOMKilled") }) {
			t.Error("no event of the app says OOMKilled")
		}
		if ids, _ := z.board.Serving("web"); !slices.Equal(ids, []string{"web-2"}) {
			t.Errorf("in the registry after one died: %v", ids)
		}
		if _, err := z.apps().RemoveApp(context.Background(), &apiv1.RemoveAppRequest{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		var desired *masterv1.DesiredState
		for _, answer := range m.heard() {
			if answer.GetDesired() != nil {
				desired = answer.GetDesired()
			}
		}
		if !desired.GetRemoving() {
			t.Fatalf("the master is told %v, not that the app is being removed", desired)
		}
		if app = z.app("web"); len(app.GetInstances()) != 1 || app.GetInstances()[0].GetId() != "web-2" {
			t.Fatalf("left of an app that is being removed is %v", app.GetInstances())
		}
		m.say(&masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: app.GetInstances()[0].GetContainerId()}}, GoneInstances: []string{"web-1", "web-2"}})
		synctest.Wait()
		if _, err := z.apps().GetApp(context.Background(), &apiv1.GetAppRequest{Name: "web"}); err == nil {
			t.Error("the app is still there")
		}
		if _, there := z.board.Serving("web"); there {
			t.Error("the service is still in the registry")
		}
		if used := z.node("node-1").GetUsed(); used.GetCpuMillis() != 0 || used.GetMemoryBytes() != 0 {
			t.Errorf("the node still holds %v", used)
		}
		n.cut()
		z.pass(11 * time.Second)
		if got := z.node("node-1").GetState(); got != apiv1.NodeState_LOST {
			t.Errorf("a silent node is %v", got)
		}
	})
}
