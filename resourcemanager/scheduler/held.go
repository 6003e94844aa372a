package scheduler

import (
	"cmp"
	"slices"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// queueReclaim is the reclaiming part of a queue.
type queueReclaim struct {
	// claimed is the sum of the claims for asks of the queue.
	claimed resource.Vector
	// leaving is what the queue's containers with a notice hold.
	leaving resource.Vector
	// newest is the first of the list of a leaf's containers without a notice, newest first.
	newest *container
	// disordered is set if the list is not sorted.
	disordered bool
	// chosenFor is the number of the search for victims in which the leaf's containers may be preempted.
	chosenFor int64
}

// newest is the first of the list of a leaf's containers without a notice.
func (q *queue) newest() *container { return q.reclaim.newest }

// link inserts a container into a leaf's list by age. It passes only a few others, and reports whether the list is sorted then.
func (q *queue) link(ctr *container) bool {
	var before *container
	after := q.reclaim.newest
	for range 64 {
		if after == nil || !after.startedAt.After(ctr.startedAt) {
			break
		}
		before, after = after, after.nextOfLeaf
	}
	ctr.previousOfLeaf, ctr.nextOfLeaf = before, after
	if before != nil {
		before.nextOfLeaf = ctr
	} else {
		q.reclaim.newest = ctr
	}
	if after != nil {
		after.previousOfLeaf = ctr
	}
	return after == nil || !after.startedAt.After(ctr.startedAt)
}

// addHeld inserts a container into a leaf's list. If it does not belong near the front, the list is sorted later.
func (q *queue) addHeld(ctr *container) {
	if !q.link(ctr) {
		q.reclaim.disordered = true
	}
}

// sortHeld sorts a leaf's containers after many were added at once: after a restart, or with their app.
func (q *queue) sortHeld() {
	if !q.reclaim.disordered {
		return
	}
	q.reclaim.disordered = false
	var all []*container
	for ctr := q.reclaim.newest; ctr != nil; ctr = ctr.nextOfLeaf {
		all = append(all, ctr)
	}
	slices.SortFunc(all, func(x, y *container) int {
		return cmp.Or(y.startedAt.Compare(x.startedAt), y.id.Compare(x.id))
	})
	q.reclaim.newest = nil
	for i := len(all) - 1; i >= 0; i-- {
		q.link(all[i])
	}
}

func (q *queue) unlink(ctr *container) {
	if ctr.previousOfLeaf != nil {
		ctr.previousOfLeaf.nextOfLeaf = ctr.nextOfLeaf
	} else {
		q.reclaim.newest = ctr.nextOfLeaf
	}
	if ctr.nextOfLeaf != nil {
		ctr.nextOfLeaf.previousOfLeaf = ctr.previousOfLeaf
	}
	ctr.previousOfLeaf, ctr.nextOfLeaf = nil, nil
}

// addLeaving adds to leaving of the queue and of those above it.
func (q *queue) addLeaving(amount *resource.Vector, sign int64) {
	for ; q != nil; q = q.parent {
		for i := range amount {
			q.reclaim.leaving[i] += sign * amount[i]
		}
	}
}

// addClaimed adds to claimed of the queue and of those above it.
func (q *queue) addClaimed(amount *resource.Vector, sign int64) {
	for ; q != nil; q = q.parent {
		for i := range amount {
			q.reclaim.claimed[i] += sign * amount[i]
		}
	}
}
