package scheduler

import (
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler/heap"
)

// queue is a node of the tree. Every queue counts what the leaves below it hold. The fields that a grant changes are adjacent in
// memory.
type queue struct {
	spec     QueueSpec
	children []*queue
	parent   *queue
	// order is the queue's index in the tree, parents before children.
	order int
	// apps is how many apps of a leaf were not removed; containers is how many containers are held.
	apps, containers int
	// used is what the queue's containers hold.
	used resource.Vector
	// entitled is the guarantee plus what is lent to the queue.
	entitled resource.Vector
	// turn decides when the queue is served among its siblings.
	turn queueTurn
	// backlog is the backlog's part.
	backlog queueBacklog
	// capped is set if the maximum is less than the zone. Otherwise the maximum need not be checked.
	capped bool
	// guaranteed and maximum are what the queue can always have and may have at most, computed from its spec and its parent.
	maximum, guaranteed resource.Vector
	// lent are the shares of others' guarantees that open contracts entitle the queue to.
	lent []loan
	// masters is what application masters hold in a leaf; masterLimit is how much they may hold.
	masters, masterLimit resource.Vector
	// users has the usage of each user of a leaf, by name.
	users map[string]*user
	// reclaim and reservations are the parts of preemption and nominations.
	reclaim      queueReclaim
	reservations queueReservations
}

// queueTurn decides when a queue is served among its siblings.
type queueTurn struct {
	// share is used/entitled; if last is set, used/capacity of the zone.
	share float64
	// last is set when the queue is entitled to nothing: such queues come after all others.
	last bool
	// active are the children with a ready bucket in them or below.
	active heap.Heap[*queue]
	// index is the queue's index in its parent's heap of active children, -1 outside.
	index int32
}

// user is the usage of one user in a leaf.
type user struct {
	name  string
	used  resource.Vector
	limit resource.Vector
}

func (q *queue) HeapIndex() *int32 { return &q.turn.index }

// Before orders queues by their share of what they are entitled to, the smallest first.
func (q *queue) Before(other *queue) bool {
	if q.turn.last != other.turn.last {
		return other.turn.last
	}
	if q.turn.share != other.turn.share {
		return q.turn.share < other.turn.share
	}
	return q.order < other.order
}

// isUnder reports whether the queue is another one or lies below it.
func (q *queue) isUnder(ancestor *queue) bool {
	for ; q != nil; q = q.parent {
		if q == ancestor {
			return true
		}
	}
	return false
}

// beside is the queue itself, or the highest one above it that is not also above the other.
func (q *queue) beside(other *queue) *queue {
	for q.parent != nil && !other.isUnder(q.parent) {
		q = q.parent
	}
	return q
}

func (q *queue) isLeaf() bool { return len(q.children) == 0 }

// setShare updates the queue's share.
func (q *queue) setShare(zone *resource.Vector) {
	q.turn.last = q.entitled.IsZero()
	if q.turn.last {
		q.turn.share = shareOf(&q.used, zone)
		return
	}
	q.turn.share = shareOf(&q.used, &q.entitled)
}

// shareOf is the largest used/of over the resources that of has; a resource that a guarantee does not name does not count.
func shareOf(used, of *resource.Vector) float64 {
	share := 0.0
	for i := range used {
		if of[i] > 0 && used[i] > 0 {
			share = max(share, float64(used[i])/float64(of[i]))
		}
	}
	return share
}

// within reports whether used + need stays within a guarantee, in the resources that it names.
func within(used, need, guaranteed *resource.Vector) bool {
	named := false
	for i := range need {
		if guaranteed[i] == 0 {
			continue
		}
		named = true
		if need[i] > 0 && used[i] > guaranteed[i]-need[i] {
			return false
		}
	}
	return named
}

// exceeds is the first resource of which used + need exceeds the limit, or -1.
func exceeds(used, need, limit *resource.Vector) int {
	for i := range need {
		if need[i] > 0 && used[i] > limit[i]-need[i] {
			return i
		}
	}
	return -1
}

// resolve computes the queue's capacities from its parent's.
func (q *queue) resolve(guaranteed, maximum, zone resource.Vector) {
	q.maximum = q.spec.Maximum.limit(maximum)
	q.guaranteed = q.spec.Guaranteed.of(guaranteed).Min(q.maximum)
	q.capped = q.maximum != zone
	percent := q.spec.MaxMasterPercent
	if percent == 0 {
		percent = 50
	}
	q.masterLimit = q.maximum.Percent(percent)
	for _, u := range q.users {
		u.limit = q.userLimit()
	}
	for _, child := range q.children {
		child.resolve(q.guaranteed, q.maximum, zone)
	}
}

func (q *queue) userLimit() resource.Vector {
	if q.spec.UserLimitPercent == 0 {
		return resource.Unlimited()
	}
	return q.maximum.Percent(q.spec.UserLimitPercent)
}

// of is the capacity as a guarantee, given the parent's.
func (c Capacity) of(parent resource.Vector) resource.Vector {
	if c.IsPercent {
		return parent.Percent(c.Percent)
	}
	return c.Absolute
}

// limit is the capacity as a maximum. An absolute maximum limits only the resources that it names.
func (c Capacity) limit(parent resource.Vector) resource.Vector {
	if c.IsPercent {
		return parent.Percent(c.Percent)
	}
	limit := parent
	for i, amount := range c.Absolute {
		if amount != 0 {
			limit[i] = min(limit[i], amount)
		}
	}
	return limit
}

func (q *queue) user(name string) *user {
	u := q.users[name]
	if u == nil {
		u = &user{name: name, limit: q.userLimit()}
		if q.users == nil {
			q.users = make(map[string]*user)
		}
		q.users[name] = u
	}
	return u
}

// activate adds a leaf with ready buckets, and its ancestors, to the active queues.
func (q *queue) activate() {
	for ; q.parent != nil && q.turn.index < 0; q = q.parent {
		q.parent.turn.active.Push(q)
	}
}

// deactivate removes a leaf without ready buckets, and ancestors that have none below them, from the active queues.
func (q *queue) deactivate() {
	for ; q.parent != nil && q.turn.index >= 0; q = q.parent {
		if q.backlog.hasReady() || len(q.turn.active.Items()) > 0 {
			return
		}
		q.parent.turn.active.Remove(q)
	}
}
