package term

import (
	"context"
	"testing"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

func TestWhatIsStartedAfterAStopBeginsAnew(t *testing.T) {
	for _, state := range []apiv1.MasterStatus_State{
		apiv1.MasterStatus_WORKING, apiv1.MasterStatus_WAITING, apiv1.MasterStatus_DONE, apiv1.MasterStatus_FAILED,
	} {
		inZone(t, func(z *testZone) {
			n := z.addNode("node-1")
			z.deploy(webSpec(1))
			m := n.launchMaster()
			m.say(&masterv1.AllocateRequest{
				ObservedGeneration: 1,
				Status:             &apiv1.MasterStatus{Version: 1, State: state, Total: 1, Reason: "an old reason"},
			})
			master := masterContainer(z, "web")
			if _, err := z.apps().StopApp(context.Background(), &apiv1.StopAppRequest{Name: "web"}); err != nil {
				t.Fatal(err)
			}
			n.done(master, &corev1.Exit{Reason: corev1.Exit_STOPPED})
			if got := z.app("web").GetState(); got != apiv1.App_STOPPED {
				t.Fatalf("it is %v", got)
			}
			app, err := z.apps().RestartApp(context.Background(), &apiv1.RestartAppRequest{Name: "web"})
			if err != nil {
				t.Fatal(err)
			}
			if status := app.GetStatus(); status.GetState() != apiv1.MasterStatus_WORKING || status.GetReason() != "its application master has not begun yet" {
				t.Errorf("after %v it begins with %v", state, status)
			}
			if n.launchMaster().register.GetDesired().GetRestartBefore() == nil {
				t.Errorf("after %v its master is not told to begin anew", state)
			}
		})
	}
}
