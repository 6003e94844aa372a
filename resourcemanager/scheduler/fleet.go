package scheduler

import (
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler/grid"
)

// fleet has the nodes, an index of them by their free resources, and the search for a node.
//
// A node's slot is its number in every bitmap. A node is open while containers may be placed on it. The grid has the open nodes by
// their free cpu and memory. A node is touched if capacity came back to it, or it changed, since it was last offered to blocked
// asks.
type fleet struct {
	pass *pass
	// nodes has a record for each slot, an empty one for a slot that is not in use.
	nodes []*node
	// slots is the slot of each node by name.
	slots map[id.Node]int32
	// freeSlots are the slots that are not in use.
	freeSlots []int32
	// avail is what a node has left for any ask, by slot: its capacity minus what is used and nominated.
	avail []resource.Vector
	// grid has the open nodes by what they have left.
	grid grid.Grid
	// open are the slots of the open nodes.
	open grid.Bitmap
	// touched are the slots of touched nodes in the order in which they were touched. The first offers of them have been offered.
	touched []int32
	// offers is how many of touched have been offered.
	offers int
	// changes rises whenever capacity has come back to a node, or may have.
	changes int64
	// totals are sums over all nodes.
	totals totals
	// weights make cpu and memory comparable.
	weights weights
	// labels are the node attributes over which some ask spreads.
	labels []*label
	// filters are the constraints of asks.
	filters filters
	// search is the scratch space of the search in progress.
	search search
}

func newFleet(p *pass) fleet {
	return fleet{pass: p, slots: make(map[id.Node]int32), filters: filters{byKey: make(map[string]*filter)}}
}

// totals are sums over all nodes.
type totals struct {
	// capacity is that of the zone: the sum of what all nodes contribute.
	capacity resource.Vector
	// changed is true if capacity has changed since the shares of queues were computed.
	changed bool
}

// weights turn a vector into one number: the share of the zone's cpu plus the share of its memory.
type weights struct{ cpu, memory float64 }

func weightsOf(zone *resource.Vector) weights {
	return weights{1 / max(1, float64(zone[resource.CPU])), 1 / max(1, float64(zone[resource.Memory]))}
}

func (w *weights) of(v *resource.Vector) float64 {
	return float64(v[resource.CPU])*w.cpu + float64(v[resource.Memory])*w.memory
}

// set gives a node its spec, and reports whether anything changed.
func (fl *fleet) set(n *node, spec NodeSpec) bool {
	if n.known && n.spec.Capacity == spec.Capacity && n.spec.Closed == spec.Closed && n.attributes.are(spec.Attributes) {
		return false
	}
	n.attributes, spec.Attributes = attributesOf(spec.Attributes), nil
	n.spec, n.known = spec, true
	return true
}

// remove makes a node unknown. Its record stays until it holds nothing.
func (fl *fleet) remove(n *node) { n.known = false }

// known finds a node that SetNode named and RemoveNode has not; nil is none.
func (fl *fleet) known(name id.Node) *node {
	if slot, ok := fl.slots[name]; ok && fl.nodes[slot].known {
		return fl.nodes[slot]
	}
	return nil
}

// named returns a node's record, and creates an unknown one if needed.
func (fl *fleet) named(name id.Node) *node {
	if slot, ok := fl.slots[name]; ok {
		return fl.nodes[slot]
	}
	n := &node{spec: NodeSpec{Name: name}, at: grid.Nowhere}
	if last := len(fl.freeSlots) - 1; last >= 0 {
		n.slot = fl.freeSlots[last]
		fl.freeSlots = fl.freeSlots[:last]
		fl.nodes[n.slot] = n
	} else {
		n.slot = int32(len(fl.nodes))
		fl.nodes = append(fl.nodes, n)
		fl.avail = append(fl.avail, resource.Vector{})
		fl.grid.Grow(cap(fl.nodes))
	}
	fl.avail[n.slot] = resource.Vector{}
	fl.slots[name] = n.slot
	for _, l := range fl.labels {
		l.assign(n.slot, 0, false)
	}
	return n
}

// forget drops the record of a node that is gone and holds nothing any more, and reports whether it did.
func (fl *fleet) forget(n *node) bool {
	if n.known || n.containers != nil || fl.nodes[n.slot] != n {
		return false
	}
	delete(fl.slots, n.spec.Name)
	for _, f := range fl.filters.list {
		f.allowed.Clear(n.slot)
	}
	for _, l := range fl.labels {
		l.assign(n.slot, 0, false)
	}
	fl.avail[n.slot] = resource.Vector{}
	fl.freeSlots = append(fl.freeSlots, n.slot)
	// The empty record stays, so that the slots of others do.
	fl.nodes[n.slot] = &node{slot: n.slot, at: grid.Nowhere}
	return true
}

// changed updates everything that is derived from a node's spec.
func (fl *fleet) changed(n *node) {
	for _, f := range fl.filters.list {
		f.update(n, fl.grid.Words())
	}
	for _, l := range fl.labels {
		l.update(n)
	}
	fl.countCapacity(n)
	fl.reindex(n)
	fl.touch(n)
}

