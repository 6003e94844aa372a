package plan

import (
	"fmt"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// rollout is the change to the desired version, or a rolling restart.
type rollout struct {
	version       int32
	restartBefore time.Time
	state         RolloutState
	// bestProgress is the highest score so far: two for each instance that counted, one for each that was healthy and did
	// not count yet. progressAt is when it last rose; once the rollout is over, it is the end.
	progressAt   time.Time
	bestProgress int
	failures     []time.Time
	// tooManySince is since when there have been too many failures, zero if there are not.
	tooManySince time.Time
	lastReason   string
	reason       string
	// newVersion is true for a new version and false for a restart, which cannot be reverted.
	newVersion bool
	// base is the version that last came up completely. It serves until the new one has done so; zero if none has.
	base int32
	// completed is true once the version has come up completely. A restart of it, or a later failure, brings back no other
	// version.
	completed bool
	// reopened is true if the rollout was done and an instance of its version failed soon after. No deadline applies then,
	// since what is missing may only wait for capacity.
	reopened bool
	// switched is true once the new version of a BlueGreen rollout has taken over.
	switched bool
	// requests and errors are the traffic counts of the new version.
	requests, errors int64
}

func (o *rollout) setDesired(desired Desired, now time.Time) {
	if o.version == desired.Version && o.restartBefore.Equal(desired.RestartBefore) && o.state != NoRollout {
		return
	}
	changed, underWay := o.version != desired.Version, o.state == Progressing || o.state == Paused
	next := rollout{
		version: desired.Version, restartBefore: desired.RestartBefore, state: Progressing,
		// A restart in the middle of a rollout is a part of it.
		progressAt: now, newVersion: changed || o.newVersion && underWay, base: o.base, switched: o.switched, completed: o.completed,
	}
	if changed {
		if desired.Reverted {
			next.reason = o.reason
		}
		next.switched, next.completed = false, false
		restarting := !o.newVersion && o.base == 0 && o.state != NoRollout
		if o.switched || restarting || o.state == Done || o.state == Reverted {
			next.base = o.version
		}
	}
	*o = next
}

// addFailure counts a failure of the desired version. Soon after the end of a rollout it opens the rollout again.
func (r *Role) addFailure(reason string, now time.Time) {
	o := &r.rollout
	switch {
	case o.state == Progressing, o.state == Paused, o.state == Failed:
	case o.state == Done && now.Before(o.progressAt.Add(r.watchTime())):
		o.state, o.progressAt, o.bestProgress, o.reopened = Progressing, now, 0, true
		o.reason = fmt.Sprintf("version %d failed after it had come up: %s", o.version, reason)
	default:
		return
	}
	o.failures = r.recent(append(o.failures, now), now)
	o.lastReason = reason
}

// watchTime is how long after its end a rollout can be opened again by a failure, and how long the instances of a failed one
// must go without a failure before it is done after all.
func (r *Role) watchTime() time.Duration { return max(minWatchTime, r.desired.Update.MinHealthy) }

const minWatchTime = time.Minute

// quietAt is when the rollout has had no failure for that time.
func (o *rollout) quietAt(watch time.Duration) time.Time {
	if len(o.failures) == 0 {
		return time.Time{}
	}
	return o.failures[len(o.failures)-1].Add(watch)
}

// evaluate updates the state of the rollout and requests a revert when it fails.
func (r *Role) evaluate(now time.Time) {
	o := &r.rollout
	if o.state != Progressing && o.state != Failed && o.state != Paused {
		return
	}
	if r.desired.Stopped {
		o.progressAt = now // it goes on when the app is started again
		return
	}
	updated, unproven, outdated := r.progress(now)
	quiet := o.state != Failed || !now.Before(o.quietAt(r.watchTime()))
	if outdated == 0 && updated >= r.desired.Count && quiet {
		o.state, o.progressAt, o.base, o.switched, o.completed, o.reopened = Done, now, 0, false, true, false
		if r.desired.Reverted && o.newVersion {
			o.state = Reverted
		} else {
			o.reason = ""
		}
		return
	}
	if o.state == Failed {
		return
	}
	if why := r.pauseReason(updated); why != "" {
		o.state, o.reason, o.progressAt = Paused, why, now
	} else if o.state == Paused {
		o.state, o.reason, o.progressAt = Progressing, "", now
	}
	if reached := 2*updated + unproven; reached > o.bestProgress {
		o.bestProgress, o.progressAt = reached, now
	}
	if r.waitsForDrain(now) || r.waitsForNode(now) || r.deferred {
		o.progressAt = now
	}
	o.failures = r.recent(o.failures, now)
	policy := r.desired.Restart
	switch tooMany := policy.MaxFailures > 0 && len(o.failures) >= policy.MaxFailures; {
	case !tooMany:
		o.tooManySince = time.Time{}
	case o.tooManySince.IsZero():
		o.tooManySince = now
	}
	switch {
	case r.desired.Paused:
		return
	case r.tooManyErrors():
		o.reason = fmt.Sprintf("%.1f %% of %d answers of version %d were errors, at most %g %% may be",
			100*float64(o.errors)/float64(o.requests), o.requests, o.version, r.desired.Update.MaxErrorPercent)
	case !o.tooManySince.IsZero() && !now.Before(o.tooManySince.Add(detectionTime)):
		o.reason = fmt.Sprintf("version %d failed %s within %v, last: %s", o.version, inWords(policy.MaxFailures), policy.Window, o.lastReason)
	case o.state == Progressing && !o.reopened && r.desired.Update.Deadline > 0 && !now.Before(o.progressAt.Add(r.desired.Update.Deadline)):
		o.reason = fmt.Sprintf("version %d made no progress for %v: %d of %d instances run", o.version, r.desired.Update.Deadline, updated, r.desired.Count)
		if o.lastReason != "" {
			o.reason += ", last failure: " + o.lastReason
		}
		if saw := r.lastProbe(now); saw != "" {
			o.reason += "; " + saw
		} else {
			o.reason += r.waitingClause()
		}
	default:
		return
	}
	o.state = Failed
	if r.desired.CanRevert && o.newVersion {
		r.pending = append(r.pending, Revert{From: o.version, Reason: o.reason})
	}
}

// waitsForDrain reports whether the next instance waits for capacity that an outdated one holds until it is drained and
// stopped.
func (r *Role) waitsForDrain(now time.Time) bool {
	ending, fresh := false, 0
	for _, s := range r.slots {
		phase := r.phase(s, now)
		ending = ending || s.leaving && r.outdated(s) && (phase == draining || phase == drained || phase == stopping)
		if s.version == r.desired.Version && !s.leaving {
			fresh++
		}
	}
	return ending && fresh < r.desired.Count
}

// waitsForNode reports whether a rollout waits because of a node that is unhealthy, lost or disconnected, or failed the
// instance. The version is not to blame.
func (r *Role) waitsForNode(now time.Time) bool {
	for _, s := range r.slotsOf(r.desired.Version) {
		switch {
		case s.container == nil:
			if s.nodeAtFault {
				return true
			}
		case !r.serves(s, now) && r.nodeTroubled(s.container.node):
			return true
		}
	}
	return false
}

// nodeTroubled nodes are unhealthy, lost or disconnected: too little is known of their containers to blame the version.
func (r *Role) nodeTroubled(name id.Node) bool {
	n := r.node(name)
	return n.disconnected || n.state == NodeUnhealthy || n.state == NodeLost
}

// progress counts the instances that are as desired and count, those that are healthy and do not count yet, and those that
// are outdated.
func (r *Role) progress(now time.Time) (updated, unproven, outdated int) {
	for _, s := range r.slots {
		switch phase := r.phase(s, now); {
		case r.outdated(s):
			outdated++
		case s.leaving || s.notRouted:
		case phase == healthy:
			updated++
		case phase == proving:
			unproven++
		}
	}
	return updated, unproven, outdated
}

// Rollout reports how far the change to the desired version has come.
func (r *Role) Rollout(now time.Time) Rollout {
	updated, _, _ := r.progress(now)
	fresh, old := r.weights(now)
	var given, all int
	for _, s := range r.slots {
		switch {
		case !inService(s) || !r.serves(s, now):
		case s.version == r.desired.Version:
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
		Updated: min(updated, r.desired.Count), Total: r.desired.Count, Percent: percent, Reason: r.rollout.reason,
	}
	if r.deferred {
		rollout.Reason = r.comesAfter
	}
	if o := &r.rollout; r.evaluated() {
		rollout.Failures, rollout.MaxFailures, rollout.Reverts = len(o.failures), r.desired.Restart.MaxFailures, r.desired.CanRevert && o.newVersion
		rollout.FailsAt = r.failsAt(now)
	}
	return rollout
}

// evaluated reports whether failures and the lack of progress can fail the rollout at present.
func (r *Role) evaluated() bool {
	return !r.desired.Paused && (r.rollout.state == Progressing || r.rollout.state == Paused)
}

// failsAt is when the rollout fails if nothing changes; zero if it does not fail by time alone.
func (r *Role) failsAt(now time.Time) time.Time {
	o := &r.rollout
	switch {
	case r.desired.Stopped:
		return time.Time{}
	case !o.tooManySince.IsZero():
		return o.tooManySince.Add(detectionTime)
	case o.state != Progressing, o.reopened, r.desired.Update.Deadline <= 0, r.waitsForDrain(now), r.waitsForNode(now), r.deferred:
		return time.Time{}
	}
	return o.progressAt.Add(r.desired.Update.Deadline)
}
