package plan

import "time"

// Waits sets the reason why instances are missing, as the ResourceManager knows it; empty if none is known to be missing.
func (r *Role) Waits(reason string) { r.waits = reason }

// lastSeen is one sentence with the last failed probe of an instance that is not healthy yet; empty if there is none.
func (r *Role) lastSeen(now time.Time) string {
	for _, s := range r.of(r.wanted.Version) {
		if c := s.current; c != nil && r.phase(s, now) == starting && c.status.Reason != "" {
			return r.instance(s) + " is not healthy: " + c.status.Reason
		}
	}
	return ""
}

// whyWaits is the end of the sentence about a rollout that makes no progress: "; " and the reason, or empty.
func (r *Role) whyWaits() string {
	if r.waits == "" {
		return ""
	}
	return "; " + r.waits
}
