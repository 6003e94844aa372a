package scheduler

import (
	"slices"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// shape is what decides on which nodes an ask fits. Asks of all apps share it where they may, so that what was
// learnt for one is known for all.
type shape struct {
	key    shapeKey
	floor  cell
	need   resource.Vector
	filter *filter
	// group and maxPerNode limit the containers of a group on a node.
	group      *group
	maxPerNode int
	// self is the app's name if near, far or what repels it matter.
	self                   *appName
	affinity, antiAffinity []*appName

	// misfit are nodes that were seen to have too little free, and to which nothing came back since.
	misfit  bitmap
	misfits int
	// evens are what the last searches to spread a few groups have found.
	lastSpreads [4]spreadResult

	// backlog is what the backlog knows of the shape.
	backlog shapeBacklog
}

// even says that no node with fewer than level containers of a group was fit for a shape when the fleet had counted
// so many changes.
type spreadResult struct {
	group   *group
	level   int
	changes int64
}

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
	s.misfit.set(slot, words)
	s.misfits++
}

// refit notes that a node may have enough left again.
func (s *shape) refit(slot int32) {
	if s.misfit.has(slot) {
		s.misfit.clear(slot)
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
