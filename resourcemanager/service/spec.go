package service

import (
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/cron"
	"github.com/mammoth-os/mammoth/internal/defaults"
	"github.com/mammoth-os/mammoth/internal/expose"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

const (
	maxInstances = 10_000
	maxName      = 40
	maxPort      = 65535
)

// Complete checks a spec and fills in the defaults of everything that it leaves out, so that whoever looks at it later
// sees what counts. Only the number of instances is left to the loop, which knows how many there are already. An error
// is one sentence with what to do.
func Complete(spec *apiv1.AppSpec) error {
	if spec == nil {
		return invalid("a deployment needs a spec")
	}
	if err := checkName("name", spec.GetName()); err != nil {
		return err
	}
	if len(spec.GetRoles()) == 0 {
		return invalid("app %s has no role; say at least which image it runs", spec.GetName())
	}
	if apiv1.AppSpec_Kind_name[int32(spec.GetKind())] == "" {
		return invalid("%s is neither an app nor a framework", spec.GetName())
	}
	if spec.GetQueue() == "" {
		spec.Queue = "default"
	}
	seen := map[string]bool{}
	for _, role := range spec.GetRoles() {
		if len(spec.GetRoles()) > 1 || role.GetName() != "" {
			if err := checkName("role name", role.GetName()); err != nil {
				return err
			}
		}
		if seen[role.GetName()] {
			return invalid("app %s has two roles named %q; give each a name of its own", spec.GetName(), role.GetName())
		}
		seen[role.GetName()] = true
		err := completeProgram(spec.GetKind(), role)
		if err == nil {
			err = completeRole(role)
		}
		if err != nil {
			return fmt.Errorf("app %s: %w", spec.GetName(), err)
		}
		if spec.GetKind() == apiv1.AppSpec_FRAMEWORK {
			completeFramework(role)
		}
	}
	return nil
}

func completeRole(role *apiv1.RoleSpec) error {
	if err := checkCount(role.GetInstances()); err != nil {
		return err
	}
	if err := checkSchedule(role.GetSchedule()); err != nil {
		return err
	}
	if err := completeResources(role); err != nil {
		return err
	}
	if err := checkPorts(role.GetPorts(), role.GetNetwork()); err != nil {
		return err
	}
	for name := range role.GetEnv() {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return invalid("%q cannot be the name of an environment variable", name)
		}
	}
	if err := completeHealth(role); err != nil {
		return err
	}
	if err := completePlacement(role); err != nil {
		return err
	}
	if err := completePolicies(role); err != nil {
		return err
	}
	return checkExpose(role)
}

func checkSchedule(entries []*apiv1.ScheduleEntry) error {
	for _, entry := range entries {
		if _, err := cron.Parse(entry.GetCron(), entry.GetTimezone()); err != nil {
			return invalid("%w", err)
		}
		if err := checkCount(entry.GetInstances()); err != nil {
			return err
		}
	}
	return nil
}

func completeResources(role *apiv1.RoleSpec) error {
	if role.GetResources() == nil {
		role.Resources = &corev1.Resources{}
	}
	r := role.GetResources()
	for _, quantity := range []struct {
		name    string
		amount  *int64
		silent  int64
		example string
	}{
		{"cpu", &r.CpuMillis, defaults.CPUMillis, "0.5"},
		{"memory", &r.MemoryBytes, defaults.MemoryBytes, "256MiB"},
		{"disk", &r.DiskBytes, defaults.DiskBytes, "1GiB"},
		{"pids", &role.Pids, defaults.Pids, "1024"},
	} {
		if *quantity.amount < 0 {
			return invalid("%s must be more than nothing, not %d; write for example %s", quantity.name, *quantity.amount, quantity.example)
		}
		if *quantity.amount == 0 {
			*quantity.amount = quantity.silent
		}
	}
	for name, amount := range r.GetExtended() {
		if amount < 0 {
			return invalid("%s must not be negative, but is %d", name, amount)
		}
	}
	r.Ports = int64(len(role.GetPorts()))
	return nil
}

func checkPorts(ports []*corev1.Port, network corev1.ContainerSpec_Network) error {
	names, numbers := map[string]bool{}, map[int32]bool{}
	for _, port := range ports {
		if err := checkName("port name", port.GetName()); err != nil {
			return err
		}
		if names[port.GetName()] {
			return invalid("two ports are named %q; give each a name of its own", port.GetName())
		}
		names[port.GetName()] = true
		number := port.GetContainerPort()
		switch {
		case number < 0 || number > maxPort:
			return invalid("port %s is %d; a port is between 1 and %d", port.GetName(), number, maxPort)
		case number == 0 && network == corev1.ContainerSpec_BRIDGE:
			return invalid("port %s has no number; say on which port the container listens", port.GetName())
		case number > 0 && numbers[number]:
			return invalid("port %d is declared twice; an app listens on a port once", number)
		}
		numbers[number] = true
	}
	return nil
}

