package driver

import (
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// roomHelp is what would help if there is no room for a new instance beside the one that it is to replace; empty if it replaces none whose
// container holds as much, or if the one before goes first in any case.
func (d *Master) roomHelp(r *role, now time.Time) string {
	spec := roleOf(d.desired.GetSpec(), r.name)
	if spec.GetUpdate().GetMaxUnavailable() > 0 || !d.replacesAlike(r, resourcesOf(spec), now) {
		return ""
	}
	if strategyOf(d.desired, spec).GetStrategy() != apiv1.UpdatePolicy_ROLLING {
		return "a rolling update with `maxUnavailable: 1` would do: an old instance then goes first and makes room for a new one"
	}
	return oldFirst
}

// oldFirst is what helps where a new instance finds no room beside the one that it is to replace.
const oldFirst = "`maxUnavailable: 1` in its update policy (`--max-unavailable 1`) would do: an old instance then goes first and makes room for a new one"

// replacesAlike reports whether an instance of a role is to be replaced whose container holds at least so much.
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

// covers reports whether a container with such resources holds as much as is needed.
func covers(has, needs *corev1.Resources) bool {
	for name, amount := range needs.GetExtended() {
		if has.GetExtended()[name] < amount {
			return false
		}
	}
	return has.GetCpuMillis() >= needs.GetCpuMillis() && has.GetMemoryBytes() >= needs.GetMemoryBytes() &&
		has.GetDiskBytes() >= needs.GetDiskBytes() && has.GetPorts() >= needs.GetPorts()
}
