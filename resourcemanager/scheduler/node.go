package scheduler

import (
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler/grid"
)

// node is a node as the scheduler sees it.
type node struct {
	// spec is what the node was set to, without its attributes.
	spec       NodeSpec
	attributes attributes
	// slot is the node's number in bitmaps.
	slot int32
	// known is set after SetNode and until RemoveNode. The record outlives that while containers are held.
	known bool
	// at is its cell in the grid; nowhere while it is not open.
	at grid.Cell
	// touched is set while it is among the touched nodes of the fleet.
	touched bool
	// used is what its containers hold.
	used resource.Vector
	// ending is what its containers hold that end by themselves: all that are not services.
	ending resource.Vector
	// counted is its part in the capacity of the zone.
	counted resource.Vector
	// nominated is the sum of its nominations.
	nominated   resource.Vector
	nominations []*nomination
	// containers is the first of the list of its containers.
	containers *container
}

// isOpen reports whether containers may be placed on the node.
func (n *node) isOpen() bool { return n.known && n.spec.Closed == "" }

// contribution is what the node adds to the zone that guarantees are shares of: all of an open node, and of a
// closed one what is still in use, so that draining it does not make its queues look oversized.
func (n *node) contribution() resource.Vector {
	if n.isOpen() {
		return n.spec.Capacity
	}
	return n.used
}
