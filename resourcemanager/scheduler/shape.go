package scheduler

import (
	"slices"
	"strings"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// shape is what decides on which nodes an ask fits. Asks of all apps share it where they may, so that what was
// learnt for one is known for all.
type shape struct {
	key    shapeKey
	floor  cell
	need   resource.Vector
	filter *filter
	// group and maxPerNode limit the containers of a group on a node.
	group      *group
	maxPerNode int
	// self is the app's name if near, far or what repels it matter.
	self      *named
	near, far []*named

	// misfit are nodes that were seen to have too little free, and to which nothing came back since.
	misfit  bitmap
	misfits int
	// blocked says that no node fits now. Its buckets wait for offer.
	blocked bool
	// alert says that it is in Core.alert, because it has misfits or waiting buckets.
	alert   bool
	waiting int
	buckets []*bucket
	asks    int
	// evens are what the last searches to spread a few groups have found.
	evens [4]even
}

// even says that no node with fewer than level containers of a group was fit for a shape when the core had counted
// wakes.
type even struct {
	group *group
	level int
	wakes int64
}

type shapeKey struct {
	need       resource.Vector
	filter     *filter
	group      *group
	maxPerNode int
	self       *named
	near, far  string
}

// bucket is the asks of one leaf, user and shape, in the order in which they are served. Asks of a gang, and apps
// of a fair leaf, have buckets of their own.
type bucket struct {
	key   bucketKey
	leaf  *queue
	shape *shape
	state bucketState
	place int32
	asks  heap[queued]
	// missing is how much room a gang lacked when it was last tried, in containers.
	missing int64
	// claimAfter is when victims may be looked for again, after none were found.
	claimAfter time.Time
}

type bucketKey struct {
	leaf   *queue
	user   string
	app    *app
	gang   *ask
	master bool
	// late asks would outlast the window of a contract; endless ones do not say when they end, and get nothing while
	// one closes.
	late, endless bool
}

type bucketState uint8

const (
	// empty has no asks.
	empty bucketState = iota
	// ready is in its leaf's heap.
	ready
	// waiting is for its shape to be offered a node.
	waiting
	// parked is with a queue, until that holds less.
	parked
)

func (b *bucket) seat() *int32 { return &b.place }

func (b *bucket) before(other *bucket) bool {
	k, l := b.asks.items[0].ask, other.asks.items[0].ask
	if b.leaf.spec.Fair && k.app != l.app {
		if k.app.priority != l.app.priority {
			return k.app.priority > l.app.priority
		}
		if k.app.share != l.app.share {
			return k.app.share < l.app.share
		}
	}
	return b.asks.items[0].before(other.asks.items[0])
}

// first is the ask whose turn it is.
func (b *bucket) first() *ask { return b.asks.items[0].ask }

// shapeFor finds or makes the shape of an ask. What is only planned has one for itself, so that nothing is learnt from it.
func (c *Core) shapeFor(k *ask) *shape {
	key := c.shapeKeyOf(k)
	if k.app.id.IsZero() {
		s := c.newShape(k, key)
		s.alert = true // Nobody is to add it to Core.alert.
		return s
	}
	if s := c.shapeByKey[key]; s != nil {
		if s.asks == 0 {
			c.idleShapes--
		}
		return s
	}
	s := c.newShape(k, key)
	if s.filter != nil {
		s.filter.shapes++
	}
	c.shapeByKey[key] = s
	c.shapes = append(c.shapes, s)
	return s
}

func (c *Core) shapeKeyOf(k *ask) shapeKey {
	spec := &k.spec
	key := shapeKey{need: spec.Resources, filter: c.fleet.filterFor(spec)}
	if spec.MaxPerNode > 0 {
		key.group, key.maxPerNode = k.group, spec.MaxPerNode
		c.track(k.group)
	}
	self := k.app.named
	for _, name := range spec.AntiAffinity {
		// What is only planned repels nobody.
		if !k.app.id.IsZero() {
			c.repel(name, self)
		}
	}
	if len(spec.Affinity) > 0 || len(spec.AntiAffinity) > 0 || len(self.repelledBy) > 0 {
		key.self = self
		key.near = strings.Join(spec.Affinity, "\x00")
		key.far = strings.Join(spec.AntiAffinity, "\x00")
	}
	return key
}

func (c *Core) newShape(k *ask, key shapeKey) *shape {
	s := &shape{
		key: key, need: key.need, floor: cellOf(&key.need), filter: key.filter,
		group: key.group, maxPerNode: key.maxPerNode, self: key.self,
	}
	if key.self != nil {
		for _, name := range k.spec.Affinity {
			s.near = append(s.near, c.trackName(name))
		}
		for _, name := range k.spec.AntiAffinity {
			s.far = append(s.far, c.trackName(name))
		}
	}
	return s
}

// allows tests everything but room.
func (s *shape) allows(n *node) bool {
	if s.filter != nil && !s.filter.allowed.has(n.slot) {
		return false
	}
	if s.group != nil && s.group.count(n.slot) >= s.maxPerNode {
		return false
	}
	if s.self == nil {
		return true
	}
	for _, m := range s.near {
		if !m.nodes.has(n.slot) && !(m == s.self && m.held == 0) {
			return false
		}
	}
	for _, m := range s.far {
		if m.nodes.has(n.slot) {
			return false
		}
	}
	for _, m := range s.self.repelledBy {
		if m.nodes.has(n.slot) {
			return false
		}
	}
	return true
}

// repels reports whether asks of a shape keep apart from containers of a name.
func (s *shape) repels(other *named) bool {
	return slices.Contains(s.far, other) || s.self != nil && slices.Contains(s.self.repelledBy, other)
}

// exclude notes that a node has too little left, refit that it may have enough again.
func (s *shape) exclude(slot int32, words int) {
	s.misfit.set(slot, words)
	s.misfits++
}

func (s *shape) refit(slot int32) {
	if s.misfit.has(slot) {
		s.misfit.clear(slot)
		s.misfits--
	}
}

// alarm makes wake look at a shape.
func (c *Core) alarm(s *shape) {
	if !s.alert {
		s.alert = true
		c.alert[s.floor.cpu] = append(c.alert[s.floor.cpu], s)
	}
}

// masks gives, as bitmaps, what allows tests and what is known of room.
func (s *shape) masks(allow, deny []bitmap) ([]bitmap, []bitmap) {
	if s.filter != nil {
		allow = append(allow, s.filter.allowed)
	}
	if s.misfits > 0 {
		deny = append(deny, s.misfit)
	}
	if s.group != nil && s.maxPerNode <= len(s.group.levels) {
		deny = append(deny, s.group.levels[s.maxPerNode-1])
	}
	if s.self == nil {
		return allow, deny
	}
	for _, m := range s.near {
		if m != s.self || m.held > 0 {
			allow = append(allow, m.nodes)
		}
	}
	for _, m := range s.far {
		deny = append(deny, m.nodes)
	}
	for _, m := range s.self.repelledBy {
		deny = append(deny, m.nodes)
	}
	return allow, deny
}

// offer tells a shape that something came back on a node. If that makes the node fit, what waits is tried again.
func (c *Core) offer(s *shape, n *node) {
	free := &c.fleet.avail[n.slot]
	if !fits(&s.need, free) {
		return
	}
	s.refit(n.slot)
	if !s.allows(n) {
		return
	}
	s.blocked = false
	for _, b := range s.buckets {
		if b.state != waiting {
			continue
		}
		if b.key.gang != nil {
			b.missing -= timesIn(&s.need, free)
			if b.missing > 0 {
				continue
			}
		}
		c.setReady(b)
	}
}

// relent lets asks with affinity to their own app begin anywhere again, after its last container has gone.
func (c *Core) relent(m *named) {
	c.fleet.changes++
	for _, s := range c.shapes {
		if s.self != m || !slices.Contains(s.near, m) {
			continue
		}
		s.blocked = false
		for _, b := range s.buckets {
			if b.state == waiting {
				c.setReady(b)
			}
		}
	}
}

// timesIn is how often need goes into free.
func timesIn(need, free *resource.Vector) int64 {
	times := int64(1 << 30)
	for i := range need {
		if need[i] > 0 {
			times = min(times, free[i]/need[i])
		}
	}
	return times
}

// prepare gives an ask its shape, and makes known what placing it will want to know.
func (c *Core) prepare(k *ask) {
	if k.spec.Policy == Spread || k.spec.MaxPerNode > 0 {
		c.track(k.group)
	}
	if k.spec.SpreadOver != "" && k.spec.Policy == Spread {
		k.tally = k.group.tally(c.fleet.labelFor(k.spec.SpreadOver))
	}
	k.shape = c.shapeFor(k)
}

// enter puts an ask where Schedule finds it.
func (c *Core) enter(k *ask) {
	if k.app.leaf == nil || k.app.removed {
		return
	}
	c.prepare(k)
	s := k.shape
	s.asks++
	key := bucketKey{leaf: k.app.leaf, user: k.app.user, master: k.spec.Master, late: k.late, endless: k.spec.Duration == 0}
	if key.leaf.spec.Fair {
		key.app = k.app
	}
	if k.spec.Gang {
		key.gang = k
	}
	b := s.bucket(key)
	k.bucket = b
	b.asks.push(k.queued())
	switch {
	case b.state == empty && s.blocked:
		c.setWaiting(b)
		b.missing = int64(k.spec.Pending)
	case b.state == empty:
		c.setReady(b)
	case b.state == ready:
		b.leaf.ready.move(b)
	case b.state == waiting:
		b.leaf.waiting.move(b)
		c.watch(b)
	}
}

func (s *shape) bucket(key bucketKey) *bucket {
	for _, b := range s.buckets {
		if b.key == key {
			return b
		}
	}
	b := &bucket{key: key, leaf: key.leaf, shape: s, place: -1}
	s.buckets = append(s.buckets, b)
	if key.app != nil {
		key.app.buckets = append(key.app.buckets, b)
	}
	return b
}

// leave takes an ask out again.
func (c *Core) leave(k *ask) {
	b := k.bucket
	if b == nil {
		return
	}
	k.bucket, k.shape = nil, nil
	head := b.first() == k
	b.asks.remove(k.queued())
	if len(b.asks.items) == 0 {
		c.setIdle(b, empty)
		if b.key.gang != nil || b.key.app != nil {
			b.shape.buckets = without(b.shape.buckets, b)
			k.app.buckets = without(k.app.buckets, b)
		}
	} else if head {
		switch b.state {
		case ready:
			b.leaf.ready.move(b)
		case waiting:
			b.leaf.waiting.move(b)
			c.watch(b)
		}
	}
	b.shape.asks--
	if b.shape.asks == 0 {
		c.idleShapes++
	}
}

func (c *Core) setReady(b *bucket) {
	c.setIdle(b, ready)
	b.leaf.ready.push(b)
	c.enliven(b.leaf)
}

// setIdle takes a bucket out of its leaf's heap, or from where it waits, into another state.
func (c *Core) setIdle(b *bucket, state bucketState) {
	switch b.state {
	case ready:
		b.leaf.ready.remove(b)
		c.rest(b.leaf)
	case waiting:
		b.leaf.waiting.remove(b)
		b.shape.waiting--
	case parked:
		for q := b.leaf; q != nil; q = q.parent {
			q.parked = without(q.parked, b)
		}
	}
	b.state = state
}

func (c *Core) setWaiting(b *bucket) {
	c.setIdle(b, waiting)
	b.leaf.waiting.push(b)
	b.shape.waiting++
	c.alarm(b.shape)
	c.watch(b)
}

func without(buckets []*bucket, b *bucket) []*bucket {
	return slices.DeleteFunc(buckets, func(other *bucket) bool { return other == b })
}

// park lays a bucket aside until q holds less.
func (c *Core) park(b *bucket, q *queue) {
	c.setIdle(b, parked)
	q.parked = append(q.parked, b)
}

func (c *Core) unpark(q *queue) {
	for len(q.parked) > 0 {
		b := q.parked[len(q.parked)-1]
		q.parked = q.parked[:len(q.parked)-1]
		b.state = empty
		if b.shape.blocked {
			c.setWaiting(b)
		} else {
			c.setReady(b)
		}
	}
}

// tidy forgets shapes that nobody has asked for in a while, and loose notices that are none any more.
func (c *Core) tidy() {
	if len(c.loose) > 64+2*len(c.notices) {
		c.loose = slices.DeleteFunc(c.loose, func(given *notice) bool { return given.container.notice != given || given.claim != nil })
	}
	if c.idleShapes <= 64+len(c.shapes)/2 {
		return
	}
	kept := c.shapes[:0]
	for i := range c.alert {
		c.alert[i] = c.alert[i][:0]
	}
	for _, s := range c.shapes {
		if s.asks == 0 {
			delete(c.shapeByKey, s.key)
			if s.filter != nil {
				s.filter.shapes--
			}
			continue
		}
		kept = append(kept, s)
		if s.alert {
			c.alert[s.floor.cpu] = append(c.alert[s.floor.cpu], s)
		}
	}
	clear(c.shapes[len(kept):])
	c.shapes = kept
	c.fleet.filters.drop()
	c.idleShapes = 0
}

// dropShapes forgets all shapes; every ask must have left.
func (c *Core) dropShapes() {
	for _, s := range c.shapes {
		if s.filter != nil {
			s.filter.shapes--
		}
	}
	c.shapes, c.alert, c.idleShapes = nil, [levels][]*shape{}, 0
	clear(c.shapeByKey)
}
