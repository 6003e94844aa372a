package zone

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/calendar"
)

// appCounts are how many instances the roles with a schedule are to have. The number that was set last applies, whether a person set it or
// the calendar. A person sets it with a deployment that names a number, be it the same one, and with a scaling.
type appCounts struct {
	// current are the counts at present, of the roles with a schedule, in the order of the spec.
	current []*apiv1.Schedule
	// until is when one of them may change; zero is never.
	until time.Time
	// known says that current and until were worked out since the spec was changed.
	known bool
	// sent are the counts that the master was sent last.
	sent []*apiv1.Schedule
}

// scheduledCounts are how many instances the roles of an app with a schedule are to have at present.
func (ds *desired) scheduledCounts(a *app) []*apiv1.Schedule {
	c := &a.counts
	if c.known && (c.until.IsZero() || ds.now.Before(c.until)) {
		return c.current
	}
	*c = appCounts{known: true, sent: c.sent}
	for _, role := range a.record.GetSpec().GetRoles() {
		if len(role.GetSchedule()) == 0 {
			continue
		}
		count := calendar.Count(role, a.record.GetCountedAt()[role.GetName()].AsTime(), ds.now)
		c.current = append(c.current, count)
		if until := count.GetUntil(); until != nil && (c.until.IsZero() || until.AsTime().Before(c.until)) {
			c.until = until.AsTime()
		}
	}
	return c.current
}

// noteCounts notes that a person has set how many instances some roles have.
func (ds *desired) noteCounts(a *app, roles ...string) {
	before := a.record.GetCountedAt()
	a.record.CountedAt = map[string]*timestamppb.Timestamp{}
	for _, role := range a.record.GetSpec().GetRoles() {
		if at := before[role.GetName()]; at != nil {
			a.record.CountedAt[role.GetName()] = at
		}
	}
	for _, role := range roles {
		a.record.CountedAt[role] = timestamppb.New(ds.now)
	}
	ds.refreshCounts(a)
	ds.apps.changed(a)
}

// refreshCounts works the counts out anew after a change that the master is sent.
func (ds *desired) refreshCounts(a *app) {
	a.counts = appCounts{}
	a.counts.sent = ds.scheduledCounts(a)
}

// count is how many instances an app is to have at present.
func (ds *desired) count(a *app) int32 {
	sum := specs.Instances(a.record.GetSpec())
	for _, count := range ds.scheduledCounts(a) {
		sum += count.GetInstances() - count.GetSpecInstances()
	}
	return sum
}

// spec is an app's spec with the counts of the present, and without the schedules.
func (ds *desired) spec(a *app) *apiv1.AppSpec {
	spec := proto.CloneOf(a.record.GetSpec())
	for _, count := range ds.scheduledCounts(a) {
		for _, role := range spec.GetRoles() {
			if role.GetName() == count.GetRole() {
				role.Instances, role.Schedule = count.GetInstances(), nil
			}
		}
	}
	return spec
}

// due sends the master of an app the counts if the calendar has changed them.
func (ds *desired) due(a *app) {
	c := &a.counts
	before, after := c.sent, ds.scheduledCounts(a)
	c.sent = after
	if !c.until.IsZero() {
		ds.WakeBy(c.until)
	}
	scaled := false
	for i, count := range after {
		if i >= len(before) || proto.Equal(before[i], count) {
			continue
		}
		ds.apps.touch(a) // until when the count is that has changed
		if count.GetInstances() == before[i].GetInstances() {
			continue
		}
		scaled = true
		ds.Emit(&apiv1.Event{
			Kind: "app", App: a.record.GetName(), From: a.state().String(), To: a.state().String(),
			Message: fmt.Sprintf("%s%s is scaled from %d to %d instances by its calendar", a.record.GetName(), ofRole(count.GetRole()), before[i].GetInstances(), count.GetInstances()),
		})
	}
	if scaled && !a.ending() {
		ds.notifyMaster(a)
	}
}

// ofRole is what a role's instances have behind the app's name.
func ofRole(name string) string {
	if name == "" {
		return ""
	}
	return "-" + name
}

// presentCount is how many instances a role has when a deployment names no number: as many as before, or one.
func (a *app) presentCount(name string) int32 {
	if a != nil {
		for _, role := range a.record.GetSpec().GetRoles() {
			if role.GetName() == name {
				return role.GetInstances()
			}
		}
	}
	return 1
}
