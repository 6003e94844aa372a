package driver_test

import (
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mammoth-os/mammoth/appmaster/mastertest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func TestANodeThatIsLostIsReplacedAndReapedWhenItReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, nil)
		w.after(time.Second)
		w.add("node-2")
		w.nodes["node-1"].Lose()
		w.after(time.Second)
		w.serves("web-1", "web-2", "web-3")
		if w.Starts() != 6 || len(w.Containers()) != 6 {
			t.Errorf("%d starts, %d containers", w.Starts(), len(w.Containers()))
		}
		w.nodes["node-1"].Return()
		w.after(time.Second)
		w.serves("web-1", "web-2", "web-3")
		if len(w.Containers()) != 3 || w.Starts() != 6 {
			t.Errorf("after its return %d containers, %d starts", len(w.Containers()), w.Starts())
		}
	})
}

func TestANodeThatReturnsBeforeItsReplacementKeepsItsInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, nil)
		w.after(time.Second)
		steady := w.Registry()
		w.nodes["node-1"].Lose()
		w.after(10 * time.Second)
		w.serves()
		w.nodes["node-1"].Return()
		w.after(10 * time.Second)
		if got := w.Registry(); !maps.Equal(got, steady) || w.Starts() != 3 || w.Leases() != 3 {
			t.Errorf("registry %v, was %v; %d starts, %d leases", got, steady, w.Starts(), w.Leases())
		}
	})
}

func TestADrainedNodeIsEmptiedWithoutServingLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, func(role *apiv1.RoleSpec) { role.Instances = 4 })
		w.after(time.Second)
		w.nodes["node-1"].Set(apiv1.NodeState_DRAINING)
		for range 100 {
			w.after(50 * time.Millisecond)
			if len(w.Registry()) < 4 {
				t.Fatalf("only %v serve", w.Registry())
			}
		}
		for name, container := range w.Containers() {
			if container.GetLease().GetNodeId() != "node-2" {
				t.Errorf("%s is still on %s", name, container.GetLease().GetNodeId())
			}
		}
	})
}

func TestAPreemptedInstanceIsMovedBeforeTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.after(time.Second)
		w.Preempt(w.Registry()["web-2"], 30*time.Second)
		for range 100 {
			w.after(100 * time.Millisecond)
			if len(w.Registry()) < 3 {
				t.Fatalf("only %v serve", w.Registry())
			}
		}
		w.serves("web-1", "web-3", "web-4")
		if w.Leases() != 3 {
			t.Errorf("%d leases", w.Leases())
		}
	})
}

func TestAnInstanceWhoseNoticeIsTakenBackStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.after(time.Second)
		container := w.Registry()["web-2"]
		w.Preempt(container, 30*time.Second)
		w.CancelPreemption(container)
		w.after(time.Minute)
		w.serves("web-1", "web-2", "web-3")
		if got := w.Registry()["web-2"]; got != container {
			t.Errorf("web-2 is %s; it was %s and could have stayed", got, container)
		}
		if w.Leases() != 3 {
			t.Errorf("%d leases", w.Leases())
		}
	})
}

func TestNodeManagersMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, nil)
		w.after(time.Second)
		w.nodes["node-1"].Restart()
		w.after(time.Second)
		w.Kill(w.Registry()["web-1"])
		w.after(time.Second)
		w.serves("web-1", "web-2", "web-3")
		w.scale(4)
		w.after(time.Second)
		w.serves("web-1", "web-2", "web-3", "web-4")
	})
}

func TestANodeWhoseStartsFailIsAvoided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.nodes["node-1"].SetBehaviour(func(*corev1.ContainerSpec) mastertest.Behaviour {
			return mastertest.Behaviour{Launch: 10 * time.Millisecond, LaunchFails: true}
		})
		w.after(30 * time.Second)
		w.serves("web-1", "web-2", "web-3")
		for _, endpoint := range w.Registry() {
			if node := w.Containers()[endpoint].GetLease().GetNodeId(); node != "node-2" {
				t.Errorf("%s serves on %s", endpoint, node)
			}
		}
		if w.Starts() > 12 {
			t.Errorf("%d starts", w.Starts())
		}
	})
}
