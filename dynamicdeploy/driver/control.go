package driver

import (
	"fmt"

	"github.com/containerd/errdefs"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// control owns what people have said of the rollout of one version. It is forgotten with the version.
type control struct {
	version int32
	paused  bool
	// percent is the share of the requests that the canary was given by hand; zero is none.
	percent int32
	// of is the share that the spec gave the canary then. Another spec with another share ends what was said.
	of int32
}

// renew forgets what was said of another version, or of another share.
func (c *control) renew(desired *masterv1.Wanted) {
	if c.version != desired.GetVersion() {
		*c = control{version: desired.GetVersion()}
	}
	if of := canaryPercent(desired); of != c.of {
		c.percent, c.of = 0, of
	}
}

// pauses reports whether a person has paused the rollout of the desired version.
func (c *control) pauses(desired *masterv1.Wanted) bool {
	c.renew(desired)
	return c.paused
}

// pause pauses the rollout of the desired version. It reports whether it was not paused before.
func (c *control) pause(desired *masterv1.Wanted) (changed bool) {
	changed = !c.pauses(desired)
	c.paused = true
	return changed
}

// resume is the reverse of pause.
func (c *control) resume() (changed bool) {
	changed = c.paused
	c.paused = false
	return changed
}

// share is the share of the requests that the canary is to be given: what people said, or else what the spec says. A version that
// repeats an earlier one is promoted at once, as its program has proven itself. Zero without a canary.
func (c *control) share(desired *masterv1.Wanted) int32 {
	c.renew(desired)
	switch {
	case c.of == 0:
		return 0
	case c.percent > 0:
		return c.percent
	case desired.GetFromVersion() > 0:
		return 100
	}
	return c.of
}

// promote gives the canary of an app another share. With all of it, the canary takes the place of the version before it.
func (c *control) promote(app string, desired *masterv1.Wanted, percent int32) error {
	share := c.share(desired)
	switch {
	case percent < 1 || percent > 100:
		return fmt.Errorf("a canary cannot receive %d %% of the requests; use 1 to 100: %w", percent, errdefs.ErrInvalidArgument)
	case share == 0:
		return fmt.Errorf("version %d of %s is no canary; \"mammoth deploy --canary 10%%\" makes one: %w", desired.GetVersion(), app, errdefs.ErrFailedPrecondition)
	case share == 100:
		return fmt.Errorf("version %d of %s is promoted already: %w", desired.GetVersion(), app, errdefs.ErrFailedPrecondition)
	}
	c.percent, c.paused = percent, false
	return nil
}

func (c *control) store() storedControl {
	return storedControl{Version: c.version, Paused: c.paused, Percent: c.percent, Of: c.of}
}

// strategyOf is how the desired version takes the place of the one before in a role. A version that repeats an earlier one does not repeat
// what was said for that one alone.
func strategyOf(desired *masterv1.Wanted, role *apiv1.RoleSpec) *apiv1.UpdatePolicy_OneRollout {
	if desired.GetFromVersion() > 0 {
		return policyStrategy(role.GetUpdate())
	}
	return strategyOfNext(role.GetUpdate())
}

// strategyOfNext is how a new version with such a policy takes the place of the one before.
func strategyOfNext(update *apiv1.UpdatePolicy) *apiv1.UpdatePolicy_OneRollout {
	if once := update.GetOnce(); once != nil {
		return once
	}
	return policyStrategy(update)
}

// policyStrategy is the strategy of a policy for every version.
func policyStrategy(update *apiv1.UpdatePolicy) *apiv1.UpdatePolicy_OneRollout {
	return &apiv1.UpdatePolicy_OneRollout{Strategy: update.GetStrategy(), CanaryPercent: update.GetCanaryPercent(), Exclusive: update.GetExclusive()}
}

// canaryPercent is the share of the requests that the spec gives the canary; zero if there is none.
func canaryPercent(desired *masterv1.Wanted) int32 {
	for _, role := range desired.GetSpec().GetRoles() {
		if strategy := strategyOf(desired, role); strategy.GetStrategy() == apiv1.UpdatePolicy_CANARY {
			return strategy.GetCanaryPercent()
		}
	}
	return 0
}
