package driver

import (
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// roomHelp is what a person can do if there is no room for a new instance beside the one that it replaces. It is empty if it would
// not help: the new instance replaces none that holds as much, or old instances end first already.
func (d *Master) roomHelp(r *role, now time.Time) string {
	spec := roleOf(d.desired.GetSpec(), r.name)
	if spec.GetUpdate().GetMaxUnavailable() > 0 || !d.replacesAlike(r, resourcesOf(spec), now) {
		return ""
	}
	if r.control.strategy(spec).GetStrategy() != apiv1.UpdatePolicy_ROLLING {
		return "a rolling update with `maxUnavailable: 1` would help: an old instance then goes first and makes room for a new one"
	}
	return oldFirst
}

// oldFirst is the help if there is no room for a new instance beside the one that it replaces.
const oldFirst = "`maxUnavailable: 1` in its update policy (`--max-unavailable 1`) would help: an old instance then goes first and makes room for a new one"

// replacesAlike reports whether an instance of a role is to be replaced whose container holds at least what needs asks for.
func (d *Master) replacesAlike(r *role, needs *corev1.Resources, now time.Time) bool {
	before := d.desired.GetRestartBefore()
	for _, instance := range r.placed(now) {
		lease := d.containers.leaseOf(instance.Container.String())
		if lease == nil {
			continue
		}
		restarts := before != nil && lease.GetGrantedAt().AsTime().Before(before.AsTime())
		if (instance.Version != d.desired.GetVersion() || restarts) && covers(lease.GetResources(), needs) {
			return true
		}
	}
	return false
}

// covers reports whether has is at least needs in each resource.
func covers(has, needs *corev1.Resources) bool {
	for name, amount := range needs.GetExtended() {
		if has.GetExtended()[name] < amount {
			return false
		}
	}
	return has.GetCpuMillis() >= needs.GetCpuMillis() && has.GetMemoryBytes() >= needs.GetMemoryBytes() &&
		has.GetDiskBytes() >= needs.GetDiskBytes() && has.GetPorts() >= needs.GetPorts()
}