// countCapacity updates the sum of all nodes after a change of one.
func (fl *fleet) countCapacity(n *node) {
	counts := n.contribution()
	if counts == n.counted {
		return
	}
	fl.totals.capacity = fl.totals.capacity.Sub(n.counted).Add(counts)
	n.counted = counts
	fl.totals.changed = true
}

// left is what a node has left for any ask.
func (fl *fleet) left(n *node) *resource.Vector { return &fl.avail[n.slot] }

// at is the node of a slot.
func (fl *fleet) at(slot int32) *node { return fl.nodes[slot] }

// records are the nodes by slot, with an empty record for each slot that is not in use.
func (fl *fleet) records() []*node { return fl.nodes }

// dropFilters forgets the filters that no shape has.
func (fl *fleet) dropFilters() { fl.filters.drop() }

// weigh turns a vector into one number, by which vectors are compared.
func (fl *fleet) weigh(v *resource.Vector) float64 { return fl.weights.of(v) }

// total is the capacity of the zone. Vectors are weighed by their shares of it from now on.
func (fl *fleet) total() resource.Vector {
	fl.weights = weightsOf(&fl.totals.capacity)
	return fl.totals.capacity
}

// words is how many words a bitmap of all nodes has.
func (fl *fleet) words() int { return fl.grid.Words() }

// takeCapacityChange reports whether the sum of all nodes has changed since the last call.
func (fl *fleet) takeCapacityChange() bool {
	changed := fl.totals.changed
	fl.totals.changed = false
	return changed
}

// hold counts a container on its node.
func (fl *fleet) hold(ctr *container) {
	n := ctr.node
	ctr.nextOfNode = n.containers
	if n.containers != nil {
		n.containers.previousOfNode = ctr
	}
	n.containers = ctr
	for i := range ctr.need {
		n.used[i] += ctr.need[i]
	}
	if !ctr.service {
		for i := range ctr.need {
			n.ending[i] += ctr.need[i]
		}
	}
	if !n.isOpen() {
		fl.countCapacity(n)
	}
	fl.reindex(n)
}

// unhold is the reverse of hold.
func (fl *fleet) unhold(ctr *container) {
	n := ctr.node
	if ctr.previousOfNode != nil {
		ctr.previousOfNode.nextOfNode = ctr.nextOfNode
	} else {
		n.containers = ctr.nextOfNode
	}
	if ctr.nextOfNode != nil {
		ctr.nextOfNode.previousOfNode = ctr.previousOfNode
	}
	ctr.previousOfNode, ctr.nextOfNode = nil, nil
	for i := range ctr.need {
		n.used[i] -= ctr.need[i]
	}
	if !ctr.service {
		for i := range ctr.need {
			n.ending[i] -= ctr.need[i]
		}
	}
	if !n.isOpen() {
		fl.countCapacity(n)
	}
	fl.reindex(n)
}

// reindex moves a node to its cell in the grid.
func (fl *fleet) reindex(n *node) {
	free := &fl.avail[n.slot]
	*free = n.spec.Capacity.Sub(n.used).Sub(n.nominated)
	at := grid.Nowhere
	if n.isOpen() {
		at = grid.CellOf(free)
	}
	if at == n.at {
		return
	}
	if n.at != grid.Nowhere {
		fl.grid.Remove(n.slot, n.at)
	}
	if at != grid.Nowhere {
		fl.grid.Add(n.slot, at)
	}
	if at == grid.Nowhere {
		fl.open.Clear(n.slot)
	} else if n.at == grid.Nowhere {
		fl.open.Set(n.slot, fl.grid.Words())
	}
	n.at = at
}

// touch records that capacity came back to a node, or that it changed so that it may fit a blocked ask.
func (fl *fleet) touch(n *node) {
	if !n.touched && !fl.pass.onTrial {
		n.touched = true
		fl.touched = append(fl.touched, n.slot)
	}
}

// nextTouched is the first touched node that was not offered; nil if there is none.
func (fl *fleet) nextTouched() *node {
	if !fl.hasTouched() {
		return nil
	}
	return fl.nodes[fl.touched[fl.offers]]
}

// hasTouched reports whether there are touched nodes.
func (fl *fleet) hasTouched() bool { return fl.offers < len(fl.touched) }

// offered removes the first node from the touched ones, so that it can be touched again.
func (fl *fleet) offered(n *node) {
	n.touched = false
	fl.offers++
	if rest := len(fl.touched) - fl.offers; rest <= fl.offers {
		fl.touched = append(fl.touched[:0], fl.touched[fl.offers:]...)
		fl.offers = 0
	}
}

// noteChange records that capacity has come back, or may have, so that cached results of searches are out of date.
func (fl *fleet) noteChange() { fl.changes++ }

// used is what containers hold on a node.
func (fl *fleet) used(name id.Node) resource.Vector {
	if slot, ok := fl.slots[name]; ok {
		return fl.nodes[slot].used
	}
	return resource.Vector{}
}
