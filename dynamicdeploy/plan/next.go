package plan

import (
	"fmt"
	"slices"
	"time"
)

// confirmation is how long a withdrawal may stay unconfirmed before it is asked for again.
const confirmation = 5 * time.Second

// Next decides all that can be decided at now. It is to be called again after every fact, and at the instant it names,
// unless that is zero.
func (r *Role) Next(now time.Time) ([]Action, time.Time) {
	for _, s := range r.sorted() {
		if s.current != nil && s.current.released && r.lost(s.current) {
			r.fence(s)
		}
		if s.current != nil && !s.current.failed && r.phase(s, now) == failing {
			r.fail(s, Exit{Blame: App, Reason: r.failingReason(s)}, now)
		}
	}
	r.acquit(now)
	actions := r.due
	r.due = nil
	for before, state := -1, Progressing; before != len(actions) || state != r.rollout.state; {
		// What was done may call for more: a slot that was closed makes room for another, a rollout that is over ends a pause.
		before, state = len(actions), r.rollout.state
		r.choose(now)
		for _, s := range r.sorted() {
			actions = r.advance(s, now, actions)
		}
		r.judge(now)
	}
	actions, r.due = append(actions, r.due...), nil
	for _, s := range r.slots {
		if inService(s) && r.phase(s, now) != unseen {
			s.current.outBefore, s.current.served = false, true
		}
	}
	return actions, r.deadline(now)
}

// advance takes steps with a slot until it has to wait.
func (r *Role) advance(s *slot, now time.Time, actions []Action) []Action {
	for {
		switch steps[r.goal(s, now)][r.phase(s, now)] {
		case ask:
			avoid := r.avoid(s, now)
			s.ask, s.askedAt, s.choosy = r.newAsk(s), now, len(avoid) > 0
			actions = append(actions, Ask{ID: s.ask, Instance: r.instance(s), Number: s.number, Version: s.version, Avoid: avoid, Replaces: s.ran})
		case unask:
			actions = append(actions, Unask{ID: s.ask})
			s.ask = ""
		case start:
			s.current.started = true
			if s.ran {
				s.restarts++
			}
			s.ran = true
			actions = append(actions, Start{Container: s.current.id, Instance: r.instance(s), Number: s.number, Version: s.version})
		case takeOut:
			s.current.outAt = now
			if s.current.outBefore {
				s.current.withdrawn, s.current.withdrawnAt = true, now
			}
			actions = append(actions, TakeOut{Instance: r.instance(s)})
		case release:
			actions = append(actions, Release{Container: s.current.id})
			switch {
			case !s.current.started:
				s.current = nil
			case r.lost(s.current):
				s.current.released = true
				r.fence(s)
			default:
				s.current.released = true
			}
		case closeSlot:
			delete(r.slots, s.number)
			return append(actions, Close{Instance: r.instance(s)})
		case undecided:
			panic("plan: a slot is in a phase that nobody thought of")
		case wait:
			if again, ok := r.impatient(s, now); ok {
				actions = append(actions, again)
				continue
			}
			return actions
		}
	}
}

// impatient is what is done when a wait has been too long.
func (r *Role) impatient(s *slot, now time.Time) (Action, bool) {
	switch r.phase(s, now) {
	case withdrawing:
		if !now.Before(s.current.outAt.Add(confirmation)) {
			s.current.outAt = now
			return TakeOut{Instance: r.instance(s)}, true
		}
	case asked, replacing:
		if s.choosy && !now.Before(s.askedAt.Add(patience)) {
			withdrawn := Unask{ID: s.ask}
			s.ask, s.choosy, s.indifferent = "", false, true
			return withdrawn, true
		}
	}
	return nil, false
}

// deadline is the next instant at which time alone changes something.
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
			if c := s.current; r.wanted.StartPeriod > 0 && c.status.Stage == Running {
				at(r.overdueFrom(c))
			}
		case proving:
			at(r.countsFrom(s.current))
		case withdrawing:
			at(s.current.outAt.Add(confirmation))
		case draining:
			at(r.drainedAt(s.current))
		case asked, replacing:
			if s.choosy {
				at(s.askedAt.Add(patience))
			}
		}
	}
	if o := &r.rollout; (o.state == Progressing || o.state == Paused) && !o.overAt.IsZero() {
		at(o.overAt.Add(doubt))
	}
	switch o := &r.rollout; {
	case o.state == Progressing && !o.again && r.wanted.Update.Deadline > 0:
		at(o.progressAt.Add(r.wanted.Update.Deadline))
	case o.state == Failed:
		at(o.calmFrom(r.watch()))
	}
	return next
}

func (r *Role) goal(s *slot, now time.Time) goal {
	switch {
	case s.leaving:
		return leave
	case now.Before(s.notBefore):
		return hold
	}
	return serve
}

func (r *Role) phase(s *slot, now time.Time) phase {
	c := s.current
	switch {
	case c == nil && s.ask == "":
		return empty
	case c == nil:
		return asked
	case c.released, c.seen && c.status.Stage == Ending:
		return stopping
	case c.withdrawn && (r.lost(c) || !now.Before(r.drainedAt(c))):
		return drained
	case c.withdrawn:
		return draining
	case !c.outAt.IsZero():
		return withdrawing
	case r.lost(c) && s.ask == "":
		return lost
	case r.lost(c):
		return replacing
	case s.ask != "":
		return returned
	case !c.started:
		return granted
	case c.adopted && !c.seen:
		return unseen
	case c.unanswered, c.status.Health == Bad, r.overdue(c, now):
		return failing
	case c.status.Stage == Running && c.status.Health == Good && now.Before(r.countsFrom(c)):
		return proving
	case c.status.Stage == Running && c.status.Health == Good:
		return healthy
	}
	return starting
}

