package driver

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/dynamicdeploy/plan"
	"github.com/mammoth-os/mammoth/internal/id"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// roles owns the roles of the app and those that an earlier version had, and what is known of the nodes, which a new role is told.
type roles struct {
	app     string
	attempt int32
	byName  map[string]*role
	nodes   map[id.Node]plan.NodeState
}

func newRoles(app string, attempt int32) roles {
	return roles{app: app, attempt: attempt, byName: map[string]*role{}, nodes: map[id.Node]plan.NodeState{}}
}

// named returns the role of that name, and creates it if there is none.
func (l *roles) named(name string) *role {
	if r, ok := l.byName[name]; ok {
		return r
	}
	r := &role{name: name, prefix: l.app, control: &control{}, asks: map[string]*masterv1.Ask{}}
	if name != "" {
		r.prefix += "-" + name
	}
	r.plan = plan.New(r.prefix, l.attempt)
	for node, state := range l.nodes {
		r.plan.SetNode(node, state)
	}
	l.byName[name] = r
	return r
}

// each is all roles, in no order.
func (l *roles) each() iter.Seq[*role] { return maps.Values(l.byName) }

// sorted is all roles by name.
func (l *roles) sorted() []*role {
	list := make([]*role, 0, len(l.byName))
	for _, name := range slices.Sorted(maps.Keys(l.byName)) {
		list = append(list, l.byName[name])
	}
	return list
}

func (l *roles) forget(name string) { delete(l.byName, name) }

// empty reports whether no role has an instance.
func (l *roles) empty() bool {
	for r := range l.each() {
		if !r.plan.Empty() {
			return false
		}
	}
	return true
}

func (l *roles) setNode(node id.Node, state plan.NodeState) {
	l.nodes[node] = state
	for r := range l.each() {
		r.plan.SetNode(node, state)
	}
}

// inStartOrder returns the roles of the app, each after those in its `after`, and then the roles that only earlier versions had.
func (l *roles) inStartOrder(app *apiv1.AppSpec) []*role {
	var ordered []*role
	present := map[string]bool{}
	for _, spec := range specs.StartOrder(app.GetRoles()) {
		if r := l.byName[spec.GetName()]; r != nil {
			ordered = append(ordered, r)
			present[r.name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.byName)) {
		if !present[name] {
			ordered = append(ordered, l.byName[name])
		}
	}
	return ordered
}

// comesAfter is why the role of a spec must not begin yet, one sentence that names the roles in its `after` that are not ready. It is
// empty if all are ready.
func (l *roles) comesAfter(spec *apiv1.RoleSpec) string {
	var missing []string
	for _, other := range spec.GetAfter() {
		if r := l.byName[other]; r != nil && !r.plan.Ready() {
			missing = append(missing, other)
		}
	}
	switch len(missing) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("role %s begins once role %s is ready", spec.GetName(), missing[0])
	}
	return fmt.Sprintf("role %s begins once these roles are ready: %s", spec.GetName(), strings.Join(missing, ", "))
}

// role is a role of the app, or one that an earlier version had.
type role struct {
	name string
	// prefix is the prefix of its instances' names.
	prefix string
	plan   *plan.Role
	// control is what people have set for its rollout.
	control *control
	// minHealthy and drain are those of the desired state, which reports of instances contain.
	minHealthy, drain time.Duration
	// asks are the role's asks that wait, by their ids.
	asks map[string]*masterv1.Ask
}

// take takes over what the attempt before left of the control, before the desired state is set. If that changes nothing of the role, the
// memo becomes one of the desired version: the rollout goes on as it is.
func (r *role) take(memo *roleMemo, desired *masterv1.DesiredState) {
	set, version := memo.control, desired.GetVersion()
	if !set.holdsFor(version) {
		if !r.unchangedSince(set.lastVersion(), desired) || !memo.plan.ContinueAs(version) {
			return
		}
		set.continueAs(version, memo.plan.Over())
	}
	*r.control = set
}

