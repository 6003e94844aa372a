package scheduler

import (
	"slices"
	"strings"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler/grid"
)

// backlog has the asks that wait. Asks of one leaf, user and shape form a bucket, which is served in order.
//
// A bucket is ready, blocked or limited. It is blocked, and waits for capacity, when its shape fits on no node; it is ready
// again when a node to which capacity came back fits. It is limited when its first ask would break a limit; it is ready
// again when the queue that has the limit holds less.
type backlog struct {
	pass  *pass
	fleet *fleet
	apps  *apps
	// reserveAfter is how long an ask is blocked before room may be reserved for it.
	reserveAfter time.Duration
	// shapes are the shapes of all asks, and some that no ask has any more.
	shapes []*shape
	// byKey finds a shape.
	byKey map[shapeKey]*shape
	// idle is how many shapes no ask has.
	idle int
	// watched are the shapes that are offered nodes to which capacity came back, by the cpu level of what they need.
	watched [grid.Levels][]*shape
	// aging are asks that were blocked, by the time from which room may be reserved for them.
	aging []aging
}

// aging is an ask that was blocked, and from when room may be reserved for it.
type aging struct {
	ask *ask
	due time.Time
}

// shapeFor returns the shape of an ask, and creates it if needed. An ask that is only planned has its own shape, so that others do
// not use what is found for it.
func (bl *backlog) shapeFor(k *ask) *shape {
	key := bl.keyOf(k)
	if k.app.id.IsZero() {
		s := bl.newShape(k, key)
		s.backlog.watched = true // so that it is offered nothing
		return s
	}
	if s := bl.byKey[key]; s != nil {
		if s.backlog.asks == 0 {
			bl.idle--
		}
		return s
	}
	s := bl.newShape(k, key)
	if s.filter != nil {
		s.filter.shapes++
	}
	bl.byKey[key] = s
	bl.shapes = append(bl.shapes, s)
	return s
}

func (bl *backlog) keyOf(k *ask) shapeKey {
	spec := &k.spec
	key := shapeKey{need: spec.Resources, filter: bl.fleet.filterFor(spec)}
	if spec.MaxPerNode > 0 {
		key.group, key.maxPerNode = k.group, spec.MaxPerNode
		k.group.track(bl.fleet.words())
	}
	self := k.app.name
	for _, name := range spec.AntiAffinity {
		// The anti-affinities of an ask that is only planned do not apply to others.
		if !k.app.id.IsZero() {
			bl.repel(name, self)
		}
	}
	if len(spec.Affinity) > 0 || len(spec.AntiAffinity) > 0 || len(self.repelledBy) > 0 {
		key.self = self
		key.affinity = strings.Join(spec.Affinity, "\x00")
		key.antiAffinity = strings.Join(spec.AntiAffinity, "\x00")
	}
	return key
}

func (bl *backlog) newShape(k *ask, key shapeKey) *shape {
	s := &shape{
		key: key, need: key.need, floor: grid.CellOf(&key.need), filter: key.filter,
		group: key.group, maxPerNode: key.maxPerNode, self: key.self,
	}
	if key.self != nil {
		for _, name := range k.spec.Affinity {
			s.affinity = append(s.affinity, bl.apps.track(name))
		}
		for _, name := range k.spec.AntiAffinity {
			s.antiAffinity = append(s.antiAffinity, bl.apps.track(name))
		}
	}
	return s
}

// watch adds a shape to those that are offered nodes to which capacity came back.
func (bl *backlog) watch(s *shape) {
	if !s.backlog.watched {
		s.backlog.watched = true
		bl.watched[s.floor.CPU] = append(bl.watched[s.floor.CPU], s)
	}
}

// find is the slot of the node where one container of an ask goes, or -1.
func (bl *backlog) find(k *ask) int32 {
	slot := bl.fleet.find(k)
	if k.shape.misfits > 0 {
		bl.watch(k.shape)
	}
	return slot
}

