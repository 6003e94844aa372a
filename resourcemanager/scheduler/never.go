package scheduler

import (
	"fmt"
	"strings"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// never is a sentence why an ask could not be granted even on an empty zone; empty if it could. There has to be room for the app's
// master too, since containers are of no use without it.
func (e *explainer) never(k *ask) string {
	var eligible, missed []*node
	for _, n := range e.fleet.records() {
		switch {
		case !n.known:
		case k.shape.filter != nil && !k.shape.filter.allows(n):
			missed = append(missed, n)
		default:
			eligible = append(eligible, n)
		}
	}
	if len(eligible) == 0 && len(missed) > 0 {
		return noneMeets(k.shape.filter)
	}
	master := e.master
	if k.spec.Master {
		master = resource.Vector{}
	}
	if len(eligible) > 0 {
		if sentence := e.neverOn(eligible, &k.spec.Resources, ""); sentence != "" {
			return sentence
		}
		if sentence := e.neverBeside(k, eligible, &master); sentence != "" {
			return sentence
		}
	}
	return e.neverInQueue(k, &master)
}

// neverOn is a sentence why none of these nodes is large enough.
func (e *explainer) neverOn(nodes []*node, need *resource.Vector, what string) string {
	schema := e.schema
	for _, n := range nodes {
		if fits(need, &n.spec.Capacity) {
			return ""
		}
	}
	for dim, asked := range need {
		largest := nodes[0]
		for _, n := range nodes {
			if n.spec.Capacity[dim] > largest.spec.Capacity[dim] {
				largest = n
			}
		}
		if has := largest.spec.Capacity[dim]; asked > has {
			return fmt.Sprintf("no node is large enough: %s are requested%s, and the largest node, %s, has %s",
				amount(schema, dim, asked), what, largest.spec.Name, schema.Format(dim, has))
		}
	}
	return fmt.Sprintf("no node is large enough: none has all at once of %s%s", describe(schema, *need), what)
}

// neverBeside is a sentence why no node has room for an app's master and a container of the ask together.
func (e *explainer) neverBeside(k *ask, eligible []*node, master *resource.Vector) string {
	if master.IsZero() {
		return ""
	}
	var known []*node
	for _, n := range e.fleet.records() {
		if n.known {
			known = append(known, n)
		}
	}
	if sentence := e.neverOn(known, master, " for the application master"); sentence != "" {
		return sentence
	}
	need := &k.spec.Resources
	both := need.Add(*master)
	var large *node
	for _, n := range eligible {
		if !fits(need, &n.spec.Capacity) {
			continue
		}
		if fits(&both, &n.spec.Capacity) {
			return ""
		}
		large = n
		for _, other := range known {
			if other != n && fits(master, &other.spec.Capacity) {
				return ""
			}
		}
	}
	dim := max(0, both.Lacking(large.spec.Capacity))
	schema, has := e.schema, large.spec.Capacity[dim]
	return fmt.Sprintf("no node has room for it beside its own application master: %s are requested, and of the %s of node %s the master needs %s; ask for %s at most",
		amount(schema, dim, need[dim]), schema.Format(dim, has), large.spec.Name, schema.Format(dim, master[dim]), schema.Format(dim, has-master[dim]))
}

// neverInQueue is a sentence why an ask with its master exceeds what a queue may ever hold; empty if it does not. A user's limit
// counts only if it is too small for a master: an ask that exceeds it otherwise waits.
func (e *explainer) neverInQueue(k *ask, master *resource.Vector) string {
	if e.tree.zoneCapacity().IsZero() {
		return ""
	}
	whole, each := k.spec.Resources, ""
	if k.spec.Gang {
		whole, each = whole.Scale(int64(k.spec.Pending)), fmt.Sprintf(" for a gang of %d", k.spec.Pending)
	}
	for q := k.app.leaf; q != nil; q = q.parent {
		most := ceiling{q.spec.Maximum.limit(resource.Unlimited()), fmt.Sprintf("queue %s may hold", q.spec.Name)}
		if q.parent != nil && q.spec.Maximum.IsPercent {
			most.amount = q.maximum
		}
		if sentence := e.neverWithin(&whole, master, each, most); sentence != "" {
			return sentence
		}
	}
	leaf := k.app.leaf
	if leaf.spec.UserLimitPercent == 0 {
		return ""
	}
	return e.neverWithin(&resource.Vector{}, master, "", ceiling{leaf.userLimit(), fmt.Sprintf("one user may hold in queue %s", leaf.spec.Name)})
}

// ceiling is an upper limit, with its holder as the beginning of a sentence: "queue batch may hold".
type ceiling struct {
	amount resource.Vector
	holder string
}

// neverWithin is a sentence why an ask with its master exceeds a ceiling; empty if it does not.
func (e *explainer) neverWithin(whole, master *resource.Vector, each string, most ceiling) string {
	schema, limit, holder := e.schema, &most.amount, most.holder
	if dim := exceeds(&resource.Vector{}, master, limit); dim >= 0 {
		return fmt.Sprintf("an application master alone needs %s, and %s %s, so that no app can ever start", amount(schema, dim, master[dim]), holder, schema.Format(dim, limit[dim]))
	}
	if dim := exceeds(&resource.Vector{}, whole, limit); dim >= 0 {
		return fmt.Sprintf("%s are requested%s, %s %s", amount(schema, dim, whole[dim]), each, holder, schema.Format(dim, limit[dim]))
	}
	if dim := exceeds(master, whole, limit); dim >= 0 {
		return fmt.Sprintf("%s are requested%s, %s %s, and its application master needs %s of that",
			amount(schema, dim, whole[dim]), each, holder, schema.Format(dim, limit[dim]), schema.Format(dim, master[dim]))
	}
	return ""
}

// noneMeets says that no node meets a filter.
func noneMeets(f *filter) string {
	texts := make([]string, len(f.constraints))
	for i, constraint := range f.constraints {
		texts[i] = constraint.String()
	}
	if len(texts) == 0 {
		return "every node is to be avoided"
	}
	if len(f.avoid) > 0 {
		texts = append(texts, "is not to be avoided")
	}
	return "no node meets " + strings.Join(texts, " and ")
}

// describe lists a vector's quantities: "2 cpu, 64MiB of memory".
func describe(schema resource.Schema, v resource.Vector) string {
	var parts []string
	for dim, n := range v {
		if n != 0 {
			parts = append(parts, amount(schema, dim, n))
		}
	}
	return strings.Join(parts, ", ")
}
