package driver_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// command gives the master a command, and fails unless it is carried out.
func (w *world) command(command proto.Message) {
	w.Helper()
	if err := w.tryCommand(command); err != nil {
		w.Fatalf("%T: %v", command, err)
	}
}

// refused fails unless a command is refused with a class and a sentence that has a part.
func (w *world) refused(command proto.Message, class func(error) bool, part string) {
	w.Helper()
	if err := w.tryCommand(command); !class(err) || !strings.Contains(err.Error(), part) {
		w.Errorf("%T gives %v, want %q", command, err, part)
	}
}

func (w *world) tryCommand(command proto.Message) error {
	w.Helper()
	content, err := anypb.New(command)
	if err != nil {
		w.Fatal(err)
	}
	_, err = w.Command(context.Background(), content)
	return err
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
		// Another share in the spec counts more than what was said before it.
		w.SetDesired(func(wanted *masterv1.Wanted) { wanted.Spec.Roles[0].Update.CanaryPercent = 20 })
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
		w.SetDesired(func(wanted *masterv1.Wanted) { wanted.FromVersion = 1 })
		w.after(time.Minute)
		if w.updated(2) != 3 || w.Rollout().GetState() != dynamicdeployv1.Rollout_DONE {
			t.Errorf("%d of 3 instances are updated; %v", w.updated(2), w.Rollout())
		}
	})
}

func TestACourseIsSaidOfOneChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, nil)
		w.after(5 * time.Second)
		said := func(image string, once *apiv1.UpdatePolicy_Course) func(*apiv1.RoleSpec) {
			return func(role *apiv1.RoleSpec) {
				role.Image, role.Update = image, atOnce()
				role.Update.Strategy, role.Update.Once = apiv1.UpdatePolicy_BLUE_GREEN, once
			}
		}
		canaryOf30 := &apiv1.UpdatePolicy_Course{Strategy: apiv1.UpdatePolicy_CANARY, CanaryPercent: 30}
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
		w.Deploy(said("web:2", canaryOf30))
		waits("a course of its own")
		w.SetDesired(func(wanted *masterv1.Wanted) {
			wanted.Spec.Roles[0].Update.Once, wanted.Spec.Roles[0].Instances = nil, 4
		})
		waits("another count, which is no word on the course")
		w.kill()
		w.start()
		waits("another master")
		w.Deploy(said("web:3", nil))
		done("the next version")
		w.Deploy(said("web:2", canaryOf30))
		w.SetDesired(func(wanted *masterv1.Wanted) { wanted.FromVersion = 2 })
		done("a version again, which does not repeat how it came in")
	})
}
