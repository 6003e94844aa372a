package spec

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/cron"
	"github.com/mammoth-os/mammoth/internal/expose"
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// Check checks a complete spec and returns an error of type Faults. The zone checks whether the queue, images and nodes exist.
func Check(app *apiv1.AppSpec) error {
	if faults := check(app); len(faults) > 0 {
		return faults
	}
	return nil
}

// CheckDraft is Check for a spec whose images were not looked up. Ports that a role leaves to its image are assumed to exist.
func CheckDraft(app *apiv1.AppSpec) error {
	draft := proto.CloneOf(app)
	for _, role := range draft.GetRoles() {
		if role.GetImage() != "" && len(role.GetPorts()) == 0 {
			role.Ports = assumedPorts(role)
		}
	}
	return Check(draft)
}

// assumedPorts are the ports that a role without ports refers to, and its first port.
func assumedPorts(role *apiv1.RoleSpec) []*corev1.Port {
	names := []string{role.GetHealth().GetHttp().GetPort(), role.GetHealth().GetTcp().GetPort(), role.GetExpose().GetHttp().GetPort()}
	for _, tcp := range role.GetExpose().GetTcp() {
		names = append(names, tcp.GetPort())
	}
	var ports []*corev1.Port
	for _, name := range names {
		if name == "" {
			name = firstPort
		}
		if !slices.ContainsFunc(ports, func(port *corev1.Port) bool { return port.GetName() == name }) {
			ports = append(ports, &corev1.Port{Name: name, ContainerPort: int32(len(ports) + 1)})
		}
	}
	return ports[:min(len(ports), MaxList)]
}

func check(app *apiv1.AppSpec) Faults {
	c := &checker{}
	if size := proto.Size(app); size > MaxBytes {
		// A spec that is too large is not examined any further.
		c.fail("", "the spec has %s, but the limit is %s; put large values into the image, or let the program fetch them", resource.FormatBytes(int64(size)), resource.FormatBytes(MaxBytes))
		return c.faults
	}
	c.name("name", app.GetName())
	if apiv1.AppSpec_Kind_name[int32(app.GetKind())] == "" {
		c.fail("kind", "kind must be app or companion, not %d", app.GetKind())
	}
	if !queueName.MatchString(app.GetQueue()) {
		c.fail("queue", "%s cannot be the name of a queue; see \"mammoth queue ls\" for those that there are", quoted(app.GetQueue()))
	}
	if priority := app.GetPriority(); priority < -1_000_000 || priority > 1_000_000 {
		c.fail("priority", "priority must be between -1000000 and 1000000, but is %d", priority)
	}
	switch {
	case app.GetKind() == apiv1.AppSpec_EXTERNAL && len(app.GetRoles()) > 0:
		c.fail("roles", "an app whose application master is outside of the zone has no roles")
	case app.GetKind() == apiv1.AppSpec_EXTERNAL || FrameworkOf(app) != DynamicDeploy:
	case len(app.GetRoles()) == 0:
		c.fail("roles", "the app has no role; give it one with an image")
	case len(app.GetRoles()) > MaxRoles:
		c.fail("roles", "there are %d roles, but the limit is %d; split it into several apps", len(app.GetRoles()), MaxRoles)
	}
	c.checkFrameworkOf(app)
	seen := map[string]bool{}
	for _, role := range app.GetRoles() {
		c.role = ""
		if len(app.GetRoles()) > 1 || role.GetName() != "" {
			c.name("roles", role.GetName())
		}
		if seen[role.GetName()] {
			c.fail("roles", "two roles are named %q; give each a name of its own", role.GetName())
		}
		seen[role.GetName()] = true
		c.role = role.GetName()
		c.checkRole(app.GetKind(), role)
	}
	c.role = ""
	c.checkOrder(app.GetRoles())
	if most := mostInstances(app); most > MaxInstances && len(app.GetRoles()) > 1 {
		c.fail("roles", "the roles have %d instances together, and an app has at most %d; split it into several apps", most, MaxInstances)
	}
	return c.faults
}

// CheckInstances checks the numbers of instances of a spec whose other fields are valid.
func CheckInstances(app *apiv1.AppSpec) error {
	c := &checker{}
	for _, role := range app.GetRoles() {
		c.role = role.GetName()
		c.count("instances", role.GetInstances())
	}
	c.role = ""
	if most := mostInstances(app); len(c.faults) == 0 && most > MaxInstances {
		c.fail("roles", "the roles would have %d instances together, and an app has at most %d; split it into several apps", most, MaxInstances)
	}
	if len(c.faults) > 0 {
		return c.faults
	}
	return nil
}

// mostInstances is the largest number of instances that an app can have by its counts and schedules.
func mostInstances(app *apiv1.AppSpec) int64 {
	var sum int64
	for _, role := range app.GetRoles() {
		most := role.GetInstances()
		for _, entry := range role.GetSchedule() {
			most = max(most, entry.GetInstances())
		}
		sum += int64(most)
	}
	return sum
}

