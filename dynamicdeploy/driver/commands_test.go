package driver_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// command gives the master a command, and fails unless it is carried out. It returns the status that was answered.
func (w *world) command(command proto.Message) *apiv1.MasterStatus {
	w.Helper()
	answer, err := w.tryCommand(command)
	if err != nil {
		w.Fatalf("%T: %v", command, err)
	}
	done := &dynamicdeployv1.Done{}
	if err := answer.UnmarshalTo(done); err != nil {
		w.Fatalf("%T is answered with %v: %v", command, answer, err)
	}
	return done.GetStatus()
}

// refused fails unless a command is refused with a class and a sentence that has a part.
func (w *world) refused(command proto.Message, class func(error) bool, part string) {
	w.Helper()
	if _, err := w.tryCommand(command); !class(err) || !strings.Contains(err.Error(), part) {
		w.Errorf("%T gives %v, want %q", command, err, part)
	}
}

func (w *world) tryCommand(command proto.Message) (*anypb.Any, error) {
	w.Helper()
	content, err := anypb.New(command)
	if err != nil {
		w.Fatal(err)
	}
	return w.Command(context.Background(), content)
}

// updated is how many instances run a version.
func (w *world) updated(version int32) (count int) {
	for _, report := range w.Instances() {
		if report.GetVersion() == version && report.GetState() == apiv1.Instance_RUNNING {
			count++
		}
	}
	return count
}

func TestPeoplePauseAndResumeARollout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, func(role *apiv1.RoleSpec) {
			role.Stop = &apiv1.StopPolicy{Drain: durationpb.New(time.Second)}
		})
		w.after(5 * time.Second)
		const none = `no rollout of web is under way; "mammoth deploy" begins one`
		w.refused(&dynamicdeployv1.Pause{}, errdefs.IsFailedPrecondition, none)
		w.refused(&dynamicdeployv1.Resume{}, errdefs.IsFailedPrecondition, none)
		w.Deploy(func(role *apiv1.RoleSpec) { role.Image = "web:2" })
		w.after(100 * time.Millisecond)
		w.refused(&dynamicdeployv1.Resume{}, errdefs.IsFailedPrecondition, "the rollout of web is not paused")
		w.refused(&dynamicdeployv1.Promote{}, errdefs.IsFailedPrecondition, "version 2 of web is no canary")
		w.refused(&dynamicdeployv1.Done{}, errdefs.IsInvalidArgument, "DynamicDeploy has no command")
		w.command(&dynamicdeployv1.Pause{})
		if state := w.Rollout().GetState(); state != dynamicdeployv1.Rollout_PAUSED {
			t.Errorf("once the pause is answered the rollout is %v", state)
		}
		w.refused(&dynamicdeployv1.Pause{}, errdefs.IsFailedPrecondition, "the rollout of web is paused already")
		w.after(10 * time.Second)
		before := w.updated(2)
		// The next attempt knows it too.
		w.kill()
		w.start()
		w.after(time.Minute)
		if now := w.updated(2); now != before || now == 3 || w.Rollout().GetState() != dynamicdeployv1.Rollout_PAUSED {
			t.Errorf("a paused rollout went on: %d of 3 instances are updated, before %d; %v", now, before, w.Rollout())
		}
		w.command(&dynamicdeployv1.Resume{})
		w.after(time.Minute)
		if w.updated(2) != 3 || w.Rollout().GetState() != dynamicdeployv1.Rollout_DONE {
			t.Errorf("after the pause %d of 3 instances are updated; %v", w.updated(2), w.Rollout())
		}
		w.refused(&dynamicdeployv1.Pause{}, errdefs.IsFailedPrecondition, none)
	})
}

func TestACommandIsAnsweredWithWhatHasBecomeOfTheRollout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		pause, resume, promote := &dynamicdeployv1.Pause{}, &dynamicdeployv1.Resume{}, &dynamicdeployv1.Promote{Percent: 20}
		says := func(command proto.Message, state apiv1.MasterStatus_State, help string) {
			t.Helper()
			got := w.command(command)
			if got.GetState() != state || got.GetHelp() != help || got.GetDetail() == nil {
				t.Errorf("%T is answered with %v, want %v and %q", command, got, state, help)
			}
		}
		w.after(50 * time.Millisecond)
		// The first version has none that it could be taken back to.
		says(pause, apiv1.MasterStatus_WAITING, `"mammoth app resume web" lets it go on`)
		says(resume, apiv1.MasterStatus_WORKING, "")
		w.after(time.Minute)
		w.Deploy(func(role *apiv1.RoleSpec) { role.Image = "web:2" })
		w.after(100 * time.Millisecond)
		says(pause, apiv1.MasterStatus_WAITING, `"mammoth app resume web" lets it go on, "mammoth app rollback web" takes it back`)
		says(resume, apiv1.MasterStatus_WORKING, "")
		w.after(time.Minute)
		w.Deploy(func(role *apiv1.RoleSpec) {
			canary(10)(role)
			role.Image = "web:3"
		})
		w.after(100 * time.Millisecond)
		// It still starts, and is judged again once somebody says so.
		says(pause, apiv1.MasterStatus_WORKING, `"mammoth app resume web" lets it fail or be reverted again`)
		w.after(time.Minute)
		waits := `"mammoth app promote web" gives it the whole app, "mammoth app rollback web" takes it back`
		if got := w.Status().GetHelp(); got != waits+`, "mammoth app resume web" lets it fail or be reverted again` {
			t.Errorf("a canary that a person paused has the help %q", got)
		}
		says(promote, apiv1.MasterStatus_WAITING, waits)
	})
}

