package zone

import (
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/peer"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
)

// underWay finds the app whose rollout is not over.
func (z *Core) underWay(who peer.User, name, doing string) (*app, apiv1.Rollout_State, error) {
	a, err := z.apps.changeable(who, name, doing)
	if err != nil {
		return nil, 0, err
	}
	if err := a.notRemoving(); err != nil {
		return nil, 0, err
	}
	state := a.rollout().GetState()
	if a.ending() || state != apiv1.Rollout_PROGRESSING && state != apiv1.Rollout_PAUSED {
		return nil, 0, fmt.Errorf("no rollout of %s is under way; \"mammoth deploy\" begins one: %w", name, errdefs.ErrFailedPrecondition)
	}
	return a, state, nil
}

// pause holds a rollout where it is.
func (z *Core) pause(who peer.User, name string) (*apiv1.App, error) {
	a, _, err := z.underWay(who, name, "pause the rollout of")
	if err != nil {
		return nil, err
	}
	if a.record.GetPaused() {
		return nil, fmt.Errorf("the rollout of %s is paused already; \"mammoth app resume %s\" lets it go on: %w", name, name, errdefs.ErrFailedPrecondition)
	}
	a.record.Paused = true
	z.tellRollout(a, access.ByWhom(who)+" paused it")
	z.wish(a)
	return z.viewApp(a), nil
}

// resume lets a paused rollout go on.
func (z *Core) resume(who peer.User, name string) (*apiv1.App, error) {
	a, state, err := z.underWay(who, name, "resume the rollout of")
	if err != nil {
		return nil, err
	}
	if !a.record.GetPaused() {
		if state == apiv1.Rollout_PAUSED {
			return nil, fmt.Errorf("the rollout of %s waits to be promoted, which \"mammoth app promote %s\" does: %w", name, name, errdefs.ErrFailedPrecondition)
		}
		return nil, fmt.Errorf("the rollout of %s is not paused: %w", name, errdefs.ErrFailedPrecondition)
	}
	a.record.Paused = false
	z.tellRollout(a, access.ByWhom(who)+" let it go on")
	z.wish(a)
	return z.viewApp(a), nil
}

// promote gives a canary another share; with all of it, it takes the place of the version before it.
func (z *Core) promote(who peer.User, name string, percent int32) (*apiv1.App, error) {
	a, _, err := z.underWay(who, name, "promote")
	if err != nil {
		return nil, err
	}
	if canaryPercent(a.record.GetSpec()) == 0 {
		return nil, fmt.Errorf("version %d of %s is no canary; \"mammoth deploy --canary 10%%\" makes one: %w", a.record.GetVersion(), name, errdefs.ErrFailedPrecondition)
	}
	if a.record.GetCanaryPercent() == 100 {
		return nil, fmt.Errorf("version %d of %s is promoted already: %w", a.record.GetVersion(), name, errdefs.ErrFailedPrecondition)
	}
	a.record.CanaryPercent, a.record.Paused = percent, false
	z.tellRollout(a, fmt.Sprintf("%s gives it %d %% of the requests", access.ByWhom(who), percent))
	z.wish(a)
	return z.viewApp(a), nil
}

func (z *Core) tellRollout(a *app, message string) {
	state := a.rollout().GetState().String()
	z.emit(&apiv1.Event{
		Kind: "rollout", App: a.record.GetName(), From: state, To: state,
		Message: fmt.Sprintf("version %d of %s: %s", a.record.GetVersion(), a.record.GetName(), message),
	})
}

// noCanary has what was wanted before be wanted again without a canary: it has proven itself.
func (z *Core) noCanary(a *app) {
	if canaryPercent(a.record.GetSpec()) > 0 {
		a.record.CanaryPercent = 100
	}
	z.masters.response(a).Wanted = z.wanted(a)
	z.apps.changed(a)
}

// canaryPercent is the share that a spec gives a canary, zero if it has none.
func canaryPercent(spec *apiv1.AppSpec) int32 {
	for _, role := range spec.GetRoles() {
		if course := courseOf(role.GetUpdate()); course.GetStrategy() == apiv1.UpdatePolicy_CANARY {
			return course.GetCanaryPercent()
		}
	}
	return 0
}

// courseOf is how the present version takes the place of the one before.
func courseOf(update *apiv1.UpdatePolicy) *apiv1.UpdatePolicy_Course {
	if once := update.GetOnce(); once != nil {
		return once
	}
	return &apiv1.UpdatePolicy_Course{Strategy: update.GetStrategy(), CanaryPercent: update.GetCanaryPercent(), Exclusive: update.GetExclusive()}
}

// steered is a spec as its master is told: what was said for one change is the policy.
func steered(spec *apiv1.AppSpec) *apiv1.AppSpec {
	spec = proto.CloneOf(spec)
	for _, role := range spec.GetRoles() {
		if update := role.GetUpdate(); update.GetOnce() != nil {
			course := courseOf(update)
			update.Strategy, update.CanaryPercent, update.Exclusive, update.Once = course.GetStrategy(), course.GetCanaryPercent(), course.GetExclusive(), nil
		}
	}
	return spec
}

// keepCourse leaves the change that is under way on its course: a new count, say, is no word on that.
func keepCourse(present, next *apiv1.AppSpec) {
	for i, role := range next.GetRoles() {
		if i < len(present.GetRoles()) && role.GetUpdate() != nil && role.GetUpdate().GetOnce() == nil {
			role.Update.Once = present.GetRoles()[i].GetUpdate().GetOnce()
		}
	}
}
