package term

import (
	"context"
	"slices"
	"testing"
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// atNight is an app whose calendar wants one instance from ten at night and three from seven in the morning.
func atNight(instances int32) *apiv1.AppSpec {
	spec := webSpec(instances)
	spec.Roles[0].Schedule = []*apiv1.ScheduleEntry{{Cron: "0 22 * * *", Instances: 1}, {Cron: "0 7 * * *", Instances: 3}}
	return spec
}

// What a person said last stands until the calendar's next entry; what the calendar said last until a person says something.
func TestWhatWasSaidLastCounts(t *testing.T) {
	daysInZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(atNight(2)) // at midnight: the entry of ten at night came true before the app was there
		m := n.launchMaster()
		var told []int32
		expect := func(when string, wanted int32, byCalendar bool) {
			t.Helper()
			for _, answer := range m.heard() {
				if answer.GetDesired() != nil {
					told = append(told, answer.GetDesired().GetSpec().GetRoles()[0].GetInstances())
				}
			}
			app := z.app("web")
			if held := app.GetSchedules()[0]; app.GetWanted() != wanted || held.GetInstances() != wanted || held.GetByCalendar() != byCalendar {
				t.Errorf("%s: wanted %d, %v; want %d, by the calendar: %v", when, app.GetWanted(), held, wanted, byCalendar)
			}
			if len(told) > 0 && told[len(told)-1] != wanted {
				t.Errorf("%s: the master was told %v", when, told)
			}
		}
		scale := func(instances int32) {
			t.Helper()
			app, err := z.apps().ScaleApp(context.Background(), &apiv1.ScaleAppRequest{Name: "web", Instances: instances})
			if err != nil || app.GetWanted() != instances {
				t.Errorf("scaled to %d: %v, %v", instances, app.GetWanted(), err)
			}
		}
		expect("at first", 2, false)
		z.pass(7*time.Hour + time.Second)
		expect("in the morning", 3, true)
		scale(2)
		expect("after a scaling", 2, false)
		z.pass(15 * time.Hour)
		expect("at night", 1, true)
		scale(2) // what the spec says all the time
		expect("after a scaling to the number of the spec", 2, false)
		z.pass(9 * time.Hour)
		expect("in the next morning", 3, true)
		silent := atNight(0)
		silent.Roles[0].Env = map[string]string{"A": "b"}
		z.deploy(silent)
		expect("after a deployment that names no number", 3, true)
		z.deploy(atNight(2))
		expect("after one that names the same number", 2, false)
		z.pass(15 * time.Hour)
		expect("in the next night", 1, true)
		z.restart()
		if app := z.app("web"); app.GetWanted() != 1 || !app.GetSchedules()[0].GetByCalendar() {
			t.Errorf("after a restart of the ResourceManager %d are wanted, %v", app.GetWanted(), app.GetSchedules())
		}
	})
}

func TestARoleWithoutAScheduleIsNotTheCalendars(t *testing.T) {
	daysInZone(t, func(z *testZone) {
		spec := atNight(2)
		spec.Roles[0].Name = "front"
		back := webSpec(4).GetRoles()[0]
		back.Name = "back"
		spec.Roles = append(spec.Roles, back)
		z.deploy(spec)
		z.pass(22*time.Hour + time.Second)
		app := z.app("web")
		if app.GetWanted() != 5 || len(app.GetSchedules()) != 1 || app.GetSchedules()[0].GetRole() != "front" {
			t.Errorf("wanted %d, %v", app.GetWanted(), app.GetSchedules())
		}
		var said []string
		for _, event := range z.events("web") {
			said = append(said, event.GetMessage())
		}
		if !slices.Contains(said, "web-front is scaled from 3 to 1 instances by its calendar") {
			t.Errorf("events: %q", said)
		}
	})
}
