package scheduler

import (
	"cmp"
	"slices"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler/grid"
)

// removalPlan is the scratch space of choosing victims.
type removalPlan struct {
	// claimants are the leaves with blocked asks.
	claimants []*queue
	// own is set while claims are made only within the entitlement of the leaves themselves.
	own bool
	// buckets are the blocked buckets of a leaf; frontier is scratch space for the order of the asks of one.
	buckets  []*bucket
	frontier []int32
	// ask is the ask for which victims are chosen.
	ask *ask
	// leaves are the leaves whose containers may be preempted for it. chosenFor of each is the number of this search.
	leaves []*queue
	turn   int64
	// nodes are the nodes that are compared; seen has their slots.
	nodes []*node
	seen  grid.Bitmap
	// candidates are the containers that may be preempted on a node.
	candidates []candidate
	// best is the cheapest removal so far; current is the one that is being computed.
	best, current removal
}

// candidate is a container that may be preempted, and what that costs.
type candidate struct {
	held *container
	cost float64
}

// removal has victims on one node whose ends make enough room there, and the cost of preempting them.
type removal struct {
	node    *node
	victims []*container
	cost    float64
}

// gather collects the leaves below q that hold anything and whose queues, at every level, hold more than they are entitled to.
func (p *removalPlan) gather(q *queue, k *ask) {
	if q.isLeaf() {
		if q.reclaim.newest != nil {
			q.reclaim.chosenFor = p.turn
			p.leaves = append(p.leaves, q)
		}
		return
	}
	for _, child := range q.children {
		if exceedsEntitlement(child, k.app.leaf, &k.spec.Resources) {
			p.gather(child, k)
		}
	}
}

// exceedsEntitlement reports whether a queue holds more of a needed resource than it is entitled to against a claimant, not
// counting containers with a notice.
func exceedsEntitlement(q, claimant *queue, need *resource.Vector) bool {
	entitled := q.entitlementAgainst(claimant)
	nothing := entitled.IsZero()
	for i := range need {
		if need[i] == 0 || entitled[i] == 0 && !nothing {
			continue
		}
		if q.used[i]-q.reclaim.leaving[i] > entitled[i] {
			return true
		}
	}
	return false
}

// entitlementAgainst is a queue's entitlement against a claimant: its guarantee, and what other queues than the claimant lend to
// it.
func (q *queue) entitlementAgainst(claimant *queue) resource.Vector {
	entitled := q.guaranteed
	for _, l := range q.lent {
		if !claimant.isUnder(l.contract.lender) {
			entitled = entitled.Add(l.amount)
		}
	}
	return entitled
}

// planWithLeaving finds a node on which unclaimed notices make enough room for one container of an ask.
func (pr *preemption) planWithLeaving(k *ask) bool {
	p := &pr.plan
	p.best.node, p.best.victims = nil, p.best.victims[:0]
	live, looked := pr.unclaimed[:0], 0
	for i, given := range pr.unclaimed {
		if given.container.notice != given || given.claim != nil {
			continue
		}
		live = append(live, given)
		looked++
		n := given.container.node
		if !p.seen.Has(n.slot) && n.isOpen() && pr.takesAnother(n, k) {
			p.seen.Set(n.slot, pr.fleet.words())
			if room := pr.claimableRoom(n); fits(&k.spec.Resources, &room) {
				p.best.node = n
			}
		}
		if p.best.node != nil || looked == mostNodes {
			live = append(live, pr.unclaimed[i+1:]...)
			break
		}
	}
	clear(pr.unclaimed[len(live):])
	pr.unclaimed = live
	for _, given := range live[:looked] {
		p.seen.Clear(given.container.node.slot)
	}
	return p.best.node != nil
}

// takesAnother reports whether placement rules, without regard to room, permit a container of an ask on a node in addition to those
// nominated there.
func (pr *preemption) takesAnother(n *node, k *ask) bool {
	if !k.shape.allows(n) {
		return false
	}
	nominated := 0
	for _, m := range n.nominations {
		switch {
		case pr.yields(m):
		case k.shape.repels(m.ask.app.name):
			return false
		case m.ask.group == k.group:
			nominated++
		}
	}
	return k.spec.MaxPerNode == 0 || k.group.count(n.slot)+nominated < k.spec.MaxPerNode
}

// roomAfterNotices is what a node has left for any ask after all containers with a notice have ended, except those that a
// reservation waits for.
func (n *node) roomAfterNotices(avail *resource.Vector) resource.Vector {
	room := *avail
	for held := n.containers; held != nil; held = held.nextOfNode {
		if held.notice != nil && held.awaitedBy == nil {
			room = room.Add(held.need)
		}
	}
	return room
}

// claimableRoom is roomAfterNotices for a claim, in favour of which some reservations end.
func (pr *preemption) claimableRoom(n *node) resource.Vector {
	room := n.roomAfterNotices(pr.fleet.left(n))
	for _, m := range n.nominations {
		if m.reservingLeaf == nil || !pr.yields(m) {
			continue
		}
		room = room.Add(m.nominated())
		for held := n.containers; held != nil; held = held.nextOfNode {
			if held.notice != nil && held.awaitedBy == m {
				room = room.Add(held.need)
			}
		}
	}
	return room
}

// assignLeaving makes unclaimed notices on a node victims of a claim there, as far as it needs their room.
func (pr *preemption) assignLeaving(m *nomination) {
	left := *pr.fleet.left(m.node)
	for held := m.node.containers; held != nil; held = held.nextOfNode {
		switch lacking := (resource.Vector{}).Sub(left).Max(resource.Vector{}); {
		case held.notice == nil || held.notice.claim != nil || held.awaitedBy != nil || !helps(&held.need, &lacking):
		default:
			held.notice.claim, held.notice.adopted = m, true
			m.victims = append(m.victims, held.notice)
			left = left.Add(held.need)
		}
	}
}

