package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// DefaultQueues is the tree of a zone that nobody has configured: one leaf, default, that may use everything.
func DefaultQueues() []QueueSpec {
	all := Capacity{Percent: 100, IsPercent: true}
	return []QueueSpec{
		{Name: "root", Guaranteed: all, Maximum: all},
		{Name: "default", Parent: "root", Guaranteed: all, Maximum: all},
	}
}

// CheckQueues says in one sentence what is wrong with a tree: names, parents, guarantees beyond the parent's,
// maxima under guarantees.
func CheckQueues(specs []QueueSpec) error {
	_, err := buildTree(specs, resource.Schema{})
	return err
}

// buildTree checks a tree as a whole and gives its queues, parents before children.
func buildTree(specs []QueueSpec, schema resource.Schema) ([]*queue, error) {
	if len(specs) > mostQueues {
		return nil, invalid("the tree has %d queues, and a zone has %d at most", len(specs), mostQueues)
	}
	byName := make(map[id.Queue]*queue, len(specs))
	var root *queue
	for _, spec := range specs {
		if err := checkQueue(&spec); err != nil {
			return nil, err
		}
		if byName[spec.Name] != nil {
			return nil, invalid("queue %s is there twice", spec.Name)
		}
		q := &queue{spec: spec, index: -1}
		byName[spec.Name] = q
		if spec.Parent != "" {
			continue
		}
		if root != nil {
			return nil, invalid("queue %s and queue %s both have no parent; a tree has one root", root.spec.Name, spec.Name)
		}
		root = q
	}
	if root == nil {
		return nil, invalid("no queue is the root: one queue must have no parent")
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
			return nil, invalid("queue %s has the parent %s, which does not exist", spec.Name, spec.Parent)
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
		return nil, cycle(specs, queues)
	}
	for _, q := range queues {
		if err := checkGuarantees(q, schema); err != nil {
			return nil, err
		}
	}
	return queues, nil
}

// Bounds on a tree: every decision may walk a path of it, and every look at the zone lists it.
const (
	mostQueues       = 1000
	longestQueueName = 100
	mostOnList       = 1000
)