func (c *checker) checkRole(kind apiv1.AppSpec_Kind, role *apiv1.RoleSpec) {
	c.checkProgram(kind, role)
	c.checkCompanion(kind, role.GetCompanion())
	c.count("instances", role.GetInstances())
	c.checkSchedule(role.GetSchedule())
	c.checkResources(role)
	c.checkPorts(role)
	c.checkEnv(role.GetEnv())
	c.checkHealth(role)
	if err := expose.Check(role.GetExpose(), portNames(role)); err != nil {
		c.fail("expose", "%s", wire.Sentence(err))
	}
	c.checkPlacement(role.GetPlacement())
	c.checkUpdate(role.GetUpdate())
	c.checkRestart(role.GetRestart())
	c.checkStop(role.GetStop())
	if kind == apiv1.AppSpec_COMPANION {
		c.checkCompanionApp(role)
	}
}

// TooMany is the error for more instances than an app can have.
func TooMany(instances int64) error {
	return fmt.Errorf("%d instances are more than the %d that an app can have; split it into several apps", instances, MaxInstances)
}

func (c *checker) count(key string, instances int32) {
	switch {
	case instances < 0:
		c.fail(key, "%d is not a number of instances; use 0 to %d", instances, MaxInstances)
	case instances > MaxInstances:
		c.fail(key, "%v", TooMany(int64(instances)))
	}
}

func (c *checker) checkSchedule(entries []*apiv1.ScheduleEntry) {
	c.atMost("schedule", len(entries))
	for i, entry := range entries {
		key := "schedule." + strconv.Itoa(i)
		if c.plain(key+".cron", "cron", entry.GetCron(), maxText) {
			if err := cron.Check(entry.GetCron()); err != nil {
				c.fail(key+".cron", "%v", err)
			}
		}
		if c.plain(key+".timezone", "timezone", entry.GetTimezone(), maxText) {
			if _, err := cron.Location(entry.GetTimezone()); err != nil {
				c.fail(key+".timezone", "%v", err)
			}
		}
		c.count(key+".instances", entry.GetInstances())
	}
}

// atMost checks that a list has at most MaxList items.
func (c *checker) atMost(key string, n int) {
	if n > MaxList {
		c.fail(key, "%s has %d entries, but the limit is %d", key, n, MaxList)
	}
}

func (c *checker) checkResources(role *apiv1.RoleSpec) {
	r := role.GetResources()
	c.quantity(quantity{"cpu", "0.5", r.GetCpuMillis(), 1, MaxCPU, resource.FormatCPU})
	c.quantity(quantity{"memory", "256MiB", r.GetMemoryBytes(), MinMemory, MaxMemory, resource.ExactBytes})
	c.quantity(quantity{"disk", "1GiB", r.GetDiskBytes(), 1, MaxDisk, resource.ExactBytes})
	c.pids(role.GetPids())
	if n := len(r.GetExtended()); n > resource.Size-resource.Extended {
		c.fail("resources.extended", "extended names %d resources, and a zone has at most %d", n, resource.Size-resource.Extended)
	}
	for _, name := range slices.Sorted(maps.Keys(r.GetExtended())) {
		if why := extendedWrong(name, r.GetExtended()[name]); why != "" {
			c.failAt([]string{"resources", "extended", name}, "%s", why)
		}
	}
}

// CheckExtended returns what is wrong with an amount of an extended resource, as errdefs.ErrInvalidArgument.
func CheckExtended(name string, amount int64) error {
	if why := extendedWrong(name, amount); why != "" {
		return fmt.Errorf("%s: %w", why, errdefs.ErrInvalidArgument)
	}
	return nil
}

// extendedWrong is a clause, and empty if nothing is wrong.
func extendedWrong(name string, amount int64) string {
	switch {
	case !resourceName.MatchString(name):
		return fmt.Sprintf("%s cannot be the name of a resource: a name has 1 to 63 letters, digits, \"-\", \"_\", \".\" and \"/\", and starts with a letter", quoted(name))
	case slices.Contains([]string{"cpu", "memory", "disk", "ports"}, name):
		return fmt.Sprintf("%s is not an extended resource: every node has it", name)
	case amount < 0:
		return fmt.Sprintf("%s must not be negative, but is %d", name, amount)
	case amount > MaxExtended:
		return fmt.Sprintf("%s is %d, but the limit is %d", name, amount, int64(MaxExtended))
	}
	return ""
}

// quantity is one of a container's quotas.
type quantity struct {
	key, example        string
	amount, least, most int64
	write               func(int64) string
}

func (c *checker) quantity(q quantity) {
	key := "resources." + q.key
	switch {
	case q.amount <= 0:
		c.fail(key, "%s must be more than 0, not %d; write for example %s", q.key, q.amount, q.example)
	case q.amount < q.least:
		c.fail(key, "%s is %s, but the minimum is %s: no engine starts a container with less", q.key, q.write(q.amount), q.write(q.least))
	case q.amount > q.most:
		c.fail(key, "%s is %s, but the limit is %s", q.key, q.write(q.amount), q.write(q.most))
	}
}

