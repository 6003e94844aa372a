package calendar_test

import (
	"testing"
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/calendar"
)

func TestTheNumberThatWasSetLastCounts(t *testing.T) {
	day := func(hour int) time.Time { return time.Date(2026, 1, 5, hour, 0, 0, 0, time.UTC) }
	role := &apiv1.RoleSpec{Name: "front", Instances: 2, Schedule: []*apiv1.ScheduleEntry{
		{Cron: "0 7 * * *", Timezone: "UTC", Instances: 5},
		{Cron: "0 19 * * *", Timezone: "UTC", Instances: 1},
	}}
	for _, c := range []struct {
		set, now   int
		instances  int32
		byCalendar bool
		then       int32
		until      int
	}{
		{set: 6, now: 6, instances: 2, then: 5, until: 7},
		{set: 6, now: 7, instances: 5, byCalendar: true, then: 1, until: 19},
		{set: 6, now: 18, instances: 5, byCalendar: true, then: 1, until: 19},
		{set: 9, now: 18, instances: 2, then: 1, until: 19},
		{set: 9, now: 20, instances: 1, byCalendar: true, then: 5, until: 31},
	} {
		count := calendar.Count(role, day(c.set), day(c.now))
		if count.GetRole() != "front" || count.GetInstances() != c.instances || count.GetByCalendar() != c.byCalendar || count.GetThen() != c.then ||
			!count.GetUntil().AsTime().Equal(day(c.until)) {
			t.Errorf("set at %d, at %d: %v", c.set, c.now, count)
		}
	}
}
