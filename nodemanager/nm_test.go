package nodemanager_test

import (
	"testing"
	"time"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func TestAContainerIsStartedReportedAndStopped(t *testing.T) {
	inZone(t, func(z *zone) {
		key := z.container(1)
		z.start(key, serving())
		z.pass(50 * time.Millisecond)
		running := z.want(key, corev1.ContainerStatus_RUNNING)
		if len(running.GetPorts()) != 1 || running.GetPorts()[0].GetHostPort() == 0 || running.GetPorts()[0].GetHostAddress() != "127.0.0.1" {
			t.Errorf("ports %v", running.GetPorts())
		}
		names := ""
		for _, phase := range running.GetPhases() {
			names += phase.GetName() + " "
			if phase.GetDurationMs() <= 0 || phase.GetStartedAt() == nil {
				t.Errorf("phase %v has no time", phase)
			}
		}
		if names != "download load run " {
			t.Errorf("phases %s", names)
		}
		z.stopCommand(key)
		z.pass(50 * time.Millisecond)
		done := z.want(key, corev1.ContainerStatus_DONE)
		if done.GetExit().GetReason() != corev1.Exit_STOPPED || done.GetExit().GetMessage() != "scaled in" || done.GetExit().GetCode() != 0 {
			t.Errorf("exit %v", done.GetExit())
		}
		z.forget(key)
		z.pass(time.Second)
		if left := z.inEngine(); len(left) != 0 {
			t.Errorf("the engine still has %v", left)
		}
	})
}
