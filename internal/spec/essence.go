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

// Temporary is what a spec says of a role for one version alone, beside its lasting policy: the strategy of one rollout. These functions
// are for those that store specs and do not read policies.

// KeepTemporary keeps in the next spec what the present one says for one version alone, unless the next says something itself: it stands as
// long as the version of the app does, and in a role that the next version does not change.
func KeepTemporary(present, next *apiv1.AppSpec) {
	anew := NeedsNewInstances(present, next)
	for _, role := range next.GetRoles() {
		before := roleNamed(present, role.GetName())
		if before != nil && role.GetUpdate() != nil && role.GetUpdate().GetOnce() == nil && (!anew || SameRollout(before, role)) {
			role.Update.Once = before.GetUpdate().GetOnce()
		}
	}
}

// DropTemporary drops from a role what was said for one version alone, since another version is to have that role.
func DropTemporary(role *apiv1.RoleSpec) {
	if role.GetUpdate() != nil {
		role.Update.Once = nil
	}
}

// SameRollout reports whether a change of a role's spec from one to the other leaves its rollout as it is: its containers stay, and so does
// its policy for updates, apart from what that says for one rollout alone.
func SameRollout(before, after *apiv1.RoleSpec) bool {
	policy := func(role *apiv1.RoleSpec) *apiv1.UpdatePolicy {
		role = proto.CloneOf(role)
		DropTemporary(role)
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
