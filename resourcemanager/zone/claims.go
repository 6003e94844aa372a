package zone

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/distribution"
	"github.com/mammoth-os/mammoth/internal/expose"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/peer"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// exposed are an app's services that balancers route to, by name.
func exposed(spec *apiv1.AppSpec) map[string]*apiv1.Expose {
	services := map[string]*apiv1.Expose{}
	for _, role := range spec.GetRoles() {
		if role.GetExpose() != nil {
			services[specs.ServiceName(spec, role)] = role.GetExpose()
		}
	}
	return services
}

// checkClaims refuses a spec that wants a host and path, or a port, which another app has.
func (as *apps) checkClaims(spec *apiv1.AppSpec) error {
	wanted := exposed(spec)
	if len(wanted) == 0 {
		return nil
	}
	others := map[string]*apiv1.Expose{}
	for _, a := range as.byID {
		if a.record.GetName() == spec.GetName() {
			continue
		}
		for name, claim := range exposed(a.record.GetSpec()) {
			others[name] = claim
		}
	}
	for _, name := range id.SortedKeys(wanted) {
		if err := expose.Conflict(name, wanted[name], others); err != nil {
			return err
		}
		others[name] = wanted[name]
	}
	return nil
}

// imageUnused refuses to take a name from an image that an app's present version uses by that name. A name that means another image by
// now is used by nobody.
func (as *apps) imageUnused(name, digest string) error {
	for _, a := range as.sorted() {
		for _, role := range a.record.GetSpec().GetRoles() {
			if role.GetImageDigest() == digest && distribution.Tagged(role.GetImage()) == distribution.Tagged(name) {
				return fmt.Errorf("app %s uses image %s; remove the app, or deploy another image to it, first: %w", a.record.GetName(), name, errdefs.ErrFailedPrecondition)
			}
		}
	}
	return nil
}

// mayMoveImage refuses to let a name mean another image to whoever may not deploy over an app that uses the name, or may go back to a
// version that does: whoever deploys by that name next would run the other image.
func (as *apps) mayMoveImage(who peer.User, name string) error {
	for _, a := range as.sorted() {
		specs := []*apiv1.AppSpec{a.record.GetSpec()}
		for _, version := range a.record.GetVersions() {
			specs = append(specs, version.GetSpec())
		}
		for _, spec := range specs {
			uses := slices.ContainsFunc(spec.GetRoles(), func(role *apiv1.RoleSpec) bool {
				return role.GetImageDigest() != "" && distribution.Tagged(role.GetImage()) == distribution.Tagged(name)
			})
			if !uses {
				continue
			}
			if err := as.access.MayChange(who, a.owned(), "move the image name "+name+" of"); err != nil {
				return err
			}
			break
		}
	}
	return nil
}
