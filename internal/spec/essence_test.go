package spec_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func TestOnlyWhatIsFixedInAContainerNeedsNewOnes(t *testing.T) {
	base := func() *apiv1.AppSpec {
		return &apiv1.AppSpec{Name: "web", Queue: "default", Roles: []*apiv1.RoleSpec{{
			Image: "web:1", ImageDigest: "sha256:1", Instances: 3, Resources: &corev1.Resources{CpuMillis: 500},
		}}}
	}
	for name, c := range map[string]struct {
		change func(*apiv1.RoleSpec)
		fixed  bool
	}{
		"count":    {change: func(r *apiv1.RoleSpec) { r.Instances = 9 }},
		"schedule": {change: func(r *apiv1.RoleSpec) { r.Schedule = []*apiv1.ScheduleEntry{{Cron: "0 1 * * *"}} }},
		"tag":      {change: func(r *apiv1.RoleSpec) { r.Image = "web:latest" }},
		"update":   {change: func(r *apiv1.RoleSpec) { r.Update = &apiv1.UpdatePolicy{MaxSurge: 2} }},
		"restart":  {change: func(r *apiv1.RoleSpec) { r.Restart = &apiv1.RestartPolicy{MaxFailures: 1} }},
		"host":     {change: func(r *apiv1.RoleSpec) { r.Expose = &apiv1.Expose{Http: &apiv1.Expose_Http{Host: "a.test"}} }},
		"drain":    {change: func(r *apiv1.RoleSpec) { r.Stop = &apiv1.StopPolicy{Drain: durationpb.New(time.Second)} }},
		"grace":    {change: func(r *apiv1.RoleSpec) { r.Stop = &apiv1.StopPolicy{Grace: durationpb.New(time.Second)} }},
		"signal":   {change: func(r *apiv1.RoleSpec) { r.Stop = &apiv1.StopPolicy{Signal: "QUIT"} }, fixed: true},
		"image":    {change: func(r *apiv1.RoleSpec) { r.ImageDigest = "sha256:2" }, fixed: true},
		"quota":    {change: func(r *apiv1.RoleSpec) { r.Resources.CpuMillis = 250 }, fixed: true},
		"env":      {change: func(r *apiv1.RoleSpec) { r.Env = map[string]string{"A": "b"} }, fixed: true},
		"probe":    {change: func(r *apiv1.RoleSpec) { r.Health = &corev1.HealthCheck{Healthy: 2} }, fixed: true},
	} {
		before, after := base(), base()
		c.change(after.Roles[0])
		if got := spec.NeedsNewInstances(before, after); got != c.fixed {
			t.Errorf("another %s needs new instances: %v", name, got)
		}
		if same := spec.SameContainers(before.Roles[0], after.Roles[0]); same == c.fixed {
			t.Errorf("another %s leaves the containers: %v", name, same)
		}
	}
	if spec.SameContainers(nil, base().Roles[0]) || spec.SameContainers(base().Roles[0], nil) {
		t.Error("a role that is not there has containers")
	}
	moved := base()
	moved.Queue, moved.Priority = "batch", 5
	if spec.NeedsNewInstances(base(), moved) {
		t.Error("another queue needs new instances")
	}
}
