package term

import (
	"context"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// The last attempts of a master are kept, with why each ended, over a restart too.
func TestTheLastAttemptsAreKept(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		for range 22 {
			n.launchMaster()
			z.pass(time.Minute)
			n.done(z.app("web").GetMaster().GetContainerId(), &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 3})
			z.pass(2 * time.Second)
		}
		n.launchMaster()
		z.restart()
		n.register()
		history, err := z.apps().GetAppHistory(context.Background(), &apiv1.GetAppRequest{Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		attempts := history.GetAttempts()
		if len(attempts) != 20 || attempts[0].GetNumber() != 4 {
			t.Fatalf("%d attempts are kept, from %d on", len(attempts), attempts[0].GetNumber())
		}
		for i, attempt := range attempts {
			last, ran := i == 19, attempt.GetEndedAt().AsTime().Sub(attempt.GetRegisteredAt().AsTime())
			switch {
			case attempt.GetNumber() != int32(4+i) || attempt.GetNode() != "node-1" || attempt.GetLaunchedAt() == nil || attempt.GetRegisteredAt() == nil:
				t.Errorf("attempt %d is %v", 4+i, attempt)
			case last && (attempt.GetState() != apiv1.Master_REGISTERED || attempt.GetEndedAt() != nil || attempt.GetReason() != ""):
				t.Errorf("the one at work is %v", attempt)
			case !last && (attempt.GetState() != apiv1.Master_FAILED || !strings.Contains(attempt.GetReason(), "code 3") || ran < time.Minute || ran > time.Minute+time.Second):
				t.Errorf("attempt %d is %v", 4+i, attempt)
			}
		}
	})
}
