package scheduler

import "fmt"

// guarantee is a sentence why no container of another queue is preempted for an ask that fits nowhere.
func (e *explainer) guarantee(k *ask, explanation *AskExplanation) string {
	if explanation.Fits > 0 || explanation.Limit != "" || explanation.Coming != "" || k.spec.Gang || e.tree.root().used == k.app.leaf.used {
		return ""
	}
	leaf, need := k.app.leaf, &k.spec.Resources
	var entitled *queue
	borrowed := false
	for q := leaf; q.parent != nil; q = q.parent {
		if !q.isEntitled(need) {
			continue
		}
		entitled = q
		for _, sibling := range q.parent.children {
			borrowed = borrowed || sibling != q && exceedsEntitlement(sibling, leaf, need)
		}
	}
	switch {
	case k.app.leaf.claimsReach(&k.spec.Resources):
		return fmt.Sprintf("room is being made for other asks of queue %s, and with that it would hold more than its maximum", leaf.spec.Name)
	case borrowed:
		return "what other queues hold beyond their guarantees would not make room for it on any one node"
	case entitled != nil:
		return "no other queue holds more than it is guaranteed, so that nothing is stopped for it"
	case leaf.entitled.IsZero():
		return fmt.Sprintf("queue %s is guaranteed nothing, so that nothing is stopped for it", leaf.spec.Name)
	}
	for dim, asked := range need {
		if guaranteed := leaf.entitled[dim]; guaranteed > 0 && asked > 0 && leaf.used[dim] > guaranteed-asked {
			return fmt.Sprintf("queue %s holds %s of the %s that it is guaranteed, and %s more are beyond that, so that nothing is stopped for it",
				leaf.spec.Name, e.schema.Format(dim, leaf.used[dim]), amount(e.schema, dim, guaranteed), e.schema.Format(dim, asked))
		}
	}
	return ""
}
