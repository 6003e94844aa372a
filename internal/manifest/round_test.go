package manifest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// Every spec that the zone takes is written as a manifest that is read as the same spec.
func TestEverySpecIsWrittenAsAManifestThatMeansTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		app := drawApp(t)
		spec.Complete(app)
		if err := spec.Check(app); err != nil {
			t.Fatalf("this was meant to be a spec: %v", err)
		}
		written, err := manifest.FormatApp(app)
		if err != nil {
			t.Fatal(err)
		}
		read, err := manifest.ParseApp(written)
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		again := read.Spec
		spec.Complete(again)
		if !proto.Equal(app, again) {
			t.Fatalf("%v\nwas written\n%s\nand read\n%v", app, written, again)
		}
	})
}

// words are what YAML may take for something else than a text.
var words = []string{"", " ", "yes", "null", "~", "1.10", "0x1f", "1e3", "<<", "=", "a: b", "- a", "# no", "'", `"`, `\`, "a\nb", "\n", " a ", "a\tb", "\u0085", "\u2028", "\ufeff", "\x1b[31m", "é", "2026-01-01", "!!str a", "&a", "*a", "%a", "@a", "`a", "{a}", "[a]", "|", ">", "?", ":", ","}

func drawText(t *rapid.T, label string) string {
	if rapid.Bool().Draw(t, label+" is odd") {
		return rapid.SampledFrom(words).Draw(t, label)
	}
	return strings.ReplaceAll(rapid.String().Draw(t, label), "\x00", "")
}

func drawTexts(t *rapid.T, label string) []string {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return drawText(t, label) }), 0, 3).Draw(t, label)
}

// Every structure of options too.
func TestOptionsAreWrittenAndRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		app := &apiv1.AppSpec{Name: "ring", Framework: "ring", Options: drawValue(t, 3, true).GetStructValue()}
		spec.Complete(app)
		if err := spec.Check(app); err != nil {
			t.Fatalf("this was meant to be a spec: %v", err)
		}
		written, err := manifest.FormatApp(app)
		if err != nil {
			t.Fatal(err)
		}
		read, err := manifest.ParseApp(written)
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		again := read.Spec
		spec.Complete(again)
		if !proto.Equal(app, again) {
			t.Fatalf("%v\nwas written\n%s\nand read\n%v", app, written, again)
		}
	})
}

// drawValue draws a value of options; mapping says that it is to be one.
func drawValue(t *rapid.T, depth int, mapping bool) *structpb.Value {
	kind := rapid.IntRange(0, 5).Draw(t, "kind")
	switch {
	case mapping || kind == 0 && depth > 0:
		of := &structpb.Struct{Fields: map[string]*structpb.Value{}}
		for _, name := range drawTexts(t, "key") {
			of.Fields[name] = drawValue(t, depth-1, false)
		}
		return structpb.NewStructValue(of)
	case kind == 1 && depth > 0:
		of := &structpb.ListValue{}
		for range rapid.IntRange(0, 3).Draw(t, "items") {
			of.Values = append(of.Values, drawValue(t, depth-1, false))
		}
		return structpb.NewListValue(of)
	case kind == 2:
		return structpb.NewBoolValue(rapid.Bool().Draw(t, "flag"))
	case kind == 3:
		return structpb.NewNumberValue(rapid.OneOf(rapid.Float64(), rapid.Custom(func(t *rapid.T) float64 {
			return float64(rapid.Int64Range(-1<<53, 1<<53).Draw(t, "whole"))
		})).Draw(t, "number"))
	case kind == 4:
		return structpb.NewNullValue()
	}
	return structpb.NewStringValue(drawText(t, "text"))
}

func drawApp(t *rapid.T) *apiv1.AppSpec {
	app := &apiv1.AppSpec{
		Name: rapid.StringMatching(`[a-z][a-z0-9-]{0,10}[a-z0-9]`).Draw(t, "name"), Priority: rapid.Int32Range(-1_000_000, 1_000_000).Draw(t, "priority"),
		Queue: rapid.SampledFrom([]string{"", "default", "Apps_1", "no", "null"}).Draw(t, "queue"),
		Kind:  rapid.SampledFrom([]apiv1.AppSpec_Kind{apiv1.AppSpec_APP, apiv1.AppSpec_COMPANION}).Draw(t, "kind"),
	}
	roles := rapid.IntRange(1, 3).Draw(t, "roles")
	for i := range roles {
		role := drawRole(t)
		if app.GetKind() == apiv1.AppSpec_COMPANION {
			role.Placement.MaxPerNode, role.ReadOnlyRoot = 1, false
			role.Update.Strategy, role.Update.CanaryPercent, role.Update.Exclusive = apiv1.UpdatePolicy_ROLLING, 0, false
		}
		if app.GetKind() == apiv1.AppSpec_APP || len(role.GetCommand()) == 0 {
			role.Image = rapid.SampledFrom([]string{"web:1", "a b.image", "web@sha256:1"}).Draw(t, "image")
		}
		if roles > 1 || rapid.Bool().Draw(t, "has a name") {
			role.Name = fmt.Sprintf("%s%d", rapid.SampledFrom([]string{"r", "no", "name", "image"}).Draw(t, "role"), i)
		}
		if i > 0 && rapid.Bool().Draw(t, "has an order") {
			role.After = []string{app.GetRoles()[i-1].GetName()}
		}
		app.Roles = append(app.Roles, role)
	}
	return app
}

