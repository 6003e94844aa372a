package spec_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// full has a value in every field that a person can fill in.
func full() *apiv1.AppSpec {
	role := &apiv1.RoleSpec{
		Name: "front", Image: "web:1", Instances: 2, Command: []string{"/bin/web"}, Args: &structpb.ListValue{Values: []*structpb.Value{structpb.NewStringValue("--fast")}},
		Schedule:  []*apiv1.ScheduleEntry{{Cron: "0 22 * * *", Timezone: "Asia/Shanghai", Instances: 1}},
		Resources: &corev1.Resources{CpuMillis: 2010, MemoryBytes: 64 << 20, DiskBytes: 1 << 20, Extended: map[string]int64{"gpu": 1}},
		Pids:      100, Ports: []*corev1.Port{{Name: "http", ContainerPort: 8080}}, Env: map[string]string{"A": "b"},
		Health:    &corev1.HealthCheck{Probe: &corev1.HealthCheck_Http_{Http: &corev1.HealthCheck_Http{Path: "/", Port: "http"}}},
		Placement: &apiv1.Placement{Constraints: []string{"disk_type == ssd"}, SpreadOver: "rack", Affinity: []string{"a"}, AntiAffinity: []string{"b"}},
		Expose: &apiv1.Expose{
			Http: &apiv1.Expose_Http{Host: "a.test", Path: "/a", Port: "http", Hosts: []string{"b.test"}, Paths: []string{"/b"}, Certificate: "c", StickyCookie: "d"},
			Tcp:  []*apiv1.Expose_Tcp{{Listen: 2000, Port: "http"}},
		},
		WorkingDir: "/srv", User: "1000:1000", Stop: &apiv1.StopPolicy{Signal: "QUIT"},
	}
	worker := &apiv1.RoleSpec{
		Name: "worker", Image: "worker:1",
		Health: &corev1.HealthCheck{Probe: &corev1.HealthCheck_Exec_{Exec: &corev1.HealthCheck_Exec{Command: []string{"/check", "it"}}}},
	}
	feed := &apiv1.RoleSpec{
		Name: "feed", Image: "feed:1", Ports: []*corev1.Port{{Name: "feed", ContainerPort: 9000}},
		Health: &corev1.HealthCheck{Probe: &corev1.HealthCheck_Tcp_{Tcp: &corev1.HealthCheck_Tcp{Port: "feed"}}},
	}
	app := &apiv1.AppSpec{Name: "shop", Queue: "default", Roles: []*apiv1.RoleSpec{role, worker, feed}}
	spec.Complete(app)
	return app
}

// texts calls each with every text of a message, to be replaced by what it answers.
func texts(path string, m protoreflect.Message, each func(path, text string) string) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		at := path + "." + string(field.Name())
		isText := field.Kind() == protoreflect.StringKind
		switch {
		case field.IsMap() && field.MapValue().Kind() == protoreflect.StringKind:
			value.Map().Range(func(key protoreflect.MapKey, text protoreflect.Value) bool {
				value.Map().Set(key, protoreflect.ValueOfString(each(at, text.String())))
				return true
			})
		case field.IsMap():
		case field.IsList() && isText:
			for i := range value.List().Len() {
				value.List().Set(i, protoreflect.ValueOfString(each(fmt.Sprintf("%s.%d", at, i), value.List().Get(i).String())))
			}
		case field.IsList() && field.Message() != nil:
			for i := range value.List().Len() {
				texts(fmt.Sprintf("%s.%d", at, i), value.List().Get(i).Message(), each)
			}
		case isText:
			m.Set(field, protoreflect.ValueOfString(each(at, value.String())))
		case field.Message() != nil && !field.IsList():
			texts(at, value.Message(), each)
		}
		return true
	})
}

