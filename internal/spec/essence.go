package spec

import (
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// NeedsNewInstances reports whether running instances of an app's one spec do not serve for the other, so that the change is a new
// version with a rollout. Everything else takes effect on the instances that run.
func NeedsNewInstances(before, after *apiv1.AppSpec) bool {
	return !proto.Equal(essence(before), essence(after))
}

// SameContainers reports whether the containers of a role's one spec serve for the other. A role that is not there has none.
func SameContainers(before, after *apiv1.RoleSpec) bool {
	return before != nil && after != nil && proto.Equal(essenceOfRole(before), essenceOfRole(after))
}

// essence is what of a spec is fixed in an instance once it runs.
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
