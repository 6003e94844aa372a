package plan

import (
	"fmt"
	"slices"
	"time"
)

// rollout owns how far the change to the desired version has come, or a rolling restart, and whether it has failed.
type rollout struct {
	version       int32
	restartBefore time.Time
	state         RolloutState
	// bestProgress is the highest score so far: two for each instance that counted, one for each that was healthy and did
	// not count yet. progressAt is when it last rose; once the rollout is over, it is the end.
	progressAt   time.Time
	bestProgress int
	// held is true while the version is not to blame that there is no progress. The time without progress begins anew after that.
	held     bool
	failures []time.Time
	// tooManySince is since when there have been too many failures, zero if there are not.
	tooManySince time.Time
	lastReason   string
	reason       string
	// newVersion is true for a new version and false for a restart, which cannot be reverted.
	newVersion bool
	// base is the version that last came up completely. It serves until the new one has done so; zero if none has.
	base int32
	// before is the last version that had come up completely when this one was desired, also once this one has; zero if none had.
	before int32
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
		progressAt: now, newVersion: changed || o.newVersion && underWay, base: o.base, switched: o.switched, completed: o.completed, before: o.before,
	}
	if changed {
		if desired.Reverted {
			next.reason = o.reason
		}
		next.switched, next.completed = false, false
		restarting := !o.newVersion && o.base == 0 && o.state != NoRollout
		if o.switched || restarting || o.state == Done || o.state == Reverted {
			next.base, next.before = o.version, o.version
		}
	}
	*o = next
}

// continueAs makes the version count as another one that changes nothing of the role. It reports whether the rollout goes on as it is: one
// that has failed begins anew with every version. Reverted becomes Done: only the version that a revert made is called that.
func (o *rollout) continueAs(version int32) bool {
	if o.state == NoRollout || o.state == Failed {
		return false
	}
	o.mergeVersion(o.version, version)
	o.version = version
	if o.state == Reverted {
		o.state, o.reason = Done, ""
	}
	return true
}

func (m *RolloutMemo) continueAs(version int32) bool {
	o := rollout{version: m.Version, state: m.State, base: m.Base, before: m.Before, reason: m.Reason}
	goesOn := o.continueAs(version)
	m.Version, m.State, m.Base, m.Before, m.Reason = o.version, o.state, o.base, o.before, o.reason
	return goesOn
}

// mergeVersion makes one version count as another.
func (o *rollout) mergeVersion(from, to int32) {
	if o.base == from {
		o.base = to
	}
	if o.before == from {
		o.before = to
	}
}

// addFailure counts a failure of the desired version. Soon after the end of a rollout it opens the rollout again.
func (o *rollout) addFailure(desired Desired, reason string, now time.Time) {
	switch {
	case o.state == Progressing, o.state == Paused, o.state == Failed:
	case o.state == Done && now.Before(o.progressAt.Add(desired.watchTime())):
		o.state, o.progressAt, o.bestProgress, o.reopened = Progressing, now, 0, true
		o.reason = fmt.Sprintf("version %d failed after it had come up: %s", o.version, reason)
	default:
		return
	}
	o.failures = desired.Restart.recent(append(o.failures, now), now)
	o.lastReason = reason
}

// forgive takes back a failure that was a node's.
func (o *rollout) forgive(f provisionalFailure) {
	if i := slices.IndexFunc(o.failures, f.at.Equal); i >= 0 && f.ofDesired {
		o.failures = slices.Delete(slices.Clone(o.failures), i, i+1)
	}
	if o.reopened && len(o.failures) == 0 {
		o.reason = ""
	}
}

// watchTime is how long after its end a rollout can be opened again by a failure, and how long the instances of a failed one
// must go without a failure before it is done after all.
func (d *Desired) watchTime() time.Duration { return max(minWatchTime, d.Update.MinHealthy) }

const minWatchTime = time.Minute

// quietAt is when the rollout has had no failure for that time.
func (o *rollout) quietAt(watch time.Duration) time.Time {
	if len(o.failures) == 0 {
		return time.Time{}
	}
	return o.failures[len(o.failures)-1].Add(watch)
}

// over reports whether the rollout has ended or never began.
func (o *rollout) over() bool {
	return o.state == Done || o.state == Reverted || o.state == NoRollout
}

