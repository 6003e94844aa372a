package scheduler

import (
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// nomination is room on a node for one container of an ask. Only the ask may use capacity that returns there, up to that room.
type nomination struct {
	ask  *ask
	node *node
	// room is what the container needs.
	room resource.Vector
	// isClaim is set while containers are preempted for it.
	isClaim bool
	// victims are the notices of those containers.
	victims []*notice
	// reservingLeaf is the leaf that counts it as a reservation; nil if it is none.
	reservingLeaf *queue
	// awaited is what the containers hold whose end a reservation waits for. Until they end, others may use as much.
	awaited *resource.Vector
	// queued is set while it is in the queue of ready nominations.
	queued bool
}

// nominated is how much of its node a nomination takes from others now.
func (m *nomination) nominated() resource.Vector {
	if m.reservingLeaf == nil {
		return m.room
	}
	return m.room.Sub(*m.awaited).Max(resource.Vector{})
}

// nominations has the room on nodes that only one ask may use.
//
// A claim is a nomination for which containers are preempted. A reservation is a nomination for an ask that was blocked for too
// long; it waits for containers to end by themselves. A nomination is ready when its room is free.
type nominations struct {
	pass       *pass
	fleet      *fleet
	tree       *tree
	backlog    *backlog
	preemption *preemption
	// reserveAfter is how long an ask is blocked before room may be reserved for it.
	reserveAfter time.Duration
	// ready is the queue of nominations whose room has become free. Some may have been withdrawn.
	ready []*nomination
	// reserving are the asks with reservations, and some that have none any more.
	reserving []*ask
	// gangReserving is the gang that has reservations.
	gangReserving *ask
	// total is what is reserved for all asks together.
	total resource.Vector
	// near and awaited are scratch space for choosing nodes to reserve.
	near    shortfalls
	awaited []*container
}

// nominate gives room on a node to one container of an ask.
func (ns *nominations) nominate(k *ask, n *node) *nomination {
	return ns.add(&nomination{ask: k, node: n, room: k.spec.Resources})
}

// add adds a nomination.
func (ns *nominations) add(m *nomination) *nomination {
	k, n := m.ask, m.node
	k.nominations = append(k.nominations, m)
	n.nominations = append(n.nominations, m)
	n.nominated = n.nominated.Add(m.nominated())
	ns.fleet.reindex(n)
	if k.spec.Gang || ns.isReady(m) {
		ns.fleet.touch(n)
	}
	return m
}

// withdraw ends a nomination.
func (ns *nominations) withdraw(m *nomination) {
	ns.preemption.endClaim(m)
	m.ask.nominations, m.node.nominations = drop(m.ask.nominations, m), drop(m.node.nominations, m)
	m.node.nominated = m.node.nominated.Sub(m.nominated())
	if m.reservingLeaf != nil {
		ns.endReservation(m)
	}
	m.queued = false
	ns.fleet.reindex(m.node)
	ns.fleet.touch(m.node)
}

// drop removes an item from a list. It searches from the front.
func drop[T comparable](all []T, gone T) []T {
	i := slices.Index(all, gone)
	if i < 0 {
		return all
	}
	return slices.Delete(all, i, i+1)
}

// withdrawAll ends all nominations for an ask.
func (ns *nominations) withdrawAll(k *ask) {
	for len(k.nominations) > 0 {
		ns.withdraw(k.nominations[0])
	}
}

// cancel withdraws a nomination that cannot be met. For a gang it withdraws all, since the others are of no use then.
func (ns *nominations) cancel(m *nomination) {
	if m.ask.spec.Gang {
		ns.withdrawAll(m.ask)
		return
	}
	ns.withdraw(m)
}

// cancelUnmet cancels claims on a node, the newest first, that cannot be met even when all containers with a notice there have
// ended, or whose asks do not fit the node any more: a preemption was cancelled, or the node has changed. New claims are made
// later.
func (ns *nominations) cancelUnmet(n *node) {
	if len(n.nominations) == 0 {
		return
	}
	left := n.roomAfterNotices(ns.fleet.left(n))
	for i := len(n.nominations) - 1; i >= 0; i-- {
		m := n.nominations[i]
		room := left.Add(m.room)
		if m.isClaim && (!fits(&m.room, &room) || !m.ask.shape.allows(n)) {
			ns.cancel(m)
			left, i = n.roomAfterNotices(ns.fleet.left(n)), len(n.nominations)
		}
	}
}

// queueReady queues the nominations of a node whose room has become free.
func (ns *nominations) queueReady(n *node) {
	for _, m := range n.nominations {
		if m.reservingLeaf != nil && m.ask.spec.Gang {
			// A gang with reservations is tried on all nodes, not only on the reserved ones.
			if b := m.ask.bucket; b.state == blocked {
				ns.backlog.setReady(b)
			}
			continue
		}
		if !m.queued && ns.isReady(m) {
			m.queued = true
			ns.ready = append(ns.ready, m)
		}
	}
}

// isReady reports whether the room of a nomination is free.
func (ns *nominations) isReady(m *nomination) bool {
	free := ns.fleet.left(m.node).Add(m.nominated())
	return m.node.isOpen() && fits(&m.ask.spec.Resources, &free)
}

// hasAllRoom reports whether all that is nominated for an ask is free.
func (ns *nominations) hasAllRoom(k *ask) bool {
	return ns.areReady(k) && len(k.nominations) == k.spec.Pending
}

// suspend withdraws the reservations of a gang, so that it can be tried on all nodes, and returns their nodes.
func (ns *nominations) suspend(k *ask) []*node {
	if !k.isReserving() {
		return nil
	}
	nodes := nodesOf(k)
	ns.pass.onTrial = true
	ns.withdrawAll(k)
	ns.pass.onTrial = false
	ns.fleet.noteChange()
	return nodes
}

// nextReady removes the next nomination from the queue. It returns nil if that is not ready any more, and false if the queue is
// empty.
func (ns *nominations) nextReady() (*nomination, bool) {
	if len(ns.ready) == 0 {
		return nil, false
	}
	m := ns.ready[0]
	ns.ready = ns.ready[1:]
	if !m.queued {
		return nil, true
	}
	m.queued = false
	if !ns.isReady(m) {
		return nil, true
	}
	return m, true
}

// areReady reports whether the room of all nominations of an ask is free.
func (ns *nominations) areReady(k *ask) bool {
	for _, m := range k.nominations {
		if !ns.isReady(m) {
			return false
		}
	}
	return true
}

// nodesOf are the nodes on which something is nominated for an ask, one for each nomination.
func nodesOf(k *ask) []*node {
	nodes := make([]*node, len(k.nominations))
	for i, m := range k.nominations {
		nodes[i] = m.node
	}
	return nodes
}
