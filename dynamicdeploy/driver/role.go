package driver

import (
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/dynamicdeploy/plan"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// role is one role of the app, or one that an earlier version had.
type role struct {
	name string
	// prefix is what its instances' names start with.
	prefix string
	plan   *plan.Role
}

// role finds a role by its name, made when there is none.
func (d *driver) roleNamed(name string) *role {
	if r, ok := d.roles[name]; ok {
		return r
	}
	r := &role{name: name, prefix: d.app}
	if name != "" {
		r.prefix += "-" + name
	}
	r.plan = plan.New(r.prefix, d.config.Master.Attempt)
	for node, state := range d.nodes {
		r.plan.SetNode(node, state)
	}
	d.roles[name] = r
	return r
}

// want takes what people want. Roles that the app has no longer are wanted zero times.
func (d *driver) setDesired(wanted *masterv1.Wanted, now time.Time) {
	d.desired = wanted
	for _, spec := range wanted.GetSpec().GetRoles() {
		d.roleNamed(spec.GetName())
	}
	for _, r := range d.roles {
		spec := roleOf(wanted.GetSpec(), r.name)
		r.plan.SetDesired(desiredOf(wanted, spec), now)
		for version := range wanted.GetVersions() {
			if same := r.equivalentVersion(wanted, version); same != version {
				r.plan.MergeVersion(version, same)
			}
		}
	}
}

// sameAsWanted is the wanted version if containers of the given one serve as well, else the given one: an app of several
// roles changes only those that differ, and going back keeps what still runs.
func (r *role) equivalentVersion(wanted *masterv1.Wanted, version int32) int32 {
	old, known := wanted.GetVersions()[version]
	if known && specs.SameContainers(roleOf(old, r.name), roleOf(wanted.GetSpec(), r.name)) {
		return wanted.GetVersion()
	}
	return version
}

// versionFitting is the newest version whose containers are given such resources, zero if none is.
func (r *role) versionWithResources(wanted *masterv1.Wanted, resources *corev1.Resources) int32 {
	if spec := roleOf(wanted.GetSpec(), r.name); spec != nil && proto.Equal(resourcesOf(spec), resources) {
		return wanted.GetVersion()
	}
	for _, version := range sortedVersions(wanted) {
		if spec := roleOf(wanted.GetVersions()[version], r.name); spec != nil && proto.Equal(resourcesOf(spec), resources) {
			return version
		}
	}
	return 0
}

// asked reports whether an ask is one of this role's.
func (r *role) ownsAsk(ask string) bool {
	instance, _, _ := strings.Cut(ask, "/")
	return r.plan.Number(instance) > 0
}

func (r *role) spec(wanted *masterv1.Wanted, version int32) *apiv1.RoleSpec {
	if spec := roleOf(specOf(wanted, version), r.name); spec != nil {
		return spec
	}
	return roleOf(wanted.GetSpec(), r.name)
}
