package scheduler

import (
	"cmp"
	"slices"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// queueReclaim is what reclaiming knows of a queue.
type queueReclaim struct {
	// claimed is the room of claims for asks of the queue.
	claimed resource.Vector
	// leaving is what the queue's containers under notice hold.
	leaving resource.Vector
	// newest begins the list of a leaf's containers, newest first, without those under notice.
	newest *container
	// disordered is set when the list has to be sorted before that is true.
	disordered bool
	// chosenFor is the turn of the removal plan in which the leaf's containers may be preempted.
	chosenFor int64
}

// newest begins the list of a leaf's containers that are not under notice.
func (q *queue) newest() *container { return q.reclaim.newest }

// link puts a container among a leaf's, by age, and reports whether that is where it belongs: it is not carried
// further than past a few.
func (q *queue) link(k *container) bool {
	var before *container
	after := q.reclaim.newest
	for range 64 {
		if after == nil || !after.startedAt.After(k.startedAt) {
			break
		}
		before, after = after, after.nextOfLeaf
	}
	k.previousOfLeaf, k.nextOfLeaf = before, after
	if before != nil {
		before.nextOfLeaf = k
	} else {
		q.reclaim.newest = k
	}
	if after != nil {
		after.previousOfLeaf = k
	}
	return after == nil || !after.startedAt.After(k.startedAt)
}

// addHeld puts a container among a leaf's, which are sorted later if it does not belong near the front.
func (q *queue) addHeld(k *container) {
	if !q.link(k) {
		q.reclaim.disordered = true
	}
}

// sortHeld puts a leaf's containers in order after many of them came at once: after a restart, or with their app.
func (q *queue) sortHeld() {
	if !q.reclaim.disordered {
		return
	}
	q.reclaim.disordered = false
	var all []*container
	for k := q.reclaim.newest; k != nil; k = k.nextOfLeaf {
		all = append(all, k)
	}
	slices.SortFunc(all, func(x, y *container) int {
		return cmp.Or(y.startedAt.Compare(x.startedAt), y.id.Compare(x.id))
	})
	q.reclaim.newest = nil
	for i := len(all) - 1; i >= 0; i-- {
		q.link(all[i])
	}
}

func (q *queue) unlink(k *container) {
	if k.previousOfLeaf != nil {
		k.previousOfLeaf.nextOfLeaf = k.nextOfLeaf
	} else {
		q.reclaim.newest = k.nextOfLeaf
	}
	if k.nextOfLeaf != nil {
		k.nextOfLeaf.previousOfLeaf = k.previousOfLeaf
	}
	k.previousOfLeaf, k.nextOfLeaf = nil, nil
}

// addLeaving counts what is under notice, along the path.
func (q *queue) addLeaving(amount *resource.Vector, sign int64) {
	for ; q != nil; q = q.parent {
		for i := range amount {
			q.reclaim.leaving[i] += sign * amount[i]
		}
	}
}

// addClaimed counts the room of claims, along the path.
func (q *queue) addClaimed(amount *resource.Vector, sign int64) {
	for ; q != nil; q = q.parent {
		for i := range amount {
			q.reclaim.claimed[i] += sign * amount[i]
		}
	}
}