// setDesired sets the desired state of the role; a role that the app does not have any more gets a count of zero.
func (r *role) setDesired(desired *masterv1.DesiredState, now time.Time) {
	set, version := r.control, desired.GetVersion()
	if !set.holdsFor(version) && r.unchangedSince(set.lastVersion(), desired) && r.plan.ContinueAs(version) {
		set.continueAs(version, r.plan.Over())
	}
	set.renew(desired, r.name)
	spec := roleOf(desired.GetSpec(), r.name)
	next, strategy := desiredOf(desired, spec), set.strategy(spec)
	next.Update.Strategy, next.Update.Percent, next.Update.Exclusive = strategies[strategy.GetStrategy()], int(strategy.GetCanaryPercent()), strategy.GetExclusive()
	if share := set.share(); share > 0 {
		next.Update.Percent = int(share)
	}
	next.Paused = set.pauses()
	r.minHealthy, r.drain = next.Update.MinHealthy, next.Drain
	_, next.Reverted = set.brings()
	r.plan.SetDesired(next, now)
	for version := range desired.GetVersions() {
		if same := r.equivalentVersion(desired, version); same != version {
			r.plan.MergeVersion(version, same)
		}
	}
	r.plan.SetCanRevert(r.canRevert(desired))
}

// unchangedSince reports whether the desired version leaves the rollout of the role as it was with an earlier one.
func (r *role) unchangedSince(version int32, desired *masterv1.DesiredState) bool {
	earlier, known := desired.GetVersions()[version]
	return known && specs.SameRollout(roleOf(earlier, r.name), roleOf(desired.GetSpec(), r.name))
}

// canRevert reports whether the role is taken back if its rollout fails.
func (r *role) canRevert(desired *masterv1.DesiredState) bool {
	spec := roleOf(desired.GetSpec(), r.name)
	if spec == nil || spec.GetUpdate() != nil && !spec.GetUpdate().GetAutoRevert() {
		return false
	}
	to, _ := r.revertsTo(desired)
	_, reverts := r.control.brings()
	return to > 0 && !reverts
}

// revertsTo is the version that the role is taken back to if its rollout fails, zero if there is none: the newest with other containers
// that came up and did not fail. One role of several counts by itself: what became of the others does not matter. whole is true if the
// app is taken back as a whole, since it has one role, or that version did not have this one.
func (r *role) revertsTo(desired *masterv1.DesiredState) (to int32, whole bool) {
	present, one := roleOf(desired.GetSpec(), r.name), len(desired.GetSpec().GetRoles()) < 2
	for _, note := range slices.Backward(desired.GetNotes()) {
		cameUp := specs.Stable(note) || !one && note.GetVersion() == r.plan.Before()
		earlier := roleOf(desired.GetVersions()[note.GetVersion()], r.name)
		if note.GetVersion() < desired.GetVersion() && cameUp && !specs.SameContainers(earlier, present) {
			return note.GetVersion(), one || earlier == nil
		}
	}
	return 0, false
}

// ask records an ask that waits, or that it has changed.
func (r *role) ask(ask *masterv1.Ask) { r.asks[ask.GetId()] = ask }

// dropAsk records that an ask is granted or withdrawn.
func (r *role) dropAsk(id string) { delete(r.asks, id) }

// waiting lists the asks that wait, by their ids.
func (r *role) waiting() []*masterv1.Ask {
	list := make([]*masterv1.Ask, 0, len(r.asks))
	for _, id := range slices.Sorted(maps.Keys(r.asks)) {
		list = append(list, r.asks[id])
	}
	return list
}

// equivalentVersion is the desired version if containers of the given one serve it as well, else the given one. So an app of
// several roles replaces only the changed ones, and a rollback keeps what still runs.
func (r *role) equivalentVersion(desired *masterv1.DesiredState, version int32) int32 {
	old, known := desired.GetVersions()[version]
	if known && specs.SameContainers(roleOf(old, r.name), roleOf(desired.GetSpec(), r.name)) {
		return desired.GetVersion()
	}
	return version
}

// versionWithResources is the newest version whose containers have such resources, zero if there is none.
func (r *role) versionWithResources(desired *masterv1.DesiredState, resources *corev1.Resources) int32 {
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

// placed are the instances that have a container.
func (r *role) placed(now time.Time) []plan.Instance {
	return slices.DeleteFunc(r.plan.Instances(now), func(instance plan.Instance) bool { return instance.Container.IsZero() })
}

// ownsAsk reports whether an ask is one of this role's.
func (r *role) ownsAsk(ask string) bool {
	instance, _, _ := strings.Cut(ask, "/")
	return r.plan.Number(instance) > 0
}

func (r *role) spec(desired *masterv1.DesiredState, version int32) *apiv1.RoleSpec {
	if spec := roleOf(specOf(desired, version), r.name); spec != nil {
		return spec
	}
	return roleOf(desired.GetSpec(), r.name)
}
