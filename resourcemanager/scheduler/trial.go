package scheduler

// trial has grants to one ask that are kept or undone together. During a trial, no blocked or limited bucket becomes ready.
type trial struct {
	core *Core
	ask  *ask
	// first is the index of its first grant among the decisions.
	first int
}

// newTrial begins a trial. newGangTrial begins one for a gang, which gets a number.
func newTrial(c *Core, k *ask) trial {
	c.pass.onTrial = true
	return trial{c, k, len(c.pass.decisions.Grants)}
}

func newGangTrial(c *Core, k *ask) trial {
	c.containers.nextGang()
	return newTrial(c, k)
}

func (t trial) grants() []Grant { return t.core.pass.decisions.Grants[t.first:] }

// grantAll grants as many of the ask's containers as fit, and reports whether that is all of them.
func (t trial) grantAll() bool {
	for range t.ask.spec.Pending {
		slot := t.core.backlog.find(t.ask)
		if slot < 0 {
			return false
		}
		t.core.grant(t.ask, t.core.fleet.at(slot))
	}
	return true
}

// keep ends the trial of a complete gang.
func (t trial) keep() {
	c, grants := t.core, t.grants()
	c.pass.onTrial = false
	whole := &gang{number: c.containers.lastGang(), members: make([]*container, len(grants))}
	held := t.ask.app.containers // the newest first
	for i := len(grants) - 1; i >= 0; i, held = i-1, held.nextOfApp {
		held.gang, whole.members[i], grants[i].Gang = whole, held, whole.number
	}
	if t.ask.app.name.tracked {
		for _, held := range whole.members {
			c.fleet.touch(held.node)
		}
	}
	c.granted(t.ask, len(grants))
}

// undo ends the trial and undoes its grants.
func (t trial) undo() {
	c, k, grants := t.core, t.ask, t.grants()
	for i := len(grants) - 1; i >= 0; i-- {
		held := k.app.containers // the newest
		k.shape.refit(held.node.slot)
		c.containers.remove(held)
		if held.credit > 0 {
			k.app.addCredit(held.ask, held.credit)
		}
		c.unhold(held)
		c.containers.recycle(held)
	}
	c.fleet.noteChange()
	k.app.lastSeq -= int64(len(grants))
	c.pass.decisions.Grants = c.pass.decisions.Grants[:t.first]
	c.pass.onTrial = false
}

// plan grants what Schedule would grant, explains the rest, and undoes the grants.
func (t trial) plan(plan *Plan) {
	c, k := t.core, t.ask
	wanted := k.spec.Pending
	for range wanted {
		if limit := c.tree.limit(k, &k.spec.Resources); limit.kind != noLimit {
			break
		}
		slot := c.backlog.find(k)
		if slot < 0 {
			break
		}
		c.grant(k, c.fleet.at(slot))
	}
	for _, grant := range t.grants() {
		plan.Nodes = append(plan.Nodes, grant.Node)
	}
	k.spec.Pending = wanted - len(plan.Nodes)
	if k.spec.Pending > 0 {
		plan.Explanation = c.explainer.ask(k)
	}
	if k.spec.Gang && len(plan.Nodes) < wanted {
		plan.Nodes = nil
		plan.Explanation.Pending = wanted
	}
	t.undo()
	k.spec.Pending = wanted
}
