package node

import (
	"strings"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/nodemanager/container"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func TestTheCoreAndTheProtocolNameTheSameThings(t *testing.T) {
	for _, state := range container.States() {
		if got := stateMessage(state).String(); got != strings.ToUpper(state.String()) {
			t.Errorf("%v is told as %s", state, got)
		}
	}
	if n := len(corev1.ContainerStatus_State_name) - 1; n != len(container.States()) {
		t.Errorf("the protocol has %d states", n)
	}
	for _, health := range []container.Health{container.NoProbe, container.Starting, container.Healthy, container.Unhealthy} {
		if got := healthMessage(health).String(); got != strings.ToUpper(health.String()) {
			t.Errorf("%v is told as %s", health, got)
		}
	}
	for reason, want := range map[container.Reason]corev1.Exit_Reason{
		container.Exited: corev1.Exit_EXITED, container.OOMKilled: corev1.Exit_OOM_KILLED,
		container.DiskQuotaExceeded: corev1.Exit_DISK_QUOTA_EXCEEDED, container.StopCommanded: corev1.Exit_STOPPED,
		container.Preempted: corev1.Exit_PREEMPTED, container.LaunchFailed: corev1.Exit_LAUNCH_FAILED,
		container.NotHealthy: corev1.Exit_UNHEALTHY, container.NodeLost: corev1.Exit_NODE_LOST,
		container.LeaseEnded: corev1.Exit_LEASE_ENDED, container.Vanished: corev1.Exit_VANISHED, container.NodeFailed: corev1.Exit_NODE_FAILED,
		container.KilledFromOutside: corev1.Exit_KILLED_FROM_OUTSIDE,
	} {
		if got := reasonMessage(reason); got != want || stopReason(want) != reason {
			t.Errorf("reason %d is told as %v, want %v", reason, got, want)
		}
	}
	if stopReason(corev1.Exit_REASON_UNSPECIFIED) != container.StopCommanded {
		t.Error("a stop without a reason is one that was asked for")
	}
}

func TestAPhaseThatIsOverHasADurationAndOneThatLastsHasNone(t *testing.T) {
	h := &Entry{Core: &container.Container{Phases: []container.Phase{
		{Name: "download"}, {Name: "load", Duration: 1500 * time.Microsecond}, {Name: "run", Duration: -1},
	}}}
	phases := h.status("").GetPhases()
	if phases[0].GetDurationMs() != 1 || phases[1].GetDurationMs() != 2 || phases[2].GetDurationMs() != 0 {
		t.Errorf("got %v", phases)
	}
}
