package scheduler

import "github.com/mammoth-os/mammoth/internal/resource"

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
