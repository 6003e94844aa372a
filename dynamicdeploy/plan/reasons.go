package plan

import "fmt"

// releaseReason is why the container of a slot is given back, as a clause.
func (r *Role) releaseReason(s *slot) string {
	c := s.container
	abandoned := (r.rollout.state == Failed || r.rollout.state == Reverted) && s.version < r.desired.Version
	switch {
	case !c.preemptBy.IsZero():
		return "its container is preempted"
	case r.lost(c):
		return fmt.Sprintf("%s is lost", c.node)
	case r.desired.Count == 0:
		return r.name + " is to have no instance"
	case s.version != r.desired.Version && abandoned:
		return fmt.Sprintf("version %d is not wanted any more", s.version)
	case s.version != r.desired.Version:
		return fmt.Sprintf("version %d takes the place of version %d", r.desired.Version, s.version)
	case r.outdated(s):
		return r.name + " is being restarted"
	case r.node(c.node).state == NodeDraining:
		return fmt.Sprintf("%s is being drained", c.node)
	case c.status.Health == Unhealthy && c.status.Reason != "":
		return "it was unhealthy: " + c.status.Reason
	case c.status.Health == Unhealthy:
		return "it was unhealthy"
	case c.startUnanswered:
		return fmt.Sprintf("%s did not answer its start", c.node)
	case c.failureCounted && s.lastFailure != "":
		return s.lastFailure
	case s.leaving:
		return fmt.Sprintf("%s is scaled down to %s", r.name, instances(r.desired.Count))
	case r.desired.StartPeriod > 0:
		return r.failingReason(s)
	}
	return "no instance needs it any more"
}

func instances(count int) string {
	if count == 1 {
		return "1 instance"
	}
	return fmt.Sprintf("%d instances", count)
}
