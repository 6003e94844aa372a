package driver

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/dynamicdeploy/plan"
	"github.com/mammoth-os/mammoth/internal/defaults"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/sentence"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// These labels identify an instance's container.
const (
	labelInstance = "instance"
	labelVersion  = "version"
)

// startMargin is how much longer than the node the driver waits for an instance to become healthy: the node is expected to
// report it unhealthy first.
const startMargin = 5 * time.Second

var strategies = map[apiv1.UpdatePolicy_Strategy]plan.Strategy{
	apiv1.UpdatePolicy_ROLLING: plan.Rolling, apiv1.UpdatePolicy_CANARY: plan.Canary, apiv1.UpdatePolicy_BLUE_GREEN: plan.BlueGreen,
}

// desiredOf converts the desired state of a role for plan, but for what the control of the role decides.
func desiredOf(desired *masterv1.DesiredState, spec *apiv1.RoleSpec) plan.Desired {
	update, restart, stop := spec.GetUpdate(), spec.GetRestart(), spec.GetStop()
	w := plan.Desired{
		Count:   int(spec.GetInstances()),
		Version: desired.GetVersion(),
		Update: plan.Update{
			MaxSurge: int(update.GetMaxSurge()), MaxUnavailable: int(update.GetMaxUnavailable()),
			Deadline:        duration(update.GetDeadline(), defaults.RolloutDeadline),
			MinHealthy:      defaults.MinHealthy,
			MaxErrorPercent: update.GetMaxErrorPercent(),
		},
		Restart: plan.Restart{
			Window:      duration(restart.GetWindow(), defaults.RestartWindow),
			MaxFailures: int(cmp.Or(restart.GetMaxFailures(), defaults.MaxFailures)),
			Backoff:     duration(restart.GetBackoff(), defaults.Backoff),
			MaxBackoff:  duration(restart.GetMaxBackoff(), defaults.MaxBackoff),
		},
	}
	if update.GetMinHealthy() != nil {
		w.Update.MinHealthy = update.GetMinHealthy().AsDuration() // zero is allowed
	}
	if desired.GetRestartBefore() != nil {
		w.RestartBefore = desired.GetRestartBefore().AsTime()
	}
	switch {
	case stop.GetDrain() != nil:
		w.Drain = stop.GetDrain().AsDuration()
	case spec.GetExpose() != nil:
		w.Drain = defaults.Drain
	}
	if spec.GetHealth().GetProbe() != nil {
		w.StartPeriod = duration(spec.GetHealth().GetStartPeriod(), defaults.StartPeriod)
		w.StartMargin = startMargin
	}
	if desired.GetStopped() || desired.GetRemoving() {
		w.Count, w.Stopped = 0, true
	}
	return w
}

// askOf converts an ask.
func askOf(app *apiv1.AppSpec, spec *apiv1.RoleSpec, ask plan.Ask, group string) *masterv1.Ask {
	message := &masterv1.Ask{
		Id: ask.ID, Count: 1, Resources: resourcesOf(spec), Priority: app.GetPriority(), Placement: spec.GetPlacement(), Group: group,
		Role:    spec.GetName(),
		Service: true, Replaces: ask.Replaces,
	}
	for _, node := range ask.Avoid {
		message.AvoidNodes = append(message.AvoidNodes, string(node))
	}
	return message
}

// resourcesOf is the resources of a role's container, with a host port for each of its ports.
func resourcesOf(spec *apiv1.RoleSpec) *corev1.Resources {
	resources := &corev1.Resources{}
	if spec.GetResources() != nil {
		resources = proto.CloneOf(spec.GetResources())
	}
	resources.Ports = max(resources.GetPorts(), int64(len(spec.GetPorts())))
	return resources
}