// planRemoval finds the cheapest way to make room for one container of an ask, among the nodes where the newest
// borrowed containers are.
func (pr *preemption) planRemoval(k *ask, window int) bool {
	p := &pr.plan
	p.nodes, p.best.node = p.nodes[:0], nil
	for _, leaf := range p.leaves {
		looked := 0
		for held := leaf.newest(); held != nil && len(p.nodes) < window; held = held.nextOfLeaf {
			n := held.node
			if held.notice != nil || p.seen.Has(n.slot) || !n.isOpen() || !pr.takesAnother(n, k) {
				continue
			}
			p.seen.Set(n.slot, pr.fleet.words())
			p.nodes = append(p.nodes, n)
			if looked++; looked*len(p.leaves) >= window {
				break
			}
		}
	}
	for _, n := range p.nodes {
		p.seen.Clear(n.slot)
		if pr.planOn(k, n) && (p.best.node == nil || p.current.cost < p.best.cost) {
			p.best, p.current = p.current, p.best
		}
	}
	return p.best.node != nil
}

// planOn chooses the containers to preempt on one node, the cheapest first, and drops those that turn out needless.
func (pr *preemption) planOn(k *ask, n *node) bool {
	p := &pr.plan
	p.candidates = p.candidates[:0]
	room := pr.claimableRoom(n)
	for held := n.containers; held != nil; held = held.nextOfNode {
		switch {
		case held.notice != nil:
		case held.awaitedBy != nil && !pr.yields(held.awaitedBy):
		case held.app.leaf != nil && held.app.leaf.reclaim.chosenFor == p.turn:
			p.candidates = append(p.candidates, candidate{held, pr.cost(held)})
		}
	}
	slices.SortFunc(p.candidates, func(x, y candidate) int {
		if x.cost != y.cost {
			return cmp.Compare(x.cost, y.cost)
		}
		return y.held.id.Compare(x.held.id)
	})
	p.current.node = n
	left, spared := p.choose(k, room)
	if spared && !fits(&k.spec.Resources, &left) {
		// The largest leave less unused of what a lender holds beyond its guarantee.
		slices.SortStableFunc(p.candidates, func(x, y candidate) int {
			return cmp.Compare(pr.fleet.weigh(&y.held.need), pr.fleet.weigh(&x.held.need))
		})
		left, _ = p.choose(k, room)
	}
	if !fits(&k.spec.Resources, &left) {
		return false
	}
	p.dropNeedless(k, left)
	p.current.cost = 0
	for _, held := range p.current.victims {
		p.current.cost += pr.cost(held) * pr.fleet.weigh(&held.need)
	}
	return true
}

// choose makes candidates victims, in their order, until there is room for one container of an ask. It returns the room that there
// is then, and whether a candidate was left out to spare a lender.
func (p *removalPlan) choose(k *ask, room resource.Vector) (left resource.Vector, spared bool) {
	need, claimant := &k.spec.Resources, k.app.leaf
	p.current.victims = p.current.victims[:0]
	for _, each := range p.candidates {
		if fits(need, &room) {
			break
		}
		held := each.held
		if !stillExceeds(held.app.leaf, claimant, need) {
			continue
		}
		p.current.victims = append(p.current.victims, held)
		held.app.leaf.addLeaving(&held.need, 1)
		if !p.sparesLenders(claimant, need) {
			spared = true
			p.current.victims = p.current.victims[:len(p.current.victims)-1]
			held.app.leaf.addLeaving(&held.need, -1)
			continue
		}
		room = room.Add(held.need)
	}
	for _, held := range p.current.victims {
		held.app.leaf.addLeaving(&held.need, -1)
	}
	return room, spared
}

// dropNeedless drops victims without which there is room enough, the last chosen first.
func (p *removalPlan) dropNeedless(k *ask, room resource.Vector) {
	victims := p.current.victims
	for i := len(victims) - 1; i >= 0; i-- {
		if less := room.Sub(victims[i].need); fits(&k.spec.Resources, &less) {
			room = less
			victims = slices.Delete(victims, i, i+1)
		}
	}
	p.current.victims = victims
}

// stillExceeds reports whether a victim's queues, below the first one that is also above the claimant, hold more than they are
// entitled to after the victims chosen so far have ended.
func stillExceeds(q, claimant *queue, need *resource.Vector) bool {
	for ; !claimant.isUnder(q); q = q.parent {
		if !exceedsEntitlement(q, claimant, need) {
			return false
		}
	}
	return true
}

// cost is what stopping a container costs, in seconds: its work since the last checkpoint, a restart, its credit, and the same of its gang.
func (pr *preemption) cost(ctr *container) float64 {
	since := ctr.startedAt
	if ctr.checkpoint.After(since) {
		since = ctr.checkpoint
	}
	cost := pr.pass.now.Sub(since) + restartCost + ctr.credit
	if ctr.master {
		cost += masterCost
	}
	seconds := cost.Seconds()
	if ctr.gang != nil {
		seconds *= float64(len(ctr.gang.members))
	}
	return seconds
}

// withGang returns a container and, if it was granted with a gang, all of the gang that are still held, the newest first.
func withGang(ctr *container) []*container {
	if ctr.gang == nil {
		return []*container{ctr}
	}
	all := slices.Clone(ctr.gang.members)
	slices.Reverse(all)
	return all
}
