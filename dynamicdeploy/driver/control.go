package driver

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// control owns what is set for the rollout of one role: by people with commands, and by whoever brought the role back, a person or the master.
// A version that changes nothing of the role leaves it as it is; any other begins with nothing set.
type control struct {
	// version is the desired version that it is known to hold for. The rollout began with it unless continued is true.
	version   int32
	continued bool
	// from is the version that the rollout brings back; zero if it brings none back. reverts is true if the master did that.
	from    int32
	reverts bool
	paused  bool
	// percent is the share of the requests that the canary was given by hand; zero is none.
	percent int32
	// specPercent is the share in the spec at that time. If the share in the spec changes, percent is reset.
	specPercent int32
}

// holdsFor reports whether it holds for a version. lastVersion is the last one that it is known to hold for.
func (c *control) holdsFor(version int32) bool { return c.version == version }

func (c *control) lastVersion() int32 { return c.version }

// continueAs has the control hold for another version too. A rollout that is over brings nothing back any more.
func (c *control) continueAs(version int32, over bool) {
	c.version, c.continued = version, true
	c.reverts = c.reverts && !over
}

// renew forgets what was set for another version, or beside another share in the spec of the role.
func (c *control) renew(desired *masterv1.DesiredState, role string) {
	if !c.holdsFor(desired.GetVersion()) {
		*c = control{version: desired.GetVersion()}
	}
	if !c.continued {
		c.from, c.reverts = 0, false
		if roles := desired.GetFromRoles(); len(roles) == 0 || slices.Contains(roles, role) {
			c.from, c.reverts = desired.GetFromVersion(), desired.GetRevised()
		}
	}
	if percent := c.canaryPercent(roleOf(desired.GetSpec(), role)); percent != c.specPercent {
		c.percent, c.specPercent = 0, percent
	}
}

// brings is the version that the rollout brings back, zero if none. Reverts reports whether that is since another one failed.
func (c *control) brings() (from int32, reverts bool) { return c.from, c.reverts }

// pauses reports whether a person has paused the rollout.
func (c *control) pauses() bool { return c.paused }

// pause pauses the rollout.
func (c *control) pause() { c.paused = true }

// resume is the reverse of pause. It reports whether the rollout was paused.
func (c *control) resume() (changed bool) {
	changed = c.paused
	c.paused = false
	return changed
}

// share is the share of the requests that the canary is to be given: what a person has set, or else what the spec has; zero
// without a canary. A role that was brought back is promoted at once, since it has come up before.
func (c *control) share() int32 {
	switch {
	case c.specPercent == 0:
		return 0
	case c.percent > 0:
		return c.percent
	case c.from > 0:
		return 100
	}
	return c.specPercent
}

// promote gives the canary another share of the requests. With 100 % it replaces the version before.
func (c *control) promote(percent int32) { c.percent, c.paused = percent, false }

// promotable reports whether the role is a canary that is not promoted.
func (c *control) promotable() bool { return c.share() > 0 && c.share() < 100 }

// strategy is the strategy of the rollout, of a role with this spec. A role that was brought back does not repeat the strategy that
// applied to its first rollout only.
func (c *control) strategy(role *apiv1.RoleSpec) *apiv1.UpdatePolicy_OneRollout {
	if c.from > 0 {
		return policyStrategy(role.GetUpdate())
	}
	return strategyOfNext(role.GetUpdate())
}

// canaryPercent is the share of the requests that the spec gives the canary; zero if there is none.
func (c *control) canaryPercent(role *apiv1.RoleSpec) int32 {
	if strategy := c.strategy(role); strategy.GetStrategy() == apiv1.UpdatePolicy_CANARY {
		return strategy.GetCanaryPercent()
	}
	return 0
}

func (c *control) store() storedControl {
	return storedControl{
		Version: c.version, Continued: c.continued, From: c.from, Reverts: c.reverts, Paused: c.paused, Percent: c.percent, SpecPercent: c.specPercent,
	}
}

func (s storedControl) control() control {
	return control{
		version: s.Version, continued: s.Continued, from: s.From, reverts: s.Reverts, paused: s.Paused, percent: s.Percent, specPercent: s.SpecPercent,
	}
}

// checkShare refuses a share that no canary can have.
func checkShare(percent int32) error {
	if percent < 1 || percent > 100 {
		return fmt.Errorf("a canary cannot receive %d %% of the requests; use 1 to 100: %w", percent, errdefs.ErrInvalidArgument)
	}
	return nil
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
