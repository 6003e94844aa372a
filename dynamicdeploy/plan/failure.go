package plan

import (
	"fmt"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// provisional owns the latest failures that count against their version and may turn out to be a node's: when an engine goes down, its
// containers end before the node reports it.
type provisional struct{ failures []provisionalFailure }

// provisionalFailure is a failure that counts against its version, unless its node turns out to be unhealthy.
type provisionalFailure struct {
	at   time.Time
	node id.Node
	slot int
	// ofDesired is true if it counts against the rollout.
	ofDesired bool
}

func (p *provisional) add(f provisionalFailure) { p.failures = append(p.failures, f) }

// settle returns the failures that were their node's, which is down now. Those that are too old to be a node's stay what they are.
func (p *provisional) settle(down func(id.Node) bool, now time.Time) (ofNodes []provisionalFailure) {
	p.failures = slices.DeleteFunc(p.failures, func(f provisionalFailure) bool {
		if now.After(f.at.Add(2 * detectionTime)) {
			return true
		}
		if !down(f.node) {
			return false
		}
		ofNodes = append(ofNodes, f)
		return true
	})
	return ofNodes
}

// recent returns the failures within the window. No more than MaxFailures+1 are kept, since more would change nothing.
func (p Restart) recent(failures []time.Time, now time.Time) []time.Time {
	failures = slices.DeleteFunc(failures, func(at time.Time) bool { return !at.Add(p.Window).After(now) })
	if extra := len(failures) - max(p.MaxFailures+1, avoidAfter); extra > 0 {
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

// InWords says how often something happened.
func InWords(times int) string {
	if times <= 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", times)
}
