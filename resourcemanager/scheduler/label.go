package scheduler

import (
	"cmp"
	"slices"

	"github.com/mammoth-os/mammoth/resourcemanager/scheduler/grid"
)

// label is a node attribute over whose values some ask spreads.
type label struct {
	name string
	// values has a number for each value that was seen. Number 0 stands for nodes without the attribute. texts is the reverse.
	values map[string]int32
	texts  []string
	// of is the number of each node's value, by slot; nodes are the known nodes of each value.
	of    []int32
	nodes []grid.Span
	// members is how many nodes each value has; version rises when a value gets its first.
	members []int32
	version int
	// sorted has the values with nodes in the order of their texts, and rank the index of each in it. Both are as of version
	// sortedAt.
	sorted, rank []int32
	sortedAt     int
}

// sort updates sorted and rank. A value that has lost its last node stays.
func (l *label) sort() {
	if l.sortedAt == l.version {
		return
	}
	l.sorted, l.rank, l.sortedAt = l.sorted[:0], make([]int32, len(l.texts)), l.version
	for value := range l.texts {
		if l.members[value] > 0 {
			l.sorted = append(l.sorted, int32(value))
		}
	}
	slices.SortFunc(l.sorted, func(x, y int32) int { return cmp.Compare(l.texts[x], l.texts[y]) })
	for i, value := range l.sorted {
		l.rank[value] = int32(i)
	}
}

func (fl *fleet) labelFor(name string) *label {
	for _, l := range fl.labels {
		if l.name == name {
			return l
		}
	}
	l := &label{name: name, values: map[string]int32{}, texts: make([]string, 1), nodes: make([]grid.Span, 1), members: make([]int32, 1)}
	fl.labels = append(fl.labels, l)
	for _, n := range fl.nodes {
		l.update(n)
	}
	return l
}

// update sets a node's value, and updates the groups that count containers by the label.
func (l *label) update(n *node) {
	number := int32(0)
	if value, ok := n.attributes.value(l.name); ok && n.known {
		text := value.String()
		number, ok = l.values[text]
		if !ok {
			number = int32(len(l.nodes))
			l.values[text] = number
			l.texts, l.nodes = append(l.texts, text), append(l.nodes, grid.Span{})
			l.members = append(l.members, 0)
		}
	}
	old := l.assign(n.slot, number, n.known)
	if old == number {
		return
	}
	for held := n.containers; held != nil; held = held.nextOfNode {
		for _, t := range held.group.tallies {
			if t.label == l {
				t.move(old, number)
			}
		}
	}
}

// assign sets a slot's value and returns the one before. Only known nodes are in the set of nodes of a value.
func (l *label) assign(slot, number int32, known bool) int32 {
	for int(slot) >= len(l.of) {
		l.of = append(l.of, 0)
	}
	old := l.of[slot]
	if l.nodes[old].Has(slot) {
		l.nodes[old].Clear(slot)
		l.members[old]--
	}
	l.of[slot] = number
	if known {
		l.nodes[number].Set(slot)
		if l.members[number]++; l.members[number] == 1 {
			l.version++
		}
	}
	return old
}
