package zone

import (
	"testing"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
)

func TestPeopleAreToldWhyAContainerWasGivenBack(t *testing.T) {
	for _, test := range []struct {
		state        apiv1.App_State
		notice, said string
		want         string
	}{
		{apiv1.App_RUNNING, "", "version 3 takes the place of version 2", "version 3 takes the place of version 2"},
		{apiv1.App_RUNNING, "batch lends less", "its container is preempted", "batch lends less"},
		{apiv1.App_STOPPING, "", "web is to have no instance", "web is being stopped"},
		{apiv1.App_REMOVING, "batch lends less", "web is to have no instance", "web is being removed"},
		{apiv1.App_RUNNING, "", "", "its application master ended it"},
	} {
		a, c := &app{record: &storev1.App{Name: "web", State: test.state}}, &container{}
		if test.notice != "" {
			c.notice = &masterv1.PreemptionNotice{Reason: test.notice}
		}
		if got := a.stopReason(c, test.said); got != test.want {
			t.Errorf("%+v: %q", test, got)
		}
	}
}