// succeeded reports whether the version has come up completely.
func (o *rollout) succeeded() bool { return o.state == Done || o.state == Reverted }

func (o *rollout) current() RolloutState { return o.state }

func (o *rollout) failed() bool { return o.state == Failed }

// abandoned reports whether a version is one that was given up: it is neither the desired one nor the one that serves instead, because a
// rollout has failed or was reverted.
func (o *rollout) abandoned(version int32) bool {
	return (o.state == Failed || o.state == Reverted) && version < o.version && version != o.base
}

// lastBase is the version that last came up completely and is to serve until the desired one has. It is zero, and known is false, if
// none has been recorded and another may serve.
func (o *rollout) lastBase() (base int32, known bool) {
	return o.base, o.base != 0 || o.over() || o.completed
}

func (o *rollout) lastBefore() int32 { return o.before }

func (o *rollout) hasSwitched() bool { return o.switched }

// switchOver records that the new version of a BlueGreen rollout takes over.
func (o *rollout) switchOver() { o.switched = true }

// addTraffic adds what balancers have counted for the new version.
func (o *rollout) addTraffic(requests, errors int64) {
	o.requests += requests
	o.errors += errors
	if o.requests > maxRequests {
		o.requests, o.errors = o.requests/2, o.errors/2
	}
}

// minRequests is how many requests are needed to evaluate the errors. Above maxRequests the older ones count half.
const minRequests, maxRequests = 20, 1000

func (o *rollout) tooManyErrors(limit float64) bool {
	return limit > 0 && o.newVersion && o.requests >= minRequests && 100*float64(o.errors) > limit*float64(o.requests)
}

// evaluate updates the state by the progress of the instances. It reports whether the version before is to be restored, since the
// rollout has failed now.
func (o *rollout) evaluate(desired Desired, has progress, now time.Time) (reverts bool) {
	if o.state != Progressing && o.state != Failed && o.state != Paused {
		return false
	}
	if desired.Stopped {
		o.held = true // it goes on when the app is started again
		return false
	}
	quiet := o.state != Failed || !now.Before(o.quietAt(desired.watchTime()))
	if has.outdated == 0 && has.updated >= desired.Count && quiet {
		o.state, o.progressAt, o.held, o.base, o.switched, o.completed, o.reopened = Done, now, false, 0, false, true, false
		if desired.Reverted && o.newVersion {
			o.state = Reverted
		} else {
			o.reason = ""
		}
		return false
	}
	if o.state == Failed {
		return false
	}
	if has.pauseReason != "" {
		o.state, o.reason = Paused, has.pauseReason
	} else if o.state == Paused {
		o.state, o.reason = Progressing, ""
	}
	held := o.state == Paused || has.blameless
	if o.held && !held {
		o.progressAt = now
	}
	o.held = held
	if reached := 2*has.updated + has.unproven; reached > o.bestProgress {
		o.bestProgress, o.progressAt = reached, now
	}
	o.failures = desired.Restart.recent(o.failures, now)
	policy := desired.Restart
	switch tooMany := policy.MaxFailures > 0 && len(o.failures) >= policy.MaxFailures; {
	case !tooMany:
		o.tooManySince = time.Time{}
	case o.tooManySince.IsZero():
		o.tooManySince = now
	}
	switch {
	case desired.Paused:
		return false
	case o.tooManyErrors(desired.Update.MaxErrorPercent):
		o.reason = fmt.Sprintf("%.1f %% of %d answers of version %d were errors, at most %g %% may be",
			100*float64(o.errors)/float64(o.requests), o.requests, o.version, desired.Update.MaxErrorPercent)
	case !o.tooManySince.IsZero() && !now.Before(o.tooManySince.Add(detectionTime)):
		o.reason = fmt.Sprintf("version %d failed %s within %v, last: %s", o.version, InWords(policy.MaxFailures), policy.Window, o.lastReason)
	case o.state == Progressing && !o.held && !o.reopened && desired.Update.Deadline > 0 && !now.Before(o.progressAt.Add(desired.Update.Deadline)):
		o.reason = fmt.Sprintf("version %d made no progress for %v: %d of %d instances run", o.version, desired.Update.Deadline, has.updated, desired.Count)
		if o.lastReason != "" {
			o.reason += ", last failure: " + o.lastReason
		}
		if has.missing != "" {
			o.reason += "; " + has.missing
		}
	default:
		return false
	}
	o.state = Failed
	return desired.CanRevert && o.newVersion
}

