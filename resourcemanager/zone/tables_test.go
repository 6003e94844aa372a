package zone_test

import (
	"testing"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

func TestTheTablesSpeakTheProtocol(t *testing.T) {
	for number, name := range apiv1.App_State_name {
		if got := lifecycle.AppState(number).String(); got != name {
			t.Errorf("app state %d is %s in the table and %s in the protocol", number, got, name)
		}
	}
	for number, name := range apiv1.Master_State_name {
		if got := lifecycle.AttemptState(number).String(); got != name {
			t.Errorf("attempt state %d is %s in the table and %s in the protocol", number, got, name)
		}
	}
	for number, name := range corev1.ContainerStatus_State_name {
		if got := lifecycle.ContainerState(number).String(); got != name {
			t.Errorf("container state %d is %s in the table and %s in the protocol", number, got, name)
		}
	}
	for number, name := range apiv1.NodeState_name {
		if got := lifecycle.NodeState(number).String(); got != name {
			t.Errorf("node state %d is %s in the table and %s in the protocol", number, got, name)
		}
	}
}
