package plan

import (
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// slot is a numbered place for an instance. All parts read it; its methods alone change it.
type slot struct {
	number int
	// version is the one that the slot runs, or is to run.
	version int32
	// leaving is true once the slot is to be emptied and forgotten. It never becomes false again.
	leaving bool
	// notRouted is true while the instance is to be ready without receiving requests.
	notRouted bool
	// container is nil while the slot has none.
	container *container
	// ask is the id of the open ask, empty if there is none.
	ask string
	// askedAt is when the open ask was made.
	askedAt time.Time
	// askAvoids is true if the open ask avoids nodes, avoidNone if the next one is to avoid none because that one was not
	// granted in time.
	askAvoids, avoidNone bool

	// failures are the instants of the failures within the restart window.
	failures []time.Time
	// notBefore is the end of the back-off.
	notBefore time.Time
	// avoidNode is the node that the last failure counts against, empty if none. nodeAtFault is true if it counts against
	// the node alone.
	avoidNode   id.Node
	nodeAtFault bool
	// hasRun is true if the slot has had a started container: the next start is a restart.
	hasRun   bool
	restarts int
	// lastFailure is the reason of the last failure, one sentence.
	lastFailure string
}

func (s *slot) leave() { s.leaving = true }

func (s *slot) setRouted(routed bool) { s.notRouted = !routed }

func (s *slot) setVersion(version int32) { s.version = version }

// adopt fills the slot with a container that an earlier master has started.
func (s *slot) adopt(adopted Adopted) {
	s.version, s.hasRun = adopted.Version, true
	s.container = &container{id: adopted.Container, node: adopted.Node, grantedAt: adopted.GrantedAt, started: true, adopted: true}
}

// fill fills the slot with a container that was granted.
func (s *slot) fill(grant Grant) {
	s.container = &container{id: grant.Container, node: grant.Node, grantedAt: grant.At}
}

// clear leaves the slot without a container.
func (s *slot) clear() { s.container = nil }

// request records an ask.
func (s *slot) request(ask string, avoids bool, now time.Time) {
	s.ask, s.askedAt, s.askAvoids = ask, now, avoids
}

// endAsk records that the open ask is granted or withdrawn, and returns its id.
func (s *slot) endAsk() string {
	ask := s.ask
	s.ask = ""
	return ask
}

// stopAvoiding ends an ask that was not granted in time. The next one avoids no node.
func (s *slot) stopAvoiding() string {
	s.askAvoids, s.avoidNone = false, true
	return s.endAsk()
}

// start records that the container is started.
func (s *slot) start() {
	s.container.started = true
	if s.hasRun {
		s.restarts++
	}
	s.hasRun = true
}

// fail counts a failure of the container and sets the back-off.
func (s *slot) fail(exit Exit, policy Restart, now time.Time) {
	s.container.failureCounted = true
	s.lastFailure = exit.Reason
	if exit.Blame == BlameNobody {
		return
	}
	s.avoidNode, s.nodeAtFault = "", exit.Blame == BlameNode
	if exit.Blame.onNode() {
		s.avoidNode = s.container.node
	}
	s.avoidNone = false
	s.failures = policy.recent(append(s.failures, now), now)
	s.notBefore = now.Add(policy.backoffAfter(len(s.failures)))
}

// recover records that the container is healthy: the node's last failure does not matter any more.
func (s *slot) recover() { s.avoidNode, s.nodeAtFault = "", false }

// forgive takes back a failure that was its node's, and the part of the back-off that it caused.
func (s *slot) forgive(f provisionalFailure, policy Restart) {
	i := slices.IndexFunc(s.failures, f.at.Equal)
	if i < 0 {
		return
	}
	if i == len(s.failures)-1 {
		s.nodeAtFault, s.avoidNode = true, f.node
	}
	s.failures = slices.Delete(slices.Clone(s.failures), i, i+1)
	s.notBefore = time.Time{}
	if n := len(s.failures); n > 0 {
		s.notBefore = s.failures[n-1].Add(policy.backoffAfter(n))
	}
}

// inService reports whether the slot's container is to be routed to while it is healthy.
func (s *slot) inService() bool {
	c := s.container
	return c != nil && !s.notRouted && c.started && c.withdrawRequestedAt.IsZero() && !c.released && c.status.Stage != StageStopping
}

func (s *slot) memo() SlotMemo {
	return SlotMemo{
		Number: s.number, Version: s.version, Restarts: s.restarts, Leaving: s.leaving, NotRouted: s.notRouted, HasRun: s.hasRun,
		Failures: slices.Clone(s.failures),
	}
}

func (s *slot) restore(m SlotMemo, policy Restart) {
	s.restarts, s.leaving, s.notRouted, s.failures = m.Restarts, m.Leaving, m.NotRouted, m.Failures
	s.hasRun = m.HasRun
	if n := len(m.Failures); n > 0 {
		s.lastFailure = "it failed before its application master was restarted"
		s.notBefore = m.Failures[n-1].Add(policy.backoffAfter(n))
	}
}

// container is the container of a slot. All parts read it; its methods and those of its slot alone change it.
type container struct {
	id        id.Container
	node      id.Node
	grantedAt time.Time
	// started is true if a start may have been sent, adopted if an earlier master sent it.
	started, adopted bool
	// reported is true once its node has reported it. status is the newest report.
	reported bool
	status   Status
	// healthySince is since when it has been healthy without a break; see setHealthySince.
	healthySince time.Time
	// startUnanswered is true if the node did not answer the start.
	startUnanswered bool
	// failureCounted is true once its failure was counted, so that its end does not count again.
	failureCounted bool
	// preemptBy is the deadline of the preemption notice, zero if there is none.
	preemptBy time.Time
	// withdrawRequestedAt is when its withdrawal was last requested, zero if it is not to be withdrawn. withdrawnAt is when
	// that was confirmed; it stays zero if nothing was routed to it.
	withdrawRequestedAt time.Time
	// confirmedEarly is true if the withdrawal that an earlier master requested was confirmed before this master's first decision.
	// hasServed is true once this master has put it in service.
	confirmedEarly bool
	hasServed      bool
	withdrawn      bool
	withdrawnAt    time.Time
	// released is true once it was given back. It stays until it is seen gone.
	released bool
}

// observe records a report of the node.
func (c *container) observe(status Status, now time.Time) {
	c.setHealthySince(status, now)
	c.reported, c.started, c.status = true, true, status
}

// setHealthySince sets since when a container has been healthy. The master's own clock decides, since a node's clock may be
// wrong; the node's is used only for a container that was healthy before this master began.
func (c *container) setHealthySince(status Status, now time.Time) {
	switch {
	case status.Stage != StageRunning || status.Health != Healthy:
		c.healthySince = time.Time{}
	case !c.reported && c.adopted && !status.HealthySince.IsZero() && status.HealthySince.Before(now):
		c.healthySince = status.HealthySince
	case c.healthySince.IsZero() || !status.HealthySince.Equal(c.status.HealthySince):
		c.healthySince = now
	}
}

// startFailed records that the node did not accept the start, or did not answer. Nothing is routed to a container whose start was
// refused.
func (c *container) startFailed(failure StartError, now time.Time) {
	if failure == StartUnanswered {
		c.startUnanswered = true
		return
	}
	c.withdrawRequestedAt, c.withdrawn = now, true
}

func (c *container) setPreemption(deadline time.Time) { c.preemptBy = deadline }

// withdraw records that the withdrawal is requested, which may be confirmed already.
func (c *container) withdraw(now time.Time) {
	c.withdrawRequestedAt = now
	if c.confirmedEarly {
		c.withdrawn, c.withdrawnAt = true, now
	}
}

// withdrawAgain records that the withdrawal is requested once more.
func (c *container) withdrawAgain(now time.Time) { c.withdrawRequestedAt = now }

// confirmWithdrawal records that nothing routes to the container any more.
func (c *container) confirmWithdrawal(now time.Time) {
	switch {
	case c.withdrawn:
	case !c.withdrawRequestedAt.IsZero():
		c.withdrawn, c.withdrawnAt = true, now
	default:
		c.confirmedEarly = c.adopted && !c.hasServed
	}
}

// serve records that this master has put the container in service.
func (c *container) serve() { c.confirmedEarly, c.hasServed = false, true }

func (c *container) release() { c.released = true }
