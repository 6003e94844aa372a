package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// help is the sentence what would let an ask be granted for which need is asked more, given why it is not. The first thing
// that stands in the way counts: a limit, then what most nodes lack.
func (c *Core) help(k *ask, need *resource.Vector, why *AskExplanation) string {
	if kind, q, place := c.tree.limit(k, need); kind != noLimit {
		return c.helpWithLimit(kind, q, place, need)
	}
	if why.Fits > 0 || k.getsRoom() {
		return ""
	}
	if near := c.nearest(k); near != nil {
		return c.helpOnNode(k, near)
	}
	if len(why.Tests) == 0 {
		return ""
	}
	test := why.Tests[0].Test
	constraint, isConstraint := strings.CutPrefix(test, "constraint ")
	switch {
	case isConstraint:
		return fmt.Sprintf("it needs a node with %s, or a manifest without that constraint", constraint)
	case test == "most containers a node":
		return fmt.Sprintf("another node, or a maxPerNode above %d, would let it in", k.spec.MaxPerNode)
	case test == "closed":
		return "it needs a node that is open; \"mammoth node ls\" says what each of them is"
	}
	return ""
}

// getsRoom reports whether room is being made for an ask, so that it need only wait. A node that is kept for it until enough
// comes free there by itself is no such promise.
func (k *ask) getsRoom() bool {
	return slices.ContainsFunc(k.nominations, func(m *nomination) bool { return len(m.victims) > 0 || m.leaf == nil })
}

func (c *Core) helpWithLimit(kind limitKind, q *queue, place int, need *resource.Vector) string {
	of := func(n int64) string { return amount(c.config.Schema, place, n) }
	switch kind {
	case maximumLimit:
		text := fmt.Sprintf("a maximum of queue %s of %s would do", q.spec.Name, of(q.used[place]+need[place]))
		if left := q.maximum[place] - q.used[place]; left > 0 {
			text += fmt.Sprintf(", or asking for %s", of(left))
		}
		return text
	case userLimit:
		return fmt.Sprintf("a larger userLimitPercent of queue %s would do, or ending something of the same user", q.spec.Name)
	case masterLimit:
		return fmt.Sprintf("a larger maxMasterPercent of queue %s would do, or ending another app there", q.spec.Name)
	case stoppedLimit:
		return fmt.Sprintf("queue %s has to be started, which \"mammoth queue set\" does", q.spec.Name)
	}
	return ""
}

// nearest is the node that lacks the smallest share of what an ask needs and passes every other test, if there is one.
func (c *Core) nearest(k *ask) *node {
	var best *node
	var least float64
	for _, n := range c.fleet.records() {
		if !n.known {
			continue
		}
		if test, _, _ := c.test(k, n); !strings.HasPrefix(test, "not enough ") {
			continue
		}
		lack := 0.0
		for place, asked := range k.spec.Resources {
			if free := n.spec.Capacity[place] - n.used[place]; asked > free {
				lack = max(lack, float64(asked-free)/float64(asked))
			}
		}
		if best == nil || lack < least {
			best, least = n, lack
		}
	}
	return best
}

// helpOnNode says how much less would fit on a node, or what would have to come free there.
func (c *Core) helpOnNode(k *ask, n *node) string {
	schema := c.config.Schema
	var less, more []string
	for place, asked := range k.spec.Resources {
		free := n.spec.Capacity[place] - n.used[place]
		if asked <= free {
			continue
		}
		more = append(more, amount(schema, place, asked-free))
		if free > 0 {
			less = append(less, amount(schema, place, free))
		}
	}
	text := fmt.Sprintf("%s comes nearest and lacks %s", n.spec.Name, strings.Join(more, " and "))
	if len(less) == len(more) {
		text += fmt.Sprintf(": with %s instead it fits there", strings.Join(less, " and "))
	}
	return text
}
