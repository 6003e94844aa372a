package plan

import (
	"maps"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

const (
	// avoidAfter is the number of failures within the window after which a node is avoided.
	avoidAfter = 2
	// detectionTime is how long it may take until the ResourceManager reports an unhealthy node. Failures of up to twice that time before count
	// against the node.
	detectionTime = 5 * time.Second
	// avoidTimeout is how long an ask avoids nodes. After that it is made again and avoids none.
	avoidTimeout = 3 * time.Second
)

// nodes owns what is known of the nodes on which the role has had containers or may have some.
type nodes struct{ byName map[id.Node]*node }

type node struct {
	state NodeState
	// disconnected is true while the node's reports do not arrive.
	disconnected bool
	// failures are the instants of failures that count against the node, since a container was last healthy on it.
	failures []time.Time
}

// at is a node, which is ready until something else is known.
func (n *nodes) at(name id.Node) *node {
	known, ok := n.byName[name]
	if !ok {
		known = &node{}
		n.byName[name] = known
	}
	return known
}

func (n *nodes) setState(name id.Node, state NodeState) { n.at(name).state = state }

func (n *nodes) setConnected(name id.Node, connected bool) { n.at(name).disconnected = !connected }

func (n *nodes) lost(name id.Node) bool { return n.at(name).state == NodeLost }

func (n *nodes) draining(name id.Node) bool { return n.at(name).state == NodeDraining }

func (n *nodes) disconnected(name id.Node) bool { return n.at(name).disconnected }

// down nodes are unhealthy or lost: failures on them are theirs.
func (n *nodes) down(name id.Node) bool {
	state := n.at(name).state
	return state == NodeUnhealthy || state == NodeLost
}

// troubled nodes are unhealthy, lost or disconnected: too little is known of their containers to blame the version.
func (n *nodes) troubled(name id.Node) bool { return n.disconnected(name) || n.down(name) }

// addFailure counts a failure against a node.
func (n *nodes) addFailure(name id.Node, policy Restart, now time.Time) {
	known := n.at(name)
	known.failures = policy.recent(append(known.failures, now), now)
}

// forgive forgets the failures of a node on which a container is healthy.
func (n *nodes) forgive(name id.Node) { n.at(name).failures = nil }

// avoid lists the nodes with repeated failures, and the one that an instance's last failure counts against, which may be empty. The
// list is empty unless another node is ready.
func (n *nodes) avoid(last id.Node, policy Restart, now time.Time) []id.Node {
	var avoid []id.Node
	others := false
	for _, name := range slices.Sorted(maps.Keys(n.byName)) {
		known := n.byName[name]
		known.failures = policy.recent(known.failures, now)
		switch {
		case name == last, len(known.failures) >= avoidAfter:
			avoid = append(avoid, name)
		case known.state == NodeReady:
			others = true
		}
	}
	if !others {
		return nil
	}
	return avoid
}

func (n *nodes) memo() []NodeMemo {
	var memo []NodeMemo
	for _, name := range slices.Sorted(maps.Keys(n.byName)) {
		if failures := n.byName[name].failures; len(failures) > 0 {
			memo = append(memo, NodeMemo{Node: name, Failures: slices.Clone(failures)})
		}
	}
	return memo
}

func (n *nodes) restore(memo []NodeMemo) {
	for _, m := range memo {
		n.at(m.Node).failures = m.Failures
	}
}
