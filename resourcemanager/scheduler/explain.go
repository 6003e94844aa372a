package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// Explain implements Interface.
func (c *Core) Explain(name id.App, now time.Time) Explanation {
	defer c.explainAt(now)()
	a := c.apps.find(name)
	if a == nil {
		return Explanation{}
	}
	var explanation Explanation
	// An app may have thousands of asks of one kind, for all of which the explanation is the same.
	known := map[askKind]AskExplanation{}
	for _, k := range a.sortedAsks() {
		kind := askKind{shape: k.shape, group: k.group, master: k.spec.Master, duration: k.spec.Duration}
		if k.spec.Gang {
			kind.pending = k.spec.Pending
		}
		like, ok := known[kind]
		if !ok || len(k.nominations) > 0 {
			like = c.explainer.ask(k)
			if len(k.nominations) == 0 {
				known[kind] = like
			}
		}
		like.Ask, like.Pending = k.spec.ID, k.spec.Pending
		explanation.Asks = append(explanation.Asks, like)
	}
	return explanation
}

// askKind is the key of asks of one app, without nominations, that wait for the same reasons.
type askKind struct {
	shape  *shape
	group  *group
	master bool
	// duration is the expected duration.
	duration time.Duration
	// pending counts for gangs, which are granted whole.
	pending int
}

// explainAt sets the time for explanations, until the returned function is called. It does not affect decisions.
func (c *Core) explainAt(now time.Time) func() {
	before := c.pass.now
	c.pass.now = now
	c.resolveQueues()
	return func() { c.pass.now = before }
}

// explainer explains in sentences why asks wait and what would help. It changes nothing.
type explainer struct {
	pass  *pass
	fleet *fleet
	tree  *tree
	// schema names resources.
	schema resource.Schema
	// master is the resources of an application master.
	master resource.Vector
}

// miss counts the nodes that break one rule in the same way. The closest miss is the example.
type miss struct {
	title   string
	nodes   int
	closest failure
}

func (e *explainer) setSchema(schema resource.Schema) { e.schema = schema }

// ask explains why an ask waits.
func (e *explainer) ask(k *ask) AskExplanation {
	need := k.spec.Resources
	if k.spec.Gang {
		need = need.Scale(int64(k.spec.Pending))
	}
	limit := e.tree.limit(k, &need)
	explanation := AskExplanation{Ask: k.spec.ID, Pending: k.spec.Pending, Limit: limit.sentence(e.schema, k, &need, e.pass.now), Coming: e.nominated(k)}
	var misses []miss
	for _, n := range e.fleet.records() {
		if !n.known {
			continue
		}
		f := e.fleet.failureOn(n, k)
		if f.rule == noRule {
			explanation.Fits++
			continue
		}
		title := f.title(e.schema)
		i := slices.IndexFunc(misses, func(m miss) bool { return m.title == title })
		if i < 0 {
			i = len(misses)
			misses = append(misses, miss{title: title, closest: f})
		}
		m := &misses[i]
		m.nodes++
		if f.closeness() > m.closest.closeness() {
			m.closest = f
		}
	}
	slices.SortStableFunc(misses, func(x, y miss) int { return y.nodes - x.nodes })
	for i := range misses {
		m := &misses[i]
		explanation.Tests = append(explanation.Tests, FailedTest{Test: m.title, Nodes: m.nodes, Example: m.closest.example(e.schema)})
	}
	if explanation.Fits == 0 {
		explanation.Never = e.never(k)
	}
	explanation.Guarantee = e.guarantee(k, &explanation)
	explanation.Help = e.help(k, &need, &explanation, misses)
	return explanation
}

// nominated is a sentence about the containers that are preempted for an ask and their deadline, or about the room that is reserved
// for it.
func (e *explainer) nominated(k *ask) string {
	var leaving, stopping []titled
	var reserved []string
	last := time.Time{}
	for _, m := range k.nominations {
		if m.reservingLeaf != nil && !slices.Contains(reserved, string(m.node.spec.Name)) {
			reserved = append(reserved, string(m.node.spec.Name))
		}
		for _, given := range m.victims {
			if given.stopped {
				stopping = addTitle(stopping, given.container.app.title())
				continue
			}
			leaving = addTitle(leaving, given.container.app.title())
			if given.deadline.After(last) {
				last = given.deadline
			}
		}
	}
	var parts []string
	if len(stopping) > 0 {
		parts = append(parts, countTitles(stopping)+" being stopped")
	}
	if len(leaving) > 0 {
		parts = append(parts, countTitles(leaving)+" under notice until "+last.UTC().Format(time.RFC3339))
	}
	switch {
	case len(parts) > 0:
		return "room is being made: " + strings.Join(parts, "; ")
	case len(reserved) > 0:
		return fmt.Sprintf("room is reserved for it as it comes free on %s, until %s",
			strings.Join(reserved, ", "), k.reservedAt.Add(longestReservation).UTC().Format(time.RFC3339))
	case len(k.nominations) > 0:
		return "room that others have left is reserved for it"
	}
	return ""
}

// titled is a number of containers of an app.
type titled struct {
	title string
	count int
}

func addTitle(all []titled, title string) []titled {
	for i := range all {
		if all[i].title == title {
			all[i].count++
			return all
		}
	}
	return append(all, titled{title, 1})
}

// countTitles writes "3 containers of crunch, 1 of etl are".
func countTitles(all []titled) string {
	total := 0
	parts := make([]string, len(all))
	for i, t := range all {
		total += t.count
		parts[i] = fmt.Sprintf("%d of %s", t.count, t.title)
	}
	parts[0] = fmt.Sprintf("%d containers of %s", all[0].count, all[0].title)
	verb := " are"
	if total == 1 {
		parts[0], verb = "1 container of "+all[0].title, " is"
	}
	return strings.Join(parts, ", ") + verb
}
