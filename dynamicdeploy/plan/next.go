package plan

import (
	"fmt"
	"slices"
	"time"
)

// confirmTimeout is how long a withdrawal may stay unconfirmed before it is requested again.
const confirmTimeout = 5 * time.Second

// Next returns the actions to take now. It is to be called after every fact, and at the returned time unless that is zero.
func (r *Role) Next(now time.Time) ([]Action, time.Time) {
	for _, s := range r.sorted() {
		if s.container != nil && s.container.released && r.lost(s.container) {
			r.replaceContainer(s)
		}
		if s.container != nil && !s.container.failureCounted && r.phase(s, now) == failing {
			r.fail(s, Exit{Blame: BlameApp, Reason: r.failingReason(s)}, now)
		}
	}
	r.reattribute(now)
	r.deferred = r.mustWait()
	actions := r.pending
	r.pending = nil
	for before, state := -1, Progressing; before != len(actions) || state != r.rollout.state; {
		// A step may allow further ones: a forgotten slot makes room for another, and the end of a rollout ends a pause.
		before, state = len(actions), r.rollout.state
		r.adjust(now)
		for _, s := range r.sorted() {
			actions = r.advance(s, now, actions)
		}
		r.evaluate(now)
	}
	actions, r.pending = append(actions, r.pending...), nil
	r.ready = r.asDesired(now)
	for _, s := range r.slots {
		if inService(s) && r.phase(s, now) != unreported {
			s.container.confirmedEarly, s.container.hasServed = false, true
		}
	}
	return actions, r.deadline(now)
}

// advance takes steps with a slot until it has to wait.
func (r *Role) advance(s *slot, now time.Time, actions []Action) []Action {
	for {
		switch nextSteps[r.goal(s, now)][r.phase(s, now)] {
		case ask:
			avoid := r.avoid(s, now)
			s.ask, s.askedAt, s.askAvoids = r.newAsk(s), now, len(avoid) > 0
			actions = append(actions, Ask{ID: s.ask, Instance: r.instance(s), Number: s.number, Version: s.version, Avoid: avoid, Replaces: s.hasRun})
		case withdrawAsk:
			actions = append(actions, WithdrawAsk{ID: s.ask})
			s.ask = ""
		case start:
			s.container.started = true
			if s.hasRun {
				s.restarts++
			}
			s.hasRun = true
			actions = append(actions, Start{Container: s.container.id, Instance: r.instance(s), Number: s.number, Version: s.version})
		case withdraw:
			s.container.withdrawRequestedAt = now
			if s.container.confirmedEarly {
				s.container.withdrawn, s.container.withdrawnAt = true, now
			}
			actions = append(actions, Withdraw{Instance: r.instance(s)})
		case release:
			actions = append(actions, Release{Container: s.container.id, Reason: r.releaseReason(s)})
			switch {
			case !s.container.started:
				s.container = nil
			case r.lost(s.container):
				s.container.released = true
				r.replaceContainer(s)
			default:
				s.container.released = true
			}
		case forget:
			delete(r.slots, s.number)
			return append(actions, Forget{Instance: r.instance(s)})
		case undecided:
			panic("plan: a slot is in a phase without a decided step")
		case wait:
			if retry, ok := r.overdueStep(s, now); ok {
				actions = append(actions, retry)
				continue
			}
			return actions
		}
	}
}

// overdueStep repeats what has waited for too long: a withdrawal, or an ask that avoids nodes.
func (r *Role) overdueStep(s *slot, now time.Time) (Action, bool) {
	switch r.phase(s, now) {
	case withdrawing:
		if !now.Before(s.container.withdrawRequestedAt.Add(confirmTimeout)) {
			s.container.withdrawRequestedAt = now
			return Withdraw{Instance: r.instance(s)}, true
		}
	case asked, replacing:
		if s.askAvoids && !now.Before(s.askedAt.Add(avoidTimeout)) {
			withdrawal := WithdrawAsk{ID: s.ask}
			s.ask, s.askAvoids, s.avoidNone = "", false, true
			return withdrawal, true
		}
	}
	return nil, false
}