// countsFrom is when a healthy container has been so for long enough.
func (r *Role) countsFrom(c *container) time.Time { return c.goodSince.Add(r.wanted.Update.MinHealthy) }

// serves reports whether requests get answers from a slot.
func (r *Role) serves(s *slot, now time.Time) bool {
	phase := r.phase(s, now)
	return phase == healthy || phase == proving
}

// available reports whether a slot that is to stay has been healthy for long enough. One that is to be moved has nothing to
// prove, it serves.
func (r *Role) available(s *slot, now time.Time) bool {
	return r.phase(s, now) == healthy || r.serves(s, now) && r.evicted(s)
}

// counts reports whether a slot is one of the instances that there must be before another may go. Those that make room have
// nothing to prove, they serve.
func (r *Role) counts(s *slot, now time.Time) bool {
	return r.available(s, now) || r.serves(s, now) && r.outdated(s)
}

// drainedAt is when a withdrawn container may be stopped: at once when its start was refused, and sooner when people shorten
// the drain.
func (r *Role) drainedAt(c *container) time.Time {
	if c.withdrawnAt.IsZero() {
		return time.Time{}
	}
	return c.withdrawnAt.Add(r.wanted.Drain)
}

// overdue containers run for longer than they may without having been healthy.
func (r *Role) overdue(c *container, now time.Time) bool {
	return r.wanted.StartPeriod > 0 && c.status.Stage == Running && c.status.Health == Unproven &&
		!r.node(c.node).unseen && !now.Before(r.overdueFrom(c))
}

func (r *Role) overdueFrom(c *container) time.Time {
	return c.status.RunningSince.Add(r.wanted.StartPeriod + r.wanted.Hesitation)
}

func (r *Role) failingReason(s *slot) string {
	switch c := s.current; {
	case c.status.Reason != "":
		if c.status.Health == Bad {
			return c.status.Reason
		}
		return "it did not become healthy within " + r.wanted.StartPeriod.String() + ": " + c.status.Reason
	case c.status.Health == Bad:
		return "its health check fails"
	}
	return "it did not become healthy within " + r.wanted.StartPeriod.String()
}

// Instances are what is to be reported, by number.
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
		if s.version == r.wanted.Version {
			instance.Weight = fresh
		}
		if c := s.current; c != nil {
			instance.Container = c.id
		}
		switch instance.State {
		case Backoff:
			instance.Reason, instance.NextAttempt = r.backoffReason(s), s.notBefore
		case Pending:
			instance.Reason = s.reason
		case Starting:
			instance.Reason = r.provingReason(s, now)
		case Unhealthy, IsDraining, Stopping:
			if s.current.failed {
				instance.Reason = s.reason
			}
		case Unreachable:
			instance.Reason = "node " + string(s.current.node) + " does not answer"
		}
		instances[i] = instance
	}
	return instances
}

// ownFailures is how often a slot failed within the window, none if the last time its node was to blame.
func (r *Role) ownFailures(s *slot, now time.Time) int {
	if s.ofNode {
		return 0
	}
	return len(r.recent(slices.Clone(s.failures), now))
}

// provingReason is the sentence for an instance that does not count yet; of one that is not healthy yet it is what its probe
// saw last.
func (r *Role) provingReason(s *slot, now time.Time) string {
	if r.phase(s, now) != proving {
		return r.probeReason(s)
	}
	what := "running"
	if r.wanted.StartPeriod > 0 {
		what = "healthy"
	}
	return fmt.Sprintf("%s, and counts once that has lasted %v", what, r.wanted.Update.MinHealthy)
}

// probeReason is what the last probe of an instance that is not healthy yet saw, and what comes of it if that lasts.
func (r *Role) probeReason(s *slot) string {
	status := s.current.status
	if status.Reason == "" || status.Stage != Running || r.wanted.StartPeriod <= 0 {
		return status.Reason
	}
	otherwise := "another container is started"
	failures, limit := len(r.rollout.failures)+1, r.wanted.Restart.MaxFailures
	if r.judged() && s.version == r.wanted.Version && failures <= limit {
		otherwise = fmt.Sprintf("that is failure %d of %d of version %d", failures, limit, s.version)
	}
	return fmt.Sprintf("%s; unless healthy %v after the start, %s", status.Reason, r.wanted.StartPeriod, otherwise)
}

// inService says whether a slot's container serves as soon as its node finds it healthy.
func inService(s *slot) bool {
	c := s.current
	return c != nil && !s.dark && c.started && c.outAt.IsZero() && !c.released && c.status.Stage != Ending
}

func (r *Role) state(s *slot, now time.Time) State {
	switch r.phase(s, now) {
	case empty:
		if now.Before(s.notBefore) {
			return Backoff
		}
		return Pending
	case asked, granted:
		return Pending
	case unseen:
		return Unseen
	case healthy, returned:
		return IsRunning
	case failing:
		return Unhealthy
	case withdrawing, draining, drained:
		return IsDraining
	case stopping:
		return Stopping
	case lost, replacing:
		return Unreachable
	}
	switch s.current.status.Stage {
	case Preparing:
		// Its node may have it, but has not begun with it. Starting is what comes behind loading.
		return Pending
	case Downloading:
		return IsDownloading
	case Loading:
		return IsLoading
	}
	return Starting
}
