package driver_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/appmaster/mastertest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

func TestARollingUpdateNeverServesWithLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, func(role *apiv1.RoleSpec) {
			role.Stop = &apiv1.StopPolicy{Drain: durationpb.New(time.Second)}
		})
		w.after(time.Second)
		w.Deploy(func(role *apiv1.RoleSpec) { role.Image = "web:2" })
		for range 400 {
			w.after(20 * time.Millisecond)
			if serving, leases := len(w.Registry()), w.Leases(); serving < 3 || leases > 4 {
				t.Fatalf("%d instances serve, %d containers are held", serving, leases)
			}
		}
		if w.Rollout().GetState() != apiv1.Rollout_DONE || w.Starts() != 6 {
			t.Errorf("rollout %v after %d starts", w.Rollout(), w.Starts())
		}
		for _, report := range w.Instances() {
			if report.GetVersion() != 2 {
				t.Errorf("%v is not of version 2", report)
			}
		}
	})
}

func TestAVersionThatCrashesIsRevertedLongBeforeTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.behave(crashing("web:2"))
		w.after(time.Second)
		old := w.Registry()
		w.Deploy(func(role *apiv1.RoleSpec) { role.Image = "web:2" })
		w.after(time.Minute)
		if len(w.Revisions()) != 1 || w.Revisions()[0].GetVersion() != 2 {
			t.Fatalf("reverts: %v", w.Revisions())
		}
		if w.Rollout().GetState() != apiv1.Rollout_REVERTED || w.Rollout().GetVersion() != 3 || w.Rollout().GetReason() == "" {
			t.Errorf("rollout %v", w.Rollout())
		}
		if got := w.Registry(); !maps.Equal(got, old) {
			t.Errorf("the instances of the version before were touched: %v became %v", old, got)
		}
		for _, report := range w.Instances() {
			if report.GetVersion() != 3 {
				t.Errorf("%v does not count as the reverted version", report)
			}
		}
	})
}

func TestARevertGoesToTheNewestVersionThatCameUpAndHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.behave(func(spec *corev1.ContainerSpec) mastertest.Behaviour {
			if image := spec.GetImage(); image == "web:2" || image == "web:3" {
				return crashing(image)(spec)
			}
			return crashing("")(spec)
		})
		w.after(time.Minute)
		w.Deploy(func(role *apiv1.RoleSpec) { role.Image, role.Update.AutoRevert = "web:2", false })
		w.after(time.Minute)
		if r := w.Rollout(); r.GetState() != apiv1.Rollout_FAILED || r.GetReverts() || len(w.Revisions()) > 0 {
			t.Errorf("version 2, which is not to be reverted: %v, revisions %v", r, w.Revisions())
		}
		w.Deploy(func(role *apiv1.RoleSpec) { role.Image, role.Update.AutoRevert = "web:3", true })
		w.after(time.Minute)
		var failed []bool
		for _, note := range w.Desired().GetNotes() {
			failed = append(failed, note.GetFailure() != "")
		}
		revisions := w.Revisions()
		if len(revisions) != 1 || revisions[0].GetVersion() != 3 || revisions[0].GetToVersion() != 1 || !strings.HasPrefix(revisions[0].GetCause(), "revert of 3: ") {
			t.Errorf("revisions %v", revisions)
		}
		if want := []bool{false, true, true, false}; !slices.Equal(failed, want) {
			t.Errorf("versions that failed: %v, want %v", failed, want)
		}
	})
}

func TestTrafficIsHeardWhileItJudgesARollout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, func(role *apiv1.RoleSpec) {
			role.Update.MaxErrorPercent, role.Update.MinHealthy = 5, durationpb.New(10*time.Second)
		})
		expect := func(when string, want bool) {
			t.Helper()
			if got := w.WantsTraffic(); got != want {
				t.Errorf("%s traffic is wanted: %v", when, got)
			}
		}
		w.after(time.Second)
		expect("in the first rollout", true)
		w.after(time.Minute)
		expect("after the first rollout", false)
		w.Deploy(func(role *apiv1.RoleSpec) { role.Image = "web:2" })
		w.after(time.Second)
		expect("in a rollout", true)
		w.after(time.Minute)
		expect("after a rollout", false)
		w.Deploy(func(role *apiv1.RoleSpec) { role.Image, role.Update.MaxErrorPercent = "web:3", 0 })
		w.after(time.Second)
		expect("in a rollout without a limit", false)
	})
}

func TestWithoutAVersionThatCameUpNothingIsReverted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.behave(func(spec *corev1.ContainerSpec) mastertest.Behaviour { return crashing(spec.GetImage())(spec) })
		w.after(time.Minute)
		w.Deploy(func(role *apiv1.RoleSpec) { role.Image = "web:2" })
		w.after(time.Minute)
		if r := w.Rollout(); r.GetState() != apiv1.Rollout_FAILED || r.GetReverts() || len(w.Revisions()) > 0 {
			t.Errorf("the second version that never came up: %v, revisions %v", r, w.Revisions())
		}
	})
}

