package zone

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
)

func TestPeopleAreToldWhyAContainerWasGivenBack(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for want, change := range map[string]func(*Core, *app, *container){
		"web is being removed":                   func(_ *Core, a *app, _ *container) { a.record.State = apiv1.App_REMOVING },
		"web is being stopped":                   func(_ *Core, a *app, _ *container) { a.record.State = apiv1.App_STOPPING },
		"batch lends less":                       func(_ *Core, _ *app, c *container) { c.notice = &masterv1.PreemptionNotice{Reason: "batch lends less"} },
		"version 3 takes the place of version 2": func(_ *Core, a *app, _ *container) { a.record.Version = 3 },
		"version 2 is not wanted any more": func(_ *Core, a *app, _ *container) {
			a.record.Version, a.record.Rollout = 3, &apiv1.Rollout{State: apiv1.Rollout_REVERTED}
		},
		"web is being restarted":  func(_ *Core, a *app, _ *container) { a.record.RestartBefore = timestamppb.New(now.Add(time.Hour)) },
		"node-1 is being drained": func(z *Core, _ *app, _ *container) { z.nodes.byID["node-1"].record.Drain = true },
		"it was unhealthy: GET / answered 500": func(_ *Core, _ *app, c *container) {
			c.record.Status.Health, c.record.Status.HealthDetail = corev1.ContainerStatus_UNHEALTHY, "GET / answered 500"
		},
		"no instance needs it any more":    func(_ *Core, _ *app, c *container) { delete(c.record.Status.Labels, "instance") },
		"web is scaled down to 1 instance": func(_ *Core, a *app, _ *container) { a.record.Spec.Roles[0].Instances = 1 },
		"its application master ended it":  func(*Core, *app, *container) {},
	} {
		a := &app{
			record:     &storev1.App{Name: "web", State: apiv1.App_RUNNING, Version: 2, Spec: webSpec(2)},
			containers: map[id.Container]*container{},
		}
		z := empty(t, now)
		z.nodes.byID["node-1"] = &node{id: "node-1", record: &storev1.Node{}}
		for seq := range int64(2) {
			c := &container{id: id.Container{Seq: seq}, app: a, node: "node-1", record: &storev1.Container{
				Lease: &corev1.Lease{},
				Status: &corev1.ContainerStatus{
					State: corev1.ContainerStatus_RUNNING, StartedAt: timestamppb.New(now), Health: corev1.ContainerStatus_HEALTHY,
					Labels: map[string]string{"instance": "web-1", "version": "2"},
				},
			}}
			a.containers[c.id] = c
		}
		c := a.containers[id.Container{Seq: 1}]
		change(z, a, c)
		if got := z.masters.releaseReason(a, c); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