func completeHealth(role *apiv1.RoleSpec) error {
	health := role.GetHealth()
	if health == nil {
		return nil
	}
	port := ""
	needsPort := true
	switch probe := health.GetProbe().(type) {
	case *corev1.HealthCheck_Http_:
		if !strings.HasPrefix(probe.Http.GetPath(), "/") {
			return invalid("the health path %q must begin with \"/\"", probe.Http.GetPath())
		}
		if strings.ContainsAny(probe.Http.GetPath(), " \t\r\n") {
			return invalid("the health path %q must have no blanks", probe.Http.GetPath())
		}
		port = probe.Http.GetPort()
	case *corev1.HealthCheck_Tcp_:
		port = probe.Tcp.GetPort()
	case *corev1.HealthCheck_Exec_:
		needsPort = false
		if len(probe.Exec.GetCommand()) == 0 {
			return invalid("the health check by exec has no command")
		}
	default:
		return invalid("the health check says neither http, tcp nor exec")
	}
	if needsPort {
		if err := portExists(role, port, "the health check"); err != nil {
			return err
		}
	}
	for _, d := range []struct {
		name   string
		field  **durationpb.Duration
		silent time.Duration
	}{
		{"interval", &health.Interval, defaults.ProbeInterval},
		{"timeout", &health.Timeout, defaults.ProbeTimeout},
		{"start period", &health.StartPeriod, defaults.StartPeriod},
	} {
		if err := completeDuration("the health check's "+d.name, d.field, d.silent); err != nil {
			return err
		}
		if (*d.field).AsDuration() == 0 {
			return invalid("the health check's %s must be longer than nothing", d.name)
		}
	}
	// Nodes refuse what would cost them more.
	if interval := health.GetInterval().AsDuration(); interval < 10*time.Millisecond {
		return invalid("the health check's interval is %v; the least is 10ms", interval)
	}
	if timeout := health.GetTimeout().AsDuration(); timeout > time.Minute {
		return invalid("the health check's timeout is %v; the most is 1m", timeout)
	}
	if health.GetHealthy() < 0 || health.GetUnhealthy() < 0 {
		return invalid("the health check's counts must not be negative")
	}
	if health.GetHealthy() == 0 {
		health.Healthy = defaults.Healthy
	}
	if health.GetUnhealthy() == 0 {
		health.Unhealthy = defaults.Unhealthy
	}
	return nil
}

func completePlacement(role *apiv1.RoleSpec) error {
	if role.GetPlacement() == nil {
		role.Placement = &apiv1.Placement{}
	}
	p := role.GetPlacement()
	if p.GetMaxPerNode() < 0 {
		return invalid("maxPerNode must not be negative, but is %d; leave it out for no limit", p.GetMaxPerNode())
	}
	if p.GetPolicy() == apiv1.Placement_DEFAULT {
		p.Policy = apiv1.Placement_SPREAD
	}
	return nil
}

// course is how a new version takes the place of the one before: a policy's own, or that of one change.
type course interface {
	GetStrategy() apiv1.UpdatePolicy_Strategy
	GetCanaryPercent() int32
	GetExclusive() bool
}

func checkCourse(course course) error {
	switch {
	case apiv1.UpdatePolicy_Strategy_name[int32(course.GetStrategy())] == "":
		return invalid("the update strategy must be rolling, canary or blue-green")
	case course.GetCanaryPercent() < 0 || course.GetCanaryPercent() > 100:
		return invalid("a canary is given 1 to 100 %% of the requests, not %d %%", course.GetCanaryPercent())
	case course.GetStrategy() != apiv1.UpdatePolicy_CANARY && course.GetCanaryPercent() != 0:
		return invalid("canaryPercent belongs to the strategy canary")
	case course.GetStrategy() != apiv1.UpdatePolicy_BLUE_GREEN && course.GetExclusive():
		return invalid("exclusive belongs to the strategy blue-green")
	}
	return nil
}

