package scheduler

import (
	stdheap "container/heap"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// nomination keeps room on a node for an ask: of a big ask that would starve otherwise, or for which victims were
// given notice. What comes back there is the ask's before it is anybody's.
type nomination struct {
	ask  *ask
	node *node
	room resource.Vector
	// leaf is set when this is the leaf's reservation for an ask that waited for too long.
	leaf *queue
	// victims are given notice for this room; then it is promised to the ask's queues.
	victims []*notice
	claim   bool
	// queued says that it is in Core.nominationsReady, and still to be looked at.
	queued bool
}

func (c *Core) nominate(k *ask, n *node, room resource.Vector) *nomination {
	m := &nomination{ask: k, node: n, room: room}
	k.nominations = append(k.nominations, m)
	n.nominations = append(n.nominations, m)
	n.nominated = n.nominated.Add(room)
	c.place(n)
	if k.spec.Gang || c.isReady(m) {
		c.touch(n)
	}
	return m
}

func (c *Core) withdrawNomination(m *nomination) {
	if m.leaf != nil {
		m.leaf.reservations--
	}
	c.endClaim(m)
	m.ask.nominations, m.node.nominations = drop(m.ask.nominations, m), drop(m.node.nominations, m)
	m.node.nominated = m.node.nominated.Sub(m.room)
	m.queued = false
	c.place(m.node)
	c.touch(m.node)
}

// drop takes something out of a list in which it mostly stands near the front.
func drop[T comparable](all []T, gone T) []T {
	i := slices.Index(all, gone)
	if i < 0 {
		return all
	}
	return slices.Delete(all, i, i+1)
}

func (c *Core) withdrawNominations(k *ask) {
	for len(k.nominations) > 0 {
		c.withdrawNomination(k.nominations[0])
	}
}

// giveUp withdraws a nomination that cannot come true. What the rest of a gang was to get is of no use then.
func (c *Core) giveUp(m *nomination) {
	if m.ask.spec.Gang {
		c.withdrawNominations(m.ask)
		return
	}
	c.withdrawNomination(m)
}

// giveUpVain withdraws the claims on a node that will lack their room even when all under notice there are gone, or that
// the node is not for any more, the newest first: who was to leave for another may stay after all, or the node has
// changed. They are made anew.
func (c *Core) giveUpVain(n *node) {
	if len(n.nominations) == 0 {
		return
	}
	coming := n.comingRoom(&c.avail[n.slot])
	for i := len(n.nominations) - 1; i >= 0; i-- {
		m := n.nominations[i]
		room := coming.Add(m.room)
		if m.claim && (!fits(&m.room, &room) || !m.ask.shape.allows(n)) {
			c.giveUp(m)
			coming, i = n.comingRoom(&c.avail[n.slot]), len(n.nominations)
		}
	}
}

// readyNominations queues the nominations of a node whose room has come free.
func (c *Core) readyNominations(n *node) {
	for _, m := range n.nominations {
		if m.leaf != nil && m.ask.spec.Gang {
			// A gang that nodes are kept for is tried with all that there is, whichever nodes those were.
			if b := m.ask.bucket; b.state == waiting {
				c.setReady(b)
			}
			continue
		}
		if !m.queued && c.isReady(m) {
			m.queued = true
			c.nominationsReady = append(c.nominationsReady, m)
		}
	}
}

func (c *Core) isReady(m *nomination) bool {
	free := c.avail[m.node.slot].Add(m.room)
	return m.node.isOpen() && fits(&m.ask.spec.Resources, &free)
}

// serveNomination grants into nominated room. It reports whether there was any to look at.
func (c *Core) serveNomination() bool {
	if len(c.nominationsReady) == 0 {
		return false
	}
	m := c.nominationsReady[0]
	c.nominationsReady = c.nominationsReady[1:]
	k, n := m.ask, m.node
	if !m.queued {
		return true
	}
	m.queued = false
	if !c.isReady(m) {
		return true
	}
	if k.spec.Gang {
		c.serveNominatedGang(k)
		return true
	}
	kind, _, _ := c.limit(k, &k.spec.Resources)
	allowed := k.shape.allows(n)
	c.withdrawNomination(m)
	switch {
	case kind != noLimit:
	case !allowed:
		c.pauseClaims(k.bucket)
	default:
		c.grant(k, n)
		c.granted(k, 1)
	}
	return true
}

// serveNominatedGang grants a gang once there is room for all of it.
func (c *Core) serveNominatedGang(k *ask) {
	for _, m := range k.nominations {
		if !c.isReady(m) {
			return
		}
	}
	whole := k.spec.Resources.Scale(int64(k.spec.Pending))
	kind, _, _ := c.limit(k, &whole)
	nodes := make([]*node, len(k.nominations))
	for i, m := range k.nominations {
		nodes[i] = m.node
	}
	complete := len(nodes) == k.spec.Pending
	c.withdrawNominations(k)
	if kind != noLimit || !complete {
		return
	}
	first := len(c.decisions.Grants)
	c.beginGang()
	for _, n := range nodes {
		if !k.shape.allows(n) {
			c.takeBack(k, first)
			c.pauseClaims(k.bucket)
			return
		}
		c.grant(k, n)
	}
	c.endGang(k, first)
}

// impatience is an ask that waits, and when something is to be done about it.
type impatience struct {
	ask *ask
	due time.Time
}

// searchesPerPass is for how many asks a pass looks for a node to keep. Each looks at all nodes; where there are many, one
// search is all.
const (
	searchesPerPass = 4
	manyNodes       = 20_000
)

// watch notes when the patience of a waiting bucket's first ask ends.
func (c *Core) watch(b *bucket) {
	k := b.first()
	if k.since.IsZero() {
		k.since = c.now
	}
	if !k.watched {
		k.watched = true
		c.impatient = append(c.impatient, impatience{k, c.now.Add(c.config.Patience)})
	}
}

// reserve keeps a node for the ask of each leaf that has been waiting for longest, once that is too long.
func (c *Core) reserve() {
	searches := searchesPerPass
	if len(c.nodes) > manyNodes {
		searches = 1
	}
	for len(c.impatient) > 0 {
		first := c.impatient[0]
		k := first.ask
		if first.due.After(c.now) && k.bucket != nil {
			c.wakeAt(first.due)
			return
		}
		if searches == 0 {
			c.wakeAt(c.now)
			return
		}
		c.impatient = c.impatient[1:]
		k.watched = false
		if k.bucket == nil || k.bucket.state != waiting || k.bucket.first() != k {
			continue
		}
		k.watched = true
		c.impatient = append(c.impatient, impatience{k, c.now.Add(c.config.Patience)})
		if k.since.IsZero() || k.since.Add(c.config.Patience).After(c.now) || len(k.nominations) > 0 {
			continue
		}
		if k.app.leaf.reservations > 0 || k.reservedAt == c.epoch {
			continue
		}
		count := 1
		if k.spec.Gang {
			// One gang at a time, so that no two ever hold what the other lacks.
			if c.gangKept != nil && c.gangKept.bucket != nil && len(c.gangKept.nominations) > 0 {
				continue
			}
			c.gangKept, count = k, k.spec.Pending
		}
		whole := k.spec.Resources.Scale(int64(count))
		if kind, _, _ := c.limit(k, &whole); kind == noLimit {
			searches--
			c.keep(k, count)
		}
	}
}

// keep nominates room for an ask on the nodes that lack the least for it; all that it needs or nothing. It looks at all
// nodes once, however many it takes.
func (c *Core) keep(k *ask, count int) {
	need := &k.spec.Resources
	near := &c.plan.near
	*near = slices.Grow((*near)[:0], len(c.nodes))
	for _, n := range c.nodes {
		if lack, ok := c.lack(k, n); ok {
			*near = append(*near, shortfall{n.slot, lack})
		}
	}
	stdheap.Init(near)
	for count > 0 {
		if len(*near) == 0 {
			c.withdrawNominations(k)
			k.reservedAt = c.epoch
			return
		}
		n := c.nodes[(*near)[0].slot]
		times := max(1, int(timesIn(need, &c.avail[n.slot])))
		if k.spec.MaxPerNode > 0 {
			times = min(times, k.spec.MaxPerNode-k.group.count(n.slot)-len(n.nominations))
		}
		if k.shape.repels(k.app.named) {
			times = 1
		}
		for range min(times, count) {
			m := c.nominate(k, n, *need)
			m.leaf = k.app.leaf
			m.leaf.reservations++
			count--
		}
		if lack, ok := c.lack(k, n); ok {
			(*near)[0].lack = lack
			stdheap.Fix(near, 0)
		} else {
			stdheap.Pop(near)
		}
	}
}

// unreserve gives up the nodes that are kept for an ask that may not be granted now.
func (c *Core) unreserve(k *ask) {
	if len(k.nominations) > 0 && k.nominations[0].leaf != nil {
		c.withdrawNominations(k)
	}
}

// lack is how much a node lacks for one container of an ask, in parts of what that needs. It is false of a node that is
// too small, or kept for others.
func (c *Core) lack(k *ask, n *node) (float64, bool) {
	if !n.isOpen() || len(n.nominations) > 0 && n.nominations[0].ask != k || !k.shape.allows(n) {
		return 0, false
	}
	if k.spec.MaxPerNode > 0 && k.group.count(n.slot)+len(n.nominations) >= k.spec.MaxPerNode {
		return 0, false
	}
	if len(n.nominations) > 0 && k.shape.repels(k.app.named) {
		return 0, false
	}
	if left := n.spec.Capacity.Sub(n.nominated); !fits(&k.spec.Resources, &left) {
		return 0, false
	}
	lack := 0.0
	for i := range k.spec.Resources {
		if short := k.spec.Resources[i] - c.avail[n.slot][i]; short > 0 && k.spec.Resources[i] > 0 {
			lack += float64(short) / float64(k.spec.Resources[i])
		}
	}
	return lack, true
}

// shortfall is what the node in a slot lacks.
type shortfall struct {
	slot int32
	lack float64
}

// shortfalls are a heap of them, the least first.
type shortfalls []shortfall

func (s shortfalls) Len() int { return len(s) }

func (s shortfalls) Less(i, j int) bool {
	return s[i].lack < s[j].lack || s[i].lack == s[j].lack && s[i].slot < s[j].slot
}

func (s shortfalls) Swap(i, j int) { s[i], s[j] = s[j], s[i] }

func (s *shortfalls) Push(x any) { *s = append(*s, x.(shortfall)) }

func (s *shortfalls) Pop() any {
	last := len(*s) - 1
	x := (*s)[last]
	*s = (*s)[:last]
	return x
}

// wakeAt makes sure that Schedule is called again by then.
func (c *Core) wakeAt(at time.Time) {
	if c.decisions.Next.IsZero() || at.Before(c.decisions.Next) {
		c.decisions.Next = at
	}
}
