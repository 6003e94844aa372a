package node

import (
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// A NodeManager that is killed after an engine has removed a container, and before its end is durable, would find a container
// that was to be started and is not there.
func TestAContainerIsRemovedOnceItsEndIsDurable(t *testing.T) {
	key := id.Container{Epoch: 1, App: id.App{ClusterStart: 1, Seq: 1}, Seq: 1}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	n := New(Settings{ID: "node-1", Machine: container.Machine{RetryMin: time.Second, RetryMax: time.Second, Retention: time.Hour}})
	removes := func() bool {
		for _, do := range n.Take().Do {
			if do.Kind == container.Remove {
				return true
			}
		}
		return false
	}
	n.Begin(now)
	n.Recover([]*Entry{{
		Core: &container.Container{ID: key, State: container.Running}, Lease: &corev1.Lease{ContainerId: key.String()},
		Spec: &corev1.ContainerSpec{Runtime: corev1.ContainerSpec_DOCKER},
	}})
	n.Fact(key, container.Fact{Event: container.Ended, Ending: container.Ending{Code: 1}})
	n.ApplyCommand(&trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Forget_{Forget: &trackerv1.NodeCommand_Forget{ContainerIds: []string{key.String()}}}})
	if removes() {
		t.Error("it is removed before its end is durable")
	}
	n.Recorded(key, "no space left on device")
	if removes() {
		t.Error("it is removed although its end could not be stored")
	}
	n.Begin(now.Add(time.Second))
	n.Tick()
	if out := n.Take(); len(out.Records) != 1 || !out.Records[0].Awaited {
		t.Fatalf("its end is not stored again: %v", out.Records)
	}
	n.Recorded(key, "")
	if !removes() {
		t.Error("it is not removed although its end is durable")
	}
}
