package plan

import (
	"cmp"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// confirmTimeout is how long a withdrawal may stay unconfirmed before it is requested again.
const confirmTimeout = 5 * time.Second

// Next returns the actions to take now. It is to be called after every fact, and at the returned time unless that is zero.
func (r *Role) Next(now time.Time) ([]Action, time.Time) {
	before := r.view(now)
	for _, s := range r.slots.sorted() {
		if s.container != nil && s.container.released && before.lost(s.container) {
			r.replaceContainer(s)
		}
		if s.container != nil && !s.container.failureCounted && before.phase(s) == failing {
			r.fail(s, Exit{Blame: BlameApp, Reason: r.report(before).failingReason(s)}, now)
		}
	}
	r.reattribute(now)
	r.order.decide(r.slots.begun(r.desired.Version), r.desired.Count)
	at := r.view(now)
	choose := r.chooserAt(at)
	actions := r.pending
	r.pending = nil
	for before, state := -1, Progressing; before != len(actions) || state != r.rollout.current(); {
		// A step may allow further ones: a forgotten slot makes room for another, and the end of a rollout ends a pause.
		before, state = len(actions), r.rollout.current()
		choose.adjust()
		for _, s := range r.slots.sorted() {
			actions = r.advance(s, at, now, actions)
		}
		if r.rollout.evaluate(r.desired, r.progress(at), now) {
			r.pending = append(r.pending, r.rollout.revert())
		}
	}
	actions, r.pending = append(actions, r.pending...), nil
	_, deferred := r.order.waits()
	r.order.setReady(!deferred && r.rollout.succeeded() && measure(at, &r.slots).updated >= r.desired.Count)
	for s := range r.slots.each() {
		if s.inService() && at.phase(s) != unreported {
			s.container.serve()
		}
	}
	return actions, r.deadline(at, now)
}

// advance takes steps with a slot until it has to wait.
func (r *Role) advance(s *slot, at *view, now time.Time, actions []Action) []Action {
	for {
		switch nextSteps[at.goal(s)][at.phase(s)] {
		case ask:
			actions = append(actions, r.ask(s, now))
		case withdrawAsk:
			actions = append(actions, WithdrawAsk{ID: s.endAsk()})
		case start:
			s.start()
			actions = append(actions, Start{Container: s.container.id, Instance: r.names.instance(s.number), Number: s.number, Version: s.version})
		case withdraw:
			s.container.withdraw(now)
			actions = append(actions, Withdraw{Instance: r.names.instance(s.number)})
		case release:
			actions = append(actions, Release{Container: s.container.id, Reason: r.report(at).releaseReason(s)})
			switch {
			case !s.container.started:
				s.clear()
			case at.lost(s.container):
				s.container.release()
				r.replaceContainer(s)
			default:
				s.container.release()
			}
		case forget:
			r.slots.forget(s)
			return append(actions, Forget{Instance: r.names.instance(s.number)})
		case undecided:
			panic("plan: a slot is in a phase without a decided step")
		case wait:
			if !at.repeats(s) {
				return actions
			}
			actions = append(actions, r.repeat(s, at, now))
		}
	}
}

// ask requests a container for a slot.
func (r *Role) ask(s *slot, now time.Time) Ask {
	var avoid []id.Node
	if !s.avoidNone {
		avoid = r.nodes.avoid(s.avoidNode, r.desired.Restart, now)
	}
	s.request(r.names.newAsk(s.number), len(avoid) > 0, now)
	return Ask{ID: s.ask, Instance: r.names.instance(s.number), Number: s.number, Version: s.version, Avoid: avoid, Replaces: s.hasRun}
}

// repeat repeats what has waited for too long: a withdrawal, or an ask that avoids nodes.
func (r *Role) repeat(s *slot, at *view, now time.Time) Action {
	if at.phase(s) == withdrawing {
		s.container.withdrawAgain(now)
		return Withdraw{Instance: r.names.instance(s.number)}
	}
	return WithdrawAsk{ID: s.stopAvoiding()}
}

// progress is how far the instances are.
func (r *Role) progress(at *view) progress {
	has := measure(at, &r.slots)
	if r.rollout.over() { // nothing more is evaluated
		return has
	}
	desired := r.slots.of(r.desired.Version)
	_, deferred := r.order.waits()
	return progress{
		updated: has.updated, unproven: has.unproven, outdated: has.outdated,
		blameless:   deferred || waitsForDrain(at, &r.slots, r.desired.Version, r.desired.Count) || waitsForNode(at, &r.nodes, desired),
		pauseReason: r.chooserAt(at).pauseReason(has.updated),
		missing:     cmp.Or(r.report(at).lastProbe(desired), r.waiting),
	}
}

// deadline is the next time at which something changes by time alone; zero if there is none.
func (r *Role) deadline(at *view, now time.Time) time.Time {
	var next time.Time
	earliest := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for s := range r.slots.each() {
		at.changes(s, earliest)
	}
	r.rollout.changes(r.desired, earliest)
	return next
}

// Instances reports every slot, by number.
func (r *Role) Instances(now time.Time) []Instance {
	at := r.view(now)
	report, slots := r.report(at), r.slots.sorted()
	fresh, old := r.chooserAt(at).weights()
	instances := make([]Instance, len(slots))
	for i, s := range slots {
		weight := old
		if s.version == r.desired.Version {
			weight = fresh
		}
		instances[i] = report.instance(s, weight)
	}
	return instances
}

// Rollout reports how far the change to the desired version has come.
func (r *Role) Rollout(now time.Time) Rollout {
	at := r.view(now)
	fresh, old := r.chooserAt(at).weights()
	rollout := r.rollout.report(r.desired, r.progress(at), share(at, &r.slots, r.desired.Version, fresh, old))
	if why, deferred := r.order.waits(); deferred {
		rollout.Reason = why
	}
	return rollout
}
