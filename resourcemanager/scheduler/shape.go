package scheduler

import (
	"slices"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler/grid"
)

// shape is what decides on which nodes an ask fits. Equal asks share it, also those of different apps, and with it what was
// learnt of nodes.
type shape struct {
	key  shapeKey
	need resource.Vector
	// floor is the lowest cell of the grid whose nodes may be large enough.
	floor grid.Cell
	// filter has the constraints and the nodes to avoid; nil is none.
	filter *filter
	// group may have maxPerNode containers on a node; nil is that there is no such limit.
	group      *group
	maxPerNode int
	// self is the name of the apps if they have affinities, or others have an anti-affinity to them; nil is neither.
	self                   *appName
	affinity, antiAffinity []*appName

	// misfit are nodes that were found to have too little left, and to which no capacity came back since; misfits is how
	// many were found.
	misfit  grid.Bitmap
	misfits int

	// backlog is what the backlog knows of the shape.
	backlog shapeBacklog
	// lastSpreads are what the last searches to spread a few groups have found.
	lastSpreads [4]spreadResult
}

// spreadResult says that no node with fewer than level containers of a group was fit for a shape when the fleet had counted
// so many changes.
type spreadResult struct {
	group   *group
	level   int
	changes int64
}

// shapeKey is what equal shapes have in common.
type shapeKey struct {
	need                   resource.Vector
	filter                 *filter
	group                  *group
	maxPerNode             int
	self                   *appName
	affinity, antiAffinity string
}

// repels reports whether asks of a shape keep apart from containers of a name.
func (s *shape) repels(other *appName) bool {
	return slices.Contains(s.antiAffinity, other) || s.self != nil && slices.Contains(s.self.repelledBy, other)
}

// exclude notes that a node has too little left.
func (s *shape) exclude(slot int32, words int) {
	s.misfit.Set(slot, words)
	s.misfits++
}

// refit notes that a node may have enough left again.
func (s *shape) refit(slot int32) {
	if s.misfit.Has(slot) {
		s.misfit.Clear(slot)
		s.misfits--
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
