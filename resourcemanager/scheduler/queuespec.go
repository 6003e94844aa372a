package scheduler

import (
	"strings"
	"unicode"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// DefaultQueues is the initial tree of a zone: one leaf, default, that may use everything.
func DefaultQueues() []QueueSpec {
	all := Capacity{Percent: 100, IsPercent: true}
	return []QueueSpec{
		{Name: "root", Guaranteed: all, Maximum: all},
		{Name: "default", Parent: "root", Guaranteed: all, Maximum: all},
	}
}

// CheckQueues returns what is wrong with a tree, one sentence: names, parents, guarantees above the parent's, maxima below
// guarantees.
func CheckQueues(specs []QueueSpec) error {
	_, err := buildTree(specs, resource.Schema{})
	return err
}

// queueSet is the queues of a tree.
type queueSet struct {
	// ordered are all queues, parents before children; ends are the leaves, in the same order.
	ordered, ends []*queue
	// byName finds a queue.
	byName map[id.Queue]*queue
}

// all are the queues, parents before children.
func (s *queueSet) all() []*queue { return s.ordered }

// leaves are the queues without children, in the same order.
func (s *queueSet) leaves() []*queue { return s.ends }

func (s *queueSet) root() *queue { return s.ordered[0] }

// named is the queue of a name; nil is none.
func (s *queueSet) named(name id.Queue) *queue { return s.byName[name] }

// buildTree checks a tree and returns its queues.
func buildTree(specs []QueueSpec, schema resource.Schema) (queueSet, error) {
	if len(specs) > mostQueues {
		return queueSet{}, invalid("the tree has %d queues, and a zone has %d at most", len(specs), mostQueues)
	}
	byName := make(map[id.Queue]*queue, len(specs))
	var root *queue
	for _, spec := range specs {
		if err := checkQueue(&spec); err != nil {
			return queueSet{}, err
		}
		if byName[spec.Name] != nil {
			return queueSet{}, invalid("queue %s is there twice", spec.Name)
		}
		q := &queue{spec: spec, turn: queueTurn{index: -1}}
		byName[spec.Name] = q
		if spec.Parent != "" {
			continue
		}
		if root != nil {
			return queueSet{}, invalid("queue %s and queue %s both have no parent; a tree has one root", root.spec.Name, spec.Name)
		}
		root = q
	}
	if root == nil {
		return queueSet{}, invalid("no queue is the root: one queue must have no parent")
	}
	if root.spec.Guaranteed == (Capacity{}) {
		root.spec.Guaranteed = Capacity{Percent: 100, IsPercent: true}
	}
	if root.spec.Maximum == (Capacity{}) {
		root.spec.Maximum = Capacity{Percent: 100, IsPercent: true}
	}
	for _, spec := range specs {
		if spec.Parent == "" {
			continue
		}
		parent := byName[spec.Parent]
		if parent == nil {
			return queueSet{}, invalid("queue %s has the parent %s, which does not exist", spec.Name, spec.Parent)
		}
		byName[spec.Name].parent = parent
		parent.children = append(parent.children, byName[spec.Name])
	}
	queues := []*queue{root}
	for i := 0; i < len(queues); i++ {
		queues[i].order = i
		queues = append(queues, queues[i].children...)
	}
	if len(queues) < len(specs) {
		return queueSet{}, cycle(specs, queues)
	}
	for _, q := range queues {
		if err := checkGuarantees(q, schema); err != nil {
			return queueSet{}, err
		}
	}
	set := queueSet{ordered: queues, byName: byName}
	for _, q := range queues {
		if q.isLeaf() {
			set.ends = append(set.ends, q)
		}
	}
	return set, nil
}

// These are the limits of a tree. Every decision may walk a path of it, and every list of queues has all of it.
const (
	mostQueues       = 1000
	longestQueueName = 100
	mostOnList       = 1000
)

func checkQueue(spec *QueueSpec) error {
	switch {
	case len(spec.Name) > longestQueueName:
		return invalid("queue %.20q… has a name of %d characters, but the limit is %d", spec.Name, len(spec.Name), longestQueueName)
	case strings.IndexFunc(string(spec.Name), func(r rune) bool { return !unicode.IsPrint(r) }) >= 0:
		return invalid("queue %q has a character in its name that cannot be printed", spec.Name)
	case max(len(spec.Submit), len(spec.Admin)) > mostOnList:
		return invalid("queue %s names more than %d people in one list", spec.Name, mostOnList)
	case spec.Name == "":
		return invalid("a queue has no name")
	case strings.ContainsAny(string(spec.Name), " \t\n/"):
		return invalid("queue %q has a space or a slash in its name", spec.Name)
	case spec.MaxApps < 0:
		return invalid("queue %s has a negative limit of apps", spec.Name)
	case spec.State > QueueStopped:
		return invalid("queue %s has an unknown state", spec.Name)
	}
	for _, part := range []struct {
		what    string
		percent float64
	}{
		{"guarantees", spec.Guaranteed.Percent},
		{"has a maximum of", spec.Maximum.Percent},
		{"gives masters", spec.MaxMasterPercent},
		{"gives one user", spec.UserLimitPercent},
	} {
		if !(part.percent >= 0 && part.percent <= 100) {
			return invalid("queue %s %s %v %%; it must be 0 to 100", spec.Name, part.what, part.percent)
		}
	}
	for i := range spec.Guaranteed.Absolute {
		if spec.Guaranteed.Absolute[i] < 0 || spec.Maximum.Absolute[i] < 0 {
			return invalid("queue %s has a negative capacity", spec.Name)
		}
	}
	return nil
}

// cycle is the error about queues that are not below the root: their parents form a cycle.
func cycle(specs []QueueSpec, reached []*queue) error {
	seen := make(map[id.Queue]bool, len(reached))
	for _, q := range reached {
		seen[q.spec.Name] = true
	}
	parents := make(map[id.Queue]id.Queue, len(specs))
	for _, spec := range specs {
		parents[spec.Name] = spec.Parent
	}
	for _, spec := range specs {
		if seen[spec.Name] {
			continue
		}
		walked := map[id.Queue]bool{}
		name := spec.Name
		for !walked[name] {
			walked[name] = true
			name = parents[name]
		}
		return invalid("queue %s is its own ancestor: %s's parent is %s", name, name, parents[name])
	}
	return invalid("the queues do not form a tree")
}

// checkGuarantees compares what can be compared without knowing the zone: percentages with percentages, absolute
// capacities with absolute ones.
func checkGuarantees(q *queue, schema resource.Schema) error {
	spec := &q.spec
	hasMaximum := spec.Maximum != Capacity{}
	switch {
	case !hasMaximum:
	case spec.Guaranteed.IsPercent && spec.Maximum.IsPercent && spec.Maximum.Percent < spec.Guaranteed.Percent:
		return invalid("queue %s has a maximum of %v %%, under its guarantee of %v %%", spec.Name, spec.Maximum.Percent, spec.Guaranteed.Percent)
	case !spec.Guaranteed.IsPercent && !spec.Maximum.IsPercent:
		for i, most := range spec.Maximum.Absolute {
			if most != 0 && most < spec.Guaranteed.Absolute[i] {
				return invalid("queue %s has a maximum of %s, under its guarantee of %s", spec.Name,
					amount(schema, i, most), amount(schema, i, spec.Guaranteed.Absolute[i]))
			}
		}
	}
	percent, sum := 0.0, resource.Vector{}
	for _, child := range q.children {
		if child.spec.Guaranteed.IsPercent {
			percent += child.spec.Guaranteed.Percent
			if !spec.Guaranteed.IsPercent {
				sum = sum.Add(spec.Guaranteed.Absolute.Percent(child.spec.Guaranteed.Percent))
			}
		} else {
			sum = sum.Add(child.spec.Guaranteed.Absolute)
		}
	}
	if percent > 100+1e-9 {
		return invalid("the children of queue %s are guaranteed %v %% in sum, more than 100 %%", spec.Name, percent)
	}
	if !spec.Guaranteed.IsPercent {
		for i := range sum {
			if spec.Guaranteed.Absolute[i] != 0 && sum[i] > spec.Guaranteed.Absolute[i] {
				return invalid("the children of queue %s are guaranteed %s in sum, more than its own guarantee of %s", spec.Name,
					amount(schema, i, sum[i]), amount(schema, i, spec.Guaranteed.Absolute[i]))
			}
		}
	}
	return nil
}
