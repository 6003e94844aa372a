package scheduler

import (
	"slices"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler/grid"
)

// shape is everything that decides on which nodes an ask fits. Equal asks, also of different apps, share it and its cached results
// about nodes.
type shape struct {
	key  shapeKey
	need resource.Vector
	// floor is the lowest cell of the grid whose nodes may be large enough.
	floor grid.Cell
	// filter has the constraints and the nodes to avoid; nil is none.
	filter *filter
	// group may have maxPerNode containers on a node; nil if there is no such limit.
	group      *group
	maxPerNode int
	// self is the name of the app if it has affinities, or others have an anti-affinity to it; nil otherwise.
	self                   *appName
	affinity, antiAffinity []*appName

	// misfit are nodes that were found to have too little free, and to which no capacity has come back since; misfits counts them.
	misfit  grid.Bitmap
	misfits int

	// backlog is the backlog's part.
	backlog shapeBacklog
	// lastSpreads caches the results of the last searches by spread.
	lastSpreads [4]spreadResult
}

// spreadResult records that no node with fewer than level containers of a group fits a shape, as long as the fleet's count of
// changes is the same.
type spreadResult struct {
	group   *group
	level   int
	changes int64
}

// shapeKey is the key by which equal asks find their shape.
type shapeKey struct {
	need                   resource.Vector
	filter                 *filter
	group                  *group
	maxPerNode             int
	self                   *appName
	affinity, antiAffinity string
}

// repels reports whether asks of a shape have an anti-affinity to a name.
func (s *shape) repels(other *appName) bool {
	return slices.Contains(s.antiAffinity, other) || s.self != nil && slices.Contains(s.self.repelledBy, other)
}

// exclude records that a node has too little free.
func (s *shape) exclude(slot int32, words int) {
	if s.misfit.Has(slot) {
		return
	}
	s.misfit.Set(slot, words)
	s.misfits++
}

// refit records that a node may have enough again.
func (s *shape) refit(slot int32) {
	if s.misfit.Has(slot) {
		s.misfit.Clear(slot)
		s.misfits--
	}
}

// timesIn is how many times need fits into free.
func timesIn(need, free *resource.Vector) int64 {
	times := int64(1 << 30)
	for i := range need {
		if need[i] > 0 {
			times = min(times, free[i]/need[i])
		}
	}
	return times
}