// Whatever text of a spec has a character that no program can be given, the spec is refused, and so is one with a text that
// no machine could take.
func TestEveryTextOfASpecIsChecked(t *testing.T) {
	if err := spec.Check(full()); err != nil {
		t.Fatal(err)
	}
	var paths []string
	texts("spec", full().ProtoReflect(), func(path, text string) string {
		paths = append(paths, path)
		return text
	})
	if len(paths) < 30 {
		t.Fatalf("only %d texts: %v", len(paths), paths)
	}
	for _, bad := range []string{"\x00", strings.Repeat("x", 140<<10)} {
		for _, broken := range paths {
			app := full()
			texts("spec", app.ProtoReflect(), func(path, text string) string {
				if path == broken {
					return text + bad
				}
				return text
			})
			err := spec.Check(app)
			if !errors.Is(err, errdefs.ErrInvalidArgument) || len(err.Error()) > 500 {
				t.Errorf("%s with %d bytes more: %v", broken, len(bad), err)
			}
		}
	}
}

// Whatever number of a spec is as large as its type takes, or below zero, the spec is refused.
func TestEveryNumberOfASpecIsBounded(t *testing.T) {
	app := full()
	for _, number := range []int64{-1, 1 << 31, 1 << 62} {
		for name, set := range map[string]func(*apiv1.RoleSpec){
			"instances":      func(r *apiv1.RoleSpec) { r.Instances = clip(number) },
			"schedule":       func(r *apiv1.RoleSpec) { r.Schedule[0].Instances = clip(number) },
			"cpu":            func(r *apiv1.RoleSpec) { r.Resources.CpuMillis = number },
			"memory":         func(r *apiv1.RoleSpec) { r.Resources.MemoryBytes = number },
			"disk":           func(r *apiv1.RoleSpec) { r.Resources.DiskBytes = number },
			"pids":           func(r *apiv1.RoleSpec) { r.Pids = number },
			"port":           func(r *apiv1.RoleSpec) { r.Ports[0].ContainerPort = clip(number) },
			"healthy":        func(r *apiv1.RoleSpec) { r.Health.Healthy = clip(number) },
			"unhealthy":      func(r *apiv1.RoleSpec) { r.Health.Unhealthy = clip(number) },
			"maxSurge":       func(r *apiv1.RoleSpec) { r.Update.MaxSurge = clip(number) },
			"maxUnavailable": func(r *apiv1.RoleSpec) { r.Update.MaxUnavailable = clip(number) },
			"maxFailures":    func(r *apiv1.RoleSpec) { r.Restart.MaxFailures = clip(number) },
			"listen":         func(r *apiv1.RoleSpec) { r.Expose.Tcp[0].Listen = clip(number) },
		} {
			// What a machine may have of memory and disk is a lot.
			if number == 1<<31 && (name == "memory" || name == "disk") {
				continue
			}
			changed := proto.CloneOf(app)
			set(changed.Roles[0])
			if err := spec.Check(changed); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%s of %d: %v", name, number, err)
			}
		}
	}
}

func clip(n int64) int32 { return int32(min(n, 1<<31-1)) }

// No duration of a spec is below zero, or longer than a week.
func TestEveryDurationOfASpecIsBounded(t *testing.T) {
	app := full()
	for _, length := range []time.Duration{-time.Second, 7*24*time.Hour + 1, 1 << 62} {
		for name, set := range map[string]func(*apiv1.RoleSpec){
			"interval":    func(r *apiv1.RoleSpec) { r.Health.Interval = durationpb.New(length) },
			"timeout":     func(r *apiv1.RoleSpec) { r.Health.Timeout = durationpb.New(length) },
			"startPeriod": func(r *apiv1.RoleSpec) { r.Health.StartPeriod = durationpb.New(length) },
			"deadline":    func(r *apiv1.RoleSpec) { r.Update.Deadline = durationpb.New(length) },
			"window":      func(r *apiv1.RoleSpec) { r.Restart.Window = durationpb.New(length) },
			"backoff":     func(r *apiv1.RoleSpec) { r.Restart.Backoff = durationpb.New(length) },
			"maxBackoff":  func(r *apiv1.RoleSpec) { r.Restart.MaxBackoff = durationpb.New(length) },
			"grace":       func(r *apiv1.RoleSpec) { r.Stop.Grace = durationpb.New(length) },
			"drain":       func(r *apiv1.RoleSpec) { r.Stop.Drain = durationpb.New(length) },
			"idle":        func(r *apiv1.RoleSpec) { r.Expose.Timeouts = &apiv1.Expose_Timeouts{Idle: durationpb.New(length)} },
			"connect":     func(r *apiv1.RoleSpec) { r.Expose.Timeouts = &apiv1.Expose_Timeouts{Connect: durationpb.New(length)} },
		} {
			changed := proto.CloneOf(app)
			set(changed.Roles[0])
			if err := spec.Check(changed); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%s of %v: %v", name, length, err)
			}
		}
	}
}

