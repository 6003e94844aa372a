package driver_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// part is a role of an app with several.
func part(name, image string, instances int32, change func(*apiv1.UpdatePolicy)) *apiv1.RoleSpec {
	role := &apiv1.RoleSpec{Name: name, Image: image, Instances: instances, Update: atOnce()}
	if change != nil {
		change(role.GetUpdate())
	}
	return role
}

// asCanary has new versions of a role be canaries.
func asCanary(percent int32) func(*apiv1.UpdatePolicy) {
	return func(update *apiv1.UpdatePolicy) {
		update.Strategy, update.CanaryPercent = apiv1.UpdatePolicy_CANARY, percent
	}
}

// newParts is a world whose app has a front and a db, both canaries, in version 2.
func newParts(t *testing.T) *world {
	w := newWorld(t, 3, func(role *apiv1.RoleSpec) { role.Name, role.Image, role.Instances = "unused", "unused:1", 0 })
	w.DeployRoles(part("front", "front:1", 4, asCanary(10)), part("db", "db:1", 2, asCanary(75)))
	w.after(time.Minute)
	w.states("DONE 4 of 4", "DONE 2 of 2")
	return w
}

// states fails unless the rollouts of the front and the db are so.
func (w *world) states(front, db string) {
	w.Helper()
	var got []string
	for _, role := range w.Rollout().GetRoles() {
		text := fmt.Sprintf("%v %d of %d", role.GetState(), role.GetUpdated(), role.GetTotal())
		if role.GetCanary() {
			text += fmt.Sprintf(", a canary with %d %%", role.GetPercent())
		}
		got = append(got, text)
	}
	if want := []string{front, db}; !slices.Equal(got, want) {
		w.Errorf("the rollouts are %q, want %q; reason %q", got, want, w.Status().GetReason())
	}
}

func TestEachRoleHasItsOwnCanary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newParts(t)
		w.DeployRoles(part("front", "front:2", 4, asCanary(10)), part("db", "db:2", 2, asCanary(75)))
		w.after(time.Minute)
		w.states("PAUSED 1 of 4, a canary with 10 %", "PAUSED 2 of 2, a canary with 75 %")
		if got := w.Status().GetReason(); got != "front is a canary with 10 % of the requests; db is a canary with 75 % of the requests" {
			t.Errorf("the reason is %q", got)
		}
		for _, help := range []string{
			`"mammoth app promote web --role front" gives it the whole role`, `"mammoth app rollback web --role front" takes it back`,
			`"mammoth app promote web --role db" gives it the whole role`,
		} {
			if got := w.Status().GetHelp(); !strings.Contains(got, help) {
				t.Errorf("the help is %q, want %q", got, help)
			}
		}
		w.command(&dynamicdeployv1.Promote{Role: "front", Percent: 50})
		w.after(time.Minute)
		w.states("PAUSED 2 of 4, a canary with 50 %", "PAUSED 2 of 2, a canary with 75 %")
		w.command(&dynamicdeployv1.Promote{Role: "db"})
		w.after(time.Minute)
		w.states("PAUSED 2 of 4, a canary with 50 %", "DONE 2 of 2")
		w.refused(&dynamicdeployv1.Promote{Role: "db"}, errdefs.IsFailedPrecondition, `no rollout of role db of web is under way; "mammoth deploy" begins one; front can be promoted`)
		w.refused(&dynamicdeployv1.Resume{Role: "front"}, errdefs.IsFailedPrecondition, `the rollout of role front of web waits to be promoted, which "mammoth app promote web --role front" does`)
		w.refused(&dynamicdeployv1.Promote{Role: "cache"}, errdefs.IsInvalidArgument, `web has no role named "cache"; it has front, db`)
		w.command(&dynamicdeployv1.Promote{})
		w.after(time.Minute)
		w.states("DONE 4 of 4", "DONE 2 of 2")
	})
}

func TestACommandWithoutARoleIsForAllToWhichItApplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newParts(t)
		w.DeployRoles(part("front", "front:2", 4, asCanary(10)), part("db", "db:2", 2, nil))
		w.command(&dynamicdeployv1.Pause{Role: "db"})
		w.refused(&dynamicdeployv1.Pause{Role: "db"}, errdefs.IsFailedPrecondition,
			`the rollout of role db of web is paused already; "mammoth app resume web --role db" lets it go on; front can be paused`)
		w.refused(&dynamicdeployv1.Promote{Role: "db"}, errdefs.IsFailedPrecondition, `version 3 of role db of web is no canary; "mammoth deploy --canary 10%" makes one; front can be promoted`)
		w.after(time.Minute)
		w.states("PAUSED 1 of 4, a canary with 10 %", "PAUSED 0 of 2")
		if got := w.Status().GetReason(); got != "front is a canary with 10 % of the requests; a person paused db" {
			t.Errorf("the reason is %q", got)
		}
		w.command(&dynamicdeployv1.Promote{})
		w.after(time.Minute)
		w.states("DONE 4 of 4", "PAUSED 0 of 2")
		w.command(&dynamicdeployv1.Resume{})
		w.after(time.Minute)
		w.states("DONE 4 of 4", "DONE 2 of 2")
	})
}

func TestARolePausesAndTheOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newParts(t)
		w.DeployRoles(part("front", "front:2", 4, nil), part("db", "db:2", 2, nil))
		w.command(&dynamicdeployv1.Pause{Role: "front"})
		w.after(time.Minute)
		w.states("PAUSED 0 of 4", "DONE 2 of 2")
		w.kill()
		w.start()
		w.after(time.Minute)
		w.states("PAUSED 0 of 4", "DONE 2 of 2")
		w.command(&dynamicdeployv1.Resume{Role: "front"})
		w.after(time.Minute)
		w.states("DONE 4 of 4", "DONE 2 of 2")
	})
}

func TestARoleThatFailsIsTakenBackAlone(t *testing.T) {
	for _, taken := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newParts(t)
			w.DeployRoles(part("front", "front:2", 4, asCanary(10)), part("db", "db:1", 2, asCanary(75)))
			w.after(time.Minute)
			w.command(&dynamicdeployv1.Promote{Role: "front", Percent: 25})
			w.after(time.Minute)
			w.states("PAUSED 1 of 4, a canary with 25 %", "DONE 2 of 2")
			w.behave(crashing("db:2"))
			if taken {
				w.kill()
			}
			w.DeployRoles(part("front", "front:2", 4, asCanary(10)), part("db", "db:2", 2, nil))
			if taken {
				w.start()
			}
			w.after(3 * time.Minute)
			w.states("PAUSED 1 of 4, a canary with 25 %", "REVERTED 2 of 2")
			revisions := w.Revisions()
			if len(revisions) != 1 || !slices.Equal(revisions[0].GetRoles(), []string{"db"}) || revisions[0].GetToVersion() != 3 {
				t.Fatalf("taken over %t: reverts %v", taken, revisions)
			}
			if cause := revisions[0].GetCause(); !strings.HasPrefix(cause, "revert of 4: db: version 4 failed 5 times") {
				t.Errorf("the cause is %q", cause)
			}
			if got := w.Status().GetReason(); !strings.HasPrefix(got, "front is a canary with 25 % of the requests; db went back to version 3: version 4 failed 5 times") {
				t.Errorf("the reason is %q", got)
			}
			// Whoever takes over knows it all.
			w.kill()
			w.start()
			w.after(time.Minute)
			w.states("PAUSED 1 of 4, a canary with 25 %", "REVERTED 2 of 2")
			w.command(&dynamicdeployv1.Promote{Role: "front"})
			w.after(time.Minute)
			w.states("DONE 4 of 4", "REVERTED 2 of 2")
			if got := w.Status(); got.GetText() != "a rollout was reverted" || !strings.HasPrefix(got.GetReason(), "db went back to version 3: ") {
				t.Errorf("the status is %v", got)
			}
			// The next version says nothing of it, and the front can be taken back on its own.
			w.behave(crashing("front:3"))
			w.DeployRoles(part("front", "front:3", 4, nil), part("db", "db:1", 2, nil))
			w.after(3 * time.Minute)
			w.states("REVERTED 4 of 4", "DONE 2 of 2")
			if last := w.Revisions()[1]; !slices.Equal(last.GetRoles(), []string{"front"}) || last.GetToVersion() != 5 {
				t.Errorf("the front was taken back with %v", last)
			}
		})
	}
}

func TestADeploymentOfOneRoleLeavesTheRolloutOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newParts(t)
		front := part("front", "front:2", 4, nil)
		front.Update.Once = &apiv1.UpdatePolicy_OneRollout{Strategy: apiv1.UpdatePolicy_CANARY, CanaryPercent: 30}
		w.DeployRoles(front, part("db", "db:1", 2, nil))
		w.after(time.Minute)
		w.states("PAUSED 2 of 4, a canary with 30 %", "DONE 2 of 2")
		before := w.Registry()
		w.DeployRoles(front, part("db", "db:2", 2, nil))
		w.after(time.Minute)
		w.states("PAUSED 2 of 4, a canary with 30 %", "DONE 2 of 2")
		// A person takes the db back.
		w.SetDesired(func(desired *masterv1.DesiredState) {
			desired.Spec.Roles[1] = part("db", "db:1", 2, nil)
			desired.Version++
			desired.FromVersion, desired.FromRoles = 3, []string{"db"}
		})
		w.after(time.Minute)
		w.states("PAUSED 2 of 4, a canary with 30 %", "DONE 2 of 2")
		for instance, container := range w.Registry() {
			if strings.HasPrefix(instance, "web-front-") && before[instance] != container {
				t.Errorf("%s was replaced", instance)
			}
		}
		// Another policy begins its rollout anew.
		w.DeployRoles(part("front", "front:2", 4, asCanary(50)), part("db", "db:1", 2, nil))
		w.after(time.Minute)
		w.states("PAUSED 2 of 4, a canary with 50 %", "DONE 2 of 2")
		// A role that is brought back needs no canary.
		w.SetDesired(func(desired *masterv1.DesiredState) {
			desired.Spec.Roles[0] = part("front", "front:1", 4, asCanary(50))
			desired.Version++
			desired.FromVersion, desired.FromRoles = 2, []string{"front"}
		})
		w.after(time.Minute)
		w.states("DONE 4 of 4", "DONE 2 of 2")
	})
}

