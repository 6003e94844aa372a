package spec

import (
	"cmp"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/defaults"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// DefaultQueue is the queue of an app that names none.
const DefaultQueue = "default"

// Complete fills in the default of everything that a spec leaves out, except the number of instances, for which the zone keeps the
// present number. It also sets what a spec does not choose: the number of ports, and the steps of a companion app's rollouts. A complete
// spec does not change.
func Complete(app *apiv1.AppSpec) {
	if app.GetQueue() == "" {
		app.Queue = DefaultQueue
	}
	if app.GetKind() != apiv1.AppSpec_EXTERNAL {
		app.Framework = FrameworkOf(app)
	}
	if len(app.GetOptions().GetFields()) == 0 {
		app.Options = nil
	}
	for _, role := range app.GetRoles() {
		if role == nil {
			continue
		}
		if companion := role.GetCompanion(); companion != nil && len(companion.GetOptions().GetFields()) == 0 {
			companion.Options = nil
		}
		completeResources(role)
		completeHealth(role.GetHealth())
		completeUpdate(role)
		completeRestart(role)
		completeStop(role)
		if http := role.GetExpose().GetHttp(); http != nil && http.GetPath() == "" && len(http.GetPaths()) == 0 {
			http.Path = "/"
		}
		if role.GetPlacement() == nil {
			role.Placement = &apiv1.Placement{}
		}
		if role.GetPlacement().GetPolicy() == apiv1.Placement_DEFAULT {
			role.Placement.Policy = apiv1.Placement_SPREAD
		}
		if app.GetKind() == apiv1.AppSpec_COMPANION {
			completeCompanionApp(role)
		}
	}
}

func completeResources(role *apiv1.RoleSpec) {
	if role.GetResources() == nil {
		role.Resources = &corev1.Resources{}
	}
	completeQuotas(role.GetResources(), instanceQuotas())
	role.Resources.Ports = int64(len(role.GetPorts()))
	role.Pids = cmp.Or(role.GetPids(), defaults.Pids)
}

// instanceQuotas are the default quotas of an instance.
func instanceQuotas() *corev1.Resources {
	return &corev1.Resources{CpuMillis: defaults.CPUMillis, MemoryBytes: defaults.MemoryBytes, DiskBytes: defaults.DiskBytes}
}

// completeQuotas fills in cpu, memory and disk.
func completeQuotas(r, preset *corev1.Resources) {
	r.CpuMillis = cmp.Or(r.GetCpuMillis(), preset.GetCpuMillis())
	r.MemoryBytes = cmp.Or(r.GetMemoryBytes(), preset.GetMemoryBytes())
	r.DiskBytes = cmp.Or(r.GetDiskBytes(), preset.GetDiskBytes())
}

func completeHealth(check *corev1.HealthCheck) {
	if check == nil {
		return
	}
	completeDuration(&check.Interval, defaults.ProbeInterval)
	completeDuration(&check.Timeout, defaults.ProbeTimeout)
	completeDuration(&check.StartPeriod, defaults.StartPeriod)
	if check.GetHealthy() == 0 {
		check.Healthy = defaults.Healthy
	}
	if check.GetUnhealthy() == 0 {
		check.Unhealthy = defaults.Unhealthy
	}
}

func completeUpdate(role *apiv1.RoleSpec) {
	if role.GetUpdate() == nil {
		role.Update = defaults.Role().GetUpdate()
	}
	update := role.GetUpdate()
	completeDuration(&update.Deadline, defaults.RolloutDeadline)
	// A rollout with a short deadline must count its instances sooner.
	completeDuration(&update.MinHealthy, min(defaults.MinHealthy, max(0, update.GetDeadline().AsDuration()/2)))
	if update.GetMaxSurge() == 0 && update.GetMaxUnavailable() == 0 {
		update.MaxSurge = defaults.MaxSurge // with both 0 a rollout could not begin
	}
	if update.GetStrategy() == apiv1.UpdatePolicy_CANARY && update.GetCanaryPercent() == 0 {
		update.CanaryPercent = defaults.CanaryPercent
	}
	if once := update.GetOnce(); once.GetStrategy() == apiv1.UpdatePolicy_CANARY && once.GetCanaryPercent() == 0 {
		once.CanaryPercent = defaults.CanaryPercent
	}
}

func completeRestart(role *apiv1.RoleSpec) {
	if role.GetRestart() == nil {
		role.Restart = &apiv1.RestartPolicy{}
	}
	restart := role.GetRestart()
	completeDuration(&restart.Window, defaults.RestartWindow)
	completeDuration(&restart.Backoff, defaults.Backoff)
	completeDuration(&restart.MaxBackoff, defaults.MaxBackoff)
	if restart.GetMaxFailures() == 0 {
		restart.MaxFailures = defaults.MaxFailures
	}
}

func completeStop(role *apiv1.RoleSpec) {
	if role.GetStop() == nil {
		role.Stop = &apiv1.StopPolicy{}
	}
	completeDuration(&role.Stop.Grace, defaults.StopGrace)
	drain := time.Duration(0)
	if role.GetExpose() != nil {
		drain = defaults.Drain
	}
	completeDuration(&role.Stop.Drain, drain)
}

// completeCompanionApp limits a companion app's role to one instance at a time on a node, because successive instances share a state
// directory and a listening address.
func completeCompanionApp(role *apiv1.RoleSpec) {
	if role.GetPlacement().GetMaxPerNode() == 0 {
		role.Placement.MaxPerNode = 1
	}
	role.Update.MaxSurge = 0
	role.Update.MaxUnavailable = max(role.GetUpdate().GetMaxUnavailable(), 1)
}

func completeDuration(field **durationpb.Duration, preset time.Duration) {
	if *field == nil {
		*field = durationpb.New(preset)
	}
}
