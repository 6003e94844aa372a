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

// tree has the queues. It decides which queue is served next, what each may hold, and who may use it.
//
// The capacity of the zone is what guarantees are shares of: all that open nodes have, and what is still in use on others.
type tree struct {
	queueSet
	lending *lending
	// capacity is the capacity of the zone for which guarantees and maxima were computed.
	capacity resource.Vector
	// stale is set if guarantees and maxima have to be computed again.
	stale bool
	// limitsMoved is set after they were computed, until limited buckets are made ready.
	limitsMoved bool
}

// present are the queues that are in force.
func (t *tree) present() *queueSet { return &t.queueSet }

// replace replaces the queues.
func (t *tree) replace(queues queueSet) { t.queueSet, t.stale = queues, true }

// invalidate requests that guarantees, maxima and loans are computed again.
func (t *tree) invalidate() { t.stale = true }

func (t *tree) isStale() bool { return t.stale }

// resolve computes guarantees and maxima for a capacity of the zone.
func (t *tree) resolve(zone resource.Vector) {
	t.stale, t.limitsMoved, t.capacity = false, true, zone
	t.root().resolve(zone, zone, zone)
}

// rank reorders the queues by their shares after their entitlements have changed.
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

// free is the capacity of the zone that no container uses.
func (t *tree) free() resource.Vector { return t.capacity.Sub(t.root().used) }

// takeLimitsMoved reports whether maxima were computed since the last call.
func (t *tree) takeLimitsMoved() bool {
	moved := t.limitsMoved
	t.limitsMoved = false
	return moved
}

// charge counts a container for its user, its leaf and the queues above that; sign is 1 or -1. It reports whether a bucket is
// limited by one of them.
func (t *tree) charge(ctr *container, sign int64) (limits bool) {
	leaf, owner, need := ctr.app.leaf, ctr.app.owner, &ctr.need
	for i := range need {
		owner.used[i] += sign * need[i]
	}
	if ctr.master {
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

// next is the leaf to serve next, or nil.
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

// admits returns why a leaf does not admit a new app; nil if it does.
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

// maySubmit reports whether a user may submit to a queue: the user is on a submit or admin list of the queue or of a queue above
// it, or these lists are all empty.
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

// mayAdminister reports whether a user is on the admin list of a queue or of a queue above it, or these lists are all empty.
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

// leafFor returns the leaf of an app, or why the app cannot have it.
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