// changes calls at with the instants at which time alone may change the state; some may be zero or past.
func (o *rollout) changes(desired Desired, at func(time.Time)) {
	if (o.state == Progressing || o.state == Paused) && !o.tooManySince.IsZero() {
		at(o.tooManySince.Add(detectionTime))
	}
	switch {
	case o.state == Progressing && !o.held && !o.reopened && desired.Update.Deadline > 0:
		at(o.progressAt.Add(desired.Update.Deadline))
	case o.state == Failed:
		at(o.quietAt(desired.watchTime()))
	}
}

// report reports how far the rollout has come.
func (o *rollout) report(desired Desired, has progress, percent int) Rollout {
	rollout := Rollout{
		Version: o.version, State: o.state, Updated: min(has.updated, desired.Count), Total: desired.Count, Percent: percent, Reason: o.reason,
	}
	if o.evaluated(desired) {
		rollout.Failures, rollout.MaxFailures, rollout.Reverts = len(o.failures), desired.Restart.MaxFailures, desired.CanRevert && o.newVersion
		rollout.FailsAt = o.failsAt(desired, has)
	}
	return rollout
}

// revert is the request for the version before.
func (o *rollout) revert() Revert { return Revert{From: o.version, Reason: o.reason} }

// evaluated reports whether failures and the lack of progress can fail the rollout at present.
func (o *rollout) evaluated(desired Desired) bool {
	return !desired.Paused && (o.state == Progressing || o.state == Paused)
}

// failsAt is when the rollout fails if nothing changes; zero if it does not fail by time alone.
func (o *rollout) failsAt(desired Desired, has progress) time.Time {
	switch {
	case desired.Stopped:
		return time.Time{}
	case !o.tooManySince.IsZero():
		return o.tooManySince.Add(detectionTime)
	case o.state != Progressing, o.reopened, desired.Update.Deadline <= 0, has.blameless:
		return time.Time{}
	}
	return o.progressAt.Add(desired.Update.Deadline)
}

// nextFailure is the number that the next failure of the version has, and with which the version has failed. Counted is false if
// failures do not count at present, or the version has failed.
func (o *rollout) nextFailure(desired Desired) (number, limit int, counted bool) {
	number, limit = len(o.failures)+1, desired.Restart.MaxFailures
	return number, limit, o.evaluated(desired) && number <= limit
}

func (o *rollout) memo() RolloutMemo {
	return RolloutMemo{
		Version: o.version, RestartBefore: o.restartBefore, State: o.state, ProgressAt: o.progressAt, BestProgress: o.bestProgress, Held: o.held,
		Failures: slices.Clone(o.failures), Reason: o.reason, LastReason: o.lastReason, NewVersion: o.newVersion,
		Base: o.base, Before: o.before, Switched: o.switched, Completed: o.completed, Reopened: o.reopened,
	}
}

// restore replaces a rollout that has just begun by the one of an earlier master, if that had one.
func (o *rollout) restore(m RolloutMemo, desired Desired) (restored bool) {
	if m.State == NoRollout {
		return false
	}
	earlier := rollout{
		version: m.Version, restartBefore: m.RestartBefore, state: m.State, progressAt: m.ProgressAt, bestProgress: m.BestProgress, held: m.Held,
		failures: m.Failures, reason: m.Reason, lastReason: m.LastReason, newVersion: m.NewVersion,
		base: m.Base, before: m.Before, switched: m.Switched, completed: m.Completed, reopened: m.Reopened,
	}
	began := o.progressAt
	// It is not known how long there was no master, or the app was stopped. The version could make no progress meanwhile and is not
	// to blame for that: at least half of its deadline remains.
	if least := began.Add(-desired.Update.Deadline / 2); earlier.state == Progressing && earlier.progressAt.Before(least) {
		earlier.progressAt = least
	}
	*o = earlier
	o.setDesired(desired, began)
	return true
}
