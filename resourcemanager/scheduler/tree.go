package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// tree is the queues that are in force: whose turn it is, what each may hold, and who may use it.
//
// The capacity of the zone is what guarantees are shares of: all that open nodes have, and what is still in use on others.
type tree struct {
	queueSet
	lending *lending
	// capacity is that of the zone when guarantees and maxima were last worked out.
	capacity resource.Vector
	// stale is set when they must be worked out again.
	stale bool
	// limitsMoved is set when they were, until limited asks have been tried again.
	limitsMoved bool
}

// replace puts new queues in force.
func (t *tree) replace(queues queueSet) { t.queueSet, t.stale = queues, true }

// invalidate has guarantees, maxima and loans worked out again.
func (t *tree) invalidate() { t.stale = true }

func (t *tree) isStale() bool { return t.stale }

// resolve works out guarantees and maxima in a zone.
func (t *tree) resolve(zone resource.Vector) {
	t.stale, t.limitsMoved, t.capacity = false, true, zone
	t.root().resolve(zone, zone, zone)
}

// rank puts the queues in order by their shares, after what they are entitled to changed.
func (t *tree) rank() {
	for _, q := range t.ordered {
		q.setShare(&t.capacity)
	}
	for _, q := range t.ordered {
		q.turn.active.Rebuild()
	}
}

// zoneCapacity is the capacity of the zone.
func (t *tree) zoneCapacity() *resource.Vector { return &t.capacity }

// free is what no container uses of the zone.
func (t *tree) free() resource.Vector { return t.capacity.Sub(t.root().used) }

// takeLimitsMoved reports whether maxima were worked out since it was last called.
func (t *tree) takeLimitsMoved() bool {
	moved := t.limitsMoved
	t.limitsMoved = false
	return moved
}

// charge counts a container for its user, its leaf and the queues above that; sign is 1 or -1. It reports whether something
// is limited by one of them.
func (t *tree) charge(k *container, sign int64) (limits bool) {
	leaf, owner, need := k.app.leaf, k.app.owner, &k.need
	for i := range need {
		owner.used[i] += sign * need[i]
	}
	if k.master {
		for i := range need {
			leaf.masters[i] += sign * need[i]
		}
	}
	for q := leaf; q != nil; q = q.parent {
		for i := range need {
			q.used[i] += sign * need[i]
		}
		q.containers += int(sign)
		q.setShare(&t.capacity)
		if q.turn.index >= 0 {
			q.parent.turn.active.Move(q)
		}
		limits = limits || q.backlog.hasLimited()
	}
	return limits
}

// next is the leaf whose turn it is, or nil.
func (t *tree) next() *queue {
	q := t.root()
	for len(q.turn.active.Items()) > 0 {
		q = q.turn.active.Items()[0]
	}
	if !q.backlog.hasReady() {
		return nil
	}
	return q
}

// admits says why a leaf does not take a new app, if so.
func (t *tree) admits(leaf *queue, in AddApp) error {
	for q := leaf; q != nil; q = q.parent {
		switch q.spec.State {
		case QueueDraining:
			return refused("queue %s is draining and takes no new apps", q.spec.Name)
		case QueueStopped:
			return refused("queue %s is stopped and takes no new apps", q.spec.Name)
		}
	}
	if leaf.spec.MaxApps > 0 && leaf.apps >= leaf.spec.MaxApps {
		return refused("queue %s already has %d apps, the most that it takes", leaf.spec.Name, leaf.apps)
	}
	if !in.Allowed && !t.maySubmit(leaf.spec.Name, in.User) {
		return fmt.Errorf("user %q may not submit to queue %s: %w", in.User, leaf.spec.Name, errdefs.ErrPermissionDenied)
	}
	return nil
}

// maySubmit reports whether a user may submit to a queue: named by the submit or admin list of the queue or of
// any queue above it, or nobody is named there at all.
func (t *tree) maySubmit(name id.Queue, who string) bool {
	named := false
	for q := t.named(name); q != nil; q = q.parent {
		if slices.Contains(q.spec.Submit, who) || slices.Contains(q.spec.Admin, who) {
			return true
		}
		named = named || len(q.spec.Submit) > 0
	}
	return !named
}

// mayAdminister reports whether a user is named by the admin list of a queue or of any queue above it, or no
// administrator is named there at all.
func (t *tree) mayAdminister(name id.Queue, who string) bool {
	named := false
	for q := t.named(name); q != nil; q = q.parent {
		if slices.Contains(q.spec.Admin, who) {
			return true
		}
		named = named || len(q.spec.Admin) > 0
	}
	return !named
}

// leafFor finds the leaf that an app names, or says why it may not.
func (t *tree) leafFor(name id.Queue) (*queue, error) {
	q := t.named(name)
	switch {
	case q == nil:
		return nil, fmt.Errorf("queue %q does not exist; those for apps are %s: %w", name, t.leafNames(t.root()), errdefs.ErrNotFound)
	case !q.isLeaf():
		return nil, invalid("queue %s has queues below it; apps go to one of %s", name, t.leafNames(q))
	}
	return q, nil
}

func (t *tree) leafNames(below *queue) string {
	var names []string
	for _, q := range t.ordered {
		for up := q; q.isLeaf() && up != nil; up = up.parent {
			if up == below {
				names = append(names, string(q.spec.Name))
			}
		}
	}
	slices.SortFunc(names, cmp.Compare)
	return strings.Join(names, ", ")
}
