package term

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// inBoltZone runs a test in a bubble with a ResourceManager on a real file.
func inBoltZone(t *testing.T, test func(*testZone)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "store")
		z := newTestZone(t, func() store.Store {
			s, err := store.OpenFile(path, store.Options{Now: time.Now(), EventRetention: 10_000})
			if err != nil {
				t.Fatal(err)
			}
			return s
		})
		defer z.stop()
		test(z)
	})
}

func TestARestartedResourceManagerLosesAndDoublesNothing(t *testing.T) {
	inBoltZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(3))
		m := n.launchMaster()
		one, two := m.startInstance(n, "web-1"), m.startInstance(n, "web-2")
		waiting := ask1("web-3")
		waiting.Resources.CpuMillis = 3000
		if got := allocated(m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{waiting}, Memo: []byte("remember")})); len(got) != 0 {
			t.Fatal("the test wants an ask that waits")
		}
		before := z.app("web")
		events := z.events("")
		for range 3 {
			z.restart()
			if ids, _ := z.board.Serving("web"); !slices.Equal(ids, []string{"web-1", "web-2"}) {
				t.Fatalf("in the registry right after the restart: %v", ids)
			}
			if after := z.app("web"); after.GetState() != apiv1.App_RUNNING || after.GetRunning() != 2 || after.GetId() != before.GetId() {
				t.Fatalf("right after the restart the app is %v with %d instances", after.GetState(), after.GetRunning())
			}
			n.register()
			if len(n.reap) != 0 {
				t.Fatalf("the node has to give up %v", n.reap)
			}
			if len(n.launches) != 1 || len(n.stops) != 0 {
				t.Fatalf("the node was told to launch %d masters and stop %d containers", len(n.launches), len(n.stops))
			}
			m.connect()
			var held []string
			for _, allocation := range m.register.GetContainers() {
				held = append(held, allocation.GetLease().GetContainerId())
			}
			if !slices.Equal(held, []string{one, two}) || string(m.register.GetMemo()) != "remember" {
				t.Fatalf("the master is handed over %v and %q", held, m.register.GetMemo())
			}
			if got := z.node("node-1").GetUsed().GetCpuMillis(); got != 1100 {
				t.Fatalf("%d is held, want 1100", got)
			}
		}
		// The ask that waited still does, and is granted once there is room.
		if got := allocated(m.say(&masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: one}}, GoneInstances: []string{"web-1"}})); len(got) != 1 {
			t.Errorf("after there was room %d containers were granted", len(got))
		} else if granted := got[0].GetLease(); !strings.HasPrefix(granted.GetContainerId(), "container_e4_") || granted.GetAskId() != "web-3/1" {
			t.Errorf("granted: %v", granted)
		}
		later := z.events("")
		if len(later) <= len(events) || later[len(events)].GetSequence() != events[len(events)-1].GetSequence()+1 {
			t.Error("the events do not go on where they were")
		}
	})
}

func TestAsksWaitInTheirOrderAfterARestartToo(t *testing.T) {
	inBoltZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(3))
		m := n.launchMaster()
		held := m.startInstance(n, "web-1")
		var asks []*masterv1.Ask
		for _, name := range []string{"web-9", "web-10", "web-2"} {
			ask := ask1(name)
			ask.Resources.CpuMillis = 3600
			asks = append(asks, ask)
		}
		if got := allocated(m.say(&masterv1.AllocateRequest{Asks: asks})); len(got) != 0 {
			t.Fatal("the test wants asks that wait")
		}
		z.restart()
		n.register()
		m.connect()
		m.openStream()
		release := &masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: held}}, GoneInstances: []string{"web-1"}}
		for _, want := range []string{"web-9/1", "web-10/1", "web-2/1"} {
			got := allocated(m.say(release))
			if len(got) != 1 || got[0].GetLease().GetAskId() != want {
				t.Fatalf("granted were %v, it is the turn of %s", got, want)
			}
			release = &masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: got[0].GetLease().GetContainerId()}}}
		}
	})
}

func TestAMasterThatEndedWhileTheResourceManagerWasAwayIsReplaced(t *testing.T) {
	inBoltZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		m.startInstance(n, "web-1")
		master := masterContainer(z, "web")
		z.stop()
		n.containers[master].State = corev1.ContainerStatus_DONE
		n.containers[master].Exit = &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 137}
		z.start()
		n.register()
		if !slices.Contains(n.reap, master) {
			t.Errorf("the node may forget %v, not the master's end", n.reap)
		}
		next := n.launchMaster()
		if next.attempt != 2 || len(next.register.GetContainers()) != 1 {
			t.Errorf("attempt %d is handed over %d containers", next.attempt, len(next.register.GetContainers()))
		}
	})
}

func TestAMasterThatWasGrantedButNotLaunchedIsLaunchedAfterARestart(t *testing.T) {
	inBoltZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		master := masterContainer(z, "web")
		z.restart() // the node never got round to it
		n.register()
		m := n.launchMaster()
		if m.attempt != 1 || masterContainer(z, "web") != master {
			t.Errorf("attempt %d in %s, want attempt 1 in %s", m.attempt, masterContainer(z, "web"), master)
		}
	})
}

func TestANodeThatDoesNotComeBackAfterARestartIsLost(t *testing.T) {
	inBoltZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		m.startInstance(n, "web-1")
		z.restart()
		if got := z.node("node-1").GetState(); got != apiv1.NodeState_READY {
			t.Errorf("right after the restart it is %v", got)
		}
		z.pass(12 * time.Second)
		if node := z.node("node-1"); node.GetState() != apiv1.NodeState_LOST || len(node.GetContainers()) != 2 {
			t.Errorf("later it is %v with %d containers", node.GetState(), len(node.GetContainers()))
		}
	})
}

func TestARemovalGoesOnAfterARestart(t *testing.T) {
	inBoltZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		container := m.startInstance(n, "web-1")
		n.deaf.Store(true)
		if _, err := z.apps().RemoveApp(context.Background(), &apiv1.RemoveAppRequest{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		m.say(&masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: container}}})
		master := masterContainer(z, "web")
		z.restart()
		n.register()
		if !n.stopped(container) {
			t.Error("the stop was forgotten")
		}
		n.done(container, &corev1.Exit{Reason: corev1.Exit_STOPPED})
		if !n.stopped(master) {
			t.Error("the master was not stopped after the last instance")
		}
		n.done(master, &corev1.Exit{Reason: corev1.Exit_STOPPED})
		synctest.Wait()
		list, err := z.apps().ListApps(context.Background(), &apiv1.ListAppsRequest{})
		if err != nil || len(list.GetApps()) != 0 {
			t.Errorf("apps: %v, %v", list.GetApps(), err)
		}
		z.restart()
		list, err = z.apps().ListApps(context.Background(), &apiv1.ListAppsRequest{})
		if err != nil || len(list.GetApps()) != 0 {
			t.Errorf("apps after another restart: %v, %v", list.GetApps(), err)
		}
	})
}
