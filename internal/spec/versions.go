package spec

import (
	"slices"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Stable reports whether a version came up and has not failed since.
func Stable(version interface {
	GetCameUp() bool
	GetFailure() string
},
) bool {
	return version.GetCameUp() && version.GetFailure() == ""
}

// Earlier is the version that a rollback goes to: the newest stable one before the present that needs other instances; nil if there is none.
// If nothing is known of what became of any version, it is simply the one before the present, whatever differs: a master that notes
// nothing need not have instances. The versions are in the order of their numbers, the
// present one last.
func Earlier(versions []*apiv1.AppHistory_Version) *apiv1.AppHistory_Version {
	if last := len(versions) - 1; last >= 1 && nothingKnown(versions) {
		return versions[last-1]
	}
	return newestStable(versions, NeedsNewInstances)
}

// EarlierOf is the version that a rollback of one role goes to: the newest stable one before the present in which that role has other
// containers; nil if there is none. If nothing is known of what became of any version, each counts as stable.
func EarlierOf(role string, versions []*apiv1.AppHistory_Version) *apiv1.AppHistory_Version {
	return newestStable(versions, func(present, earlier *apiv1.AppSpec) bool {
		before, after := roleNamed(present, role), roleNamed(earlier, role)
		return before != nil && after != nil && !SameContainers(before, after)
	})
}

// newestStable is the newest version before the present one that is stable and differs.
func newestStable(versions []*apiv1.AppHistory_Version, differ func(present, earlier *apiv1.AppSpec) bool) *apiv1.AppHistory_Version {
	last := len(versions) - 1
	if last < 1 {
		return nil
	}
	unknown := nothingKnown(versions)
	for _, version := range slices.Backward(versions[:last]) {
		if (unknown || Stable(version)) && differ(versions[last].GetSpec(), version.GetSpec()) {
			return version
		}
	}
	return nil
}

// nothingKnown reports whether the master has noted nothing of any version.
func nothingKnown(versions []*apiv1.AppHistory_Version) bool {
	return !slices.ContainsFunc(versions, func(v *apiv1.AppHistory_Version) bool { return v.GetCameUp() || v.GetFailure() != "" })
}

func roleNamed(app *apiv1.AppSpec, name string) *apiv1.RoleSpec {
	for _, role := range app.GetRoles() {
		if role.GetName() == name {
			return role
		}
	}
	return nil
}
