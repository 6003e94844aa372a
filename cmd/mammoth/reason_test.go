package main

import (
	"testing"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// A list says the same as the page of one app: what is waited for, and not that it was deployed once.
func TestAListSaysWhatAnAppWaitsFor(t *testing.T) {
	waiting := []*apiv1.Waiting{{Text: "its application master waits for capacity"}, {Text: "another"}}
	for name, c := range map[string]struct {
		app  *apiv1.App
		want string
	}{
		"no master yet": {&apiv1.App{State: apiv1.App_ACCEPTED, Reason: "deployed", Waiting: waiting}, "its application master waits for capacity (and 1 reason more)"},
		"just deployed": {&apiv1.App{State: apiv1.App_ACCEPTED, Reason: "deployed"}, "deployed"},
		"stopped":       {&apiv1.App{State: apiv1.App_STOPPED, Reason: "ann stopped it", Waiting: waiting}, "ann stopped it"},
		"some missing":  {&apiv1.App{State: apiv1.App_RUNNING, Running: 1, Wanted: 2, Waiting: waiting[:1]}, "its application master waits for capacity"},
	} {
		if got := shortReason(c.app); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
