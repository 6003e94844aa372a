package plan

import (
	"slices"
	"time"
)

// view judges slots by the desired state and the nodes, at one instant. It changes nothing.
type view struct {
	desired Desired
	nodes   *nodes
	// deferred is true while the desired version is not begun with.
	deferred bool
	now      time.Time
}

func (v *view) goal(s *slot) goal {
	switch {
	case s.leaving:
		return leave
	case v.backingOff(s), s.version == v.desired.Version && v.deferred:
		return hold
	}
	return serve
}

func (v *view) phase(s *slot) phase {
	c := s.container
	switch {
	case c == nil && s.ask == "":
		return empty
	case c == nil:
		return asked
	case c.released, c.reported && c.status.Stage == StageStopping:
		return stopping
	case c.withdrawn && (v.lost(c) || !v.now.Before(v.drainedAt(c))):
		return drained
	case c.withdrawn:
		return draining
	case !c.withdrawRequestedAt.IsZero():
		return withdrawing
	case v.lost(c) && s.ask == "":
		return lost
	case v.lost(c):
		return replacing
	case s.ask != "":
		return returned
	case !c.started:
		return granted
	case c.adopted && !c.reported:
		return unreported
	case c.startUnanswered, c.status.Health == Unhealthy, v.overdue(c):
		return failing
	case c.status.Stage == StageRunning && c.status.Health == Healthy && v.now.Before(v.countsFrom(c)):
		return proving
	case c.status.Stage == StageRunning && c.status.Health == Healthy:
		return healthy
	}
	return starting
}

func (v *view) lost(c *container) bool { return v.nodes.lost(c.node) }

// countsFrom is when a healthy container has been healthy for MinHealthy.
func (v *view) countsFrom(c *container) time.Time {
	return c.healthySince.Add(v.desired.Update.MinHealthy)
}

// serves reports whether a slot's container is healthy, so that it answers requests.
func (v *view) serves(s *slot) bool {
	phase := v.phase(s)
	return phase == healthy || phase == proving
}

// counts reports whether a slot's instance counts. An evicted one counts as soon as it is healthy.
func (v *view) counts(s *slot) bool {
	return v.phase(s) == healthy || v.serves(s) && v.evicted(s)
}

// countsTowardMinimum reports whether a slot is one of the instances that must remain before another may leave. Outdated
// ones are as soon as they are healthy.
func (v *view) countsTowardMinimum(s *slot) bool {
	return v.counts(s) || v.serves(s) && v.outdated(s)
}

// outdated slots run another version than the desired one, or were granted before RestartBefore.
func (v *view) outdated(s *slot) bool {
	if s.version != v.desired.Version {
		return true
	}
	return s.container != nil && s.container.grantedAt.Before(v.desired.RestartBefore)
}

// evicted slots are to be moved: their node is drained, or their container is to be preempted.
func (v *view) evicted(s *slot) bool {
	return s.container != nil && (v.nodes.draining(s.container.node) || !s.container.preemptBy.IsZero())
}

// leaveBy is when a container that is to be preempted must be withdrawn, replaced or not; zero if it is not to be preempted.
func (v *view) leaveBy(s *slot) time.Time {
	if s.container == nil || s.container.preemptBy.IsZero() {
		return time.Time{}
	}
	return s.container.preemptBy.Add(-v.desired.Drain - time.Second)
}

// mustLeave slots are to be preempted so soon that they are withdrawn, replaced or not.
func (v *view) mustLeave(s *slot) bool {
	by := v.leaveBy(s)
	return !by.IsZero() && !v.now.Before(by)
}

// backingOff reports whether a slot is in the pause after a failure.
func (v *view) backingOff(s *slot) bool { return v.now.Before(s.notBefore) }

// drainedAt is when a withdrawn container may be stopped. It follows a changed drain, and is the past if the start was
// refused.
func (v *view) drainedAt(c *container) time.Time {
	if c.withdrawnAt.IsZero() {
		return time.Time{}
	}
	return c.withdrawnAt.Add(v.desired.Drain)
}

// overdue containers have run for longer than the start period without becoming healthy.
func (v *view) overdue(c *container) bool {
	return v.desired.StartPeriod > 0 && c.status.Stage == StageRunning && c.status.Health == HealthUnknown &&
		!v.nodes.disconnected(c.node) && !v.now.Before(v.overdueFrom(c))
}

func (v *view) overdueFrom(c *container) time.Time {
	return c.status.RunningSince.Add(v.desired.StartPeriod + v.desired.StartMargin)
}

// repeatAt is when what a slot waits for has waited for too long and is repeated: a withdrawal, or an ask that avoids nodes. It is
// zero if it waits for neither.
func (v *view) repeatAt(s *slot) time.Time {
	switch v.phase(s) {
	case withdrawing:
		return s.container.withdrawRequestedAt.Add(confirmTimeout)
	case asked, replacing:
		if s.askAvoids {
			return s.askedAt.Add(avoidTimeout)
		}
	}
	return time.Time{}
}

// repeats reports whether it is time for that.
func (v *view) repeats(s *slot) bool {
	at := v.repeatAt(s)
	return !at.IsZero() && !v.now.Before(at)
}

// recentFailures is the number of a slot's failures within the window; zero if the last one counts against the node alone.
func (v *view) recentFailures(s *slot) int {
	if s.nodeAtFault {
		return 0
	}
	return len(v.desired.Restart.recent(slices.Clone(s.failures), v.now))
}

// changes calls at with the instants at which time alone may change what is done with a slot; some may be zero or past.
func (v *view) changes(s *slot, at func(time.Time)) {
	at(s.notBefore)
	at(v.repeatAt(s))
	if !s.leaving {
		at(v.leaveBy(s))
	}
	switch v.phase(s) {
	case starting:
		if v.desired.StartPeriod > 0 && s.container.status.Stage == StageRunning {
			at(v.overdueFrom(s.container))
		}
	case proving:
		at(v.countsFrom(s.container))
	case draining:
		at(v.drainedAt(s.container))
	}
}