// containerOf is the spec of an instance's container. The node adds PORT and PORT_<NAME>, because it alone knows the ports
// of a container on the host's network.
func containerOf(app, registry string, spec *apiv1.RoleSpec, start plan.Start) *corev1.ContainerSpec {
	env := maps.Clone(spec.GetEnv())
	if env == nil {
		env = map[string]string{}
	}
	env["MAMMOTH_APP"] = app
	env["MAMMOTH_INSTANCE"] = start.Instance
	if registry != "" {
		env["MAMMOTH_REGISTRY"] = registry
	}
	env["MAMMOTH_VERSION"] = strconv.Itoa(int(start.Version))
	args, given := specs.Args(spec)
	container := &corev1.ContainerSpec{
		Runtime: corev1.ContainerSpec_DOCKER,
		Image:   specs.Pinned(spec.GetImage(), spec.GetImageDigest()),
		Command: spec.GetCommand(), Args: args, WithoutArgs: given && len(args) == 0, Env: env,
		WorkingDir: spec.GetWorkingDir(), User: spec.GetUser(), Network: spec.GetNetwork(), Ports: spec.GetPorts(),
		Health: spec.GetHealth(), Pids: spec.GetPids(), StopGrace: spec.GetStop().GetGrace(), StopSignal: spec.GetStop().GetSignal(), ReadOnlyRoot: spec.GetReadOnlyRoot(),
		Labels: map[string]string{
			labelInstance: start.Instance, labelVersion: strconv.Itoa(int(start.Version)),
		},
	}
	if container.Image == "" {
		container.Runtime = corev1.ContainerSpec_PROCESS
	}
	return container
}

// roleOf returns the role of that name in an app's spec, nil if there is none.
func roleOf(app *apiv1.AppSpec, name string) *apiv1.RoleSpec {
	for _, spec := range app.GetRoles() {
		if spec.GetName() == name {
			return spec
		}
	}
	return nil
}

// specOf is the app's spec of a version, or the newest if that version is not known any more.
func specOf(desired *masterv1.DesiredState, version int32) *apiv1.AppSpec {
	if spec, ok := desired.GetVersions()[version]; ok && version != desired.GetVersion() {
		return spec
	}
	return desired.GetSpec()
}

func statusOf(container id.Container, status *corev1.ContainerStatus) plan.Status {
	s := plan.Status{Container: container, Reason: status.GetHealthDetail()}
	switch status.GetState() {
	case corev1.ContainerStatus_LOCALIZING:
		s.Stage = plan.StageDownloading
		if phases := status.GetPhases(); len(phases) > 0 && phases[len(phases)-1].GetName() == "load" {
			s.Stage = plan.StageLoading
		}
	case corev1.ContainerStatus_LAUNCHING:
		s.Stage = plan.StageLaunching
	case corev1.ContainerStatus_RUNNING:
		s.Stage = plan.StageRunning
		s.RunningSince = status.GetStartedAt().AsTime()
		switch status.GetHealth() {
		case corev1.ContainerStatus_NONE, corev1.ContainerStatus_HEALTHY:
			s.Health = plan.Healthy
			if status.GetHealthySince() != nil {
				s.HealthySince = status.GetHealthySince().AsTime()
			}
		case corev1.ContainerStatus_UNHEALTHY:
			s.Health = plan.Unhealthy
		}
	case corev1.ContainerStatus_STOPPING:
		s.Stage = plan.StageStopping
	}
	return s
}

func exitOf(message *corev1.Exit) plan.Exit {
	e := plan.Exit{Blame: plan.BlameNobody, Reason: cmp.Or(message.GetMessage(), sentence.Exit(message))}
	switch message.GetReason() {
	case corev1.Exit_EXITED, corev1.Exit_OOM_KILLED, corev1.Exit_DISK_QUOTA_EXCEEDED, corev1.Exit_UNHEALTHY:
		e.Blame = plan.BlameApp
	case corev1.Exit_LAUNCH_FAILED:
		e.Blame = plan.BlameEither
	case corev1.Exit_NODE_FAILED, corev1.Exit_VANISHED:
		e.Blame = plan.BlameNode
	}
	return e
}

func labelledVersion(labels map[string]string) int32 {
	version, err := strconv.ParseInt(labels[labelVersion], 10, 32)
	if err != nil {
		return 0
	}
	return int32(version)
}

// byAge orders containers by their grant.
func byAge(a, b *masterv1.Allocation) int {
	c, _ := id.ParseContainer(a.GetLease().GetContainerId())
	d, _ := id.ParseContainer(b.GetLease().GetContainerId())
	return c.Compare(d)
}

func duration(message *durationpb.Duration, fallback time.Duration) time.Duration {
	if message == nil || message.AsDuration() <= 0 {
		return fallback
	}
	return message.AsDuration()
}

func sortedVersions(desired *masterv1.DesiredState) []int32 {
	versions := slices.Sorted(maps.Keys(desired.GetVersions()))
	slices.Reverse(versions)
	return versions
}
