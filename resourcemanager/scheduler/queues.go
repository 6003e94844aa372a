package scheduler

import (
	"github.com/mammoth-os/mammoth/internal/resource"
)

// setQueues replaces the tree, if apps and containers can stay where they are.
func (c *Core) setQueues(in SetQueues) error {
	next, err := draftTree(in, c.config.Schema, &c.apps, &c.lending)
	if err != nil {
		return err
	}
	contracts, apps := next.contracts, c.apps.sorted()
	for _, a := range apps {
		for _, k := range a.sortedAsks() {
			c.nominations.withdrawAll(k)
			c.backlog.leave(k)
		}
	}
	c.backlog.drop()
	c.tree.replace(next.queueSet)
	if in.Contracts != nil {
		c.lending.replace(contracts)
	} else {
		c.lending.rebind(contracts)
	}
	c.resolveQueues()
	for _, a := range apps {
		if a.leaf == nil {
			continue
		}
		a.leaf = c.tree.named(a.leaf.spec.Name)
		a.owner, a.used = a.leaf.user(a.user), resource.Vector{}
		if !a.removed {
			a.leaf.apps++
		}
		for ctr := range a.held() {
			c.chargeContainer(ctr, 1)
		}
	}
	for _, a := range apps {
		for _, k := range a.sortedAsks() {
			c.backlog.enter(k)
		}
	}
	return nil
}

// draft is a checked queue tree that does not apply yet.
type draft struct {
	queueSet
	contracts []*contract
}

// draftTree builds a tree, if the present apps and containers can stay where they are.
func draftTree(in SetQueues, schema resource.Schema, apps *apps, lending *lending) (draft, error) {
	queues, err := buildTree(in.Queues, schema)
	if err != nil {
		return draft{}, err
	}
	for _, a := range apps.sorted() {
		if a.leaf == nil {
			continue
		}
		name := a.leaf.spec.Name
		switch q := queues.named(name); {
		case q == nil:
			return draft{}, refused("queue %s cannot be removed: it has the app %s", name, a.title())
		case !q.isLeaf():
			return draft{}, refused("queue %s cannot be given children: it has the app %s", name, a.title())
		}
	}
	specs := in.Contracts
	if specs == nil {
		specs = lending.specs()
	}
	contracts, err := buildContracts(specs, &queues)
	return draft{queues, contracts}, err
}

// Queues implements Interface.
func (c *Core) Queues() []QueueUsage {
	c.resolveQueues()
	return usages(c.tree.present(), &c.backlog)
}

// QueuesAfter implements Interface. It does not take into account what is lent at the moment.
func (c *Core) QueuesAfter(in SetQueues) ([]QueueUsage, error) {
	c.resolveQueues()
	next, err := draftTree(in, c.config.Schema, &c.apps, &c.lending)
	if err != nil {
		return nil, err
	}
	next.root().resolve(*c.tree.zoneCapacity(), *c.tree.zoneCapacity(), *c.tree.zoneCapacity())
	for _, present := range c.tree.leaves() {
		for q := next.named(present.spec.Name); q != nil; q = q.parent {
			q.used = q.used.Add(present.used)
			q.containers += present.containers
			if q.isLeaf() {
				q.apps = present.apps
			}
		}
	}
	return usages(&next.queueSet, &c.backlog), nil
}

// resolveQueues computes guarantees, maxima and loans again after the zone, its queues or its contracts have changed.
func (c *Core) resolveQueues() {
	if c.fleet.takeCapacityChange() {
		c.tree.invalidate()
	}
	if !c.tree.isStale() {
		return
	}
	c.tree.resolve(c.fleet.total())
	c.lending.resolve()
	c.tree.rank()
	c.apps.rank(c.tree.zoneCapacity())
	c.backlog.rank(c.tree.all())
}

// Ledgers returns the account of each contract.
func (c *Core) Ledgers() []Ledger {
	c.resolveQueues()
	return c.lending.ledgers()
}

// usages lists the queues of a tree with their guarantee, usage and pending asks.
func usages(queues *queueSet, backlog *backlog) []QueueUsage {
	pending, all := backlog.pending(queues), queues.all()
	usages := make([]QueueUsage, len(all))
	for i, q := range all {
		usages[i] = QueueUsage{
			Spec: q.spec, Used: q.used, Pending: pending[i], Guaranteed: q.guaranteed, Maximum: q.maximum,
			Apps: q.apps, Containers: q.containers,
		}
	}
	for i := len(all) - 1; i > 0; i-- {
		usages[all[i].parent.order].Apps += usages[i].Apps
	}
	return usages
}