func (c *checker) pids(n int64) {
	if n < 1 || n > MaxPids {
		c.fail("resources.pids", "pids must be between 1 and %d, but is %d", MaxPids, n)
	}
}

func (c *checker) checkPorts(role *apiv1.RoleSpec) {
	c.atMost("ports", len(role.GetPorts()))
	names, numbers := map[string]bool{}, map[int32]bool{}
	for i, port := range role.GetPorts() {
		key := "ports." + strconv.Itoa(i)
		name, number := port.GetName(), port.GetContainerPort()
		switch err := CheckPortName(name); {
		case err != nil:
			c.fail(key+".name", "%v", err)
		case names[name]:
			c.fail(key, "two ports are named %q; give each a name of its own", name)
		case number < 0 || number > maxPort:
			c.fail(key+".container", "port %s is %d; a port is between 1 and %d", name, number, maxPort)
		case number == 0 && role.GetNetwork() == corev1.ContainerSpec_BRIDGE:
			c.fail(key+".container", "port %s has no number; say on which port the container listens", name)
		case number > 0 && numbers[number]:
			c.fail(key+".container", "port %d is declared twice; an app listens on a port once", number)
		}
		names[name], numbers[number] = true, true
	}
}

func portNames(role *apiv1.RoleSpec) []string {
	var names []string
	for _, port := range role.GetPorts() {
		names = append(names, port.GetName())
	}
	return names
}

// port checks a reference to a port by its name; empty is the first port.
func (c *checker) port(key, who, port string, role *apiv1.RoleSpec) {
	names := portNames(role)
	switch {
	case len(names) == 0:
		c.fail(key, "%s needs a port, and the role has none; give it one with ports: or --port", who)
	case port != "" && !slices.Contains(names, port):
		c.fail(key, "%s names the port %s, but the role has only \"%s\"", who, quoted(port), strings.Join(names, `", "`))
	}
}

func (c *checker) checkHealth(role *apiv1.RoleSpec) {
	check := role.GetHealth()
	if check == nil {
		return
	}
	switch probe := check.GetProbe().(type) {
	case *corev1.HealthCheck_Http_:
		if err := CheckPath(probe.Http.GetPath()); err != nil {
			c.fail("health.http.path", "%v", err)
		}
		c.port("health", "the health check", probe.Http.GetPort(), role)
	case *corev1.HealthCheck_Tcp_:
		c.port("health", "the health check", probe.Tcp.GetPort(), role)
	case *corev1.HealthCheck_Exec_:
		c.words("health.exec.command", probe.Exec.GetCommand())
		if len(probe.Exec.GetCommand()) == 0 {
			c.fail("health.exec", "the health check by exec has no command")
		} else if probe.Exec.GetCommand()[0] == "" {
			c.fail("health.exec.command", "the command of the health check begins with an empty word")
		}
	default:
		c.fail("health", "the health check has none of http, tcp and exec; give it one")
	}
	c.duration("health.interval", check.GetInterval(), MinInterval, MaxInterval)
	c.duration("health.timeout", check.GetTimeout(), shortestTimeout, MaxTimeout)
	c.duration("health.startPeriod", check.GetStartPeriod(), shortestTimeout, MaxStartPeriod)
	for _, count := range []struct {
		key string
		n   int32
	}{{"healthy", check.GetHealthy()}, {"unhealthy", check.GetUnhealthy()}} {
		if count.n < 1 || count.n > 1000 {
			c.fail("health."+count.key, "%s must be between 1 and 1000, but is %d", count.key, count.n)
		}
	}
}

func (c *checker) checkPlacement(p *apiv1.Placement) {
	if apiv1.Placement_Policy_name[int32(p.GetPolicy())] == "" {
		c.fail("placement.policy", "policy must be spread or pack, not %d", p.GetPolicy())
	}
	if p.GetMaxPerNode() < 0 {
		c.fail("placement.maxPerNode", "maxPerNode must not be negative, but is %d; leave it out for no limit", p.GetMaxPerNode())
	}
	c.atMost("placement.constraints", len(p.GetConstraints()))
	for i, text := range p.GetConstraints() {
		c.plain("placement.constraints."+strconv.Itoa(i), "a constraint", text, maxText)
	}
	c.plain("placement.spreadOver", "spreadOver", p.GetSpreadOver(), maxText)
	for _, list := range []struct {
		key  string
		apps []string
	}{{"placement.affinity", p.GetAffinity()}, {"placement.antiAffinity", p.GetAntiAffinity()}} {
		c.atMost(list.key, len(list.apps))
		for i, name := range list.apps {
			c.name(list.key+"."+strconv.Itoa(i), name)
		}
	}
}
