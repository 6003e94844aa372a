package plan

import "time"

// SetWaiting sets the ResourceManager's reason why instances are missing, empty if none are.
func (r *Role) SetWaiting(reason string) { r.waiting = reason }

// lastProbe is a sentence with the last failed probe of an instance that is not healthy yet; empty if there is none.
func (r *Role) lastProbe(now time.Time) string {
	for _, s := range r.slotsOf(r.desired.Version) {
		if c := s.container; c != nil && r.phase(s, now) == starting && c.status.Reason != "" {
			return r.instance(s) + " is not healthy: " + c.status.Reason
		}
	}
	return ""
}

// waitingClause is the end of a sentence about a rollout without progress: "; " and the reason, or empty.
func (r *Role) waitingClause() string {
	if r.waiting == "" {
		return ""
	}
	return "; " + r.waiting
}
