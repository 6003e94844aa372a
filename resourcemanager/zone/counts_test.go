package zone

import (
	"strings"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/peer"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// A look at an app in the very turn in which its calendar changes the number does not keep the change from its master.
func TestALookDoesNotHideWhatTheCalendarSays(t *testing.T) {
	now := time.Date(2026, 1, 5, 6, 0, 0, 0, time.UTC)
	z := empty(t, now)
	spec := webSpec(1)
	spec.Roles[0].Schedule = []*apiv1.ScheduleEntry{{Cron: "0 7 * * *", Timezone: "UTC", Instances: 3}}
	take(t, z, now, Deploy{Who: peer.User{Operator: true}, Request: &apiv1.DeployRequest{Spec: spec, IfGeneration: -1}})
	for z.Wake().Before(now.Add(time.Hour)) {
		take(t, z, z.Wake())
	}
	z.Begin(now.Add(time.Hour), Seed{})
	a := z.apps.withName("web")
	z.views.changed(a)
	if app := z.views.of(a); app.GetWanted() != 3 {
		t.Errorf("at seven %d are wanted", app.GetWanted())
	}
	out, err := z.Ready()
	if err != nil {
		t.Fatal(err)
	}
	said := 0
	for _, event := range out.Events {
		if strings.Contains(event.GetMessage(), "web is scaled from 1 to 3 instances by its calendar") {
			said++
		}
	}
	if said != 1 {
		t.Errorf("it was said %d times: %v", said, out.Events)
	}
}
