package plan

import "fmt"

// report says to people how slots are, and why. It changes nothing.
type report struct {
	desired Desired
	at      *view
	names   *names
	nodes   *nodes
	rollout *rollout
	// deferred is true while the desired version is not begun with, and comesAfter is why.
	deferred   bool
	comesAfter string
}

// instance reports a slot.
func (p *report) instance(s *slot, weight int) Instance {
	instance := Instance{
		Name: p.names.instance(s.number), Version: s.version, Restarts: s.restarts, State: p.state(s), Failures: p.at.recentFailures(s),
		InService: s.inService(), Weight: weight,
	}
	if c := s.container; c != nil {
		instance.Container = c.id
	}
	switch instance.State {
	case InstanceBackoff:
		instance.Reason, instance.NextAttempt = p.backoffReason(s), s.notBefore
	case InstancePending:
		instance.Reason = s.lastFailure
		if s.version == p.desired.Version && p.deferred {
			instance.Reason = p.comesAfter
		}
	case InstanceStarting:
		instance.Reason = p.provingReason(s)
	case InstanceUnhealthy, InstanceDraining, InstanceStopping:
		if s.container.failureCounted {
			instance.Reason = s.lastFailure
		}
	case InstanceUnreachable:
		instance.Reason = "node " + string(s.container.node) + " does not answer"
	}
	return instance
}

func (p *report) state(s *slot) InstanceState {
	switch p.at.phase(s) {
	case empty:
		if p.at.backingOff(s) {
			return InstanceBackoff
		}
		return InstancePending
	case asked, granted:
		return InstancePending
	case unreported:
		return InstanceUnknown
	case healthy, returned:
		return InstanceRunning
	case failing:
		return InstanceUnhealthy
	case withdrawing, draining, drained:
		return InstanceDraining
	case stopping:
		return InstanceStopping
	case lost, replacing:
		return InstanceUnreachable
	}
	switch s.container.status.Stage {
	case StagePreparing:
		// The node has not begun with the container. STARTING comes after LOADING and must not be shown first.
		return InstancePending
	case StageDownloading:
		return InstanceDownloading
	case StageLoading:
		return InstanceLoading
	}
	return InstanceStarting
}

func (p *report) failingReason(s *slot) string {
	switch c := s.container; {
	case c.status.Reason != "":
		if c.status.Health == Unhealthy {
			return c.status.Reason
		}
		return "it did not become healthy within " + p.desired.StartPeriod.String() + ": " + c.status.Reason
	case c.status.Health == Unhealthy:
		return "its health check fails"
	}
	return "it did not become healthy within " + p.desired.StartPeriod.String()
}

// provingReason explains why an instance does not count yet.
func (p *report) provingReason(s *slot) string {
	if p.at.phase(s) != proving {
		return p.probeReason(s)
	}
	what := "running"
	if p.desired.StartPeriod > 0 {
		what = "healthy"
	}
	return fmt.Sprintf("%s, and counts once that has lasted %v", what, p.desired.Update.MinHealthy)
}

// probeReason is the result of the last probe of an instance that is not healthy yet, and what happens if that does not
// change.
func (p *report) probeReason(s *slot) string {
	status := s.container.status
	if status.Reason == "" || status.Stage != StageRunning || p.desired.StartPeriod <= 0 {
		return status.Reason
	}
	otherwise := "another container is started"
	if failures, limit, counted := p.rollout.nextFailure(p.desired); counted && s.version == p.desired.Version {
		otherwise = fmt.Sprintf("that is failure %d of %d of version %d", failures, limit, s.version)
	}
	return fmt.Sprintf("%s; unless healthy %v after the start, %s", status.Reason, p.desired.StartPeriod, otherwise)
}

// backoffReason is the reason of an instance in back-off.
func (p *report) backoffReason(s *slot) string {
	times := InWords(len(s.failures))
	if limit := p.desired.Restart.MaxFailures; limit > 0 && len(s.failures) > limit {
		times = "more than " + InWords(limit)
	}
	return fmt.Sprintf("failed %s within %v, last: %s", times, p.desired.Restart.Window, s.lastFailure)
}

// lastProbe is a sentence with the last failed probe of the first of the slots that is not healthy yet; empty if there is none.
func (p *report) lastProbe(of []*slot) string {
	for _, s := range of {
		if c := s.container; c != nil && p.at.phase(s) == starting && c.status.Reason != "" {
			return p.names.instance(s.number) + " is not healthy: " + c.status.Reason
		}
	}
	return ""
}

// releaseReason is why the container of a slot is given back, as a clause.
func (p *report) releaseReason(s *slot) string {
	c := s.container
	switch {
	case !c.preemptBy.IsZero():
		return "its container is preempted"
	case p.at.lost(c):
		return fmt.Sprintf("%s is lost", c.node)
	case p.desired.Count == 0:
		return p.names.name() + " is to have no instance"
	case s.leaving && p.rollout.abandoned(s.version):
		return fmt.Sprintf("version %d is not wanted any more", s.version)
	case p.nodes.draining(c.node):
		return fmt.Sprintf("%s is being drained", c.node)
	case c.status.Health == Unhealthy && c.status.Reason != "":
		return "it was unhealthy: " + c.status.Reason
	case c.status.Health == Unhealthy:
		return "it was unhealthy"
	case s.leaving && s.version != p.desired.Version && !p.rollout.failed():
		return fmt.Sprintf("version %d takes the place of version %d", p.desired.Version, s.version)
	case s.leaving && s.version == p.desired.Version && p.at.outdated(s):
		return p.names.name() + " is being restarted"
	case c.startUnanswered:
		return fmt.Sprintf("%s did not answer its start", c.node)
	case c.failureCounted && s.lastFailure != "":
		return s.lastFailure
	case s.leaving:
		return fmt.Sprintf("%s is scaled down to %s", p.names.name(), instances(p.desired.Count))
	case p.desired.StartPeriod > 0 && c.started:
		return p.failingReason(s)
	}
	return "no instance needs it any more"
}

func instances(count int) string {
	if count == 1 {
		return "1 instance"
	}
	return fmt.Sprintf("%d instances", count)
}
