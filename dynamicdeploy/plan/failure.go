package plan

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

const (
	// blamed is how many failures in the window make a node one to avoid.
	blamed = 2
	// doubt is how long it may take until a node is known to be unwell: for what failed on it in that time it is to blame.
	doubt = 5 * time.Second
	// patience is how long an ask avoids nodes before it takes any.
	patience = 3 * time.Second
)

// fail counts a failure of a slot's container, and says when the next one may be started.
func (r *Role) fail(s *slot, exit Exit, now time.Time) {
	s.current.failed = true
	s.reason = exit.Reason
	if exit.Blame == Nobody {
		return
	}
	s.shunned, s.ofNode = "", exit.Blame == Node
	if exit.Blame.ofNode() {
		s.shunned = s.current.node
		n := r.node(s.current.node)
		n.failures = r.recent(append(n.failures, now), now)
	}
	s.indifferent = false
	s.failures = r.recent(append(s.failures, now), now)
	s.notBefore = now.Add(r.wanted.Restart.wait(len(s.failures)))
	if s.version == r.wanted.Version && exit.Blame.ofVersion() {
		r.failed(exit.Reason, now)
		r.doubted = append(r.doubted, doubted{at: now, node: s.current.node, slot: s.number})
	}
}

// doubted is a failure that counts against the wanted version so far.
type doubted struct {
	at   time.Time
	node id.Node
	slot int
}

// acquit no longer counts a failure against the version if its node has since become unwell or lost: when an engine goes down, its
// containers end before anybody notices the engine.
func (r *Role) acquit(now time.Time) {
	r.doubted = slices.DeleteFunc(r.doubted, func(d doubted) bool {
		if state := r.node(d.node).state; state != Unwell && state != Lost {
			return now.After(d.at.Add(2 * doubt))
		}
		o := &r.rollout
		if i := slices.IndexFunc(o.failures, d.at.Equal); i >= 0 {
			o.failures = slices.Delete(slices.Clone(o.failures), i, i+1)
		}
		if o.again && len(o.failures) == 0 {
			o.reason = ""
		}
		if s := r.slots[d.slot]; s != nil && len(s.failures) > 0 && s.failures[len(s.failures)-1].Equal(d.at) {
			s.ofNode, s.shunned = true, d.node
		}
		return true
	})
}

// recent are the failures that still count. More than MaxFailures+1 of them would change nothing.
func (r *Role) recent(failures []time.Time, now time.Time) []time.Time {
	policy := r.wanted.Restart
	failures = slices.DeleteFunc(failures, func(at time.Time) bool { return !at.Add(policy.Window).After(now) })
	if extra := len(failures) - max(policy.MaxFailures+1, blamed); extra > 0 {
		failures = slices.Clone(failures[extra:])
	}
	return failures
}

// wait is how long a slot with so many failures in the window is held back after the last: not at all after the first,
// then longer each time.
func (p Restart) wait(failures int) time.Duration {
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

// avoid are the nodes that a slot should not be put on: those where starts keep failing, and the one to blame for its
// own last failure. Nodes are avoided only while another one is left.
func (r *Role) avoid(s *slot, now time.Time) []id.Node {
	if s.indifferent {
		return nil
	}
	var avoid []id.Node
	others := false
	for _, name := range slices.Sorted(maps.Keys(r.nodes)) {
		n := r.nodes[name]
		n.failures = r.recent(n.failures, now)
		switch {
		case name == s.shunned, len(n.failures) >= blamed:
			avoid = append(avoid, name)
		case n.state == Ready:
			others = true
		}
	}
	if !others {
		return nil
	}
	return avoid
}

// backoffReason is the sentence for an instance that is held back.
func (r *Role) backoffReason(s *slot) string {
	times := inWords(len(s.failures))
	if limit := r.wanted.Restart.MaxFailures; limit > 0 && len(s.failures) > limit {
		times = "more than " + inWords(limit)
	}
	return fmt.Sprintf("failed %s within %v, last: %s", times, r.wanted.Restart.Window, s.reason)
}

// inWords is how often something happened.
func inWords(times int) string {
	if times <= 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", times)
}
