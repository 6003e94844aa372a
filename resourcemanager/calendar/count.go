package calendar

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/cron"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Count is the number of instances of a role with a schedule: that of the entry that fired last, or the one that a person has set
// since. set is when a person set it.
func Count(role *apiv1.RoleSpec, set, now time.Time) *apiv1.Schedule {
	count := &apiv1.Schedule{Role: role.GetName(), Instances: role.GetInstances(), SpecInstances: role.GetInstances()}
	since, next := set, time.Time{}
	for _, entry := range role.GetSchedule() {
		schedule, err := cron.Parse(entry.GetCron(), entry.GetTimezone())
		if err != nil {
			// The name was valid when it was stored, but this database does not have it.
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