// refit clears what all shapes know of a node.
func (bl *backlog) refit(slot int32) {
	for _, s := range bl.shapes {
		s.refit(slot)
	}
}

// capacityReturned offers a node to the shapes for which it may have enough.
func (bl *backlog) capacityReturned(n *node) {
	free := bl.fleet.left(n)
	for cpu := int8(0); cpu <= n.at.CPU; cpu++ {
		watched := bl.watched[cpu]
		bl.pass.looks -= len(watched)
		still := watched[:0]
		for _, s := range watched {
			if fits(&s.need, free) {
				bl.offer(s, n, free)
			}
			if s.backlog.watched = s.misfits > 0 || s.backlog.blockedBuckets > 0; s.backlog.watched {
				still = append(still, s)
			} else {
				// It is not offered nodes any more.
				s.backlog.blocked = false
			}
		}
		bl.watched[cpu] = still
	}
}

// offer offers a shape a node to which capacity came back and which has enough. If the node meets the shape's conditions, blocked
// buckets become ready.
func (bl *backlog) offer(s *shape, n *node, free *resource.Vector) {
	s.refit(n.slot)
	if !s.allows(n) {
		return
	}
	s.backlog.blocked = false
	for _, b := range s.backlog.buckets {
		if b.state != blocked {
			continue
		}
		if b.key.gang != nil {
			b.missing -= timesIn(&s.need, free)
			if b.missing > 0 {
				continue
			}
		}
		bl.setReady(b)
	}
}

// retry makes blocked asks with an affinity to their own name ready again after the last container of the name has ended: the next
// one may go anywhere.
func (bl *backlog) retry(m *appName) {
	bl.fleet.noteChange()
	for _, s := range bl.shapes {
		if s.self != m || !slices.Contains(s.affinity, m) {
			continue
		}
		s.backlog.blocked = false
		for _, b := range s.backlog.buckets {
			if b.state == blocked {
				bl.setReady(b)
			}
		}
	}
}

// prepare gives an ask its shape, group and tally.
func (bl *backlog) prepare(k *ask) {
	if k.spec.Policy == Spread || k.spec.MaxPerNode > 0 {
		k.group.track(bl.fleet.words())
	}
	if k.spec.SpreadOver != "" && k.spec.Policy == Spread {
		k.tally = k.group.tally(bl.fleet.labelFor(k.spec.SpreadOver))
	}
	k.shape = bl.shapeFor(k)
}

// enter adds an ask to the backlog.
func (bl *backlog) enter(k *ask) {
	if k.app.leaf == nil || k.app.removed {
		return
	}
	bl.prepare(k)
	s := k.shape
	s.backlog.asks++
	key := bucketKey{leaf: k.app.leaf, user: k.app.user, master: k.spec.Master, outlasting: k.outlasting, unknownDuration: k.spec.Duration == 0}
	if key.leaf.spec.Fair {
		key.app = k.app
	}
	if k.spec.Gang {
		key.gang = k
	}
	b := s.bucket(key)
	k.bucket = b
	b.asks.Push(k.queued())
	switch {
	case b.state == empty && s.backlog.blocked:
		bl.setBlocked(b)
		b.missing = int64(k.spec.Pending)
	case b.state == empty:
		bl.setReady(b)
	case b.state == ready:
		b.leaf.backlog.ready.Move(b)
	case b.state == blocked:
		b.leaf.backlog.blocked.Move(b)
		bl.age(b)
	}
}

// pending is the sum of the asks below each queue of a tree, in the order of the queues.
func (bl *backlog) pending(queues *queueSet) []resource.Vector {
	pending := make([]resource.Vector, len(queues.all()))
	for _, s := range bl.shapes {
		for _, b := range s.backlog.buckets {
			for _, waiting := range b.asks.Items() {
				wanted := waiting.ask.spec.Resources.Scale(int64(waiting.ask.spec.Pending))
				for q := queues.named(b.leaf.spec.Name); q != nil; q = q.parent {
					pending[q.order] = pending[q.order].Add(wanted)
				}
			}
		}
	}
	return pending
}