func completePolicies(role *apiv1.RoleSpec) error {
	if role.GetUpdate() == nil {
		role.Update = defaults.Role().GetUpdate()
	}
	update := role.GetUpdate()
	if err := checkCourse(update); err != nil {
		return err
	}
	if once := update.GetOnce(); once != nil {
		if err := checkCourse(once); err != nil {
			return err
		}
		if once.GetStrategy() == apiv1.UpdatePolicy_CANARY && once.GetCanaryPercent() == 0 {
			once.CanaryPercent = defaults.CanaryPercent
		}
	}
	switch {
	case update.GetMaxErrorPercent() < 0 || update.GetMaxErrorPercent() > 100:
		return invalid("maxErrorPercent must be between 0 and 100, but is %g", update.GetMaxErrorPercent())
	case update.GetMaxSurge() < 0 || update.GetMaxUnavailable() < 0:
		return invalid("maxSurge and maxUnavailable must not be negative")
	case update.GetMaxSurge() == 0 && update.GetMaxUnavailable() == 0:
		update.MaxSurge = defaults.MaxSurge // with neither no update could ever begin
	}
	if update.GetStrategy() == apiv1.UpdatePolicy_CANARY && update.GetCanaryPercent() == 0 {
		update.CanaryPercent = defaults.CanaryPercent
	}
	if role.GetRestart() == nil {
		role.Restart = &apiv1.RestartPolicy{}
	}
	restart := role.GetRestart()
	if restart.GetMaxFailures() < 0 {
		return invalid("maxFailures must not be negative, but is %d", restart.GetMaxFailures())
	}
	if restart.GetMaxFailures() == 0 {
		restart.MaxFailures = defaults.MaxFailures
	}
	if role.GetStop() == nil {
		role.Stop = &apiv1.StopPolicy{}
	}
	drain := time.Duration(0)
	if role.GetExpose() != nil {
		drain = defaults.Drain
	}
	for _, d := range []struct {
		name   string
		field  **durationpb.Duration
		silent time.Duration
	}{
		{"the update's deadline", &update.Deadline, defaults.RolloutDeadline},
		{"the restart window", &restart.Window, defaults.RestartWindow},
		{"the restart's backoff", &restart.Backoff, defaults.Backoff},
		{"the restart's longest backoff", &restart.MaxBackoff, defaults.MaxBackoff},
		{"the stop's grace", &role.Stop.Grace, defaults.StopGrace},
		{"the stop's drain", &role.Stop.Drain, drain},
	} {
		if err := completeDuration(d.name, d.field, d.silent); err != nil {
			return err
		}
	}
	if restart.GetMaxBackoff().AsDuration() < restart.GetBackoff().AsDuration() {
		return invalid("the restart's longest backoff (%s) is shorter than its first (%s)", restart.GetMaxBackoff().AsDuration(), restart.GetBackoff().AsDuration())
	}
	return nil
}

func completeDuration(name string, field **durationpb.Duration, silent time.Duration) error {
	if *field == nil {
		*field = durationpb.New(silent)
		return nil
	}
	if err := (*field).CheckValid(); err != nil || (*field).AsDuration() < 0 {
		return invalid("%s must be a duration that is not negative, for example 10s", name)
	}
	return nil
}

func checkExpose(role *apiv1.RoleSpec) error {
	if http := role.GetExpose().GetHttp(); http != nil && http.GetPath() == "" && len(http.GetPaths()) == 0 {
		http.Path = "/"
	}
	var ports []string
	for _, port := range role.GetPorts() {
		ports = append(ports, port.GetName())
	}
	return expose.Check(role.GetExpose(), ports)
}

func portExists(role *apiv1.RoleSpec, name, who string) error {
	if len(role.GetPorts()) == 0 {
		return invalid("%s needs a port, and none is declared; say on which port the app listens", who)
	}
	if name == "" {
		return nil
	}
	for _, port := range role.GetPorts() {
		if port.GetName() == name {
			return nil
		}
	}
	return invalid("%s names port %q, which is not declared", who, name)
}

func checkNetwork(role *apiv1.RoleSpec, allowed bool) error {
	if role.GetNetwork() == corev1.ContainerSpec_HOST && !allowed {
		return fmt.Errorf("the operator of this zone does not allow the host's network; use the bridge network: %w", errdefs.ErrPermissionDenied)
	}
	return nil
}

func checkCount(instances int32) error {
	switch {
	case instances < 0:
		return invalid("%d instances cannot be; ask for 0 to %d", instances, maxInstances)
	case instances > maxInstances:
		return invalid("%d instances are more than the %d that an app can have; split it into several apps", instances, maxInstances)
	}
	return nil
}

// checkName says which character it does not like.
func checkName(what, name string) error {
	if name == "" {
		return invalid("the %s is empty; use lower-case letters, digits and \"-\", beginning with a letter", what)
	}
	for i, r := range name {
		switch {
		case r >= 'a' && r <= 'z':
		case i > 0 && (r >= '0' && r <= '9' || r == '-'):
		case i == 0 && (r >= '0' && r <= '9' || r == '-'):
			return invalid("the %s %q begins with %q; it has to begin with a lower-case letter", what, name, r)
		default:
			return invalid("the %s %q has a %s in it; use lower-case letters, digits and \"-\"", what, name, characterName(r))
		}
	}
	if len(name) > maxName {
		return invalid("the %s %q has %d characters; at most %d are allowed", what, name, len(name), maxName)
	}
	return nil
}

func characterName(r rune) string {
	switch {
	case r == ' ':
		return "space"
	case r == '\t' || r == '\n' || r == '\r':
		return "line break or tab"
	}
	return fmt.Sprintf("%q", r)
}

func invalid(format string, arguments ...any) error {
	return fmt.Errorf(format+": %w", append(arguments, errdefs.ErrInvalidArgument)...)
}
