package spec

import (
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// NeedsNewInstances reports whether a change of an app's spec needs new instances, and so is a new version with a rollout. Other
// changes take effect on running instances.
func NeedsNewInstances(before, after *apiv1.AppSpec) bool {
	return !proto.Equal(essence(before), essence(after))
}

// SameContainers reports whether containers of one spec of a role can serve as containers of the other. It is false if one of the
// roles is missing.
func SameContainers(before, after *apiv1.RoleSpec) bool {
	return before != nil && after != nil && proto.Equal(essenceOfRole(before), essenceOfRole(after))
}

// KeepOnce copies each role's strategy of one rollout (UpdatePolicy.Once) from the present spec to the next, unless the next has one itself,
// or begins another rollout of the role.
func KeepOnce(present, next *apiv1.AppSpec) {
	newVersion := NeedsNewInstances(present, next)
	for _, role := range next.GetRoles() {
		before := roleNamed(present, role.GetName())
		if before != nil && role.GetUpdate() != nil && role.GetUpdate().GetOnce() == nil && (!newVersion || SameRollout(before, role)) {
			role.Update.Once = before.GetUpdate().GetOnce()
		}
	}
}

// DropOnce removes the strategy of one rollout from a role that begins another.
func DropOnce(role *apiv1.RoleSpec) {
	if role.GetUpdate() != nil {
		role.Update.Once = nil
	}
}

// SameRollout reports whether a change of a role's spec from one to the other leaves its rollout as it is: its containers stay, and so does
// its policy for updates, apart from the strategy of one rollout.
func SameRollout(before, after *apiv1.RoleSpec) bool {
	policy := func(role *apiv1.RoleSpec) *apiv1.UpdatePolicy {
		role = proto.CloneOf(role)
		DropOnce(role)
		return role.GetUpdate()
	}
	return SameContainers(before, after) && proto.Equal(policy(before), policy(after))
}

// essence is the part of a spec that cannot change in a running instance.
func essence(app *apiv1.AppSpec) *apiv1.AppSpec {
	app = proto.CloneOf(app)
	app.Queue, app.Priority = "", 0
	for i, role := range app.GetRoles() {
		app.Roles[i] = essenceOfRole(role)
	}
	return app
}

func essenceOfRole(role *apiv1.RoleSpec) *apiv1.RoleSpec {
	role = proto.CloneOf(role)
	role.Instances, role.Schedule = 0, nil
	role.Update, role.Restart, role.Expose, role.After = nil, nil, nil, nil
	role.Stop = &apiv1.StopPolicy{Signal: role.GetStop().GetSignal()}
	if role.GetImageDigest() != "" {
		role.Image = "" // two names of one image
	}
	return role
}
