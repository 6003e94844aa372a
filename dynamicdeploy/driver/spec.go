package driver

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/dynamicdeploy/plan"
	"github.com/mammoth-os/mammoth/internal/defaults"
	"github.com/mammoth-os/mammoth/internal/id"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// Labels of an instance's container.
const (
	labelInstance = "instance"
	labelRole     = "role"
	labelVersion  = "version"
)

// hesitation is how much longer than the node, which is to call an instance unhealthy itself, the driver waits.
const hesitation = 5 * time.Second

var strategies = map[apiv1.UpdatePolicy_Strategy]plan.Strategy{
	apiv1.UpdatePolicy_ROLLING: plan.Rolling, apiv1.UpdatePolicy_CANARY: plan.Canary, apiv1.UpdatePolicy_BLUE_GREEN: plan.BlueGreen,
}

// wantedOf is what plan is to bring about for a role.
func wantedOf(wanted *masterv1.Wanted, spec *apiv1.RoleSpec) plan.Wanted {
	update, restart, stop := spec.GetUpdate(), spec.GetRestart(), spec.GetStop()
	w := plan.Wanted{
		Count:   int(spec.GetInstances()),
		Version: wanted.GetVersion(),
		Update: plan.Update{
			MaxSurge: int(update.GetMaxSurge()), MaxUnavailable: int(update.GetMaxUnavailable()),
			Deadline:   duration(update.GetDeadline(), defaults.RolloutDeadline),
			MinHealthy: defaults.MinHealthy,
			Strategy:   strategies[update.GetStrategy()], Percent: int(update.GetCanaryPercent()), Exclusive: update.GetExclusive(),
			MaxErrorPercent: update.GetMaxErrorPercent(),
		},
		Restart: plan.Restart{
			Window:      duration(restart.GetWindow(), defaults.RestartWindow),
			MaxFailures: int(cmp.Or(restart.GetMaxFailures(), defaults.MaxFailures)),
			Backoff:     duration(restart.GetBackoff(), defaults.Backoff),
			MaxBackoff:  duration(restart.GetMaxBackoff(), defaults.MaxBackoff),
		},
		CanRevert: (update == nil || update.GetAutoRevert()) && !wanted.GetReverted() && wanted.GetVersion() > 1,
		Reverted:  wanted.GetReverted(),
		Paused:    wanted.GetPaused(),
	}
	if update.GetMinHealthy() != nil {
		w.Update.MinHealthy = update.GetMinHealthy().AsDuration() // none at all may be wanted
	}
	if percent := wanted.GetCanaryPercent(); percent > 0 {
		w.Update.Percent = int(percent)
	}
	if wanted.GetRestartBefore() != nil {
		w.RestartBefore = wanted.GetRestartBefore().AsTime()
	}
	switch {
	case stop.GetDrain() != nil:
		w.Drain = stop.GetDrain().AsDuration()
	case spec.GetExpose() != nil:
		w.Drain = defaults.Drain
	}
	if spec.GetHealth().GetProbe() != nil {
		w.StartPeriod = duration(spec.GetHealth().GetStartPeriod(), defaults.StartPeriod)
		w.Hesitation = hesitation
	}
	if wanted.GetStopped() || wanted.GetRemoving() {
		w.Count = 0
	}
	return w
}

// askOf asks for one container.
func askOf(app *apiv1.AppSpec, spec *apiv1.RoleSpec, ask plan.Ask, group string) *masterv1.Ask {
	message := &masterv1.Ask{
		Id: ask.ID, Count: 1, Resources: resourcesOf(spec), Priority: app.GetPriority(), Placement: spec.GetPlacement(), Group: group,
		Service: true, Replaces: ask.Replaces,
	}
	for _, node := range ask.Avoid {
		message.AvoidNodes = append(message.AvoidNodes, string(node))
	}
	return message
}

// resourcesOf are what a role's container is given, with a host port for each of its ports.
func resourcesOf(spec *apiv1.RoleSpec) *corev1.Resources {
	resources := &corev1.Resources{}
	if spec.GetResources() != nil {
		resources = proto.CloneOf(spec.GetResources())
	}
	resources.Ports = max(resources.GetPorts(), int64(len(spec.GetPorts())))
	return resources
}

