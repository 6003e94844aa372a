package plan

import "time"

// SetComesAfter sets why the desired version is not to be begun with yet, one sentence; empty if it may be. A version that was begun
// with goes on.
func (r *Role) SetComesAfter(reason string) { r.comesAfter = reason }

// Ready reports whether the role was as desired in the last Next, so that the roles behind it may begin.
func (r *Role) Ready() bool { return r.ready }

// mustWait reports whether the desired version comes after other roles and was not begun with.
func (r *Role) mustWait() bool {
	if r.comesAfter == "" || r.desired.Count == 0 {
		return false
	}
	for _, s := range r.slots {
		if s.version == r.desired.Version && (s.container != nil || s.hasRun) {
			return false
		}
	}
	return true
}

// asDesired reports whether as many instances as desired run the desired version and count.
func (r *Role) asDesired(now time.Time) bool {
	if r.deferred || r.rollout.state != Done && r.rollout.state != Reverted {
		return false
	}
	updated, _, _ := r.progress(now)
	return updated >= r.desired.Count
}