func TestAnotherVersionIsNotPausedBecauseTheOneBeforeWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.after(5 * time.Second)
		w.Deploy(func(role *apiv1.RoleSpec) { role.Image = "web:2" })
		w.command(&dynamicdeployv1.Pause{})
		w.Deploy(func(role *apiv1.RoleSpec) { role.Image = "web:3" })
		w.after(time.Minute)
		if w.updated(3) != 3 || w.Rollout().GetState() != dynamicdeployv1.Rollout_DONE {
			t.Errorf("%d of 3 instances are updated; %v", w.updated(3), w.Rollout())
		}
	})
}

func canary(percent int32) func(*apiv1.RoleSpec) {
	return func(role *apiv1.RoleSpec) {
		role.Image = "web:2"
		role.Update = proto.CloneOf(role.GetUpdate())
		role.Update.Strategy, role.Update.CanaryPercent, role.Update.MaxSurge = apiv1.UpdatePolicy_CANARY, percent, 1
	}
}

func TestPeoplePromoteACanary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.after(5 * time.Second)
		w.Deploy(canary(10))
		w.after(time.Minute)
		share := func(want int32) {
			t.Helper()
			if r := w.Rollout(); r.GetState() != dynamicdeployv1.Rollout_PAUSED || r.GetPercent() != want {
				t.Errorf("the canary is %v with %d %%, want it to wait with %d %%", r.GetState(), r.GetPercent(), want)
			}
		}
		share(10)
		w.refused(&dynamicdeployv1.Resume{}, errdefs.IsFailedPrecondition, "waits to be promoted")
		w.refused(&dynamicdeployv1.Promote{Percent: 101}, errdefs.IsInvalidArgument, "a canary cannot receive 101 % of the requests; use 1 to 100")
		w.command(&dynamicdeployv1.Promote{Percent: 50})
		w.after(time.Minute)
		share(50)
		w.kill()
		w.start()
		w.after(time.Minute)
		share(50)
		// Another share in the spec replaces the share that was set before it.
		w.SetDesired(func(desired *masterv1.DesiredState) { desired.Spec.Roles[0].Update.CanaryPercent = 20 })
		w.after(time.Minute)
		share(20)
		w.command(&dynamicdeployv1.Promote{})
		w.refused(&dynamicdeployv1.Promote{}, errdefs.IsFailedPrecondition, "version 2 of web is promoted already")
		w.after(time.Minute)
		if w.updated(2) != 3 || w.Rollout().GetState() != dynamicdeployv1.Rollout_DONE {
			t.Errorf("after the promotion %d of 3 instances are updated; %v", w.updated(2), w.Rollout())
		}
	})
}

func TestAnEarlierVersionNeedsNoCanary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.after(5 * time.Second)
		w.Deploy(canary(10))
		w.SetDesired(func(desired *masterv1.DesiredState) { desired.FromVersion = 1 })
		w.after(time.Minute)
		if w.updated(2) != 3 || w.Rollout().GetState() != dynamicdeployv1.Rollout_DONE {
			t.Errorf("%d of 3 instances are updated; %v", w.updated(2), w.Rollout())
		}
	})
}