// deadline is the next time at which something changes by time alone; zero if there is none.
func (r *Role) deadline(now time.Time) time.Time {
	var next time.Time
	at := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, s := range r.slots {
		at(s.notBefore)
		if !s.leaving {
			at(r.leaveBy(s))
		}
		switch r.phase(s, now) {
		case starting:
			if c := s.container; r.desired.StartPeriod > 0 && c.status.Stage == StageRunning {
				at(r.overdueFrom(c))
			}
		case proving:
			at(r.countsFrom(s.container))
		case withdrawing:
			at(s.container.withdrawRequestedAt.Add(confirmTimeout))
		case draining:
			at(r.drainedAt(s.container))
		case asked, replacing:
			if s.askAvoids {
				at(s.askedAt.Add(avoidTimeout))
			}
		}
	}
	if o := &r.rollout; (o.state == Progressing || o.state == Paused) && !o.tooManySince.IsZero() {
		at(o.tooManySince.Add(detectionTime))
	}
	switch o := &r.rollout; {
	case o.state == Progressing && !o.reopened && r.desired.Update.Deadline > 0:
		at(o.progressAt.Add(r.desired.Update.Deadline))
	case o.state == Failed:
		at(o.quietAt(r.watchTime()))
	}
	return next
}

func (r *Role) goal(s *slot, now time.Time) goal {
	switch {
	case s.leaving:
		return leave
	case now.Before(s.notBefore), s.version == r.desired.Version && r.deferred:
		return hold
	}
	return serve
}

func (r *Role) phase(s *slot, now time.Time) phase {
	c := s.container
	switch {
	case c == nil && s.ask == "":
		return empty
	case c == nil:
		return asked
	case c.released, c.reported && c.status.Stage == StageStopping:
		return stopping
	case c.withdrawn && (r.lost(c) || !now.Before(r.drainedAt(c))):
		return drained
	case c.withdrawn:
		return draining
	case !c.withdrawRequestedAt.IsZero():
		return withdrawing
	case r.lost(c) && s.ask == "":
		return lost
	case r.lost(c):
		return replacing
	case s.ask != "":
		return returned
	case !c.started:
		return granted
	case c.adopted && !c.reported:
		return unreported
	case c.startUnanswered, c.status.Health == Unhealthy, r.overdue(c, now):
		return failing
	case c.status.Stage == StageRunning && c.status.Health == Healthy && now.Before(r.countsFrom(c)):
		return proving
	case c.status.Stage == StageRunning && c.status.Health == Healthy:
		return healthy
	}
	return starting
}

// countsFrom is when a healthy container has been healthy for MinHealthy.
func (r *Role) countsFrom(c *container) time.Time {
	return c.healthySince.Add(r.desired.Update.MinHealthy)
}

// serves reports whether a slot's container is healthy, so that it answers requests.
func (r *Role) serves(s *slot, now time.Time) bool {
	phase := r.phase(s, now)
	return phase == healthy || phase == proving
}

// counts reports whether a slot's instance counts. An evicted one counts as soon as it is healthy.
func (r *Role) counts(s *slot, now time.Time) bool {
	return r.phase(s, now) == healthy || r.serves(s, now) && r.evicted(s)
}

// countsTowardMinimum reports whether a slot is one of the instances that must remain before another may leave. Outdated
// ones are as soon as they are healthy.
func (r *Role) countsTowardMinimum(s *slot, now time.Time) bool {
	return r.counts(s, now) || r.serves(s, now) && r.outdated(s)
}

// drainedAt is when a withdrawn container may be stopped. It follows a changed drain, and is the past if the start was
// refused.
func (r *Role) drainedAt(c *container) time.Time {
	if c.withdrawnAt.IsZero() {
		return time.Time{}
	}
	return c.withdrawnAt.Add(r.desired.Drain)
}

// overdue containers have run for longer than the start period without becoming healthy.
func (r *Role) overdue(c *container, now time.Time) bool {
	return r.desired.StartPeriod > 0 && c.status.Stage == StageRunning && c.status.Health == HealthUnknown &&
		!r.node(c.node).disconnected && !now.Before(r.overdueFrom(c))
}

func (r *Role) overdueFrom(c *container) time.Time {
	return c.status.RunningSince.Add(r.desired.StartPeriod + r.desired.StartMargin)
}

