// Package spectest has invalid specs, each with the expected sentence. A spec can arrive as a manifest, as flags of the command
// line, by the ResourceManager's API or, as a container, at a node. The tests of all four use these cases and expect the same
// sentence.
package spectest

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// Case is one invalid spec.
type Case struct {
	Name string
	// Break makes the role of App invalid.
	Break func(role *apiv1.RoleSpec)
	// Keys are the lines of a manifest that do the same.
	Keys string
	// Flags are the flags of `mammoth deploy` that do the same; nil if there are none.
	Flags []string
	// OfApps is true if the fault is not in a container's spec, so that nodes cannot see it.
	OfApps bool
	// Sentence is the expected sentence.
	Sentence string
}

// App is the app that cases change: its role runs an image and listens on the port http.
func App() *apiv1.AppSpec {
	return &apiv1.AppSpec{Name: "web", Roles: []*apiv1.RoleSpec{{
		Image: "web:1", Instances: 1, Ports: []*corev1.Port{{Name: "http", ContainerPort: 8080}},
	}}}
}

// Broken is App after Break.
func (c Case) Broken() *apiv1.AppSpec {
	app := App()
	c.Break(app.GetRoles()[0])
	return app
}

// Manifest is the same app as a file.
func (c Case) Manifest() string {
	text := "name: web\nimage: web:1\n"
	if !strings.Contains(c.Keys, "ports:") {
		text += "ports: [{name: http, container: 8080}]\n"
	}
	return text + c.Keys + "\n"
}

// Arguments are the arguments of `mammoth deploy` for the same app.
func (c Case) Arguments() []string {
	arguments := []string{"deploy", "web:1", "--name", "web"}
	if !strings.Contains(strings.Join(c.Flags, " "), "--port") {
		arguments = append(arguments, "--port", "8080")
	}
	return append(arguments, c.Flags...)
}

// Container is the spec of a container of the app's role.
func (c Case) Container() *corev1.ContainerSpec {
	role := c.Broken().GetRoles()[0]
	args, _ := spec.Args(role)
	return &corev1.ContainerSpec{
		Runtime: corev1.ContainerSpec_DOCKER, Image: role.GetImage(), Command: role.GetCommand(), Args: args, Env: role.GetEnv(),
		WorkingDir: role.GetWorkingDir(), User: role.GetUser(), Network: role.GetNetwork(), Ports: role.GetPorts(), Health: role.GetHealth(),
		Pids: role.GetPids(), StopGrace: role.GetStop().GetGrace(), StopSignal: role.GetStop().GetSignal(),
	}
}

// health is a Break that changes the role's health check.
func health(change func(*corev1.HealthCheck)) func(*apiv1.RoleSpec) {
	return func(role *apiv1.RoleSpec) {
		role.Health = &corev1.HealthCheck{Probe: &corev1.HealthCheck_Tcp_{Tcp: &corev1.HealthCheck_Tcp{}}}
		change(role.GetHealth())
	}
}

func path(text string) func(*apiv1.RoleSpec) {
	return health(func(check *corev1.HealthCheck) {
		check.Probe = &corev1.HealthCheck_Http_{Http: &corev1.HealthCheck_Http{Path: text}}
	})
}

