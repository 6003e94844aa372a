package spec

import (
	"slices"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Stable reports whether a version came up and did not fail, also later.
func Stable(version interface {
	GetCameUp() bool
	GetFailure() string
},
) bool {
	return version.GetCameUp() && version.GetFailure() == ""
}

// Earlier is the version that a rollback goes to: the newest stable one before the present that needs other instances; nil if there is none.
// If nothing is known of what became of any version, it is the one before the present. The versions are in the order of their numbers, the
// present one last.
func Earlier(versions []*apiv1.AppHistory_Version) *apiv1.AppHistory_Version {
	last := len(versions) - 1
	if last < 1 {
		return nil
	}
	if !slices.ContainsFunc(versions, func(v *apiv1.AppHistory_Version) bool { return v.GetCameUp() || v.GetFailure() != "" }) {
		return versions[last-1]
	}
	for _, version := range slices.Backward(versions[:last]) {
		if Stable(version) && NeedsNewInstances(versions[last].GetSpec(), version.GetSpec()) {
			return version
		}
	}
	return nil
}
