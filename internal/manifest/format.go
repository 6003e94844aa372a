package manifest

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// FormatApp writes a spec as the manifest that ParseApp reads back to the same spec. Every value is written out,
// defaults too.
func FormatApp(app *apiv1.AppSpec) ([]byte, error) {
	m := &mapping{}
	m.app(app)
	if roles := app.GetRoles(); len(roles) == 1 && roles[0].GetName() == "" {
		m.role(roles[0])
	} else {
		all := &mapping{}
		for _, role := range roles {
			one := &mapping{}
			one.role(role)
			all.add(role.GetName(), &one.node)
		}
		m.object("roles", all)
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	m.node.Kind = yaml.MappingNode
	if err := encoder.Encode(&m.node); err != nil {
		return nil, fmt.Errorf("write the manifest of %q: %w", app.GetName(), err)
	}
	return out.Bytes(), encoder.Close()
}

// A mapping is a YAML mapping under construction. Empty values are left out, except by always.
type mapping struct{ node yaml.Node }

// app writes the keys of the app itself, without its roles.
func (m *mapping) app(app *apiv1.AppSpec) {
	m.text("name", app.GetName())
	m.text("queue", app.GetQueue())
	m.number("priority", int64(app.GetPriority()))
	if app.GetKind() == apiv1.AppSpec_COMPANION {
		m.text("kind", "companion")
	}
	if app.GetFramework() != spec.DynamicDeploy {
		m.text("framework", app.GetFramework())
	}
	m.structure("options", app.GetOptions())
}

func (m *mapping) role(r *apiv1.RoleSpec) {
	companion := r.GetCompanion()
	if companion == nil {
		m.text("image", r.GetImage())
	}
	m.texts("after", r.GetAfter())
	m.number("instances", int64(r.GetInstances()))
	var schedule []*mapping
	for _, entry := range r.GetSchedule() {
		one := &mapping{}
		one.text("cron", entry.GetCron())
		if entry.GetTimezone() != "" {
			one.text("timezone", entry.GetTimezone())
		}
		one.always("instances", int64(entry.GetInstances()))
		schedule = append(schedule, one)
	}
	m.list("schedule", schedule)
	switch args, given := spec.Args(r); {
	case companion != nil:
		m.companion(companion)
	case given && len(args) == 0:
		m.texts("command", r.GetCommand())
		m.add("args", &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle})
	default:
		m.texts("command", r.GetCommand())
		m.texts("args", args)
	}
	m.resources(r)
	var ports []*mapping
	for _, port := range r.GetPorts() {
		one := &mapping{}
		one.text("name", port.GetName())
		one.number("container", int64(port.GetContainerPort()))
		ports = append(ports, one)
	}
	m.list("ports", ports)
	env := &mapping{}
	for _, name := range keys(r.GetEnv()) {
		env.add(name, scalar("!!str", r.GetEnv()[name]))
	}
	m.object("env", env)
	m.health(r.GetHealth())
	m.expose(r.GetExpose())
	if r.GetNetwork() == corev1.ContainerSpec_HOST {
		m.text("network", "host")
	}
	if r.GetReadOnlyRoot() {
		m.add("readOnlyRoot", scalar("!!bool", "true"))
	}
	m.text("workingDir", r.GetWorkingDir())
	m.text("user", r.GetUser())
	m.policies(r)
}

// companion writes the companion of a framework package.
func (m *mapping) companion(c *apiv1.Companion) {
	if len(c.GetOptions().GetFields()) == 0 {
		m.text("companion", c.GetPackage())
		return
	}
	one := &mapping{}
	one.structure(c.GetPackage(), c.GetOptions())
	m.object("companion", one)
}

func (m *mapping) resources(r *apiv1.RoleSpec) {
	given, amounts := r.GetResources(), &mapping{}
	if given.GetCpuMillis() > 0 {
		amounts.text("cpu", strconv.FormatInt(given.GetCpuMillis(), 10)+"m")
	}
	amounts.bytes("memory", given.GetMemoryBytes())
	amounts.bytes("disk", given.GetDiskBytes())
	amounts.number("pids", r.GetPids())
	extended := &mapping{}
	for _, name := range keys(given.GetExtended()) {
		extended.always(name, given.GetExtended()[name])
	}
	amounts.object("extended", extended)
	m.object("resources", amounts)
}

func (m *mapping) health(check *corev1.HealthCheck) {
	if check == nil {
		return
	}
	outer, probe := &mapping{}, &mapping{}
	switch kind := check.GetProbe().(type) {
	case *corev1.HealthCheck_Http_:
		probe.text("path", kind.Http.GetPath())
		probe.text("port", kind.Http.GetPort())
		outer.object("http", probe)
	case *corev1.HealthCheck_Tcp_:
		probe.text("port", kind.Tcp.GetPort())
		outer.add("tcp", probe.whole())
	case *corev1.HealthCheck_Exec_:
		probe.texts("command", kind.Exec.GetCommand())
		outer.object("exec", probe)
	}
	outer.duration("interval", check.GetInterval())
	outer.duration("timeout", check.GetTimeout())
	outer.number("healthy", int64(check.GetHealthy()))
	outer.number("unhealthy", int64(check.GetUnhealthy()))
	outer.duration("startPeriod", check.GetStartPeriod())
	m.object("health", outer)
}

