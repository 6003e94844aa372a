package plan

import (
	"fmt"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// rollout is the change to the wanted version, or a rolling restart.
type rollout struct {
	version int32
	restart time.Time
	state   RolloutState
	// progressAt is when best last rose: the number of new instances that were healthy together, and of those that counted.
	// Of a rollout that is over it is the end.
	progressAt time.Time
	best       int
	failures   []time.Time
	// overAt is since when there have been too many of them, zero if there are not.
	overAt     time.Time
	lastReason string
	reason     string
	// change is true when the version is new, false for a restart: that cannot be reverted.
	change bool
	// base is the version that came up whole before, which serves until the new one has proven itself; zero if none did.
	base int32
	// proven: the version has come up whole, so that a restart of it, or a failure after it, brings back no other.
	proven bool
	// again: it was done, and its version did not hold. No deadline counts then: of instances that only wait for room it did.
	again bool
	// switched: of BlueGreen, the new version has taken over.
	switched bool
	// requests and errors are what balancers have counted for the new version.
	requests, errors int64
}

func (o *rollout) want(wanted Wanted, now time.Time) {
	if o.version == wanted.Version && o.restart.Equal(wanted.RestartBefore) && o.state != NoRollout {
		return
	}
	next := rollout{
		version: wanted.Version, restart: wanted.RestartBefore, state: Progressing,
		progressAt: now, change: o.version != wanted.Version, base: o.base, switched: o.switched, proven: o.proven,
	}
	if next.change {
		if wanted.Reverted {
			next.reason = o.reason
		}
		next.switched, next.proven = false, false
		restarting := !o.change && o.base == 0 && o.state != NoRollout
		if o.switched || restarting || o.state == Done || o.state == Reverted {
			next.base = o.version
		}
	}
	*o = next
}

// failed takes a failure of the wanted version. Soon after its last step it begins the rollout anew: the version did not hold.
func (r *Role) failed(reason string, now time.Time) {
	o := &r.rollout
	switch {
	case o.state == Progressing, o.state == Paused, o.state == Failed:
	case o.state == Done && now.Before(o.progressAt.Add(r.watch())):
		o.state, o.progressAt, o.best, o.again = Progressing, now, 0, true
		o.reason = fmt.Sprintf("version %d had come up and does not hold: %s", o.version, reason)
	default:
		return
	}
	o.failures = r.recent(append(o.failures, now), now)
	o.lastReason = reason
}

// watch is how long after its last step a rollout is still judged by the failures of its version, and how long the instances
// of one that failed must have gone without a failure before it is done after all.
func (r *Role) watch() time.Duration { return max(watchPeriod, r.wanted.Update.MinHealthy) }

const watchPeriod = time.Minute

// calmFrom is when a rollout has been without a failure for a while.
func (o *rollout) calmFrom(watch time.Duration) time.Time {
	if len(o.failures) == 0 {
		return time.Time{}
	}
	return o.failures[len(o.failures)-1].Add(watch)
}

// judge follows a rollout and asks to revert one that has failed.
func (r *Role) judge(now time.Time) {
	o := &r.rollout
	if o.state != Progressing && o.state != Failed && o.state != Paused {
		return
	}
	updated, young, outdated := r.progress(now)
	calm := o.state != Failed || !now.Before(o.calmFrom(r.watch()))
	if outdated == 0 && updated >= r.wanted.Count && calm {
		o.state, o.progressAt, o.base, o.switched, o.proven, o.again = Done, now, 0, false, true, false
		if r.wanted.Reverted && o.change {
			o.state = Reverted
		} else {
			o.reason = ""
		}
		return
	}
	if o.state == Failed {
		return
	}
	if why := r.pausedFor(updated); why != "" {
		o.state, o.reason, o.progressAt = Paused, why, now
	} else if o.state == Paused {
		o.state, o.reason, o.progressAt = Progressing, "", now
	}
	if reached := 2*updated + young; reached > o.best {
		o.best, o.progressAt = reached, now
	}
	if r.awaitsOwn(now) || r.awaitsNode(now) {
		o.progressAt = now
	}
	o.failures = r.recent(o.failures, now)
	policy := r.wanted.Restart
	switch tooMany := policy.MaxFailures > 0 && len(o.failures) >= policy.MaxFailures; {
	case !tooMany:
		o.overAt = time.Time{}
	case o.overAt.IsZero():
		o.overAt = now
	}
	switch {
	case r.wanted.Paused:
		return
	case r.tooManyErrors():
		o.reason = fmt.Sprintf("%.1f %% of %d answers of version %d were errors, at most %g %% may be",
			100*float64(o.errors)/float64(o.requests), o.requests, o.version, r.wanted.Update.MaxErrorPercent)
	case !o.overAt.IsZero() && !now.Before(o.overAt.Add(doubt)):
		o.reason = fmt.Sprintf("version %d failed %s within %v, last: %s", o.version, inWords(policy.MaxFailures), policy.Window, o.lastReason)
	case o.state == Progressing && !o.again && r.wanted.Update.Deadline > 0 && !now.Before(o.progressAt.Add(r.wanted.Update.Deadline)):
		o.reason = fmt.Sprintf("version %d made no progress for %v: %d of %d instances run", o.version, r.wanted.Update.Deadline, updated, r.wanted.Count)
		if o.lastReason != "" {
			o.reason += ", last failure: " + o.lastReason
		}
		if saw := r.lastSeen(now); saw != "" {
			o.reason += "; " + saw
		} else {
			o.reason += r.whyWaits()
		}
	default:
		return
	}
	o.state = Failed
	if r.wanted.CanRevert && o.change {
		r.due = append(r.due, Revert{From: o.version, Reason: o.reason})
	}
}

// awaitsOwn reports whether a rollout waits for what it takes away itself: an instance that is drained or stopped keeps the
// place that the next one needs.
func (r *Role) awaitsOwn(now time.Time) bool {
	going, fresh := false, 0
	for _, s := range r.slots {
		phase := r.phase(s, now)
		going = going || s.leaving && r.outdated(s) && (phase == draining || phase == drained || phase == stopping)
		if s.version == r.wanted.Version && !s.leaving {
			fresh++
		}
	}
	return going && fresh < r.wanted.Count
}

// awaitsNode reports whether a rollout waits for a node that failed it, or that nobody can see: the version is not to blame.
func (r *Role) awaitsNode(now time.Time) bool {
	for _, s := range r.of(r.wanted.Version) {
		switch {
		case s.current == nil:
			if s.ofNode {
				return true
			}
		case !r.serves(s, now) && r.troubled(s.current.node):
			return true
		}
	}
	return false
}

// troubled nodes are unwell, or lost, or not heard from: of their containers nobody knows enough to judge.
func (r *Role) troubled(name id.Node) bool {
	n := r.node(name)
	return n.unseen || n.state == Unwell || n.state == Lost
}

// progress counts the instances that are as wanted and have been healthy for long enough, those that are only on the way to
// it, and those that are not as wanted and not gone.
func (r *Role) progress(now time.Time) (updated, young, outdated int) {
	for _, s := range r.slots {
		switch phase := r.phase(s, now); {
		case r.outdated(s):
			outdated++
		case s.leaving || s.dark:
		case phase == healthy:
			updated++
		case phase == proving:
			young++
		}
	}
	return updated, young, outdated
}

// Rollout is how far the change to the wanted version has come.
func (r *Role) Rollout(now time.Time) Rollout {
	updated, _, _ := r.progress(now)
	fresh, old := r.weights(now)
	var given, all int
	for _, s := range r.slots {
		switch {
		case !inService(s) || !r.serves(s, now):
		case s.version == r.wanted.Version:
			given, all = given+fresh, all+fresh
		default:
			all += old
		}
	}
	percent := 0
	if all > 0 {
		percent = (100*given + all/2) / all
	}
	rollout := Rollout{
		Version: r.rollout.version, State: r.rollout.state,
		Updated: min(updated, r.wanted.Count), Total: r.wanted.Count, Percent: percent, Reason: r.rollout.reason,
	}
	if o := &r.rollout; r.judged() {
		rollout.Failures, rollout.MaxFailures, rollout.Reverts = len(o.failures), r.wanted.Restart.MaxFailures, r.wanted.CanRevert && o.change
		rollout.FailsAt = r.failsAt(now)
	}
	return rollout
}

// judged reports whether failures and the lack of progress count at present.
func (r *Role) judged() bool {
	return !r.wanted.Paused && (r.rollout.state == Progressing || r.rollout.state == Paused)
}

// failsAt is when a rollout that is judged has failed if nothing changes; zero if time alone does not make it fail.
func (r *Role) failsAt(now time.Time) time.Time {
	o := &r.rollout
	switch {
	case !o.overAt.IsZero():
		return o.overAt.Add(doubt)
	case o.state != Progressing, o.again, r.wanted.Update.Deadline <= 0, r.awaitsOwn(now), r.awaitsNode(now):
		return time.Time{}
	}
	return o.progressAt.Add(r.wanted.Update.Deadline)
}
