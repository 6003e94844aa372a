package scheduler

import (
	"fmt"
	"slices"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler/grid"
)

// rule is a reason why a node does not take a container of an ask. A node is counted under the first rule that it breaks.
//
// The rules between closed and room depend on the shape alone and are conditions: sets of nodes, which the search combines
// 64 nodes at a time, and which are looked up for a single node.
type rule uint8

const (
	// noRule: no rule is broken, and the node takes the container.
	noRule rule = iota
	// closedRule: nothing new may be placed on the node.
	closedRule
	// filterRule: the node breaks a constraint, or is to be avoided.
	filterRule
	// affinityRule: the node holds no container of an app that the ask has an affinity to.
	affinityRule
	// antiAffinityRule: the node holds a container of an app that the ask has an anti-affinity to, or that has one to the ask's
	// app.
	antiAffinityRule
	// maxPerNodeRule: the node holds as many containers of the group as it may.
	maxPerNodeRule
	// roomRule: the node's free resources are not enough.
	roomRule
	// nominatedRule: there would be room, but it is nominated for others.
	nominatedRule
)

// condition is a rule as a set of nodes: those that pass it, or those that break it.
type condition struct {
	rule rule
	// name is the app name of an affinity or anti-affinity.
	name  *appName
	nodes grid.Bitmap
	// passes is set when nodes are those that pass.
	passes bool
}

// conditions adds the conditions of a shape to a list.
func (s *shape) conditions(list []condition) []condition {
	if s.filter != nil {
		list = append(list, condition{rule: filterRule, nodes: s.filter.allowed, passes: true})
	}
	if s.self != nil {
		for _, m := range s.affinity {
			// The first container of an app with an affinity to itself may go anywhere.
			if m != s.self || m.held > 0 {
				list = append(list, condition{rule: affinityRule, name: m, nodes: m.nodes, passes: true})
			}
		}
		for _, m := range s.antiAffinity {
			list = append(list, condition{rule: antiAffinityRule, name: m, nodes: m.nodes})
		}
		for _, m := range s.self.repelledBy {
			list = append(list, condition{rule: antiAffinityRule, name: m, nodes: m.nodes})
		}
	}
	if s.group != nil && s.maxPerNode <= len(s.group.levels) {
		list = append(list, condition{rule: maxPerNodeRule, nodes: s.group.levels[s.maxPerNode-1]})
	}
	return list
}

// hasConditions reports whether a shape may have conditions.
func (s *shape) hasConditions() bool { return s.filter != nil || s.group != nil || s.self != nil }

// broken is the first condition of a shape that a node breaks.
func (s *shape) broken(slot int32) condition {
	var space [4]condition
	for _, each := range s.conditions(space[:0]) {
		if each.nodes.Has(slot) != each.passes {
			return each
		}
	}
	return condition{}
}

// allows reports whether a node breaks none of the conditions of a shape.
func (s *shape) allows(n *node) bool {
	return !s.hasConditions() || s.broken(n.slot).rule == noRule
}

// lacks is the first resource of which less is free than needed, or -1. A resource that is not needed may be overcommitted.
func lacks(need, free *resource.Vector) int {
	for i := range need {
		if need[i] > free[i] && need[i] > 0 {
			return i
		}
	}
	return -1
}

// failure is the first rule that a node breaks for an ask.
type failure struct {
	rule rule
	ask  *ask
	node *node
	// name is the app name of an affinity or anti-affinity.
	name *appName
	// lacks is the resource of which there is too little, free how much of it there is.
	lacks int
	free  int64
}

// failureOn is the first rule that a node breaks for an ask.
func (fl *fleet) failureOn(n *node, k *ask) failure {
	f := failure{ask: k, node: n}
	if n.spec.Closed != "" {
		f.rule = closedRule
		return f
	}
	if broken := k.shape.broken(n.slot); broken.rule != noRule {
		f.rule, f.name = broken.rule, broken.name
		return f
	}
	free := n.spec.Capacity.Sub(n.used)
	if f.lacks = lacks(&k.spec.Resources, &free); f.lacks >= 0 {
		f.rule, f.free = roomRule, free[f.lacks]
		return f
	}
	isOwn := func(m *nomination) bool { return m.node == n }
	if !fits(&k.spec.Resources, fl.left(n)) && !slices.ContainsFunc(k.nominations, isOwn) {
		f.rule = nominatedRule
	}
	return f
}

// title describes the failure without the node: nodes are counted by it.
func (f *failure) title(schema resource.Schema) string {
	switch f.rule {
	case closedRule:
		return "closed"
	case filterRule:
		if constraint := f.ask.shape.filter.broken(f.node); constraint != nil {
			return "constraint " + constraint.String()
		}
		return "to be avoided"
	case affinityRule:
		return "no container of " + f.name.name
	case antiAffinityRule:
		return "holds a container of " + f.name.name
	case maxPerNodeRule:
		return "most containers a node"
	case roomRule:
		return "not enough " + schema.Name(f.lacks)
	case nominatedRule:
		return "reserved for others"
	}
	return ""
}

// closeness orders failures of one title: the node with the most free is the example.
func (f *failure) closeness() int64 { return f.free }

// example is a sentence about how the node breaks the rule.
func (f *failure) example(schema resource.Schema) string {
	name := f.node.spec.Name
	switch f.rule {
	case closedRule:
		return f.node.spec.Closed
	case filterRule:
		if constraint := f.ask.shape.filter.broken(f.node); constraint != nil {
			return describeAttribute(f.node, constraint.Attribute)
		}
		return fmt.Sprintf("%s is to be avoided", name)
	case affinityRule:
		return fmt.Sprintf("%s holds no container of %s", name, f.name.name)
	case antiAffinityRule:
		return fmt.Sprintf("%s holds a container of %s", name, f.name.name)
	case maxPerNodeRule:
		return fmt.Sprintf("%s already holds %d, the most allowed is %d", name, f.ask.group.count(f.node.slot), f.ask.spec.MaxPerNode)
	case roomRule:
		return fmt.Sprintf("%s has %s free, %s are requested", name, amount(schema, f.lacks, max(f.free, 0)), schema.Format(f.lacks, f.ask.spec.Resources[f.lacks]))
	case nominatedRule:
		return fmt.Sprintf("%s has room, but it is reserved for %s", name, f.node.nominations[0].ask.app.title())
	}
	return ""
}

// help is a sentence about a change after which the node would fit; empty if nothing is known.
func (f *failure) help() string {
	switch f.rule {
	case closedRule:
		return "it needs a node that is open; \"mammoth node ls\" says what each of them is"
	case filterRule:
		if constraint := f.ask.shape.filter.broken(f.node); constraint != nil {
			return fmt.Sprintf("it needs a node with %s, or a manifest without that constraint", constraint)
		}
	case maxPerNodeRule:
		return fmt.Sprintf("add a node, or set maxPerNode above %d", f.ask.spec.MaxPerNode)
	}
	return ""
}

func describeAttribute(n *node, attribute string) string {
	if value, ok := n.attributes.value(attribute); ok {
		return fmt.Sprintf("%s has %s = %s", n.spec.Name, attribute, value)
	}
	return fmt.Sprintf("%s has no %s", n.spec.Name, attribute)
}