// leave removes an ask from the backlog.
func (bl *backlog) leave(k *ask) {
	b := k.bucket
	if b == nil {
		return
	}
	k.bucket, k.shape = nil, nil
	head := b.first() == k
	b.asks.Remove(k.queued())
	if len(b.asks.Items()) == 0 {
		bl.detach(b, empty)
		if b.key.gang != nil || b.key.app != nil {
			b.shape.backlog.buckets = without(b.shape.backlog.buckets, b)
			k.app.buckets = without(k.app.buckets, b)
		}
	} else if head {
		switch b.state {
		case ready:
			b.leaf.backlog.ready.Move(b)
		case blocked:
			b.leaf.backlog.blocked.Move(b)
			bl.age(b)
		}
	}
	b.shape.backlog.asks--
	if b.shape.backlog.asks == 0 {
		bl.idle++
	}
}

// setReady makes a bucket ready.
func (bl *backlog) setReady(b *bucket) {
	bl.detach(b, ready)
	b.leaf.backlog.ready.Push(b)
	b.leaf.activate()
}

// detach removes a bucket from the list of its state, and sets another state.
func (bl *backlog) detach(b *bucket, state bucketState) {
	switch b.state {
	case ready:
		b.leaf.backlog.ready.Remove(b)
		b.leaf.deactivate()
	case blocked:
		b.leaf.backlog.blocked.Remove(b)
		b.shape.backlog.blockedBuckets--
	case limited:
		for q := b.leaf; q != nil; q = q.parent {
			q.backlog.limited = without(q.backlog.limited, b)
		}
	}
	b.state = state
}

// setBlocked makes a bucket blocked.
func (bl *backlog) setBlocked(b *bucket) {
	bl.detach(b, blocked)
	b.leaf.backlog.blocked.Push(b)
	b.shape.backlog.blockedBuckets++
	bl.watch(b.shape)
	bl.age(b)
}

func without(buckets []*bucket, b *bucket) []*bucket {
	return slices.DeleteFunc(buckets, func(other *bucket) bool { return other == b })
}

// setLimited makes a bucket limited by q.
func (bl *backlog) setLimited(b *bucket, q *queue) {
	bl.detach(b, limited)
	q.backlog.limited = append(q.backlog.limited, b)
}

// liftLimit makes the buckets that are limited by a queue ready.
func (bl *backlog) liftLimit(q *queue) {
	for len(q.backlog.limited) > 0 {
		b := q.backlog.limited[len(q.backlog.limited)-1]
		q.backlog.limited = q.backlog.limited[:len(q.backlog.limited)-1]
		b.state = empty
		if b.shape.backlog.blocked {
			bl.setBlocked(b)
		} else {
			bl.setReady(b)
		}
	}
}

// dropIdle drops the shapes that no ask has, once there are many.
func (bl *backlog) dropIdle() {
	if bl.idle <= 64+len(bl.shapes)/2 {
		return
	}
	kept := bl.shapes[:0]
	for i := range bl.watched {
		bl.watched[i] = bl.watched[i][:0]
	}
	for _, s := range bl.shapes {
		if s.backlog.asks == 0 {
			delete(bl.byKey, s.key)
			if s.filter != nil {
				s.filter.shapes--
			}
			continue
		}
		kept = append(kept, s)
		if s.backlog.watched {
			bl.watched[s.floor.CPU] = append(bl.watched[s.floor.CPU], s)
		}
	}
	clear(bl.shapes[len(kept):])
	bl.shapes = kept
	bl.fleet.dropFilters()
	bl.idle = 0
}

// drop drops all shapes. Every ask must have left before.
func (bl *backlog) drop() {
	for _, s := range bl.shapes {
		if s.filter != nil {
			s.filter.shapes--
		}
	}
	bl.shapes, bl.watched, bl.idle = nil, [grid.Levels][]*shape{}, 0
	clear(bl.byKey)
}