func drawRole(t *rapid.T) *apiv1.RoleSpec {
	role := &apiv1.RoleSpec{
		Instances: rapid.Int32Range(1, 3000).Draw(t, "instances"),
		Resources: &corev1.Resources{
			CpuMillis: rapid.Int64Range(0, 100_000).Draw(t, "cpu"), MemoryBytes: rapid.Int64Range(spec.MinMemory, spec.MaxMemory).Draw(t, "memory"),
			DiskBytes: rapid.Int64Range(0, spec.MaxDisk).Draw(t, "disk"),
			Extended:  rapid.MapOfN(rapid.SampledFrom([]string{"gpu", "a.b/c", "no"}), rapid.Int64Range(0, spec.MaxExtended), 0, 2).Draw(t, "extended"),
		},
		Pids:         rapid.Int64Range(0, spec.MaxPids).Draw(t, "pids"),
		Network:      rapid.SampledFrom([]corev1.ContainerSpec_Network{corev1.ContainerSpec_BRIDGE, corev1.ContainerSpec_HOST}).Draw(t, "network"),
		ReadOnlyRoot: rapid.Bool().Draw(t, "readOnlyRoot"), WorkingDir: rapid.SampledFrom([]string{"", "/srv", "/a b", "/~"}).Draw(t, "workingDir"),
		User: rapid.SampledFrom([]string{"", "1000", "1000:1000", "www-data:33", "0", "007"}).Draw(t, "user"), Expose: drawExpose(t), Health: drawHealth(t),
	}
	if rapid.Bool().Draw(t, "has a command") {
		role.Command = append([]string{"/bin/web"}, drawTexts(t, "command")...)
	}
	if rapid.Bool().Draw(t, "has arguments") {
		spec.SetArgs(role, drawTexts(t, "args"))
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "ports") {
		role.Ports = append(role.Ports, &corev1.Port{Name: []string{"http", "no", "p3"}[i], ContainerPort: int32(8080 + i)})
	}
	for range rapid.IntRange(0, 2).Draw(t, "schedule") {
		role.Schedule = append(role.Schedule, &apiv1.ScheduleEntry{
			Cron: "0 22 * * *", Timezone: rapid.SampledFrom([]string{"", "Asia/Shanghai", "UTC"}).Draw(t, "timezone"), Instances: rapid.Int32Range(0, 100).Draw(t, "then"),
		})
	}
	name := rapid.StringMatching(`[!-<>-~]{1,8}`)
	for range rapid.IntRange(0, 4).Draw(t, "env") {
		if role.Env == nil {
			role.Env = map[string]string{}
		}
		role.Env[name.Draw(t, "variable")] = drawText(t, "value")
	}
	drawPolicies(t, role)
	return role
}

