// Package fsm builds state machines from data. A table has no callbacks, locks or clock: it returns the next state, which
// its owner stores before it acts.
//
// Vocabulary: a rule leads from some states on an event to a state; an event without a rule changes nothing, and its owner is told so.
package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// State and Event are small integer types with a String method.
type (
	State interface {
		~uint8
		fmt.Stringer
	}
	Event interface {
		~uint8
		fmt.Stringer
	}
)

// Rule is a transition from any of From on On to To. If To is among From, the event is expected there and changes nothing.
type Rule[S State, E Event] struct {
	From []S
	On   E
	To   S
}

// Table is a state machine.
type Table[S State, E Event] struct {
	next map[pair[S, E]]S
}

type pair[S State, E Event] struct {
	state S
	event E
}

// New builds a table. It panics on two rules for one pair, which is a programming error.
func New[S State, E Event](name string, rules []Rule[S, E]) Table[S, E] {
	table := Table[S, E]{next: map[pair[S, E]]S{}}
	for _, rule := range rules {
		for _, from := range rule.From {
			key := pair[S, E]{from, rule.On}
			if to, ok := table.next[key]; ok {
				panic(fmt.Sprintf("%s: in %v, %v leads to both %v and %v", name, from, rule.On, to, rule.To))
			}
			table.next[key] = rule.To
		}
	}
	return table
}

// Next is the next state. It is false if the table has no rule; the state does not change then.
func (t Table[S, E]) Next(state S, event E) (S, bool) {
	next, ok := t.next[pair[S, E]{state, event}]
	if !ok {
		return state, false
	}
	return next, true
}

// Mermaid renders the table for the documentation, one arrow for each pair of states.
func (t Table[S, E]) Mermaid() string {
	type arrow struct{ from, to S }
	events := map[arrow][]E{}
	for key, to := range t.next {
		if key.state != to {
			events[arrow{key.state, to}] = append(events[arrow{key.state, to}], key.event)
		}
	}
	arrows := make([]arrow, 0, len(events))
	for a := range events {
		arrows = append(arrows, a)
	}
	slices.SortFunc(arrows, func(a, b arrow) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
	var text strings.Builder
	text.WriteString("stateDiagram-v2\n")
	for _, a := range arrows {
		names := events[a]
		slices.Sort(names)
		labels := make([]string, len(names))
		for i, event := range names {
			labels[i] = event.String()
		}
		fmt.Fprintf(&text, "    %v --> %v: %s\n", a.from, a.to, strings.Join(labels, ", "))
	}
	return text.String()
}
