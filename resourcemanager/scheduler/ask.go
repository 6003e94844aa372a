package scheduler

import (
	"slices"
	"time"
)

// ask is an Ask that waits. The fields that are used when it is served come first, so that they share a cache line.
type ask struct {
	app *app
	// order rises with each ask of the app.
	order int64
	// index is the ask's index in its bucket's heap.
	index int32
	// outlasting is set while the ask is in a bucket of asks that would outlast the window of a contract.
	outlasting bool
	// aging is set while the ask is in the backlog's aging list.
	aging bool
	// bucket and shape are what the ask is in while it is in the backlog.
	bucket *bucket
	shape  *shape
	// group counts the containers for spread and for the limit per node; tally counts them by a label; nil if there is none.
	group *group
	tally *tally
	spec  Ask

	// blockedSince is when the ask was first found to fit nowhere since its last grant; zero if it was not.
	blockedSince time.Time
	// nominations are the ask's nominations; claims is how many of them are claims.
	nominations []*nomination
	claims      int
	// reservedAt is when its last reservation began; zero is that it had none since its last grant.
	reservedAt time.Time
}

// queued is an ask in a heap, with a copy of the values that decide its order, so that a comparison does not read the ask.
type queued struct {
	appPriority, priority int32
	appOrder, order       int64
	ask                   *ask
}

func (k *ask) queued() queued {
	return queued{appPriority: k.app.priority, priority: k.spec.Priority, appOrder: k.app.order, order: k.order, ask: k}
}

func (q queued) HeapIndex() *int32 { return &q.ask.index }

func (q queued) Before(other queued) bool {
	switch {
	case q.appPriority != other.appPriority:
		return q.appPriority > other.appPriority
	case q.priority != other.priority:
		return q.priority > other.priority
	case q.appOrder != other.appOrder:
		return q.appOrder < other.appOrder
	}
	return q.order < other.order
}

func checkAsk(spec *Ask) error {
	for i, n := range spec.Resources {
		if n < 0 {
			return invalid("ask %q wants a negative quantity of resource %d", spec.ID, i)
		}
	}
	switch {
	case spec.Resources.IsZero():
		return invalid("ask %q wants nothing", spec.ID)
	case spec.Policy > Pack:
		return invalid("ask %q has an unknown placement policy", spec.ID)
	case spec.MaxPerNode < 0:
		return invalid("ask %q allows %d containers a node", spec.ID, spec.MaxPerNode)
	}
	return nil
}

// sameBut reports whether two asks are equal except for Pending.
func (k *Ask) sameBut(l *Ask) bool {
	return k.Resources == l.Resources && k.Priority == l.Priority && k.Policy == l.Policy && k.SpreadOver == l.SpreadOver &&
		k.Service == l.Service && k.Replaces == l.Replaces && k.MaxPerNode == l.MaxPerNode && k.Group == l.Group && k.Gang == l.Gang && k.Duration == l.Duration && k.Master == l.Master &&
		slices.Equal(k.Avoid, l.Avoid) && slices.Equal(k.Affinity, l.Affinity) && slices.Equal(k.AntiAffinity, l.AntiAffinity) &&
		slices.EqualFunc(k.Constraints, l.Constraints, func(x, y Constraint) bool {
			return x.Attribute == y.Attribute && x.Operator == y.Operator && slices.Equal(x.Values, y.Values)
		})
}

// clone copies what the caller may change later.
func (k Ask) clone() Ask {
	k.Constraints, k.Avoid = slices.Clone(k.Constraints), slices.Clone(k.Avoid)
	k.Affinity, k.AntiAffinity = slices.Clone(k.Affinity), slices.Clone(k.AntiAffinity)
	return k
}
