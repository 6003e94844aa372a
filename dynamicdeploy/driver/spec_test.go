package driver

import (
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/dynamicdeploy/plan"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

func TestAContainerIsToldWhoItIsAndNothingSecret(t *testing.T) {
	spec := &apiv1.RoleSpec{
		Name: "front", Image: "web:1", Env: map[string]string{"GREETING": "hello"},
		Ports: []*corev1.Port{{Name: "http", ContainerPort: 8080}, {Name: "admin-ui", ContainerPort: 9090}},
		Stop:  &apiv1.StopPolicy{Grace: durationpb.New(3 * time.Second)},
	}
	got := containerOf("web", "http://web:key@127.0.0.1:7070", spec, plan.Start{Instance: "web-front-2", Version: 7})
	want := map[string]string{
		"GREETING": "hello", "MAMMOTH_APP": "web", "MAMMOTH_REGISTRY": "http://web:key@127.0.0.1:7070", "MAMMOTH_INSTANCE": "web-front-2", "MAMMOTH_VERSION": "7",
	}
	if !maps.Equal(got.GetEnv(), want) {
		t.Errorf("environment %v, want %v", got.GetEnv(), want)
	}
	if l := got.GetLabels(); l["instance"] != "web-front-2" || l["version"] != "7" {
		t.Errorf("labels %v", l)
	}
	if len(spec.GetEnv()) != 1 {
		t.Errorf("the manifest's environment was changed to %v", spec.GetEnv())
	}
}

func TestWhatHoldsWhereAManifestIsSilent(t *testing.T) {
	came := []*masterv1.VersionNote{{Version: 1, CameUp: true}}
	w := desiredOf(&masterv1.DesiredState{Version: 2, Notes: came}, &apiv1.RoleSpec{Instances: 3})
	if w.Count != 3 || w.Drain != 0 || w.StartPeriod != 0 || w.Update.Deadline != 5*time.Minute ||
		w.Restart != (plan.Restart{Window: 10 * time.Minute, MaxFailures: 5, Backoff: time.Second, MaxBackoff: time.Minute}) {
		t.Errorf("%+v", w)
	}
	exposed := &apiv1.RoleSpec{Expose: &apiv1.Expose{}}
	if w := desiredOf(&masterv1.DesiredState{}, exposed); w.Drain != 10*time.Second {
		t.Errorf("an exposed role drains for %v", w.Drain)
	}
	exposed.Stop = &apiv1.StopPolicy{Drain: durationpb.New(0)}
	if w := desiredOf(&masterv1.DesiredState{}, exposed); w.Drain != 0 {
		t.Errorf("a drain of zero became %v", w.Drain)
	}
	reverts := func(desired *masterv1.DesiredState) bool {
		desired.Spec = &apiv1.AppSpec{Roles: []*apiv1.RoleSpec{{}}}
		d := &Master{roles: newRoles("web", 1)}
		d.setDesired(desired, time.Now())
		return d.roles.named("").canRevert(desired)
	}
	if reverts(&masterv1.DesiredState{Version: 2, Revised: true, Notes: came}) || reverts(&masterv1.DesiredState{Version: 1, Notes: came}) ||
		reverts(&masterv1.DesiredState{Version: 2}) || !reverts(&masterv1.DesiredState{Version: 2, Notes: came}) {
		t.Error("a revert, or the first version, cannot be reverted")
	}
	if desiredOf(&masterv1.DesiredState{Stopped: true}, &apiv1.RoleSpec{Instances: 5}).Count != 0 {
		t.Error("a stopped app wants instances")
	}
}

func TestEveryEndHasASentenceAndSomebodyToBlame(t *testing.T) {
	for reason, blame := range map[corev1.Exit_Reason]plan.Blame{
		corev1.Exit_EXITED: plan.BlameApp, corev1.Exit_OOM_KILLED: plan.BlameApp, corev1.Exit_DISK_QUOTA_EXCEEDED: plan.BlameApp,
		corev1.Exit_UNHEALTHY: plan.BlameApp, corev1.Exit_VANISHED: plan.BlameNode, corev1.Exit_LAUNCH_FAILED: plan.BlameEither, corev1.Exit_NODE_FAILED: plan.BlameNode,
		corev1.Exit_STOPPED: plan.BlameNobody, corev1.Exit_PREEMPTED: plan.BlameNobody, corev1.Exit_NODE_LOST: plan.BlameNobody, corev1.Exit_LEASE_ENDED: plan.BlameNobody,
		corev1.Exit_KILLED_FROM_OUTSIDE: plan.BlameNobody,
	} {
		if got := exitOf(&corev1.Exit{Reason: reason}); got.Blame != blame || got.Reason == "" {
			t.Errorf("%v: %+v", reason, got)
		}
	}
	if got := exitOf(&corev1.Exit{Reason: corev1.Exit_OOM_KILLED}); !strings.Contains(got.Reason, "OOMKilled") {
		t.Errorf("an end at the memory quota reads %q", got.Reason)
	}
}

func TestAnAskIsOfAServiceAndMayReplace(t *testing.T) {
	got := askOf(&apiv1.AppSpec{Name: "web"}, &apiv1.RoleSpec{Name: "front"}, plan.Ask{ID: "web-1/2", Replaces: true}, "")
	if !got.GetService() || !got.GetReplaces() || got.GetRole() != "front" {
		t.Errorf("%v", got)
	}
}
