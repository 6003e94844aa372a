package plan

// Waits takes in words why instances are not there, as far as somebody else knows: what has room for them, what a node does.
// Empty is that nothing is known to be missing.
func (r *Role) Waits(reason string) { r.waits = reason }

// whyWaits continues the sentence about a rollout that stands still.
func (r *Role) whyWaits() string {
	if r.waits == "" {
		return ""
	}
	return "; " + r.waits
}
