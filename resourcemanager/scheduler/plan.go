package scheduler

import (
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Plan implements Interface. It grants the ask on trial.
func (c *Core) Plan(app AddApp, spec Ask, now time.Time) (Plan, error) {
	leaf, err := c.tree.leafFor(app.Queue)
	if err != nil {
		return Plan{}, err
	}
	if err := checkAsk(&spec); err != nil {
		return Plan{}, err
	}
	defer c.explainAt(now)()
	// The planned app has the zero id, which no other app has.
	planned := c.apps.add(id.App{})
	c.rename(planned, app.Name)
	planned.leaf, planned.user, planned.owner = leaf, app.User, leaf.user(app.User)
	k := &ask{app: planned, spec: spec.clone(), index: -1, group: planned.group(spec.Group)}
	planned.asks[spec.ID] = k
	untracked := c.apps.untracked(&spec)
	c.backlog.prepare(k)

	var plan Plan
	plan.Never = c.explainer.never(k)
	if plan.Never == "" {
		newTrial(c, k).plan(&plan)
	}
	plan.Explanation.Ask = spec.ID
	for _, m := range untracked {
		m.tracked, m.nodes = false, nil
	}
	delete(planned.asks, spec.ID)
	planned.removed = true
	c.forgetApp(planned)
	c.apps.uncount()
	return plan, nil
}