func drawPolicies(t *rapid.T, role *apiv1.RoleSpec) {
	role.Placement = &apiv1.Placement{
		Policy:      rapid.SampledFrom([]apiv1.Placement_Policy{0, 1, 2}).Draw(t, "policy"),
		Constraints: rapid.SliceOfN(rapid.SampledFrom([]string{"disk_type == ssd", "a exists", "no"}), 0, 2).Draw(t, "constraints"),
		MaxPerNode:  rapid.Int32Range(0, 3).Draw(t, "maxPerNode"), SpreadOver: rapid.SampledFrom([]string{"", "rack", "no"}).Draw(t, "spreadOver"),
		Affinity: rapid.SliceOfN(rapid.SampledFrom([]string{"cache", "no"}), 0, 2).Draw(t, "affinity"),
	}
	role.Update = &apiv1.UpdatePolicy{
		Strategy: rapid.SampledFrom([]apiv1.UpdatePolicy_Strategy{0, 1, 2}).Draw(t, "strategy"),
		MaxSurge: rapid.Int32Range(0, 3).Draw(t, "maxSurge"), MaxUnavailable: rapid.Int32Range(0, 3).Draw(t, "maxUnavailable"),
		AutoRevert: rapid.Bool().Draw(t, "autoRevert"), Deadline: drawDuration(t, time.Second, spec.MaxDeadline),
		MaxErrorPercent: rapid.Float64Range(0, 100).Draw(t, "maxErrorPercent"),
	}
	switch role.GetUpdate().GetStrategy() {
	case apiv1.UpdatePolicy_CANARY:
		role.Update.CanaryPercent = rapid.Int32Range(0, 100).Draw(t, "canaryPercent")
	case apiv1.UpdatePolicy_BLUE_GREEN:
		role.Update.Exclusive = rapid.Bool().Draw(t, "exclusive")
	}
	role.Restart = &apiv1.RestartPolicy{
		Window: drawDuration(t, time.Millisecond, spec.MaxWindow), MaxFailures: rapid.Int32Range(0, 1_000_000).Draw(t, "maxFailures"),
		Backoff: drawDuration(t, time.Millisecond, time.Second), MaxBackoff: drawDuration(t, time.Second, spec.MaxBackoff),
	}
	role.Stop = &apiv1.StopPolicy{Grace: drawDuration(t, 0, spec.MaxGrace), Drain: drawDuration(t, 0, spec.MaxDrain), Signal: rapid.SampledFrom([]string{"", "QUIT", "SIGUSR1", "3", "RTMIN+3"}).Draw(t, "signal")}
}

func drawDuration(t *rapid.T, least, most time.Duration) *durationpb.Duration {
	if rapid.Bool().Draw(t, "is left out") {
		return nil
	}
	return durationpb.New(time.Duration(rapid.Int64Range(int64(least), int64(most)).Draw(t, "duration")))
}

func drawHealth(t *rapid.T) *corev1.HealthCheck {
	check := &corev1.HealthCheck{
		Interval: drawDuration(t, spec.MinInterval, spec.MaxInterval), Timeout: drawDuration(t, time.Millisecond, spec.MaxTimeout),
		StartPeriod: drawDuration(t, time.Millisecond, spec.MaxStartPeriod), Healthy: rapid.Int32Range(0, 1000).Draw(t, "healthy"),
		Unhealthy: rapid.Int32Range(0, 1000).Draw(t, "unhealthy"),
	}
	port := rapid.SampledFrom([]string{"", "http"}).Draw(t, "probed port")
	switch rapid.IntRange(0, 3).Draw(t, "probe") {
	case 0:
		return nil
	case 1:
		check.Probe = &corev1.HealthCheck_Http_{Http: &corev1.HealthCheck_Http{Path: rapid.SampledFrom([]string{"/", "/a?b=c#d", "/é"}).Draw(t, "path"), Port: port}}
	case 2:
		check.Probe = &corev1.HealthCheck_Tcp_{Tcp: &corev1.HealthCheck_Tcp{Port: port}}
	case 3:
		check.Probe = &corev1.HealthCheck_Exec_{Exec: &corev1.HealthCheck_Exec{Command: append([]string{"/check"}, drawTexts(t, "check")...)}}
	}
	return check
}

func drawExpose(t *rapid.T) *apiv1.Expose {
	if rapid.Bool().Draw(t, "is not exposed") {
		return nil
	}
	e := &apiv1.Expose{
		Balance: rapid.SampledFrom([]apiv1.Expose_Balance{0, 1, 2}).Draw(t, "balance"), Retry: rapid.SampledFrom([]apiv1.Expose_Retry{0, 1}).Draw(t, "retry"),
		Http: &apiv1.Expose_Http{
			Host: rapid.SampledFrom([]string{"a.test", "*", "*.a.test"}).Draw(t, "host"), Path: rapid.SampledFrom([]string{"", "/", "/a"}).Draw(t, "exposed path"),
			Hosts:        rapid.SliceOfN(rapid.SampledFrom([]string{"b.test", "no"}), 0, 2).Draw(t, "hosts"),
			MaxBodyBytes: rapid.SampledFrom([]int64{0, -1, 1, 1 << 20, 1 << 50}).Draw(t, "maxBody"),
		},
	}
	if rapid.Bool().Draw(t, "has timeouts") {
		e.Timeouts = &apiv1.Expose_Timeouts{Connect: drawDuration(t, 10*time.Millisecond, time.Minute), Idle: drawDuration(t, time.Second, 24*time.Hour)}
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "tcp") {
		e.Tcp = append(e.Tcp, &apiv1.Expose_Tcp{Listen: int32(2000 + i), Port: rapid.SampledFrom([]string{"", "http"}).Draw(t, "passed port")})
	}
	return e
}
