package driver

import (
	"time"
	_ "time/tzdata" // so that a host without the database knows every zone that the ResourceManager has accepted

	"github.com/adhocore/gronx"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// calendar gives a role's instance count: what its schedule last set, or what a person has set since.
type calendar struct {
	entries   []*apiv1.ScheduleEntry
	instances int32
	// since is when a person was seen to change instances; zero if that was never seen.
	since time.Time
	known bool
}

// set takes the role's spec; nil is a role that is not wanted.
func (c *calendar) set(spec *apiv1.RoleSpec, now time.Time) {
	c.entries = spec.GetSchedule()
	if c.known && c.instances != spec.GetInstances() {
		c.since = now
	}
	c.instances, c.known = spec.GetInstances(), true
}

// count is how many instances there are to be at now.
func (c *calendar) count(now time.Time) int {
	count, at := c.instances, c.since
	for _, entry := range c.entries {
		if tick, err := gronx.PrevTickBefore(entry.GetCron(), now.In(location(entry)), true); err == nil && tick.After(at) {
			count, at = entry.GetInstances(), tick
		}
	}
	return int(count)
}

// next is when the schedule may change the count, zero if there is none.
func (c *calendar) next(now time.Time) time.Time {
	var next time.Time
	for _, entry := range c.entries {
		tick, err := gronx.NextTickAfter(entry.GetCron(), now.In(location(entry)), false)
		if err == nil && (next.IsZero() || tick.Before(next)) {
			next = tick
		}
	}
	return next
}

// location is an entry's time zone. The ResourceManager takes in no name that the database does not have; UTC is only for
// one that the database has dropped since.
func location(entry *apiv1.ScheduleEntry) *time.Location {
	place, err := time.LoadLocation(entry.GetTimezone())
	if err != nil {
		return time.UTC
	}
	return place
}
