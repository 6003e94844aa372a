package zone

import apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"

// canaryPercent is the share that a spec gives a canary, zero if it has none.
func canaryPercent(spec *apiv1.AppSpec) int32 {
	for _, role := range spec.GetRoles() {
		if course := strategyOf(role.GetUpdate()); course.GetStrategy() == apiv1.UpdatePolicy_CANARY {
			return course.GetCanaryPercent()
		}
	}
	return 0
}

// strategyOf is how the present version takes the place of the one before.
func strategyOf(update *apiv1.UpdatePolicy) *apiv1.UpdatePolicy_Course {
	if once := update.GetOnce(); once != nil {
		return once
	}
	return &apiv1.UpdatePolicy_Course{Strategy: update.GetStrategy(), CanaryPercent: update.GetCanaryPercent(), Exclusive: update.GetExclusive()}
}

// withStrategy makes what was said for one change the policy.
func withStrategy(update *apiv1.UpdatePolicy) {
	if update.GetOnce() != nil {
		strategy := strategyOf(update)
		update.Strategy, update.CanaryPercent, update.Exclusive, update.Once = strategy.GetStrategy(), strategy.GetCanaryPercent(), strategy.GetExclusive(), nil
	}
}

// keepStrategy leaves the change that is under way on its course: a new count, say, is no word on that.
func keepStrategy(present, next *apiv1.AppSpec) {
	for i, role := range next.GetRoles() {
		if i < len(present.GetRoles()) && role.GetUpdate() != nil && role.GetUpdate().GetOnce() == nil {
			role.Update.Once = present.GetRoles()[i].GetUpdate().GetOnce()
		}
	}
}
