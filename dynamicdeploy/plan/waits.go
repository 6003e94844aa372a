package plan

import "time"

// Waits takes in words why instances are not there, as far as somebody else knows: what has room for them, what a node does.
// Empty is that nothing is known to be missing.
func (r *Role) Waits(reason string) { r.waits = reason }

// lastSeen is what the probe of an instance that is not healthy yet saw last, empty if there is none.
func (r *Role) lastSeen(now time.Time) string {
	for _, s := range r.of(r.wanted.Version) {
		if c := s.current; c != nil && r.phase(s, now) == starting && c.status.Reason != "" {
			return r.instance(s) + " is not healthy: " + c.status.Reason
		}
	}
	return ""
}

// whyWaits continues the sentence about a rollout that stands still.
func (r *Role) whyWaits() string {
	if r.waits == "" {
		return ""
	}
	return "; " + r.waits
}