func TestARolloutThatFailsReportsHowOftenItMayAndUntilWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.behave(crashing("web:2"))
		w.after(time.Second)
		w.Deploy(func(role *apiv1.RoleSpec) { role.Image = "web:2" })
		begun := time.Now()
		most := int32(0)
		for range 100 {
			w.after(100 * time.Millisecond)
			if r := w.Rollout(); r.GetState() == apiv1.Rollout_PROGRESSING && r.GetVersion() == 2 {
				if r.GetFailures() < most || r.GetMaxFailures() != 5 || !r.GetReverts() {
					t.Fatalf("after %d failures it reports %v", most, r)
				}
				most = r.GetFailures()
				latest := begun.Add(5*time.Minute + time.Second)
				if at := r.GetFailsAt().AsTime(); most == 0 && (at.Before(begun) || at.After(latest)) {
					t.Errorf("without progress it fails at %v", at)
				}
			}
		}
		if most < 3 {
			t.Errorf("it reports %d failures", most)
		}
		w.after(time.Minute)
		if r := w.Rollout(); r.GetState() != apiv1.Rollout_REVERTED || r.GetFailures() != 0 || r.GetFailsAt() != nil || r.GetReverts() {
			t.Errorf("at the end it reports %v", r)
		}
	})
}

func TestARollingRestartReplacesEachOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.after(time.Second)
		w.SetDesired(func(wanted *masterv1.Wanted) { wanted.RestartBefore = timestamppb.Now() })
		w.after(10 * time.Second)
		if w.Starts() != 6 || len(w.Registry()) != 3 || w.Leases() != 3 || w.Rollout().GetState() != apiv1.Rollout_DONE {
			t.Errorf("%d starts, registry %v, rollout %v", w.Starts(), w.Registry(), w.Rollout())
		}
		w.kill()
		w.start()
		w.after(10 * time.Second)
		if w.Starts() != 6 {
			t.Errorf("the new master restarted again: %d starts", w.Starts())
		}
	})
}

func TestARoleThatTheAppNoLongerHasIsTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, func(role *apiv1.RoleSpec) { role.Name, role.Instances = "front", 2 })
		w.SetDesired(func(wanted *masterv1.Wanted) {
			wanted.Spec.Roles = append(wanted.Spec.Roles, &apiv1.RoleSpec{Name: "back", Image: "back:1", Instances: 1, Update: atOnce()})
			wanted.Version++
		})
		w.after(2 * time.Second)
		w.serves("web-back-1", "web-front-1", "web-front-2")
		fronts := w.Registry()["web-front-1"]
		w.SetDesired(func(wanted *masterv1.Wanted) {
			wanted.Spec.Roles = wanted.Spec.Roles[:1]
			wanted.Version++
		})
		w.after(2 * time.Second)
		w.serves("web-front-1", "web-front-2")
		if w.Registry()["web-front-1"] != fronts || w.Starts() != 3 || w.Rollout().GetState() != apiv1.Rollout_DONE {
			t.Errorf("a role that did not change was replaced: %d starts, rollout %v", w.Starts(), w.Rollout())
		}
	})
}

// By default an instance counts once it has been healthy for ten seconds, which a new master is told by the nodes.
func TestAnInstanceCountsOnceItHasBeenHealthyForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, func(role *apiv1.RoleSpec) { role.Update = nil })
		w.after(9 * time.Second)
		w.serves("web-1", "web-2", "web-3")
		if state := w.Rollout().GetState(); state != apiv1.Rollout_PROGRESSING {
			t.Errorf("after nine seconds the rollout is %v", state)
		}
		w.kill()
		w.start()
		w.after(2 * time.Second)
		if state := w.Rollout().GetState(); state != apiv1.Rollout_DONE {
			t.Errorf("after eleven seconds and under a new master the rollout is %v", state)
		}

		w.behave(func(spec *corev1.ContainerSpec) mastertest.Behaviour {
			behaviour := mastertest.Normal(spec)
			behaviour.Exit = 5 * time.Second
			return behaviour
		})
		w.SetDesired(func(wanted *masterv1.Wanted) {
			wanted.Spec.Roles[0].Image, wanted.Version = "web:2", wanted.GetVersion()+1
		})
		for range 60 {
			w.after(time.Second)
			for _, instance := range []string{"web-1", "web-2", "web-3"} {
				if w.Registry()[instance] == "" {
					t.Fatalf("%s left for a version that dies young: %v", instance, w.Instances())
				}
			}
		}
		if reverts := w.Revisions(); len(reverts) != 1 {
			t.Errorf("reverts: %v", reverts)
		}
	})
}
