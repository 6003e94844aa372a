package driver

import (
	"fmt"

	"github.com/containerd/errdefs"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// control owns what people have set for the rollout of one version, by commands. Another version begins without it.
type control struct {
	version int32
	paused  bool
	// percent is the share of the requests that the canary was given by hand; zero is none.
	percent int32
	// specPercent is the share in the spec at that time. If the share in the spec changes, percent is reset.
	specPercent int32
}

// renew forgets what was set for another version, or beside another share in the spec.
func (c *control) renew(desired *masterv1.Wanted) {
	if c.version != desired.GetVersion() {
		*c = control{version: desired.GetVersion()}
	}
	if percent := canaryPercent(desired); percent != c.specPercent {
		c.percent, c.specPercent = 0, percent
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

// share is the share of the requests that the canary is to be given: what a person has set, or else what the spec has; zero
// without a canary. A version that was brought back is promoted at once, since it has come up before.
func (c *control) share(desired *masterv1.Wanted) int32 {
	c.renew(desired)
	switch {
	case c.specPercent == 0:
		return 0
	case c.percent > 0:
		return c.percent
	case desired.GetFromVersion() > 0:
		return 100
	}
	return c.specPercent
}

// promote gives the canary of an app another share of the requests. With 100 % it replaces the version before.
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
	return storedControl{Version: c.version, Paused: c.paused, Percent: c.percent, SpecPercent: c.specPercent}
}

// strategyOf is the strategy of a role's rollout to the desired version. A version that was brought back does not repeat the
// strategy that applied to its first rollout only.
func strategyOf(desired *masterv1.Wanted, role *apiv1.RoleSpec) *apiv1.UpdatePolicy_OneRollout {
	if desired.GetFromVersion() > 0 {
		return policyStrategy(role.GetUpdate())
	}
	return strategyOfNext(role.GetUpdate())
}

// strategyOfNext is the strategy of the rollout of a new version with this policy.
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