func TestRolesThatFailTogetherAreTakenBackTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newParts(t)
		w.behave(crashing("same:2"))
		w.DeployRoles(part("front", "same:2", 4, nil), part("db", "same:2", 2, nil))
		w.after(5 * time.Minute)
		w.states("REVERTED 4 of 4", "REVERTED 2 of 2")
		roles := map[string]bool{}
		for _, revision := range w.Revisions() {
			for _, role := range revision.GetRoles() {
				roles[role] = true
			}
		}
		if !roles["front"] || !roles["db"] {
			t.Errorf("reverts %v", w.Revisions())
		}
	})
}

func TestARoleThatIsNewTakesTheWholeAppBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newParts(t)
		w.behave(crashing("cache:1"))
		w.DeployRoles(part("front", "front:2", 4, nil), part("db", "db:1", 2, nil), part("cache", "cache:1", 1, nil))
		w.after(3 * time.Minute)
		if revisions := w.Revisions(); len(revisions) != 1 || len(revisions[0].GetRoles()) > 0 || revisions[0].GetToVersion() != 2 {
			t.Errorf("reverts %v", w.Revisions())
		}
		w.states("REVERTED 4 of 4", "REVERTED 2 of 2")
	})
}

func TestARoleThatFailsForGoodLeavesTheOthersToPeople(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newParts(t)
		w.behave(crashing("db:2"))
		w.DeployRoles(part("front", "front:2", 4, asCanary(10)), part("db", "db:2", 2, func(update *apiv1.UpdatePolicy) { update.AutoRevert = false }))
		w.after(3 * time.Minute)
		status := w.Status()
		if status.GetState() != apiv1.MasterStatus_FAILED || !strings.HasPrefix(status.GetReason(), "db: version 3 failed 5 times") ||
			!strings.HasSuffix(status.GetReason(), "; front is a canary with 10 % of the requests") {
			t.Errorf("the status is %v", status)
		}
		if help := status.GetHelp(); !strings.HasPrefix(help, `"mammoth app rollback web --role db" goes back to version 2, "mammoth app promote web --role front" gives it the whole role`) {
			t.Errorf("the help is %q", help)
		}
		if got := w.command(&dynamicdeployv1.Promote{Role: "front"}); got.GetState() != apiv1.MasterStatus_FAILED {
			t.Errorf("the promotion of the front is answered with %v", got)
		}
		w.after(time.Minute)
		if front := w.Rollout().GetRoles()[0]; front.GetState() != dynamicdeployv1.Rollout_DONE {
			t.Errorf("the front is %v", front)
		}
	})
}

func TestAnOutlookNamesTheRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newParts(t)
		w.behave(crashing("db:2"))
		w.DeployRoles(part("front", "front:1", 4, nil), part("db", "db:2", 2, nil))
		w.after(100 * time.Millisecond)
		if text := w.Status().GetOutlook().GetText(); !strings.HasPrefix(text, "version 3 of db failed ") {
			t.Errorf("the outlook is %q", text)
		}
	})
}

// An app with 64 roles, each of which has much to say, has a status that the ResourceManager accepts.
func TestAStatusOfManyRolesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, nil)
		var roles []*apiv1.RoleSpec
		for i := range 64 {
			roles = append(roles, part(fmt.Sprintf("role-%d", i), "web:1", 1, asCanary(10)))
		}
		w.DeployRoles(roles...)
		w.after(time.Minute)
		for _, role := range roles {
			role.Image = "web:2"
		}
		w.DeployRoles(roles...)
		w.after(time.Minute)
		status := w.Status()
		if got := status.GetReason(); !strings.HasSuffix(got, "; and 61 more") {
			t.Errorf("the reason is %q", got)
		}
		if size := proto.Size(status); len(w.Rollout().GetRoles()) != 64 || size > 64<<10 {
			t.Errorf("%d roles in %d bytes", len(w.Rollout().GetRoles()), size)
		}
	})
}
