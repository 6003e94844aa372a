package scheduler

import (
	"slices"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// sparesLenders reports whether the victims leave each lender, on whose loan the claim relies, its guarantee. Otherwise the lender could claim
// their room back from the borrower, who could claim it again, for ever.
func (p *removalPlan) sparesLenders(claimant *queue, need *resource.Vector) bool {
	for _, victim := range p.current.victims {
		if leaf := victim.app.leaf; claimant.reliesOn(leaf, need) {
			above := leaf.beside(claimant)
			if holds := above.used.Sub(above.reclaim.leaving).Sub(p.current.lostBeside()); !beyond(&holds, &victim.need, above.entitlementAgainst(claimant)) {
				return false
			}
		}
	}
	return true
}

// reliesOn reports whether a claimant is entitled to need only because of what is lent to it by a queue that is above a leaf.
func (q *queue) reliesOn(leaf *queue, need *resource.Vector) bool {
	above := q.beside(leaf)
	if len(above.lent) == 0 {
		return false
	}
	entitled, holds := above.entitlementAgainst(leaf), above.used.Sub(above.reclaim.leaving).Add(above.reclaim.claimed)
	return !within(&holds, need, &entitled)
}

// beyond reports whether a queue that holds an amount is not entitled to any more of one of the needed resources.
func beyond(holds, need *resource.Vector, entitled resource.Vector) bool {
	for i := range need {
		if need[i] > 0 && entitled[i] > 0 && holds[i] >= entitled[i] {
			return true
		}
	}
	return entitled.IsZero()
}

// lostBeside is what the gangs of victims hold besides the victims: a gang is preempted as a whole.
func (r *removal) lostBeside() resource.Vector {
	var lost resource.Vector
	for i, victim := range r.victims {
		if victim.gang == nil || slices.ContainsFunc(r.victims[:i], func(other *container) bool { return other.gang == victim.gang }) {
			continue
		}
		for _, member := range victim.gang.members {
			if member.notice == nil && !slices.Contains(r.victims, member) {
				lost = lost.Add(member.need)
			}
		}
	}
	return lost
}
