package driver_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/appmaster/mastertest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
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
		if w.Rollout().GetState() != dynamicdeployv1.Rollout_DONE || w.Starts() != 6 {
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
		if w.Rollout().GetState() != dynamicdeployv1.Rollout_REVERTED || w.Rollout().GetVersion() != 3 || w.Rollout().GetReason() == "" {
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

func TestAStopInTheMiddleOfARolloutIsNotItsEnd(t *testing.T) {
	for name, restartBefore := range map[string]bool{"the instances are there yet": false, "the app is started anew": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2, nil)
				w.behave(crashing("web:2"))
				w.after(time.Second)
				w.Deploy(func(role *apiv1.RoleSpec) { role.Image = "web:2" })
				w.after(500 * time.Millisecond)
				w.SetDesired(func(desired *masterv1.DesiredState) { desired.Stopped = true })
				w.after(time.Minute)
				if note := w.Note(2); note.GetCameUp() || len(w.Revisions()) != 0 {
					t.Errorf("of a version that was stopped on its way it says %v; reverts %v", note, w.Revisions())
				}
				w.SetDesired(func(desired *masterv1.DesiredState) {
					desired.Stopped = false
					if restartBefore {
						desired.RestartBefore = timestamppb.Now()
					}
				})
				w.after(2 * time.Minute)
				if len(w.Revisions()) != 1 || w.Revisions()[0].GetVersion() != 2 || w.Rollout().GetState() != dynamicdeployv1.Rollout_REVERTED {
					t.Errorf("after the start the rollout is %v; reverts %v", w.Rollout(), w.Revisions())
				}
			})
		})
	}
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
		if r := w.Rollout(); r.GetState() != dynamicdeployv1.Rollout_FAILED || r.GetReverts() || len(w.Revisions()) > 0 {
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
		if r := w.Rollout(); r.GetState() != dynamicdeployv1.Rollout_FAILED || r.GetReverts() || len(w.Revisions()) > 0 {
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
			if r := w.Rollout(); r.GetState() == dynamicdeployv1.Rollout_PROGRESSING && r.GetVersion() == 2 {
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
		if r := w.Rollout(); r.GetState() != dynamicdeployv1.Rollout_REVERTED || r.GetFailures() != 0 || r.GetFailsAt() != nil || r.GetReverts() {
			t.Errorf("at the end it reports %v", r)
		}
	})
}

func TestARollingRestartReplacesEachOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.after(time.Second)
		w.SetDesired(func(desired *masterv1.DesiredState) { desired.RestartBefore = timestamppb.Now() })
		w.after(10 * time.Second)
		if w.Starts() != 6 || len(w.Registry()) != 3 || w.Leases() != 3 || w.Rollout().GetState() != dynamicdeployv1.Rollout_DONE {
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
		w.SetDesired(func(desired *masterv1.DesiredState) {
			desired.Spec.Roles = append(desired.Spec.Roles, &apiv1.RoleSpec{Name: "back", Image: "back:1", Instances: 1, Update: atOnce()})
			desired.Version++
		})
		w.after(2 * time.Second)
		w.serves("web-back-1", "web-front-1", "web-front-2")
		fronts := w.Registry()["web-front-1"]
		w.SetDesired(func(desired *masterv1.DesiredState) {
			desired.Spec.Roles = desired.Spec.Roles[:1]
			desired.Version++
		})
		w.after(2 * time.Second)
		w.serves("web-front-1", "web-front-2")
		if w.Registry()["web-front-1"] != fronts || w.Starts() != 3 || w.Rollout().GetState() != dynamicdeployv1.Rollout_DONE {
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
		for _, report := range w.Instances() {
			if report.GetState() != apiv1.Instance_STARTING || report.GetCountsAfter().AsDuration() != 10*time.Second {
				t.Errorf("after nine seconds it reports %v", report)
			}
		}
		if state := w.Rollout().GetState(); state != dynamicdeployv1.Rollout_PROGRESSING {
			t.Errorf("after nine seconds the rollout is %v", state)
		}
		w.kill()
		w.start()
		w.after(2 * time.Second)
		if state := w.Rollout().GetState(); state != dynamicdeployv1.Rollout_DONE {
			t.Errorf("after eleven seconds and under a new master the rollout is %v", state)
		}

		w.behave(func(spec *corev1.ContainerSpec) mastertest.Behaviour {
			behaviour := mastertest.Normal(spec)
			behaviour.Exit = 5 * time.Second
			return behaviour
		})
		w.SetDesired(func(desired *masterv1.DesiredState) {
			desired.Spec.Roles[0].Image, desired.Version = "web:2", desired.GetVersion()+1
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

func TestARolloutIsToldInWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		says := func(want *apiv1.MasterStatus) {
			t.Helper()
			got := proto.CloneOf(w.Status())
			got.Detail, got.Outlook = nil, nil
			if !proto.Equal(got, want) {
				t.Errorf("it says %v, want %v", got, want)
			}
		}
		w.after(10 * time.Second)
		says(&apiv1.MasterStatus{State: apiv1.MasterStatus_DONE, Version: 1, Done: 3, Total: 3, Text: "3 of 3 instances are at version 1"})
		w.Deploy(canary(10))
		w.after(time.Minute)
		says(&apiv1.MasterStatus{
			State: apiv1.MasterStatus_WAITING, Version: 2, Done: 1, Total: 3, Text: "the rollout of version 2 is paused", Reason: w.Rollout().GetReason(),
			Help: `"mammoth app promote web" gives it the whole app, "mammoth app rollback web" takes it back`,
		})
		w.command(&dynamicdeployv1.Promote{})
		w.after(time.Minute)
		w.behave(crashing("web:3"))
		w.Deploy(func(role *apiv1.RoleSpec) { role.Image, role.Update = "web:3", &apiv1.UpdatePolicy{MaxSurge: 1} })
		w.after(1500 * time.Millisecond)
		status := w.Status()
		if status.GetState() != apiv1.MasterStatus_WORKING || status.GetText() != "0 of 3 instances are at version 3" {
			t.Errorf("on its way it says %v", status)
		}
		failed := fmt.Sprintf("version 3 failed %d times; its rollout fails after 5 failures, or without progress", w.Rollout().GetFailures())
		if outlook := status.GetOutlook(); outlook.GetText() != failed || outlook.GetAt() == nil || outlook.GetUnless() != "" {
			t.Errorf("its outlook is %v, want %q", outlook, failed)
		}
		w.after(time.Minute)
		says(&apiv1.MasterStatus{
			State: apiv1.MasterStatus_FAILED, Version: 3, Total: 3, Text: "the rollout of version 3 failed", Reason: w.Rollout().GetReason(),
			Help: `"mammoth app rollback web" goes back to version 2`,
		})
		w.Deploy(func(role *apiv1.RoleSpec) {
			role.Image, role.Update = "web:3", atOnce()
			role.Env = map[string]string{"A": "B"}
		})
		w.after(time.Minute)
		if status := w.Status(); status.GetState() != apiv1.MasterStatus_DONE || status.GetText() != "version 2 was brought back" || status.GetReason() == "" {
			t.Errorf("after a revert it says %v", status)
		}
	})
}

func TestAnAskSaysWhatWouldHelpIfThereIsNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0, nil)
		w.nodes["node-1"] = w.AddNode("node-1", 3)
		w.after(10 * time.Second)
		helps := func(when, want string) {
			t.Helper()
			w.after(5 * time.Second)
			asks := w.Asks()
			if len(asks) != 1 || !strings.Contains(asks[0].GetHelp(), want) || (want == "") != (asks[0].GetHelp() == "") {
				t.Errorf("%s: %v", when, asks)
			}
		}
		w.Deploy(func(role *apiv1.RoleSpec) { role.Image = "web:2" })
		helps("an instance is replaced", "`maxUnavailable: 1` in its update policy")
		w.Deploy(func(role *apiv1.RoleSpec) {
			role.Image, role.Resources = "web:2", &corev1.Resources{CpuMillis: 1 << 20}
		})
		helps("its room would not do for the new one", "")
		w.Deploy(func(role *apiv1.RoleSpec) {
			role.Image, role.Resources, role.Update = "web:3", nil, atOnce()
			role.Update.Strategy, role.Update.CanaryPercent = apiv1.UpdatePolicy_CANARY, 10
		})
		helps("a canary", "a rolling update with `maxUnavailable: 1` would help")
		// The help changes with the strategy that people set.
		w.SetDesired(func(desired *masterv1.DesiredState) {
			desired.Spec.Roles[0].Update = &apiv1.UpdatePolicy{Strategy: apiv1.UpdatePolicy_CANARY, CanaryPercent: 10, MaxUnavailable: 1, MinHealthy: durationpb.New(0)}
		})
		helps("a policy by which an old one goes first", "")
	})
}

// What an instance that is drained waits for is its master's to say.
func TestAnInstanceThatIsDrainedSaysHowLongItMayTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, func(role *apiv1.RoleSpec) { role.Stop = &apiv1.StopPolicy{Drain: durationpb.New(time.Minute)} })
		w.after(10 * time.Second)
		w.scale(2)
		w.after(10 * time.Second)
		last := w.Instances()[2]
		if last.GetState() != apiv1.Instance_DRAINING || last.GetReason() != "requests in flight may take up to 1m0s" {
			t.Errorf("it is reported as %v", last)
		}
	})
}
