package zone

import apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"

// canaryPercent is the share of the requests that a spec gives a canary; zero if it has none.
func canaryPercent(spec *apiv1.AppSpec) int32 {
	for _, role := range spec.GetRoles() {
		if course := strategyOf(role.GetUpdate()); course.GetStrategy() == apiv1.UpdatePolicy_CANARY {
			return course.GetCanaryPercent()
		}
	}
	return 0
}

// strategyOf is the strategy of the present rollout: the one that was given for it alone, or else the policy.
func strategyOf(update *apiv1.UpdatePolicy) *apiv1.UpdatePolicy_Course {
	if once := update.GetOnce(); once != nil {
		return once
	}
	return &apiv1.UpdatePolicy_Course{Strategy: update.GetStrategy(), CanaryPercent: update.GetCanaryPercent(), Exclusive: update.GetExclusive()}
}

// withStrategy makes the strategy of the present rollout the policy, which is all that a master reads.
func withStrategy(update *apiv1.UpdatePolicy) {
	if update.GetOnce() != nil {
		strategy := strategyOf(update)
		update.Strategy, update.CanaryPercent, update.Exclusive, update.Once = strategy.GetStrategy(), strategy.GetCanaryPercent(), strategy.GetExclusive(), nil
	}
}

// keepStrategy keeps the strategy of the present rollout when a spec is replaced without a new version.
func keepStrategy(present, next *apiv1.AppSpec) {
	for i, role := range next.GetRoles() {
		if i < len(present.GetRoles()) && role.GetUpdate() != nil && role.GetUpdate().GetOnce() == nil {
			role.Update.Once = present.GetRoles()[i].GetUpdate().GetOnce()
		}
	}
}