// containerOf is what a node is to run. The node adds PORT and PORT_<NAME>, which with the host's network it alone knows.
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
		Image:   imageOf(spec),
		Command: spec.GetCommand(), Args: args, WithoutArgs: given && len(args) == 0, Env: env,
		WorkingDir: spec.GetWorkingDir(), User: spec.GetUser(), Network: spec.GetNetwork(), Ports: spec.GetPorts(),
		Health: spec.GetHealth(), Pids: spec.GetPids(), StopGrace: spec.GetStop().GetGrace(), StopSignal: spec.GetStop().GetSignal(), ReadOnlyRoot: spec.GetReadOnlyRoot(),
		Labels: map[string]string{
			labelInstance: start.Instance, labelRole: spec.GetName(), labelVersion: strconv.Itoa(int(start.Version)),
		},
	}
	if container.Image == "" {
		container.Runtime = corev1.ContainerSpec_PROCESS
	}
	return container
}

// imageOf names a role's image by its digest, so that every instance of a version runs the same.
func imageOf(spec *apiv1.RoleSpec) string {
	name := spec.GetImage()
	if spec.GetImageDigest() == "" || name == "" {
		return name
	}
	name, _, _ = strings.Cut(name, "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name = name[:colon]
	}
	return name + "@" + spec.GetImageDigest()
}

// roleOf finds a role in an app's spec, nil if it has none of that name.
func roleOf(app *apiv1.AppSpec, name string) *apiv1.RoleSpec {
	for _, spec := range app.GetRoles() {
		if spec.GetName() == name {
			return spec
		}
	}
	return nil
}

// specOf is the app's spec at a version, the newest where that is not known any more.
func specOf(wanted *masterv1.Wanted, version int32) *apiv1.AppSpec {
	if spec, ok := wanted.GetVersions()[version]; ok && version != wanted.GetVersion() {
		return spec
	}
	return wanted.GetSpec()
}

func seen(container id.Container, status *corev1.ContainerStatus) plan.Status {
	s := plan.Status{Container: container, Reason: status.GetHealthDetail()}
	switch status.GetState() {
	case corev1.ContainerStatus_LOCALIZING:
		s.Stage = plan.Downloading
		if phases := status.GetPhases(); len(phases) > 0 && phases[len(phases)-1].GetName() == "load" {
			s.Stage = plan.Loading
		}
	case corev1.ContainerStatus_LAUNCHING:
		s.Stage = plan.Launching
	case corev1.ContainerStatus_RUNNING:
		s.Stage = plan.Running
		s.RunningSince = status.GetStartedAt().AsTime()
		switch status.GetHealth() {
		case corev1.ContainerStatus_NONE, corev1.ContainerStatus_HEALTHY:
			s.Health = plan.Good
			if status.GetHealthySince() != nil {
				s.GoodSince = status.GetHealthySince().AsTime()
			}
		case corev1.ContainerStatus_UNHEALTHY:
			s.Health = plan.Bad
		}
	case corev1.ContainerStatus_STOPPING:
		s.Stage = plan.Ending
	}
	return s
}

func exit(message *corev1.Exit) plan.Exit {
	e := plan.Exit{Blame: plan.App, Reason: message.GetMessage()}
	var otherwise string
	switch message.GetReason() {
	case corev1.Exit_EXITED:
		otherwise = "it exited with code " + strconv.Itoa(int(message.GetCode()))
	case corev1.Exit_OOM_KILLED:
		otherwise = "OOMKilled: it used more memory than its quota"
	case corev1.Exit_DISK_QUOTA_EXCEEDED:
		otherwise = "disk quota exceeded"
	case corev1.Exit_UNHEALTHY:
		otherwise = "its health check failed"
	case corev1.Exit_LAUNCH_FAILED:
		e.Blame, otherwise = plan.Either, "it could not be launched"
	case corev1.Exit_NODE_FAILED:
		e.Blame, otherwise = plan.Node, "its node could not run it"
	case corev1.Exit_VANISHED:
		e.Blame, otherwise = plan.Node, "it ended while nobody watched"
	case corev1.Exit_KILLED_FROM_OUTSIDE:
		e.Blame, otherwise = plan.Nobody, "it was killed from outside Mammoth"
	case corev1.Exit_PREEMPTED:
		e.Blame, otherwise = plan.Nobody, "it was preempted"
	case corev1.Exit_NODE_LOST:
		e.Blame, otherwise = plan.Nobody, "its node was lost"
	case corev1.Exit_LEASE_ENDED:
		e.Blame, otherwise = plan.Nobody, "its lease ended"
	default:
		e.Blame, otherwise = plan.Nobody, "it was stopped"
	}
	e.Reason = cmp.Or(e.Reason, otherwise)
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

func duration(message *durationpb.Duration, otherwise time.Duration) time.Duration {
	if message == nil || message.AsDuration() <= 0 {
		return otherwise
	}
	return message.AsDuration()
}

func sortedVersions(wanted *masterv1.Wanted) []int32 {
	versions := slices.Sorted(maps.Keys(wanted.GetVersions()))
	slices.Reverse(versions)
	return versions
}