func (r *Role) failingReason(s *slot) string {
	switch c := s.container; {
	case c.status.Reason != "":
		if c.status.Health == Unhealthy {
			return c.status.Reason
		}
		return "it did not become healthy within " + r.desired.StartPeriod.String() + ": " + c.status.Reason
	case c.status.Health == Unhealthy:
		return "its health check fails"
	}
	return "it did not become healthy within " + r.desired.StartPeriod.String()
}

// Instances reports every slot, by number.
func (r *Role) Instances(now time.Time) []Instance {
	slots := r.sorted()
	instances := make([]Instance, len(slots))
	fresh, old := r.weights(now)
	for i, s := range slots {
		instance := Instance{
			Name: r.instance(s), Version: s.version, Restarts: s.restarts, State: r.state(s, now),
			Failures:  r.ownFailures(s, now),
			InService: inService(s), Weight: old,
		}
		if s.version == r.desired.Version {
			instance.Weight = fresh
		}
		if c := s.container; c != nil {
			instance.Container = c.id
		}
		switch instance.State {
		case InstanceBackoff:
			instance.Reason, instance.NextAttempt = r.backoffReason(s), s.notBefore
		case InstancePending:
			instance.Reason = s.lastFailure
			if s.version == r.desired.Version && r.deferred {
				instance.Reason = r.comesAfter
			}
		case InstanceStarting:
			instance.Reason = r.provingReason(s, now)
		case InstanceUnhealthy, InstanceDraining, InstanceStopping:
			if s.container.failureCounted {
				instance.Reason = s.lastFailure
			}
		case InstanceUnreachable:
			instance.Reason = "node " + string(s.container.node) + " does not answer"
		}
		instances[i] = instance
	}
	return instances
}

// ownFailures is the number of failures within the window; zero if the last one counts against the node alone.
func (r *Role) ownFailures(s *slot, now time.Time) int {
	if s.nodeAtFault {
		return 0
	}
	return len(r.recent(slices.Clone(s.failures), now))
}

// provingReason explains why an instance does not count yet.
func (r *Role) provingReason(s *slot, now time.Time) string {
	if r.phase(s, now) != proving {
		return r.probeReason(s)
	}
	what := "running"
	if r.desired.StartPeriod > 0 {
		what = "healthy"
	}
	return fmt.Sprintf("%s, and counts once that has lasted %v", what, r.desired.Update.MinHealthy)
}

// probeReason is the result of the last probe of an instance that is not healthy yet, and what happens if that does not
// change.
func (r *Role) probeReason(s *slot) string {
	status := s.container.status
	if status.Reason == "" || status.Stage != StageRunning || r.desired.StartPeriod <= 0 {
		return status.Reason
	}
	otherwise := "another container is started"
	failures, limit := len(r.rollout.failures)+1, r.desired.Restart.MaxFailures
	if r.evaluated() && s.version == r.desired.Version && failures <= limit {
		otherwise = fmt.Sprintf("that is failure %d of %d of version %d", failures, limit, s.version)
	}
	return fmt.Sprintf("%s; unless healthy %v after the start, %s", status.Reason, r.desired.StartPeriod, otherwise)
}

// inService reports whether a slot's container is to be routed to while it is healthy.
func inService(s *slot) bool {
	c := s.container
	return c != nil && !s.notRouted && c.started && c.withdrawRequestedAt.IsZero() && !c.released && c.status.Stage != StageStopping
}

func (r *Role) state(s *slot, now time.Time) InstanceState {
	switch r.phase(s, now) {
	case empty:
		if now.Before(s.notBefore) {
			return InstanceBackoff
		}
		return InstancePending
	case asked, granted:
		return InstancePending
	case unreported:
		return InstanceUnknown
	case healthy, returned:
		return InstanceRunning
	case failing:
		return InstanceUnhealthy
	case withdrawing, draining, drained:
		return InstanceDraining
	case stopping:
		return InstanceStopping
	case lost, replacing:
		return InstanceUnreachable
	}
	switch s.container.status.Stage {
	case StagePreparing:
		// The node has not begun with the container. STARTING comes after LOADING and must not be shown first.
		return InstancePending
	case StageDownloading:
		return InstanceDownloading
	case StageLoading:
		return InstanceLoading
	}
	return InstanceStarting
}
