package driver

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/dynamicdeploy/plan"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// role is a role of the app, or one that an earlier version had.
type role struct {
	name string
	// prefix is the prefix of its instances' names.
	prefix string
	plan   *plan.Role
	// minHealthy and drain are those of the desired state, as reports of instances say them.
	minHealthy, drain time.Duration
	// asks are the role's asks that wait, by their ids.
	asks map[string]*masterv1.Ask
}

// roleNamed returns the role of that name, and creates it if there is none.
func (d *Master) roleNamed(name string) *role {
	if r, ok := d.roles[name]; ok {
		return r
	}
	r := &role{name: name, prefix: d.app, asks: map[string]*masterv1.Ask{}}
	if name != "" {
		r.prefix += "-" + name
	}
	r.plan = plan.New(r.prefix, d.attempt)
	for node, state := range d.nodes {
		r.plan.SetNode(node, state)
	}
	d.roles[name] = r
	return r
}

// setDesired sets the desired state. Roles that the app does not have any more get a count of zero.
func (d *Master) setDesired(desired *masterv1.Wanted, now time.Time) {
	d.desired = desired
	control := d.presentControl()
	for _, spec := range desired.GetSpec().GetRoles() {
		d.roleNamed(spec.GetName())
	}
	for _, r := range d.roles {
		spec := roleOf(desired.GetSpec(), r.name)
		next, strategy := desiredOf(desired, spec), d.strategyOf(spec)
		next.Update.Strategy, next.Update.Percent, next.Update.Exclusive = strategies[strategy.GetStrategy()], int(strategy.GetCanaryPercent()), strategy.GetExclusive()
		next.Paused = control.paused
		if percent := d.percent(); percent > 0 {
			next.Update.Percent = int(percent)
		}
		r.minHealthy, r.drain = next.Update.MinHealthy, next.Drain
		r.plan.SetDesired(next, now)
		for version := range desired.GetVersions() {
			if same := r.equivalentVersion(desired, version); same != version {
				r.plan.MergeVersion(version, same)
			}
		}
	}
}

// equivalentVersion is the desired version if containers of the given one serve it as well, else the given one. So an app of
// several roles replaces only the changed ones, and a rollback keeps what still runs.
func (r *role) equivalentVersion(desired *masterv1.Wanted, version int32) int32 {
	old, known := desired.GetVersions()[version]
	if known && specs.SameContainers(roleOf(old, r.name), roleOf(desired.GetSpec(), r.name)) {
		return desired.GetVersion()
	}
	return version
}

// versionWithResources is the newest version whose containers have such resources, zero if there is none.
func (r *role) versionWithResources(desired *masterv1.Wanted, resources *corev1.Resources) int32 {
	if spec := roleOf(desired.GetSpec(), r.name); spec != nil && proto.Equal(resourcesOf(spec), resources) {
		return desired.GetVersion()
	}
	for _, version := range sortedVersions(desired) {
		if spec := roleOf(desired.GetVersions()[version], r.name); spec != nil && proto.Equal(resourcesOf(spec), resources) {
			return version
		}
	}
	return 0
}

// inStartOrder returns the roles of the app, each after those in its `after`, and then the roles that only earlier versions had.
func (d *Master) inStartOrder() []*role {
	var ordered []*role
	present := map[string]bool{}
	for _, spec := range specs.StartOrder(d.desired.GetSpec().GetRoles()) {
		if r := d.roles[spec.GetName()]; r != nil {
			ordered = append(ordered, r)
			present[r.name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.roles)) {
		if !present[name] {
			ordered = append(ordered, d.roles[name])
		}
	}
	return ordered
}

// comesAfter is why a role must not begin yet, one sentence that names the roles in its `after` that are not ready. It is empty if
// all are ready.
func (d *Master) comesAfter(name string) string {
	var missing []string
	for _, other := range roleOf(d.desired.GetSpec(), name).GetAfter() {
		if r := d.roles[other]; r != nil && !r.plan.Ready() {
			missing = append(missing, other)
		}
	}
	switch len(missing) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("role %s begins once role %s is ready", name, missing[0])
	}
	return fmt.Sprintf("role %s begins once these roles are ready: %s", name, strings.Join(missing, ", "))
}

// placed are the instances that have a container.
func (r *role) placed(now time.Time) []plan.Instance {
	return slices.DeleteFunc(r.plan.Instances(now), func(instance plan.Instance) bool { return instance.Container.IsZero() })
}

// ownsAsk reports whether an ask is one of this role's.
func (r *role) ownsAsk(ask string) bool {
	instance, _, _ := strings.Cut(ask, "/")
	return r.plan.Number(instance) > 0
}

func (r *role) spec(desired *masterv1.Wanted, version int32) *apiv1.RoleSpec {
	if spec := roleOf(specOf(desired, version), r.name); spec != nil {
		return spec
	}
	return roleOf(desired.GetSpec(), r.name)
}