func TestLists(t *testing.T) {
	many := func(n int, item string) (list []string) {
		for range n {
			list = append(list, item)
		}
		return list
	}
	for name, set := range map[string]func(*apiv1.AppSpec, int){
		"roles": func(app *apiv1.AppSpec, n int) {
			app.Roles = nil
			for i := range n {
				app.Roles = append(app.Roles, &apiv1.RoleSpec{Name: fmt.Sprintf("r%d", i), Image: "a:1"})
			}
		},
		"schedule": func(app *apiv1.AppSpec, n int) {
			app.Roles[0].Schedule = nil
			for range n {
				app.Roles[0].Schedule = append(app.Roles[0].Schedule, &apiv1.ScheduleEntry{Cron: "0 0 * * *"})
			}
		},
		"ports": func(app *apiv1.AppSpec, n int) {
			app.Roles[0].Ports, app.Roles[0].Expose, app.Roles[0].Health = nil, nil, nil
			for i := range n {
				app.Roles[0].Ports = append(app.Roles[0].Ports, &corev1.Port{Name: fmt.Sprintf("p%d", i), ContainerPort: int32(i + 1)})
			}
		},
		"constraints":  func(app *apiv1.AppSpec, n int) { app.Roles[0].Placement.Constraints = many(n, "a exists") },
		"affinity":     func(app *apiv1.AppSpec, n int) { app.Roles[0].Placement.Affinity = many(n, "a") },
		"antiAffinity": func(app *apiv1.AppSpec, n int) { app.Roles[0].Placement.AntiAffinity = many(n, "a") },
	} {
		for n, right := range map[int]bool{64: true, 65: false} {
			app := full()
			set(app, n)
			spec.Complete(app)
			if err := spec.Check(app); (err == nil) != right {
				t.Errorf("%d %s: %v", n, name, err)
			}
		}
	}
}

func TestASpecHasALargestSize(t *testing.T) {
	app := full()
	for i := 0; proto.Size(app) <= spec.MaxBytes-1100; i++ {
		app.Roles[i%3].Env = env(app.Roles[i%3].GetEnv(), fmt.Sprintf("NAME_%d", i), strings.Repeat("x", 1000))
	}
	if err := spec.Check(app); err != nil {
		t.Errorf("with %d bytes: %v", proto.Size(app), err)
	}
	app.Roles[0].Env["MORE"] = strings.Repeat("x", 2000)
	if err := spec.Check(app); err == nil || !strings.Contains(err.Error(), "the limit is 256KiB") {
		t.Errorf("with %d bytes: %v", proto.Size(app), err)
	}
}

func env(of map[string]string, name, value string) map[string]string {
	if of == nil {
		of = map[string]string{}
	}
	of[name] = value
	return of
}

// Linux takes one argument or variable of less than 128 KiB.
func TestAWordIsAsLongAsLinuxTakes(t *testing.T) {
	app := full()
	app.Roles[0].Env = map[string]string{"A": strings.Repeat("x", spec.MaxWord-3)}
	spec.SetArgs(app.Roles[1], []string{strings.Repeat("x", spec.MaxWord-1000)})
	if err := spec.Check(app); err != nil {
		t.Error(err)
	}
	app.Roles[0].Env["A"] += "x"
	if err := spec.Check(app); err == nil || !strings.Contains(err.Error(), "A in env has 128KiB") {
		t.Error(err)
	}
	delete(app.Roles[0].Env, "A")
	spec.SetArgs(app.Roles[1], []string{strings.Repeat("x", spec.MaxWord)})
	if err := spec.Check(app); err == nil || !strings.Contains(err.Error(), "role worker: an item of args has 128KiB") {
		t.Error(err)
	}
}