func checkQueue(spec *QueueSpec) error {
	switch {
	case len(spec.Name) > longestQueueName:
		return invalid("queue %.20q… has a name of %d characters, and the most is %d", spec.Name, len(spec.Name), longestQueueName)
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

// cycle names the queues that the root does not reach: their parents lead in a circle.
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

// setQueues replaces the tree, if apps and containers can stay where they are.
func (c *Core) setQueues(in SetQueues) error {
	next, err := c.nextTree(in)
	if err != nil {
		return err
	}
	queues, byName, contracts, apps := next.queues, next.byName, next.contracts, c.apps.sorted()
	for _, a := range apps {
		for _, k := range a.sortedAsks() {
			c.withdrawNominations(k)
			c.backlog.leave(k)
		}
	}
	c.backlog.drop()
	c.queues, c.queueByName, c.leaves = queues, byName, nil
	for _, q := range queues {
		if q.isLeaf() {
			c.leaves = append(c.leaves, q)
		}
	}
	if in.Contracts != nil {
		c.keepContracts(contracts)
	} else {
		for i, k := range c.contracts {
			k.lender, k.borrowers = contracts[i].lender, contracts[i].borrowers
		}
	}
	c.stale = true
	c.resolveQueues()
	for _, a := range apps {
		if a.leaf == nil {
			continue
		}
		a.leaf = byName[a.leaf.spec.Name]
		a.owner, a.used = a.leaf.user(a.user), resource.Vector{}
		if !a.removed {
			a.leaf.apps++
		}
		for k := a.containers; k != nil; k = k.nextOfApp {
			c.chargeContainer(k, 1)
		}
	}
	for _, a := range apps {
		for _, k := range a.sortedAsks() {
			c.backlog.enter(k)
		}
	}
	return nil
}

// tree is a queue tree that is not in force yet.
type tree struct {
	queues    []*queue
	byName    map[id.Queue]*queue
	contracts []*contract
}

// nextTree builds a tree, if the present apps and containers can stay where they are.
func (c *Core) nextTree(in SetQueues) (tree, error) {
	queues, err := buildTree(in.Queues, c.config.Schema)
	if err != nil {
		return tree{}, err
	}
	byName := make(map[id.Queue]*queue, len(queues))
	for _, q := range queues {
		byName[q.spec.Name] = q
	}
	for _, a := range c.apps.sorted() {
		if a.leaf == nil {
			continue
		}
		name := a.leaf.spec.Name
		switch q := byName[name]; {
		case q == nil:
			return tree{}, refused("queue %s cannot be removed: it has the app %s", name, a.title())
		case !q.isLeaf():
			return tree{}, refused("queue %s cannot be given children: it has the app %s", name, a.title())
		}
	}
	lending := in.Contracts
	if lending == nil {
		for _, k := range c.contracts {
			lending = append(lending, k.spec)
		}
	}
	contracts, err := buildContracts(lending, byName)
	return tree{queues, byName, contracts}, err
}

// Queues implements Interface.
func (c *Core) Queues() []QueueUsage {
	c.resolveQueues()
	return c.usages(c.queues, c.queueByName)
}

// QueuesAfter gives the queues as they would be after SetQueues, or its error; nothing changes. What is lent at that
// moment is not taken into account.
func (c *Core) QueuesAfter(in SetQueues) ([]QueueUsage, error) {
	c.resolveQueues()
	next, err := c.nextTree(in)
	if err != nil {
		return nil, err
	}
	next.queues[0].resolve(c.zone, c.zone, c.zone)
	for _, present := range c.leaves {
		for q := next.byName[present.spec.Name]; q != nil; q = q.parent {
			q.used = q.used.Add(present.used)
			q.containers += present.containers
			if q.isLeaf() {
				q.apps = present.apps
			}
		}
	}
	return c.usages(next.queues, next.byName), nil
}

// usages tells what the queues of a tree are given, hold and wait for.
func (c *Core) usages(queues []*queue, byName map[id.Queue]*queue) []QueueUsage {
	pending := make([]resource.Vector, len(queues))
	for _, a := range c.apps.byID {
		if a.leaf == nil {
			continue
		}
		for _, k := range a.asks {
			wanted := k.spec.Resources.Scale(int64(k.spec.Pending))
			for q := byName[a.leaf.spec.Name]; q != nil; q = q.parent {
				pending[q.order] = pending[q.order].Add(wanted)
			}
		}
	}
	usages := make([]QueueUsage, len(queues))
	for i, q := range queues {
		usages[i] = QueueUsage{
			Spec: q.spec, Used: q.used, Pending: pending[i], Guaranteed: q.guaranteed, Maximum: q.maximum,
			Apps: q.apps, Containers: q.containers,
		}
	}
	for i := len(queues) - 1; i > 0; i-- {
		usages[queues[i].parent.order].Apps += usages[i].Apps
	}
	return usages
}

// MaySubmit reports whether a user may submit to a queue: named by the submit or admin list of the queue or of
// any queue above it, or nobody is named there at all.
func (c *Core) MaySubmit(name id.Queue, who string) bool {
	named := false
	for q := c.queueNamed(name); q != nil; q = q.parent {
		if slices.Contains(q.spec.Submit, who) || slices.Contains(q.spec.Admin, who) {
			return true
		}
		named = named || len(q.spec.Submit) > 0
	}
	return !named
}

// MayAdminister reports whether a user is named by the admin list of a queue or of any queue above it, or no
// administrator is named there at all.
func (c *Core) MayAdminister(name id.Queue, who string) bool {
	named := false
	for q := c.queueNamed(name); q != nil; q = q.parent {
		if slices.Contains(q.spec.Admin, who) {
			return true
		}
		named = named || len(q.spec.Admin) > 0
	}
	return !named
}

// leafFor finds the leaf that an app names, or says why it may not.
func (c *Core) leafFor(name id.Queue) (*queue, error) {
	q := c.queueNamed(name)
	switch {
	case q == nil:
		return nil, fmt.Errorf("queue %q does not exist; those for apps are %s: %w", name, c.leafNames(c.root()), errdefs.ErrNotFound)
	case !q.isLeaf():
		return nil, invalid("queue %s has queues below it; apps go to one of %s", name, c.leafNames(q))
	}
	return q, nil
}

func (c *Core) leafNames(below *queue) string {
	var names []string
	for _, q := range c.queues {
		for up := q; q.isLeaf() && up != nil; up = up.parent {
			if up == below {
				names = append(names, string(q.spec.Name))
			}
		}
	}
	slices.SortFunc(names, cmp.Compare)
	return strings.Join(names, ", ")
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

func refused(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrFailedPrecondition)...)
}

// amount writes a quantity with its resource: "64MiB of memory", "2 cpu".
func amount(schema resource.Schema, place int, n int64) string {
	switch place {
	case resource.Memory, resource.Disk:
		return schema.Format(place, n) + " of " + schema.Name(place)
	}
	return schema.Format(place, n) + " " + schema.Name(place)
}
