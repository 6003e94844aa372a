package calendar

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/cron"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Count is how many instances a role with a schedule has: the number that a person set at an instant, or that of an entry that has come
// true since.
func Count(role *apiv1.RoleSpec, set, now time.Time) *apiv1.Schedule {
	count := &apiv1.Schedule{Role: role.GetName(), Instances: role.GetInstances(), Said: role.GetInstances()}
	since, next := set, time.Time{}
	for _, entry := range role.GetSchedule() {
		schedule, err := cron.Parse(entry.GetCron(), entry.GetTimezone())
		if err != nil {
			// A name that the database no longer has was taken in when it had it.
			if schedule, err = cron.Parse(entry.GetCron(), ""); err != nil {
				continue
			}
		}
		if tick, ok := schedule.Last(now); ok && tick.After(since) {
			since, count.Instances, count.ByCalendar = tick, entry.GetInstances(), true
		}
		if tick, ok := schedule.Next(now); ok && (next.IsZero() || tick.Before(next)) {
			next, count.Then = tick, entry.GetInstances()
		}
	}
	count.Since = timestamppb.New(since)
	if !next.IsZero() {
		count.Until = timestamppb.New(next)
	}
	return count
}