func TestAStrategyMayBeForOneRollout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, nil)
		w.after(5 * time.Second)
		deployed := func(image string, once *apiv1.UpdatePolicy_OneRollout) func(*apiv1.RoleSpec) {
			return func(role *apiv1.RoleSpec) {
				role.Image, role.Update = image, atOnce()
				role.Update.Strategy, role.Update.Once = apiv1.UpdatePolicy_BLUE_GREEN, once
			}
		}
		canaryOf30 := &apiv1.UpdatePolicy_OneRollout{Strategy: apiv1.UpdatePolicy_CANARY, CanaryPercent: 30}
		waits := func(when string) {
			t.Helper()
			w.after(time.Minute)
			if r := w.Rollout(); r.GetState() != dynamicdeployv1.Rollout_PAUSED || !r.GetCanary() || r.GetPercent() != 30 {
				t.Errorf("%s: %v", when, r)
			}
		}
		done := func(when string) {
			t.Helper()
			w.after(time.Minute)
			if r := w.Rollout(); r.GetState() != dynamicdeployv1.Rollout_DONE || r.GetCanary() {
				t.Errorf("%s: %v", when, r)
			}
		}
		w.Deploy(deployed("web:2", canaryOf30))
		waits("a strategy of its own")
		w.SetDesired(func(desired *masterv1.DesiredState) { desired.Spec.Roles[0].Instances = 4 })
		waits("another count")
		w.kill()
		w.start()
		waits("another master")
		w.Deploy(deployed("web:3", nil))
		done("the next version")
		w.Deploy(deployed("web:2", canaryOf30))
		w.SetDesired(func(desired *masterv1.DesiredState) { desired.FromVersion = 2 })
		done("a version again, which does not repeat how it came in")
	})
}

func TestAPreviewSaysWhatIsReplacedAndWhetherThereIsRoom(t *testing.T) {
	type edit = func(*apiv1.AppSpec)
	image := func(s *apiv1.AppSpec) { s.Roles[0].Image = "web:2" }
	for name, c := range map[string]struct {
		// capacity is how many containers fit on the node, of which three are taken.
		capacity      int
		edit          edit
		text, summary string
	}{
		"another count": {4, func(s *apiv1.AppSpec) { s.Roles[0].Instances = 5 }, "", "none would be replaced"},
		"another image": {
			4, image, "web-1, web-2, web-3 would be replaced, at most 1 at a time (maxSurge 1, maxUnavailable 0); there is room for the first new instance",
			"3 instances would be replaced",
		},
		"no room": {
			3, image, "web-1, web-2, web-3 would be replaced, at most 1 at a time (maxSurge 1, maxUnavailable 0); there is no room beside them, and it would wait: " +
				"every node is full; " + "`maxUnavailable: 1` in its update policy (`--max-unavailable 1`) would help: an old instance then goes first and makes room for a new one",
			"3 instances would be replaced",
		},
		"no room, and another size": {
			3, func(s *apiv1.AppSpec) { s.Roles[0].Resources = &corev1.Resources{CpuMillis: 1 << 20} },
			"web-1, web-2, web-3 would be replaced, at most 1 at a time (maxSurge 1, maxUnavailable 0); there is no room beside them, and it would wait: every node is full",
			"3 instances would be replaced",
		},
		"an old one first": {
			3, func(s *apiv1.AppSpec) { image(s); s.Roles[0].Update = &apiv1.UpdatePolicy{MaxUnavailable: 1} },
			"web-1, web-2, web-3 would be replaced, at most 1 at a time (maxSurge 0, maxUnavailable 1); an old instance goes first and makes room, for there is none beside them",
			"3 instances would be replaced",
		},
		"fewer, and those that end make room": {
			3, func(s *apiv1.AppSpec) { image(s); s.Roles[0].Instances = 1 },
			"1 of web-1, web-2, web-3 would be replaced, at most 1 at a time (maxSurge 1, maxUnavailable 0); 2 would end; those that end make room",
			"1 instance would be replaced; 2 instances would end",
		},
		"fewer of the same": {3, func(s *apiv1.AppSpec) { s.Roles[0].Instances = 1 }, "", "none would be replaced; 2 instances would end"},
		"another role":      {3, func(s *apiv1.AppSpec) { s.Roles[0].Name = "front" }, "", "none would be replaced; 3 instances would end"},
		"blue-green, and half of the room": {
			5, func(s *apiv1.AppSpec) {
				image(s)
				s.Roles[0].Update = &apiv1.UpdatePolicy{Strategy: apiv1.UpdatePolicy_BLUE_GREEN, MaxSurge: 1}
			},
			"3 instances of the new version would be made ready beside 3 present ones, and then take over; there is room for 2 of them only: every node is full",
			"3 instances would be replaced",
		},
		"a canary, this once": {
			5, func(s *apiv1.AppSpec) {
				image(s)
				s.Roles[0].Update = &apiv1.UpdatePolicy{MaxSurge: 1, Once: &apiv1.UpdatePolicy_OneRollout{Strategy: apiv1.UpdatePolicy_CANARY, CanaryPercent: 40}}
			},
			"2 instances of the new version would be started beside 3 present ones, with 40 % of the requests until it is promoted; there is room for them",
			"3 instances would be replaced",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 0, nil)
				w.AddNode("node-1", c.capacity)
				w.after(10 * time.Second)
				before := w.Leases()
				spec := proto.CloneOf(w.Desired().GetSpec())
				c.edit(spec)
				previewed, text := w.preview(spec), ""
				for _, line := range previewed.GetLines() {
					text += line.GetText()
				}
				if text != c.text || previewed.GetSummary() != c.summary {
					t.Errorf("it says %q; %q", text, previewed.GetSummary())
				}
				w.after(time.Minute)
				if w.Leases() != before || w.Desired().GetVersion() != 1 {
					t.Errorf("a preview has changed something: %d leases, version %d", w.Leases(), w.Desired().GetVersion())
				}
			})
		})
	}
}