func (m *mapping) policies(r *apiv1.RoleSpec) {
	placement := &mapping{}
	placement.text("policy", nameOf(policies, r.GetPlacement().GetPolicy()))
	placement.texts("constraints", r.GetPlacement().GetConstraints())
	placement.number("maxPerNode", int64(r.GetPlacement().GetMaxPerNode()))
	placement.text("spreadOver", r.GetPlacement().GetSpreadOver())
	placement.texts("affinity", r.GetPlacement().GetAffinity())
	placement.texts("antiAffinity", r.GetPlacement().GetAntiAffinity())
	m.object("placement", placement)
	if u := r.GetUpdate(); u != nil {
		update := &mapping{}
		update.text("strategy", nameOf(strategies, u.GetStrategy()))
		update.always("maxSurge", int64(u.GetMaxSurge()))
		update.always("maxUnavailable", int64(u.GetMaxUnavailable()))
		update.add("autoRevert", scalar("!!bool", strconv.FormatBool(u.GetAutoRevert())))
		update.duration("minHealthy", u.GetMinHealthy())
		update.duration("deadline", u.GetDeadline())
		update.number("canaryPercent", int64(u.GetCanaryPercent()))
		if u.GetExclusive() {
			update.add("exclusive", scalar("!!bool", "true"))
		}
		if u.GetMaxErrorPercent() != 0 {
			update.add("maxErrorPercent", scalar("", strconv.FormatFloat(u.GetMaxErrorPercent(), 'f', -1, 64)))
		}
		m.object("update", update)
	}
	if p := r.GetRestart(); p != nil {
		restart := &mapping{}
		restart.duration("window", p.GetWindow())
		restart.number("maxFailures", int64(p.GetMaxFailures()))
		restart.duration("backoff", p.GetBackoff())
		restart.duration("maxBackoff", p.GetMaxBackoff())
		m.object("restart", restart)
	}
	stop := &mapping{}
	stop.duration("grace", r.GetStop().GetGrace())
	stop.duration("drain", r.GetStop().GetDrain())
	stop.text("signal", r.GetStop().GetSignal())
	m.object("stop", stop)
}

func (m *mapping) add(key string, value *yaml.Node) {
	m.node.Kind = yaml.MappingNode
	m.node.Content = append(m.node.Content, scalar("!!str", key), value)
}

func (m *mapping) whole() *yaml.Node {
	m.node.Kind = yaml.MappingNode
	return &m.node
}

func (m *mapping) object(key string, value *mapping) {
	if len(value.node.Content) > 0 {
		m.add(key, &value.node)
	}
}

func (m *mapping) list(key string, items []*mapping) {
	if len(items) == 0 {
		return
	}
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for _, item := range items {
		item.node.Style = yaml.FlowStyle
		list.Content = append(list.Content, item.whole())
	}
	m.add(key, list)
}

func (m *mapping) text(key, value string) {
	if value != "" {
		m.add(key, scalar("!!str", value))
	}
}

func (m *mapping) texts(key string, values []string) {
	if len(values) == 0 {
		return
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, value := range values {
		list.Content = append(list.Content, scalar("!!str", value))
	}
	m.add(key, list)
}

func (m *mapping) number(key string, value int64) {
	if value != 0 {
		m.always(key, value)
	}
}

func (m *mapping) always(key string, value int64) {
	m.add(key, scalar("!!int", strconv.FormatInt(value, 10)))
}

// bytes writes an amount exactly.
func (m *mapping) bytes(key string, value int64) {
	if value != 0 {
		m.text(key, resource.ExactBytes(value))
	}
}

func (m *mapping) duration(key string, value *durationpb.Duration) {
	if value != nil {
		m.text(key, value.AsDuration().String())
	}
}

func scalar(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value, Style: styleOf(value)}
}

// styleOf chooses a style in which a text is read back exactly. A text with special characters is quoted and escaped; ordinary text
// of several lines, such as a certificate, stays several lines. Zero leaves the choice to the library.
func styleOf(text string) yaml.Style {
	ordinary := func(line string) bool {
		return line != "" && strings.TrimSpace(line) == line && !strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) })
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for _, line := range lines {
		if !ordinary(line) && text != "" {
			return yaml.DoubleQuotedStyle
		}
	}
	if strings.Contains(text, "\n") {
		return yaml.LiteralStyle
	}
	return 0
}

func nameOf[T comparable](names map[string]T, value T) string {
	for name, candidate := range names {
		if candidate == value {
			return name
		}
	}
	return ""
}
