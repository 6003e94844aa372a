package zone

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/cron"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// counts are how many instances the roles with a schedule have. One rule holds: what was said last counts, by a person or by the
// calendar. A person says a number with a deployment that names one, be it the same, and with a scaling.
type counts struct {
	// held are the roles with a schedule, in the order of the spec.
	held []*apiv1.Schedule
	// until is when one of them may change; zero is never.
	until time.Time
	known bool
	// followed is what held when the master was last made to follow the calendar.
	followed []*apiv1.Schedule
}

// holds is what the calendar and people want of an app's roles with a schedule at present.
func (z *Core) holds(a *app) []*apiv1.Schedule {
	c := &a.counts
	if c.known && (c.until.IsZero() || z.now.Before(c.until)) {
		return c.held
	}
	*c = counts{known: true, followed: c.followed}
	for _, role := range a.record.GetSpec().GetRoles() {
		if len(role.GetSchedule()) == 0 {
			continue
		}
		held := heldBy(role, a.record.GetCountedAt()[role.GetName()].AsTime(), z.now)
		c.held = append(c.held, held)
		if until := held.GetUntil(); until != nil && (c.until.IsZero() || until.AsTime().Before(c.until)) {
			c.until = until.AsTime()
		}
	}
	return c.held
}

// heldBy is what holds of a role whose number a person said at an instant.
func heldBy(role *apiv1.RoleSpec, said, now time.Time) *apiv1.Schedule {
	held := &apiv1.Schedule{Role: role.GetName(), Instances: role.GetInstances(), Said: role.GetInstances()}
	since, next := said, time.Time{}
	for _, entry := range role.GetSchedule() {
		schedule, err := cron.Parse(entry.GetCron(), entry.GetTimezone())
		if err != nil {
			// A name that the database no longer has was taken in when it had it.
			if schedule, err = cron.Parse(entry.GetCron(), ""); err != nil {
				continue
			}
		}
		if tick, ok := schedule.Last(now); ok && tick.After(since) {
			since, held.Instances, held.ByCalendar = tick, entry.GetInstances(), true
		}
		if tick, ok := schedule.Next(now); ok && (next.IsZero() || tick.Before(next)) {
			next, held.Then = tick, entry.GetInstances()
		}
	}
	held.Since = timestamppb.New(since)
	if !next.IsZero() {
		held.Until = timestamppb.New(next)
	}
	return held
}

// said notes that a person has said how many instances a role has.
func (z *Core) said(a *app, roles ...string) {
	before := a.record.GetCountedAt()
	a.record.CountedAt = map[string]*timestamppb.Timestamp{}
	for _, role := range a.record.GetSpec().GetRoles() {
		if at := before[role.GetName()]; at != nil {
			a.record.CountedAt[role.GetName()] = at
		}
	}
	for _, role := range roles {
		a.record.CountedAt[role] = timestamppb.New(z.now)
	}
	z.recount(a)
	z.apps.changed(a)
}

// recount finds out anew what holds, after a change that the master is told of.
func (z *Core) recount(a *app) {
	a.counts = counts{}
	a.counts.followed = z.holds(a)
}

// wantedCount is how many instances an app is to have at present.
func (z *Core) wantedCount(a *app) int32 {
	sum := wantedInstances(a.record.GetSpec())
	for _, held := range z.holds(a) {
		sum += held.GetInstances() - held.GetSaid()
	}
	return sum
}

// heldSpec is a spec as its master is told: the numbers are those that hold, and the calendar is not the master's business.
func (z *Core) heldSpec(a *app) *apiv1.AppSpec {
	spec := steered(a.record.GetSpec())
	for _, held := range z.holds(a) {
		for _, role := range spec.GetRoles() {
			if role.GetName() == held.GetRole() {
				role.Instances, role.Schedule = held.GetInstances(), nil
			}
		}
	}
	return spec
}

// dueCounts has masters follow the calendar.
func (z *Core) dueCounts(a *app) {
	c := &a.counts
	before, after := c.followed, z.holds(a)
	c.followed = after
	if !c.until.IsZero() {
		z.wakeBy(c.until)
	}
	scaled := false
	for i, held := range after {
		if i >= len(before) || proto.Equal(before[i], held) {
			continue
		}
		z.apps.touch(a) // until when it holds has changed
		if held.GetInstances() == before[i].GetInstances() {
			continue
		}
		scaled = true
		z.emit(&apiv1.Event{
			Kind: "app", App: a.record.GetName(), From: a.state().String(), To: a.state().String(),
			Message: fmt.Sprintf("%s%s is scaled from %d to %d instances by its calendar", a.record.GetName(), ofRole(held.GetRole()), before[i].GetInstances(), held.GetInstances()),
		})
	}
	if scaled && !a.ending() {
		z.masters.response(a).Wanted = z.wanted(a)
	}
}

// ofRole is what a role's instances have behind the app's name.
func ofRole(name string) string {
	if name == "" {
		return ""
	}
	return "-" + name
}