// Cases are all cases.
func Cases() []Case {
	return []Case{
		{
			Name: "a health check of a path that is none", Break: path("healthz"),
			Keys: "health: {http: {path: healthz}}", Sentence: `path must begin with "/", but is "healthz"`,
		},
		{
			Name: "a health check of a path with a blank", Break: path("/a b"),
			Keys: "health: {http: {path: /a b}}", Flags: []string{"--health", "http:/a b"}, Sentence: `path must have no blanks or control characters, but is "/a b"`,
		},
		{
			Name: "a health check of a port that is not there",
			Break: health(func(check *corev1.HealthCheck) {
				check.Probe = &corev1.HealthCheck_Tcp_{Tcp: &corev1.HealthCheck_Tcp{Port: "admin"}}
			}),
			Keys: "health: {tcp: {port: admin}}", Flags: []string{"--health", "tcp:admin"},
			Sentence: `the health check names the port "admin", but the role has only "http"`,
		},
		{
			Name: "a health check by nothing",
			Break: health(func(check *corev1.HealthCheck) {
				check.Probe = &corev1.HealthCheck_Exec_{Exec: &corev1.HealthCheck_Exec{}}
			}),
			Keys: "health: {exec: {command: []}}", Sentence: "the health check by exec has no command",
		},
		{
			Name: "a health check all the time", Break: health(func(check *corev1.HealthCheck) { check.Interval = durationpb.New(time.Millisecond) }),
			Keys: "health: {tcp: {}, interval: 1ms}", Sentence: "health.interval must be between 10ms and 1h, but is 1ms",
		},
		{
			Name: "a health check without an end", Break: health(func(check *corev1.HealthCheck) { check.Timeout = durationpb.New(time.Hour) }),
			Keys: "health: {tcp: {}, timeout: 1h}", Sentence: "health.timeout must be between 1ms and 1m, but is 1h",
		},
		{
			Name: "a health check that fails by success", Break: health(func(check *corev1.HealthCheck) { check.Healthy = -1 }),
			Keys: "health: {tcp: {}, healthy: -1}", Sentence: "healthy must be between 1 and 1000, but is -1",
		},
		{
			Name: "a health check that never fails", Break: health(func(check *corev1.HealthCheck) { check.Unhealthy = 1001 }),
			Keys: "health: {tcp: {}, unhealthy: 1001}", Sentence: "unhealthy must be between 1 and 1000, but is 1001",
		},
		{
			Name: "a grace of two days", Break: func(role *apiv1.RoleSpec) { role.Stop = &apiv1.StopPolicy{Grace: durationpb.New(48 * time.Hour)} },
			Keys: "stop: {grace: 48h}", Sentence: "stop.grace must be between 0s and 24h, but is 48h",
		},
		{
			Name: "a signal that is none", Break: func(role *apiv1.RoleSpec) { role.Stop = &apiv1.StopPolicy{Signal: "SIGNAL"} },
			Keys: "stop: {signal: SIGNAL}", Sentence: `"SIGNAL" is not a signal; write for example QUIT, SIGINT or a number`,
		},
		{
			Name: "a name of a port in capitals", Break: func(role *apiv1.RoleSpec) { role.Ports[0].Name = "Web" },
			Keys: "ports: [{name: Web, container: 8080}]", Flags: []string{"--port", "Web=8080"},
			Sentence: `"Web" cannot be the name of a port: a name has 1 to 15 lower-case letters, digits and "-", and starts with a letter`,
		},
		{
			Name: "two ports of one name", Break: func(role *apiv1.RoleSpec) {
				role.Ports = append(role.Ports, &corev1.Port{Name: "http", ContainerPort: 8081})
			},
			Keys: "ports: [{name: http, container: 8080}, {name: http, container: 8081}]", Flags: []string{"--port", "http=8080", "--port", "http=8081"},
			Sentence: `two ports are named "http"; give each a name of its own`,
		},
		{
			Name: "a port that is none", Break: func(role *apiv1.RoleSpec) { role.Ports[0].ContainerPort = 70000 },
			Keys: "ports: [http=70000]", Flags: []string{"--port", "70000"}, Sentence: "port http is 70000; a port is between 1 and 65535",
		},
		{
			Name: "a variable with a blank in its name", Break: func(role *apiv1.RoleSpec) { role.Env = map[string]string{"A B": "c"} },
			Keys: `env: {"A B": c}`, Flags: []string{"--env", "A B=c"},
			Sentence: `"A B" cannot be the name of an environment variable: a name has printable ASCII characters, but no space and no "="`,
		},
		{
			Name: "a command that begins with nothing", Break: func(role *apiv1.RoleSpec) { role.Command = []string{""} },
			Keys: `command: [""]`, Flags: []string{"--command", ""},
			Sentence: "command begins with an empty word; leave the key out for the image's own entry point",
		},
		{
			Name: "a folder that depends on another", Break: func(role *apiv1.RoleSpec) { role.WorkingDir = "srv" },
			Keys: "workingDir: srv", Sentence: `workingDir must be a path from the root on, as in /srv, but is "srv"`,
		},
		{
			Name: "a user that is none", Break: func(role *apiv1.RoleSpec) { role.User = "a b" },
			Keys: "user: a b", Sentence: `user must be a name, a uid, or either with a group as in 1000:1000, but is "a b"`,
		},
		{
			Name: "more processes than Linux has", Break: func(role *apiv1.RoleSpec) { role.Pids = 5_000_000 },
			Keys: "resources: {pids: 5000000}", Sentence: "pids must be between 1 and 4194304, but is 5000000",
		},
		{
			Name: "an app beside one whose name is none", OfApps: true,
			Break: func(role *apiv1.RoleSpec) { role.Placement = &apiv1.Placement{AntiAffinity: []string{"web-"}} },
			Keys:  "placement: {antiAffinity: [web-]}", Sentence: `"web-" cannot be the name of an app: it ends with "-"`,
		},
		{
			Name: "fewer than no instances on a node", OfApps: true,
			Break: func(role *apiv1.RoleSpec) { role.Placement = &apiv1.Placement{MaxPerNode: -1} },
			Keys:  "placement: {maxPerNode: -1}", Sentence: "maxPerNode must not be negative, but is -1; leave it out for no limit",
		},
		{
			Name: "a calendar with fewer than no instances", OfApps: true,
			Break: func(role *apiv1.RoleSpec) {
				role.Schedule = []*apiv1.ScheduleEntry{{Cron: "0 22 * * *", Instances: -1}}
			},
			Keys: `schedule: [{cron: "0 22 * * *", instances: -1}]`, Sentence: "-1 is not a number of instances; use 0 to 10000",
		},
		{
			Name: "less than nothing of a resource", OfApps: true,
			Break: func(role *apiv1.RoleSpec) { role.Resources = &corev1.Resources{Extended: map[string]int64{"gpu": -1}} },
			Keys:  "resources: {extended: {gpu: -1}}", Sentence: "gpu must not be negative, but is -1",
		},
		{
			Name: "a canary of more than everything", OfApps: true, Break: func(role *apiv1.RoleSpec) {
				role.Update = &apiv1.UpdatePolicy{Strategy: apiv1.UpdatePolicy_CANARY, MaxSurge: 1, CanaryPercent: 101}
			},
			Keys: "update: {strategy: canary, canaryPercent: 101}", Sentence: "canaryPercent must be between 1 and 100, but is 101",
		},
		{
			Name: "more failures than answers", OfApps: true, Break: func(role *apiv1.RoleSpec) {
				role.Update = &apiv1.UpdatePolicy{MaxSurge: 1, MaxErrorPercent: 101}
			},
			Keys: "update: {maxErrorPercent: 101}", Sentence: "maxErrorPercent must be between 0 and 100, but is 101",
		},
		{
			Name: "more instances than an app has", OfApps: true, Break: func(role *apiv1.RoleSpec) { role.Instances = 10_001 },
			Keys: "instances: 10001", Flags: []string{"--instances", "10001"},
			Sentence: "10001 instances are more than the 10000 that an app can have; split it into several apps",
		},
		{
			Name: "a rollout that can never be done", OfApps: true, Break: func(role *apiv1.RoleSpec) {
				role.Update = &apiv1.UpdatePolicy{MaxSurge: 1, MinHealthy: durationpb.New(time.Hour), Deadline: durationpb.New(time.Minute)}
			},
			Keys:     "update: {minHealthy: 1h, deadline: 1m}",
			Sentence: "minHealthy (1h) must be less than deadline (1m), or every rollout would fail",
		},
	}
}

// Names are invalid names of an app, a role or a zone, with the expected sentence; %s is "an app", "a role" or "a zone".
func Names() map[string]string {
	return map[string]string{
		"web-":   `"web-" cannot be the name of %s: it ends with "-"`,
		"Web":    `"Web" cannot be the name of %s: a name has 1 to 40 lower-case letters, digits and "-", and starts with a letter`,
		"a.b":    `"a.b" cannot be the name of %s: a name has 1 to 40 lower-case letters, digits and "-", and starts with a letter`,
		"my app": `"my app" cannot be the name of %s: a name has 1 to 40 lower-case letters, digits and "-", and starts with a letter`,
	}
}
