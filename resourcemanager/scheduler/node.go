package scheduler

import (
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// node is a host. Its slot in Core.nodes is its number in every bitmap.
type node struct {
	spec NodeSpec
	slot int32
	// known says that SetNode named it and RemoveNode has not. The record outlives that while containers are held.
	known bool
	// at is where the grid has it; nowhere while nothing may be placed.
	at cell
	// touched says that it waits in Core.touched to have waiting shapes looked at.
	touched bool
	used    resource.Vector
	// counted is what the zone has of it.
	counted resource.Vector
	// ending is what containers hold that end by themselves: those of no service.
	ending resource.Vector
	// nominated is room kept for certain asks.
	nominated   resource.Vector
	nominations []*nomination
	containers  *container
}

func (n *node) isOpen() bool { return n.known && n.spec.Closed == "" }

// contribution is what the node adds to the zone that guarantees are shares of: all of an open node, and of a
// closed one what is still in use, so that draining it does not make its queues look oversized.
func (n *node) contribution() resource.Vector {
	if n.isOpen() {
		return n.spec.Capacity
	}
	return n.used
}

func (c *Core) setNode(spec NodeSpec) error {
	if spec.Name == "" {
		return invalid("a node has no name")
	}
	for i, amountOf := range spec.Capacity {
		if amountOf < 0 {
			return invalid("node %s has a negative capacity of %s", spec.Name, c.config.Schema.Name(i))
		}
	}
	n := c.nodeNamed(spec.Name)
	if n.known && n.spec.Capacity == spec.Capacity && n.spec.Closed == spec.Closed && maps.Equal(n.spec.Attributes, spec.Attributes) {
		return nil
	}
	spec.Attributes = maps.Clone(spec.Attributes)
	n.spec, n.known = spec, true
	for {
		i := slices.IndexFunc(n.nominations, func(m *nomination) bool { return !n.isOpen() || !fits(&m.room, &spec.Capacity) })
		if i < 0 {
			break
		}
		c.giveUp(n.nominations[i])
	}
	c.nodeChanged(n)
	return nil
}

func (c *Core) removeNode(name id.Node) error {
	slot, ok := c.slots[name]
	if !ok || !c.nodes[slot].known {
		return fmt.Errorf("node %s is not known: %w", name, errdefs.ErrNotFound)
	}
	n := c.nodes[slot]
	n.known = false
	for len(n.nominations) > 0 {
		c.giveUp(n.nominations[0])
	}
	c.nodeChanged(n)
	c.forgetNode(n)
	return nil
}

// nodeNamed finds a node's record, or makes one that is not known yet.
func (c *Core) nodeNamed(name id.Node) *node {
	if slot, ok := c.slots[name]; ok {
		return c.nodes[slot]
	}
	n := &node{spec: NodeSpec{Name: name}, at: nowhere}
	if last := len(c.freeSlots) - 1; last >= 0 {
		n.slot = c.freeSlots[last]
		c.freeSlots = c.freeSlots[:last]
		c.nodes[n.slot] = n
	} else {
		n.slot = int32(len(c.nodes))
		c.nodes = append(c.nodes, n)
		c.avail = append(c.avail, resource.Vector{})
		c.grid.words = (cap(c.nodes) + 63) / 64
	}
	c.avail[n.slot] = resource.Vector{}
	c.slots[name] = n.slot
	for _, l := range c.labelList {
		l.assign(n.slot, 0, false)
	}
	return n
}

// forgetNode gives the record of a node up that is gone and holds nothing any more.
func (c *Core) forgetNode(n *node) {
	if n.known || n.containers != nil || c.nodes[n.slot] != n {
		return
	}
	delete(c.slots, n.spec.Name)
	for _, s := range c.shapes {
		s.refit(n.slot)
	}
	for _, f := range c.filterList {
		f.allowed.clear(n.slot)
	}
	for _, l := range c.labelList {
		l.assign(n.slot, 0, false)
	}
	c.avail[n.slot] = resource.Vector{}
	c.freeSlots = append(c.freeSlots, n.slot)
	// The empty record stays, so that the slots of others do.
	c.nodes[n.slot] = &node{slot: n.slot, at: nowhere}
}

// nodeChanged brings everything derived from a node's spec up to date.
func (c *Core) nodeChanged(n *node) {
	for _, f := range c.filterList {
		f.judge(n, c.grid.words)
	}
	for _, l := range c.labelList {
		if l.look(n) && n.containers != nil {
			c.recount(l)
		}
	}
	for _, s := range c.shapes {
		s.refit(n.slot)
	}
	c.epoch++
	c.count(n)
	c.largestKnown = false
	c.place(n)
	c.touch(n)
}

// count brings what all nodes add up to up to date with one of them.
func (c *Core) count(n *node) {
	counts := n.contribution()
	if counts == n.counted {
		return
	}
	c.sum = c.sum.Sub(n.counted).Add(counts)
	n.counted = counts
	c.stale = true
}

// place moves a node to where it belongs in the grid.
func (c *Core) place(n *node) {
	free := &c.avail[n.slot]
	*free = n.spec.Capacity.Sub(n.used).Sub(n.nominated)
	at := nowhere
	if n.isOpen() {
		at = cellOf(free)
	}
	if at == n.at {
		return
	}
	if n.at != nowhere {
		c.grid.remove(n.slot, n.at)
	}
	if at != nowhere {
		c.grid.add(n.slot, at)
	}
	if at == nowhere {
		c.open.clear(n.slot)
	} else if n.at == nowhere {
		c.open.set(n.slot, c.grid.words)
	}
	n.at = at
}

// touch notes that something came back on a node, or that it changed in another way that a waiting ask may like.
func (c *Core) touch(n *node) {
	if !n.touched && !c.quiet {
		n.touched = true
		c.touched = append(c.touched, n.slot)
	}
}

// wake looks, for every touched node, at the shapes that it may serve again, while the pass has looks left.
func (c *Core) wake() {
	seen := 0
	for ; seen < len(c.touched) && c.looks > 0; seen++ {
		c.looks -= looksPerNode
		n := c.nodes[c.touched[seen]]
		c.giveUpVain(n)
		n.touched = false
		c.readyNominations(n)
		if n.at == nowhere {
			continue
		}
		c.wakes++
		for cpu := int8(0); cpu <= n.at.cpu; cpu++ {
			c.looks -= len(c.alert[cpu])
			still := c.alert[cpu][:0]
			for _, s := range c.alert[cpu] {
				c.offer(s, n)
				if s.alert = s.misfits > 0 || s.waiting > 0; s.alert {
					still = append(still, s)
				} else {
					// From now on it is not told of what comes back.
					s.blocked = false
				}
			}
			c.alert[cpu] = still
		}
	}
	c.touched = append(c.touched[:0], c.touched[seen:]...)
}

// Used implements Interface.
func (c *Core) Used(name id.Node) resource.Vector {
	if slot, ok := c.slots[name]; ok {
		return c.nodes[slot].used
	}
	return resource.Vector{}
}

// Largest implements Interface.
func (c *Core) Largest() resource.Vector {
	if !c.largestKnown {
		c.largest, c.largestKnown = resource.Vector{}, true
		for _, n := range c.nodes {
			if n.known {
				c.largest = c.largest.Max(n.spec.Capacity)
			}
		}
	}
	return c.largest
}
