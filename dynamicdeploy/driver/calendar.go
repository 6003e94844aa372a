package driver

import (
	"time"

	"github.com/mammoth-os/mammoth/internal/cron"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// calendar gives a role's instance count: what its schedule last set, or what a person has set since.
type calendar struct {
	entries   []entry
	instances int32
	// since is when a person was seen to change instances; zero if that was never seen.
	since time.Time
	known bool
}

// entry sets the count whenever its time comes.
type entry struct {
	schedule  cron.Schedule
	instances int32
}

// set takes the role's spec; nil is a role that is not wanted.
func (c *calendar) set(spec *apiv1.RoleSpec, now time.Time) {
	c.entries = nil
	for _, given := range spec.GetSchedule() {
		schedule, err := cron.Parse(given.GetCron(), given.GetTimezone())
		if err != nil {
			// The ResourceManager takes in no name that the database does not have; it has dropped this one since.
			if schedule, err = cron.Parse(given.GetCron(), ""); err != nil {
				continue
			}
		}
		c.entries = append(c.entries, entry{schedule, given.GetInstances()})
	}
	if c.known && c.instances != spec.GetInstances() {
		c.since = now
	}
	c.instances, c.known = spec.GetInstances(), true
}

// count is how many instances there are to be at now.
func (c *calendar) count(now time.Time) int {
	count, at := c.instances, c.since
	for _, entry := range c.entries {
		if tick, ok := entry.schedule.Last(now); ok && tick.After(at) {
			count, at = entry.instances, tick
		}
	}
	return int(count)
}

// next is when the schedule may change the count, zero if there is none.
func (c *calendar) next(now time.Time) time.Time {
	var next time.Time
	for _, entry := range c.entries {
		if tick, ok := entry.schedule.Next(now); ok && (next.IsZero() || tick.Before(next)) {
			next = tick
		}
	}
	return next
}
