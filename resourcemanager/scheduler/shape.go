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
	self      *named
	near, far []*named

	// misfit are nodes that were seen to have too little free, and to which nothing came back since.
	misfit  bitmap
	misfits int
	// evens are what the last searches to spread a few groups have found.
	evens [4]even

	// backlog is what the backlog knows of the shape.
	backlog shapeBacklog
}

// even says that no node with fewer than level containers of a group was fit for a shape when the fleet had counted
// so many changes.
type even struct {
	group   *group
	level   int
	changes int64
}

type shapeKey struct {
	need       resource.Vector
	filter     *filter
	group      *group
	maxPerNode int
	self       *named
	near, far  string
}

// allows tests everything but room.
func (s *shape) allows(n *node) bool {
	if s.filter != nil && !s.filter.allowed.has(n.slot) {
		return false
	}
	if s.group != nil && s.group.count(n.slot) >= s.maxPerNode {
		return false
	}
	if s.self == nil {
		return true
	}
	for _, m := range s.near {
		if !m.nodes.has(n.slot) && !(m == s.self && m.held == 0) {
			return false
		}
	}
	for _, m := range s.far {
		if m.nodes.has(n.slot) {
			return false
		}
	}
	for _, m := range s.self.repelledBy {
		if m.nodes.has(n.slot) {
			return false
		}
	}
	return true
}

// repels reports whether asks of a shape keep apart from containers of a name.
func (s *shape) repels(other *named) bool {
	return slices.Contains(s.far, other) || s.self != nil && slices.Contains(s.self.repelledBy, other)
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

// masks gives, as bitmaps, what allows tests and what is known of room.
func (s *shape) masks(allow, deny []bitmap) ([]bitmap, []bitmap) {
	if s.filter != nil {
		allow = append(allow, s.filter.allowed)
	}
	if s.misfits > 0 {
		deny = append(deny, s.misfit)
	}
	if s.group != nil && s.maxPerNode <= len(s.group.levels) {
		deny = append(deny, s.group.levels[s.maxPerNode-1])
	}
	if s.self == nil {
		return allow, deny
	}
	for _, m := range s.near {
		if m != s.self || m.held > 0 {
			allow = append(allow, m.nodes)
		}
	}
	for _, m := range s.far {
		deny = append(deny, m.nodes)
	}
	for _, m := range s.self.repelledBy {
		deny = append(deny, m.nodes)
	}
	return allow, deny
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