// preview is what the master says that the deployment of a spec would do.
func (w *world) preview(spec *apiv1.AppSpec) *apiv1.Previewed {
	w.Helper()
	command, err := anypb.New(&apiv1.Preview{Spec: spec})
	if err != nil {
		w.Fatal(err)
	}
	answer, err := w.Command(w.Context(), command)
	if err != nil {
		w.Fatal(err)
	}
	previewed := &apiv1.Previewed{}
	if err := answer.UnmarshalTo(previewed); err != nil {
		w.Fatal(err)
	}
	return previewed
}

// A deployment that leaves the rollout of a role as it is replaces none of its instances, whatever that rollout does by itself.
func TestAPreviewLeavesARolloutThatGoesOn(t *testing.T) {
	const newDB = "db: web-db-1, web-db-2 would be replaced, at most 1 at a time (maxSurge 1, maxUnavailable 0); there is room for the first new instance"
	once := func(percent int32) func(*apiv1.UpdatePolicy) {
		return func(update *apiv1.UpdatePolicy) {
			update.Once = &apiv1.UpdatePolicy_OneRollout{Strategy: apiv1.UpdatePolicy_CANARY, CanaryPercent: percent}
		}
	}
	for name, c := range map[string]struct {
		front, db *apiv1.RoleSpec
		// lines are not compared if they are nil.
		lines   []string
		summary string
	}{
		"another role": {
			part("front", "front:2", 4, once(30)), part("db", "db:2", 2, nil),
			[]string{newDB, "front: its rollout goes on as it is"},
			"2 instances would be replaced",
		},
		"another role, and fewer of the canary": {
			part("front", "front:2", 3, once(30)), part("db", "db:2", 2, nil),
			[]string{newDB, "front: its rollout goes on as it is"},
			"2 instances would be replaced; 2 instances would end",
		},
		"another count": {
			part("front", "front:2", 5, once(30)), part("db", "db:1", 2, nil),
			[]string{"front: its rollout goes on as it is"},
			"none would be replaced",
		},
		"another policy":                    {part("front", "front:2", 4, asCanary(50)), part("db", "db:1", 2, nil), nil, "2 instances would be replaced; 2 instances would end"},
		"another strategy for this rollout": {part("front", "front:2", 4, once(75)), part("db", "db:2", 2, nil), nil, "4 instances would be replaced; 2 instances would end"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newParts(t)
				w.DeployRoles(part("front", "front:2", 4, once(30)), part("db", "db:1", 2, nil))
				w.after(time.Minute)
				w.states("PAUSED 2 of 4, a canary with 30 %", "DONE 2 of 2")
				spec := proto.CloneOf(w.Desired().GetSpec())
				spec.Roles = []*apiv1.RoleSpec{c.front, c.db}
				previewed := w.preview(spec)
				var lines []string
				for _, line := range previewed.GetLines() {
					lines = append(lines, line.GetRole()+": "+line.GetText())
				}
				if c.lines != nil && !slices.Equal(lines, c.lines) || previewed.GetSummary() != c.summary {
					t.Errorf("it says %q; %q", lines, previewed.GetSummary())
				}
			})
		})
	}
}

// A rollout that has failed begins anew with the next version, and else stays as it is.
func TestAPreviewOfARolloutThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newParts(t)
		w.behave(crashing("front:2"))
		front := part("front", "front:2", 4, func(update *apiv1.UpdatePolicy) { update.AutoRevert = false })
		w.DeployRoles(front, part("db", "db:1", 2, nil))
		w.after(5 * time.Minute)
		if got := w.Rollout().GetRoles()[0].GetState(); got != dynamicdeployv1.Rollout_FAILED {
			t.Fatalf("the rollout is %v", got)
		}
		spec := proto.CloneOf(w.Desired().GetSpec())
		spec.Roles[1].Instances = 3
		if got := w.preview(spec); len(got.GetLines()) > 0 || got.GetSummary() != "none would be replaced" {
			t.Errorf("of another count it says %v", got)
		}
		spec.Roles[1].Image = "db:2"
		if got := w.preview(spec); len(got.GetLines()) != 2 || !strings.HasPrefix(got.GetLines()[1].GetText(), "web-front-") {
			t.Errorf("of another version it says %v", got)
		}
	})
}
