package scheduler

import (
	"cmp"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// queue is a node of the tree. What a leaf holds is counted along its whole path.
type queue struct {
	spec     QueueSpec
	parent   *queue
	children []*queue
	// order is the queue's place in the tree, parents before children.
	order int

	guaranteed, maximum, used resource.Vector
	// promised is what is nominated for asks here against others' borrowing, leaving what is under notice.
	promised, leaving resource.Vector
	// lent are the shares of others' guarantees that open contracts entitle to, entitled guaranteed and lent together.
	lent     []loan
	entitled resource.Vector
	// containersHeld is a leaf's containers, newest first, without those under notice. disordered says that they have
	// to be sorted before that is true.
	containersHeld *container
	disordered     bool
	// chosenFor is the turn of removalPlan in which the leaf's containers may be taken.
	chosenFor int64
	// masters is what application masters hold in a leaf, masterLimit the most that they may.
	masters, masterLimit resource.Vector
	// capped says that the maximum is less than the zone; otherwise its nodes are limit enough.
	capped           bool
	apps, containers int
	// reservations are nominations for asks that had waited for too long. There are no new ones before reserveAfter.
	reservations int
	reserveAfter time.Time
	users        map[string]*user

	// share is used/entitled, or used/zone where nothing is guaranteed: the latter come after all others.
	share     float64
	borrowing bool
	index     int32

	// active are the children below which something is ready.
	active heap[*queue]
	// backlog is what the backlog knows of the queue.
	backlog queueBacklog
}

// link puts a container among a leaf's, by age, and reports whether that is where it belongs: it is not carried
// further than past a few.
func (q *queue) link(k *container) bool {
	var before *container
	after := q.containersHeld
	for range 64 {
		if after == nil || !after.startedAt.After(k.startedAt) {
			break
		}
		before, after = after, after.nextOfLeaf
	}
	k.previousOfLeaf, k.nextOfLeaf = before, after
	if before != nil {
		before.nextOfLeaf = k
	} else {
		q.containersHeld = k
	}
	if after != nil {
		after.previousOfLeaf = k
	}
	return after == nil || !after.startedAt.After(k.startedAt)
}

// sortHeld puts a leaf's containers in order after many of them came at once: after a restart, or with their app.
func (q *queue) sortHeld() {
	if !q.disordered {
		return
	}
	q.disordered = false
	var all []*container
	for k := q.containersHeld; k != nil; k = k.nextOfLeaf {
		all = append(all, k)
	}
	slices.SortFunc(all, func(x, y *container) int {
		return cmp.Or(y.startedAt.Compare(x.startedAt), y.id.Compare(x.id))
	})
	q.containersHeld = nil
	for i := len(all) - 1; i >= 0; i-- {
		q.link(all[i])
	}
}

func (q *queue) unlink(k *container) {
	if k.previousOfLeaf != nil {
		k.previousOfLeaf.nextOfLeaf = k.nextOfLeaf
	} else {
		q.containersHeld = k.nextOfLeaf
	}
	if k.nextOfLeaf != nil {
		k.nextOfLeaf.previousOfLeaf = k.previousOfLeaf
	}
	k.previousOfLeaf, k.nextOfLeaf = nil, nil
}

// expect counts what is under notice, promise what is nominated against borrowers, along the path.
func (q *queue) expect(amount *resource.Vector, sign int64) {
	for ; q != nil; q = q.parent {
		for i := range amount {
			q.leaving[i] += sign * amount[i]
		}
	}
}

func (q *queue) promise(amount *resource.Vector, sign int64) {
	for ; q != nil; q = q.parent {
		for i := range amount {
			q.promised[i] += sign * amount[i]
		}
	}
}

// user is what one person holds in a leaf.
type user struct {
	name  string
	used  resource.Vector
	limit resource.Vector
}

func (q *queue) heapIndex() *int32 { return &q.index }

// before puts the queue first that has the least of what it was promised.
func (q *queue) before(other *queue) bool {
	if q.borrowing != other.borrowing {
		return other.borrowing
	}
	if q.share != other.share {
		return q.share < other.share
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

func (q *queue) isLeaf() bool { return len(q.children) == 0 }

// setShare brings the queue's rank up to date, given all that the zone has.
func (q *queue) setShare(zone *resource.Vector) {
	q.borrowing = q.entitled.IsZero()
	if q.borrowing {
		q.share = shareOf(&q.used, zone)
		return
	}
	q.share = shareOf(&q.used, &q.entitled)
}

// shareOf is the largest used/of over the places that of names; a place left out of a guarantee counts for nothing.
func shareOf(used, of *resource.Vector) float64 {
	share := 0.0
	for i := range used {
		if of[i] > 0 && used[i] > 0 {
			share = max(share, float64(used[i])/float64(of[i]))
		}
	}
	return share
}

// within reports whether used + need stays within a guarantee, in the places that it names.
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

// exceeds is the first place in which used + need goes beyond the limit, or -1.
func exceeds(used, need, limit *resource.Vector) int {
	for i := range need {
		if need[i] > 0 && used[i] > limit[i]-need[i] {
			return i
		}
	}
	return -1
}

// resolve works out what the queue's capacities come to, given its parent's.
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

// limit is the capacity as a maximum. An absolute maximum limits only the places that it names.
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

// resolveQueues works the tree out again after the zone's size, its queues or its contracts changed.
func (c *Core) resolveQueues() {
	if !c.fleet.takeCapacityChange() && !c.stale {
		return
	}
	c.stale = false
	c.zone = c.fleet.capacity
	c.fleet.weights = weightsOf(&c.zone)
	c.root().resolve(c.zone, c.zone, c.zone)
	c.resolveLoans()
	for _, q := range c.queues {
		q.setShare(&c.zone)
	}
	for _, a := range c.apps.byID {
		a.share = shareOf(&a.used, &c.zone) / a.weight
	}
	for _, q := range c.queues {
		q.active.rebuild()
		if q.spec.Fair {
			q.backlog.ready.rebuild()
			q.backlog.blocked.rebuild()
		}
	}
	c.limitsMoved = true
}

func (c *Core) root() *queue { return c.queues[0] }

// charge adds to what a leaf and its ancestors hold; sign is 1 or -1.
func (c *Core) charge(leaf *queue, amount *resource.Vector, sign int64) {
	for q := leaf; q != nil; q = q.parent {
		for i := range amount {
			q.used[i] += sign * amount[i]
		}
		q.containers += int(sign)
		q.setShare(&c.zone)
		if q.index >= 0 {
			q.parent.active.move(q)
		}
		if sign < 0 && len(q.backlog.limited) > 0 && !c.pass.onTrial {
			c.backlog.liftLimit(q)
		}
	}
}

// activate puts a leaf with ready buckets, and its ancestors, among the active ones.
func (q *queue) activate() {
	for ; q.parent != nil && q.index < 0; q = q.parent {
		q.parent.active.push(q)
	}
}

// deactivate takes a leaf without ready buckets, and ancestors that this leaves without any, out again.
func (q *queue) deactivate() {
	for ; q.parent != nil && q.index >= 0; q = q.parent {
		if len(q.backlog.ready.items) > 0 || len(q.active.items) > 0 {
			return
		}
		q.parent.active.remove(q)
	}
}

// next is the leaf whose turn it is, or nil.
func (c *Core) next() *queue {
	q := c.root()
	for len(q.active.items) > 0 {
		q = q.active.items[0]
	}
	if len(q.backlog.ready.items) == 0 {
		return nil
	}
	return q
}

func (c *Core) queueNamed(name id.Queue) *queue { return c.queueByName[name] }