// repel records that a name has an anti-affinity to another, and gives the asks of the other name their new shapes.
func (bl *backlog) repel(name string, by *appName) {
	m := bl.apps.track(name)
	for _, known := range m.repelledBy {
		if known == by {
			return
		}
	}
	bl.apps.track(by.name)
	m.repelledBy = append(m.repelledBy, by)
	if m != by {
		bl.reshape(m)
	}
}

// reshape gives the asks of a name their new shapes.
func (bl *backlog) reshape(m *appName) {
	for _, a := range bl.apps.sorted() {
		if a.name != m {
			continue
		}
		for _, k := range a.sortedAsks() {
			bl.leave(k)
			bl.enter(k)
		}
	}
}

// block makes all ready buckets of a shape blocked: no node fits.
func (bl *backlog) block(s *shape) {
	s.backlog.blocked = true
	for _, b := range s.backlog.buckets {
		if b.state == ready {
			bl.setBlocked(b)
		}
	}
}

// blockGang makes a gang blocked: no node fits for missing of its containers.
func (bl *backlog) blockGang(b *bucket, missing int) {
	b.missing = int64(missing)
	bl.setBlocked(b)
}

// resized updates an ask's bucket after the number of its containers has changed: a gang may fit now.
func (bl *backlog) resized(k *ask) {
	if b := k.bucket; b.key.gang != nil && b.state != ready {
		bl.leave(k)
		bl.enter(k)
	}
}

// liftLimits makes the buckets that are limited by a leaf, or by a queue above it, ready: they hold less.
func (bl *backlog) liftLimits(leaf *queue) {
	for q := leaf; q != nil; q = q.parent {
		bl.liftLimit(q)
	}
}

// reorder moves the buckets of an app in a fair leaf after the app's share has changed.
func (bl *backlog) reorder(a *app) {
	for _, b := range a.buckets {
		switch b.state {
		case ready:
			a.leaf.backlog.ready.Move(b)
		case blocked:
			a.leaf.backlog.blocked.Move(b)
		}
	}
}

// rank reorders the buckets of fair leaves after the shares of all apps have changed.
func (bl *backlog) rank(queues []*queue) {
	for _, q := range queues {
		if q.spec.Fair {
			q.backlog.ready.Rebuild()
			q.backlog.blocked.Rebuild()
		}
	}
}

// retryLimited makes all limited buckets ready.
func (bl *backlog) retryLimited(queues []*queue) {
	for _, q := range queues {
		bl.liftLimit(q)
	}
}

// age adds the first ask of a blocked bucket to the aging list.
func (bl *backlog) age(b *bucket) {
	k := b.first()
	if k.blockedSince.IsZero() {
		k.blockedSince = bl.pass.now
	}
	if !k.aging {
		k.aging = true
		bl.aging = append(bl.aging, aging{k, bl.pass.now.Add(bl.reserveAfter)})
	}
}

// nextAgingAt is from when room may be reserved for the first aging ask, zero if the ask has left the backlog; false if no ask is
// aging.
func (bl *backlog) nextAgingAt() (time.Time, bool) {
	if len(bl.aging) == 0 {
		return time.Time{}, false
	}
	if first := bl.aging[0]; first.ask.bucket != nil {
		return first.due, true
	}
	return time.Time{}, true
}

// nextAged removes the first aging ask. If it is the first of a blocked bucket, it is added again and returned; otherwise the
// result is nil.
func (bl *backlog) nextAged() *ask {
	k := bl.aging[0].ask
	bl.aging = bl.aging[1:]
	k.aging = false
	if k.bucket == nil || k.bucket.state != blocked || k.bucket.first() != k {
		return nil
	}
	k.aging = true
	bl.aging = append(bl.aging, aging{k, bl.pass.now.Add(bl.reserveAfter)})
	return k
}
