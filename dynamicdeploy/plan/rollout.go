package plan

import (
	"fmt"
	"time"
)

// rollout is the change to the wanted version, or a rolling restart.
type rollout struct {
	version int32
	restart time.Time
	state   RolloutState
	// progressAt is when best, the number of new instances that were healthy together, last rose.
	progressAt time.Time
	best       int
	failures   []time.Time
	lastReason string
	reason     string
	// change is true when the version is new, false for a restart: that cannot be reverted.
	change bool
	// base is the version that came up whole before, which serves until the new one has proven itself; zero if none did.
	base int32
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
		progressAt: now, change: o.version != wanted.Version, base: o.base, switched: o.switched,
	}
	if wanted.Reverted {
		next.reason = o.reason
	}
	if next.change {
		next.switched = false
		restarting := !o.change && o.base == 0 && o.state != NoRollout
		if o.switched || restarting || o.state == Done || o.state == Reverted {
			next.base = o.version
		}
	}
	*o = next
}

func (o *rollout) failed(reason string, now time.Time) {
	if o.state == Progressing || o.state == Paused {
		o.failures = append(o.failures, now)
		o.lastReason = reason
	}
}

// judge follows a rollout and asks to revert one that has failed.
func (r *Role) judge(now time.Time) {
	o := &r.rollout
	if o.state != Progressing && o.state != Failed && o.state != Paused {
		return
	}
	updated, outdated := r.progress(now)
	if outdated == 0 && updated >= r.wanted.Count {
		o.state, o.failures, o.base, o.switched = Done, nil, 0, false
		if r.wanted.Reverted {
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
	if updated > o.best {
		o.best, o.progressAt = updated, now
	}
	if r.awaitsOwn(now) {
		o.progressAt = now
	}
	o.failures = r.recent(o.failures, now)
	policy := r.wanted.Restart
	switch {
	case r.wanted.Paused:
		return
	case r.tooManyErrors():
		o.reason = fmt.Sprintf("%.1f %% of %d answers of version %d were errors, at most %g %% may be",
			100*float64(o.errors)/float64(o.requests), o.requests, o.version, r.wanted.Update.MaxErrorPercent)
	case policy.MaxFailures > 0 && len(o.failures) >= policy.MaxFailures:
		o.reason = fmt.Sprintf("version %d failed %d times within %v, last: %s", o.version, len(o.failures), policy.Window, o.lastReason)
	case o.state == Progressing && r.wanted.Update.Deadline > 0 && !now.Before(o.progressAt.Add(r.wanted.Update.Deadline)):
		o.reason = fmt.Sprintf("version %d made no progress for %v: %d of %d instances are healthy", o.version, r.wanted.Update.Deadline, updated, r.wanted.Count)
		if o.lastReason != "" {
			o.reason += ", last failure: " + o.lastReason
		}
		o.reason += r.whyWaits()
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
	for _, s := range r.slots {
		if phase := r.phase(s, now); s.leaving && r.outdated(s) && (phase == draining || phase == drained || phase == stopping) && len(r.of(r.wanted.Version)) < r.wanted.Count {
			return true
		}
	}
	return false
}

// progress counts the healthy instances that are as wanted, and those that are not as wanted and not gone.
func (r *Role) progress(now time.Time) (updated, outdated int) {
	for _, s := range r.slots {
		switch {
		case r.outdated(s):
			outdated++
		case !s.leaving && !s.dark && r.phase(s, now) == healthy:
			updated++
		}
	}
	return updated, outdated
}

// Rollout is how far the change to the wanted version has come.
func (r *Role) Rollout(now time.Time) Rollout {
	updated, _ := r.progress(now)
	fresh, old := r.weights(now)
	var given, all int
	for _, s := range r.slots {
		switch {
		case !inService(s) || r.phase(s, now) != healthy:
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
	return Rollout{
		Version: r.rollout.version, State: r.rollout.state,
		Updated: min(updated, r.wanted.Count), Total: r.wanted.Count, Percent: percent, Reason: r.rollout.reason,
	}
}
