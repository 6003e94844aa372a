package driver_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mammoth-os/mammoth/appmaster/mastertest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// slowly makes the containers of one image healthy after five seconds.
func slowly(image string) func(*corev1.ContainerSpec) mastertest.Behaviour {
	return func(spec *corev1.ContainerSpec) mastertest.Behaviour {
		behaviour := mastertest.Normal(spec)
		if spec.GetImage() == image {
			behaviour.Healthy = 5 * time.Second
		}
		return behaviour
	}
}

// newShop is a world whose app has a front that starts after a db.
func newShop(t *testing.T, behave func(*corev1.ContainerSpec) mastertest.Behaviour) *world {
	w := newWorld(t, 2, func(role *apiv1.RoleSpec) { role.Name, role.Image, role.Instances = "unused", "unused:1", 0 })
	w.behave(behave)
	w.SetDesired(func(desired *masterv1.DesiredState) {
		desired.Spec.Roles = []*apiv1.RoleSpec{
			{Name: "front", Image: "front:1", Instances: 2, After: []string{"db"}, Update: atOnce()},
			{Name: "db", Image: "db:1", Instances: 1, Update: atOnce()},
		}
		desired.Version++
	})
	return w
}

// deploy makes a version with other images.
func (w *world) deploy(front, db string) {
	w.SetDesired(func(desired *masterv1.DesiredState) {
		desired.Spec.Roles[0].Image, desired.Spec.Roles[1].Image = front, db
		desired.Version++
		desired.Revised = false
	})
}

// images are those of the containers that run.
func (w *world) images() string {
	var images []string
	for _, instance := range w.Instances() {
		if instance.GetContainerId() != "" {
			version := instance.GetVersion()
			images = append(images, strings.TrimPrefix(instance.GetId(), "web-")+" v"+string(rune('0'+version)))
		}
	}
	return strings.Join(images, ", ")
}

func TestARoleStartsAfterTheOnesThatItNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newShop(t, slowly("db:1"))
		w.after(4 * time.Second)
		w.serves()
		if got := w.images(); got != "db-1 v2" {
			t.Errorf("before the db is healthy there are %s", got)
		}
		waiting := 0
		for _, instance := range w.Instances() {
			if instance.GetRole() == "front" && instance.GetState() == apiv1.Instance_PENDING && instance.GetReason() == "role front begins once role db is ready" {
				waiting++
			}
		}
		if waiting != 2 {
			t.Errorf("%d instances say what they wait for: %v", waiting, w.Instances())
		}
		if r := w.Rollout(); r.GetState() != dynamicdeployv1.Rollout_PROGRESSING || r.GetTotal() != 3 || r.GetUpdated() != 0 {
			t.Errorf("rollout %v", r)
		}
		// A master that takes over in the middle waits as well.
		w.kill()
		w.start()
		w.after(500 * time.Millisecond)
		if got := w.images(); got != "db-1 v2" {
			t.Errorf("after a new master has taken over there are %s", got)
		}
		w.after(5 * time.Second)
		w.serves("web-db-1", "web-front-1", "web-front-2")
		if r := w.Rollout(); r.GetState() != dynamicdeployv1.Rollout_DONE {
			t.Errorf("rollout %v", r)
		}
	})
}

func TestARoleIsUpdatedAfterTheOnesThatItNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newShop(t, slowly("db:2"))
		w.after(2 * time.Second)
		w.deploy("front:2", "db:2")
		w.after(4 * time.Second)
		if got := w.images(); got != "db-1 v2, db-2 v3, front-1 v2, front-2 v2" {
			t.Errorf("before the new db is healthy there are %s", got)
		}
		// An instance that fails meanwhile is replaced by the same version, and the desired count is kept.
		for container, status := range w.Containers() {
			if status.GetLabels()["instance"] == "web-front-1" {
				w.Kill(container)
			}
		}
		w.SetDesired(func(desired *masterv1.DesiredState) { desired.Spec.Roles[0].Instances = 3 })
		w.after(500 * time.Millisecond)
		if got := w.images(); got != "db-1 v2, db-2 v3, front-1 v2, front-2 v2, front-3 v2" {
			t.Errorf("after a scaling and an end there are %s", got)
		}
		w.after(10 * time.Second)
		if got := w.images(); got != "db-2 v3, front-1 v3, front-2 v3, front-4 v3" {
			t.Errorf("at the end there are %s", got)
		}
		if r := w.Rollout(); r.GetState() != dynamicdeployv1.Rollout_DONE || r.GetUpdated() != 4 {
			t.Errorf("rollout %v", r)
		}
		// A change of the front alone waits for nobody.
		w.deploy("front:3", "db:2")
		w.after(5 * time.Second)
		if got := w.images(); got != "db-2 v4, front-1 v4, front-2 v4, front-3 v4" || w.Rollout().GetState() != dynamicdeployv1.Rollout_DONE {
			t.Errorf("after a change of the front there are %s: %v", got, w.Rollout())
		}
	})
}

func TestARoleStaysAsItIsWhenTheOneBeforeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newShop(t, crashing("db:2"))
		w.after(2 * time.Second)
		before := w.Registry()
		w.deploy("front:2", "db:2")
		w.after(2 * time.Minute)
		if len(w.Revisions()) != 1 {
			t.Fatalf("reverts: %v", w.Revisions())
		}
		for _, name := range []string{"web-front-1", "web-front-2"} {
			if got := w.Registry()[name]; got == "" || got != before[name] {
				t.Errorf("%s was touched: %q became %q", name, before[name], got)
			}
		}
		if r := w.Rollout(); r.GetState() != dynamicdeployv1.Rollout_REVERTED {
			t.Errorf("rollout %v", r)
		}
	})
}

func TestAStartAfterAStopKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newShop(t, slowly("db:1"))
		w.after(10 * time.Second)
		w.serves("web-db-1", "web-front-1", "web-front-2")
		w.SetDesired(func(desired *masterv1.DesiredState) { desired.Stopped = true })
		w.after(10 * time.Second)
		w.serves()
		w.SetDesired(func(desired *masterv1.DesiredState) { desired.Stopped = false })
		w.after(4 * time.Second)
		if got := w.images(); got != "db-1 v2" {
			t.Errorf("before the db is healthy again there are %s", got)
		}
		w.after(3 * time.Second)
		w.serves("web-db-1", "web-front-1", "web-front-2")
		// If the db fails later, the front keeps its instances.
		for container, status := range w.Containers() {
			if status.GetLabels()["instance"] == "web-db-1" {
				w.Kill(container)
			}
		}
		w.after(time.Second)
		w.serves("web-front-1", "web-front-2")
	})
}
