package driver

import (
	"testing"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func TestAFailureCarriesWhatInstancesOfItsRoleWaitFor(t *testing.T) {
	waiting := []*apiv1.Waiting{
		{Text: "its application master is not connected"},
		{Role: "front", Instances: 1, Text: "front-1 waits for capacity: no room", Help: "less cpu would do"},
		{Role: "back", Instances: 2, Text: "back-1 and 1 more wait"},
		{Role: "front", Instances: 1, Text: "front-2 is in back-off"},
	}
	if got := waitReason("front", waiting); got != "front-1 waits for capacity: no room; less cpu would do; front-2 is in back-off" {
		t.Errorf("it says %q", got)
	}
	if got := waitReason("", waiting); got != "" {
		t.Errorf("of another role it says %q", got)
	}
}
