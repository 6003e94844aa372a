package plan

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

const (
	// avoidAfter is the number of failures within the window after which a node is avoided.
	avoidAfter = 2
	// detectionTime is how long it may take until the ResourceManager reports an unhealthy node. Failures in that time count
	// against the node.
	detectionTime = 5 * time.Second
	// avoidTimeout is how long an ask avoids nodes. After that it is made again and avoids none.
	avoidTimeout = 3 * time.Second
)

// fail counts the failure of a slot's container and sets the back-off.
func (r *Role) fail(s *slot, exit Exit, now time.Time) {
	s.container.failureCounted = true
	s.lastFailure = exit.Reason
	if exit.Blame == BlameNobody {
		return
	}
	s.avoidNode, s.nodeAtFault = "", exit.Blame == BlameNode
	if exit.Blame.onNode() {
		s.avoidNode = s.container.node
		n := r.node(s.container.node)
		n.failures = r.recent(append(n.failures, now), now)
	}
	s.avoidNone = false
	s.failures = r.recent(append(s.failures, now), now)
	s.notBefore = now.Add(r.desired.Restart.backoffAfter(len(s.failures)))
	if !exit.Blame.onVersion() {
		return
	}
	f := provisionalFailure{at: now, node: s.container.node, slot: s.number, ofDesired: s.version == r.desired.Version}
	if f.ofDesired {
		r.addFailure(exit.Reason, now)
	}
	r.provisional = append(r.provisional, f)
}

// provisionalFailure is a failure that counts against its version, unless its node turns out to be unhealthy.
type provisionalFailure struct {
	at   time.Time
	node id.Node
	slot int
	// ofDesired is true if it counts against the rollout.
	ofDesired bool
}

// reattribute moves failures from the version and the instance to their node if that has become unhealthy or lost since: when an
// engine goes down, its containers end before the node reports it. What was done to the instance must not delay it once the node
// is back.
func (r *Role) reattribute(now time.Time) {
	r.provisional = slices.DeleteFunc(r.provisional, func(f provisionalFailure) bool {
		if state := r.node(f.node).state; state != NodeUnhealthy && state != NodeLost {
			return now.After(f.at.Add(2 * detectionTime))
		}
		o := &r.rollout
		if i := slices.IndexFunc(o.failures, f.at.Equal); i >= 0 && f.ofDesired {
			o.failures = slices.Delete(slices.Clone(o.failures), i, i+1)
		}
		if o.reopened && len(o.failures) == 0 {
			o.reason = ""
		}
		if s := r.slots[f.slot]; s != nil {
			s.forgive(f, r.desired.Restart)
		}
		return true
	})
}

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

// recent returns the failures within the window. No more than MaxFailures+1 are kept, since more would change nothing.
func (r *Role) recent(failures []time.Time, now time.Time) []time.Time {
	policy := r.desired.Restart
	failures = slices.DeleteFunc(failures, func(at time.Time) bool { return !at.Add(policy.Window).After(now) })
	if extra := len(failures) - max(policy.MaxFailures+1, avoidAfter); extra > 0 {
		failures = slices.Clone(failures[extra:])
	}
	return failures
}

// backoffAfter is the pause after so many failures within the window: none after the first, then longer each time.
func (p Restart) backoffAfter(failures int) time.Duration {
	switch {
	case failures <= 1:
		return 0
	case p.MaxFailures > 0 && failures > p.MaxFailures:
		return p.MaxBackoff
	}
	wait := p.Backoff
	for range failures - 2 {
		if wait *= 2; wait >= p.MaxBackoff {
			return p.MaxBackoff
		}
	}
	return min(wait, p.MaxBackoff)
}

// avoid lists the nodes that a slot's next ask avoids: those with repeated failures, and the one that the slot's last
// failure counts against. It is empty unless another node is ready.
func (r *Role) avoid(s *slot, now time.Time) []id.Node {
	if s.avoidNone {
		return nil
	}
	var avoid []id.Node
	others := false
	for _, name := range slices.Sorted(maps.Keys(r.nodes)) {
		n := r.nodes[name]
		n.failures = r.recent(n.failures, now)
		switch {
		case name == s.avoidNode, len(n.failures) >= avoidAfter:
			avoid = append(avoid, name)
		case n.state == NodeReady:
			others = true
		}
	}
	if !others {
		return nil
	}
	return avoid
}

// backoffReason is the reason of an instance in back-off.
func (r *Role) backoffReason(s *slot) string {
	times := inWords(len(s.failures))
	if limit := r.desired.Restart.MaxFailures; limit > 0 && len(s.failures) > limit {
		times = "more than " + inWords(limit)
	}
	return fmt.Sprintf("failed %s within %v, last: %s", times, r.desired.Restart.Window, s.lastFailure)
}

// inWords says how often something happened.
func inWords(times int) string {
	if times <= 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", times)
}
