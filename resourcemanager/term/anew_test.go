package term

import (
	"context"
	"testing"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

func TestWhatIsStartedAfterAStopBeginsWithARolloutOfItsOwn(t *testing.T) {
	for state, anew := range map[apiv1.Rollout_State]bool{
		apiv1.Rollout_REVERTED: true, apiv1.Rollout_FAILED: true, apiv1.Rollout_DONE: true,
		apiv1.Rollout_PROGRESSING: false, apiv1.Rollout_PAUSED: false,
	} {
		inZone(t, func(z *testZone) {
			n := z.addNode("node-1")
			z.deploy(webSpec(1))
			m := n.launchMaster()
			m.say(&masterv1.AllocateRequest{
				ObservedGeneration: 1,
				Rollout:            &masterv1.RolloutReport{Version: 1, State: state, Total: 1, Reason: "an old reason"},
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
			if kept := app.GetRollout().GetReason() == "an old reason"; kept == anew {
				t.Errorf("after %v it begins with %v: %s", state, app.GetRollout().GetState(), app.GetRollout().GetReason())
			}
			if restart := n.launchMaster().register.GetWanted().GetRestartBefore(); (restart != nil) != anew {
				t.Errorf("after %v its master is told to begin anew at %v", state, restart)
			}
		})
	}
}
