package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// help is a sentence about a change after which an ask would be granted. A limit comes first, then the rule that most nodes break.
func (e *explainer) help(k *ask, need *resource.Vector, why *AskExplanation, misses []miss) string {
	if limit := e.tree.limit(k, need); limit.kind != noLimit {
		return limit.help(e.schema, need)
	}
	if why.Fits > 0 || k.roomIsComing() {
		return ""
	}
	if near := e.nearest(k); near != nil {
		return e.helpOnNode(k, near)
	}
	if len(misses) == 0 {
		return ""
	}
	return misses[0].closest.help()
}

// roomIsComing reports whether containers are preempted for an ask, or their room is nominated for it. A reservation does not
// count, since it may fail.
func (k *ask) roomIsComing() bool {
	return slices.ContainsFunc(k.nominations, func(m *nomination) bool { return len(m.victims) > 0 || m.reservingLeaf == nil })
}

// nearest is the node that lacks the smallest share of what an ask needs and breaks no other rule; nil if there is none.
func (e *explainer) nearest(k *ask) *node {
	var best *node
	var least float64
	for _, n := range e.fleet.records() {
		if !n.known {
			continue
		}
		if e.fleet.failureOn(n, k).rule != roomRule {
			continue
		}
		lack := 0.0
		for dim, asked := range k.spec.Resources {
			if free := n.spec.Capacity[dim] - n.used[dim]; asked > free {
				lack = max(lack, float64(asked-free)/float64(asked))
			}
		}
		if best == nil || lack < least {
			best, least = n, lack
		}
	}
	return best
}

// helpOnNode is a sentence about what a node lacks for an ask, and how much would fit there.
func (e *explainer) helpOnNode(k *ask, n *node) string {
	schema := e.schema
	var less, more []string
	for dim, asked := range k.spec.Resources {
		free := n.spec.Capacity[dim] - n.used[dim]
		if asked <= free {
			continue
		}
		more = append(more, amount(schema, dim, asked-free))
		if free > 0 {
			less = append(less, amount(schema, dim, free))
		}
	}
	text := fmt.Sprintf("%s comes nearest and lacks %s", n.spec.Name, strings.Join(more, " and "))
	if len(less) == len(more) {
		text += fmt.Sprintf(": with %s instead it fits there", strings.Join(less, " and "))
	}
	return text
}
