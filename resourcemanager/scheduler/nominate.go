package scheduler

import (
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
	// coming is what the containers hold whose ends a reservation waits for. Until then it does not need that much.
	awaited *resource.Vector
	// victims are given notice for this room; then it is promised to the ask's queues.
	victims []*notice
	claims  bool
	// queued says that it is in Core.nominationsReady, and still to be looked at.
	queued bool
}

// kept is how much of its node a nomination keeps from others now.
func (m *nomination) kept() resource.Vector {
	if m.leaf == nil {
		return m.room
	}
	return m.room.Sub(*m.awaited).Max(resource.Vector{})
}

// nominations is room on nodes that is taken for everybody but one ask: claims wait there for their victims to end, and
// reservations for whatever ends by itself.
type nominations struct {
	pass       *pass
	fleet      *fleet
	tree       *tree
	backlog    *backlog
	preemption *preemption
	// patience is how long an ask is blocked before room may be reserved for it.
	patience time.Duration
	// ready are nominations whose room has come free, and some that are none any more.
	ready []*nomination
	// reserving are the asks with reservations, and some that have none any more.
	reserving []*ask
	// gangReserving is the gang that has reservations.
	gangReserving *ask
	// total is what is reserved for all asks together.
	total resource.Vector
	// near and awaited are scratch space of looking for nodes to reserve.
	near    shortfalls
	awaited []*container
}

// nominate keeps room on a node for one container of an ask.
func (ns *nominations) nominate(k *ask, n *node) *nomination {
	return ns.add(&nomination{ask: k, node: n, room: k.spec.Resources})
}

func (ns *nominations) add(m *nomination) *nomination {
	k, n := m.ask, m.node
	k.nominations = append(k.nominations, m)
	n.nominations = append(n.nominations, m)
	n.nominated = n.nominated.Add(m.kept())
	ns.fleet.reindex(n)
	if k.spec.Gang || ns.isReady(m) {
		ns.fleet.touch(n)
	}
	return m
}

func (ns *nominations) withdraw(m *nomination) {
	ns.preemption.endClaim(m)
	m.ask.nominations, m.node.nominations = drop(m.ask.nominations, m), drop(m.node.nominations, m)
	m.node.nominated = m.node.nominated.Sub(m.kept())
	if m.leaf != nil {
		ns.endReservation(m)
	}
	m.queued = false
	ns.fleet.reindex(m.node)
	ns.fleet.touch(m.node)
}

// drop takes something out of a list in which it mostly stands near the front.
func drop[T comparable](all []T, gone T) []T {
	i := slices.Index(all, gone)
	if i < 0 {
		return all
	}
	return slices.Delete(all, i, i+1)
}

func (ns *nominations) withdrawAll(k *ask) {
	for len(k.nominations) > 0 {
		ns.withdraw(k.nominations[0])
	}
}

// giveUp withdraws a nomination that cannot come true. What the rest of a gang was to get is of no use then.
func (ns *nominations) cancel(m *nomination) {
	if m.ask.spec.Gang {
		ns.withdrawAll(m.ask)
		return
	}
	ns.withdraw(m)
}

// giveUpVain withdraws the claims on a node that will lack their room even when all under notice there are gone, or that
// the node is not for any more, the newest first: who was to leave for another may stay after all, or the node has
// changed. They are made anew.
func (ns *nominations) cancelUnmet(n *node) {
	if len(n.nominations) == 0 {
		return
	}
	coming := n.comingRoom(ns.fleet.left(n))
	for i := len(n.nominations) - 1; i >= 0; i-- {
		m := n.nominations[i]
		room := coming.Add(m.room)
		if m.claims && (!fits(&m.room, &room) || !m.ask.shape.allows(n)) {
			ns.cancel(m)
			coming, i = n.comingRoom(ns.fleet.left(n)), len(n.nominations)
		}
	}
}

// readyNominations queues the nominations of a node whose room has come free.
func (ns *nominations) queueReady(n *node) {
	for _, m := range n.nominations {
		if m.leaf != nil && m.ask.spec.Gang {
			// A gang with a reservation is tried with all that there is, whichever nodes those were.
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

func (ns *nominations) isReady(m *nomination) bool {
	free := ns.fleet.left(m.node).Add(m.kept())
	return m.node.isOpen() && fits(&m.ask.spec.Resources, &free)
}

// hasAllRoom reports whether all that is nominated for an ask is free.
func (ns *nominations) hasAllRoom(k *ask) bool {
	return ns.areReady(k) && len(k.nominations) == k.spec.Pending
}

// suspend withdraws the reservations of a gang, so that it is tried with all that there is, and gives their nodes.
func (ns *nominations) suspend(k *ask) []*node {
	if !k.isReserving() {
		return nil
	}
	kept := nodesOf(k)
	ns.pass.onTrial = true
	ns.withdrawAll(k)
	ns.pass.onTrial = false
	ns.fleet.noteChange()
	return kept
}

// nextReady takes the next nomination that may be granted into. It is nil if that is not ready any more; false is that
// there was none.
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
