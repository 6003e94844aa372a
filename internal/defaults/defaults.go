// Package defaults has the values for what a manifest, a command line or an application master leaves out. The command line,
// the ResourceManager, masters and nodes all use them, so that a missing value means the same everywhere.
// Nothing else has a default of its own for them.
package defaults

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// Quotas of an instance.
const (
	CPUMillis   = 500
	MemoryBytes = 256 << 20
	DiskBytes   = 1 << 30
	Pids        = 1024
)

// A rollout.
const (
	MaxSurge        = 1
	RolloutDeadline = 5 * time.Minute
	// MinHealthy is how long an instance must be healthy before it counts; half the deadline if that is shorter.
	MinHealthy = 10 * time.Second
	// CanaryPercent is a canary's share of the requests.
	CanaryPercent = 10
)

// The replacement of instances that fail.
const (
	RestartWindow = 10 * time.Minute
	MaxFailures   = 5
	Backoff       = time.Second
	MaxBackoff    = time.Minute
)

// The end of an instance.
const (
	StopGrace = 10 * time.Second
	// Drain is for instances that balancers route to; others are not drained.
	Drain = 10 * time.Second
)

// A health check.
const (
	ProbeInterval = time.Second
	ProbeTimeout  = time.Second
	StartPeriod   = time.Minute
	Healthy       = 1
	Unhealthy     = 3
)

// Role is a role in which everything but the image has its default.
func Role() *apiv1.RoleSpec {
	return &apiv1.RoleSpec{
		Instances: 1,
		Resources: &corev1.Resources{CpuMillis: CPUMillis, MemoryBytes: MemoryBytes, DiskBytes: DiskBytes},
		Pids:      Pids,
		Placement: &apiv1.Placement{},
		Update:    &apiv1.UpdatePolicy{MaxSurge: MaxSurge, AutoRevert: true, Deadline: durationpb.New(RolloutDeadline)},
		Restart: &apiv1.RestartPolicy{
			Window: durationpb.New(RestartWindow), MaxFailures: MaxFailures,
			Backoff: durationpb.New(Backoff), MaxBackoff: durationpb.New(MaxBackoff),
		},
		Stop: &apiv1.StopPolicy{Grace: durationpb.New(StopGrace)},
	}
}

// Probe is a health check in which everything but the probe has its default.
func Probe() *corev1.HealthCheck {
	return &corev1.HealthCheck{
		Interval: durationpb.New(ProbeInterval), Timeout: durationpb.New(ProbeTimeout),
		Healthy: Healthy, Unhealthy: Unhealthy, StartPeriod: durationpb.New(StartPeriod),
	}
}
