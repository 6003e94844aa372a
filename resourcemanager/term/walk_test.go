package term

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// TestWhateverHappensNoLeaseIsLostOrDoubled walks at random through grants, starts, deaths, releases, lost nodes, dead
// masters and restarts of the ResourceManager. After each step what the ResourceManager holds on the node
// covers everything that runs there; once everything was released and the node is back, it holds nothing.
func TestWhateverHappensNoLeaseIsLostOrDoubled(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{
			"ask", "ask", "start", "start", "die", "release", "cut", "register", "kill master", "restart", "pass",
		}), 1, 25).Draw(r, "steps")
		fine := t.Run("walk", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := &store.Disk{}
				w := &walk{z: newTestZone(t, func() store.Store {
					return store.OpenMemory(disk, store.Options{Now: time.Now(), EventRetention: 100})
				}), granted: map[string]bool{}}
				defer w.z.stop()
				w.n = w.z.addNode("node-1")
				w.z.deploy(webSpec(1))
				w.m = w.n.launchMaster()
				for _, step := range steps {
					w.step(step)
					w.check(step)
				}
				w.end()
			})
		})
		if !fine {
			r.Fatal("the walk went wrong")
		}
	})
}

type walk struct {
	z *testZone
	n *fakeNode
	m *fakeMaster
	// away is true while the node is not connected.
	away  bool
	asked int
	// granted are the containers that the master was told of and has not given back.
	granted map[string]bool
}

func (w *walk) step(step string) {
	switch step {
	case "ask":
		w.asked++
		w.take(w.m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask1(fmt.Sprintf("web-%d", w.asked))}}))
	case "start":
		for container := range w.granted {
			if !w.away && w.n.containers[container] == nil {
				w.n.run(container, map[string]string{"instance": "web"})
				return
			}
		}
	case "die":
		for container := range w.granted {
			if !w.away && w.n.containers[container] != nil {
				w.n.done(container, &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 1})
				return
			}
		}
	case "release":
		for container := range w.granted {
			delete(w.granted, container)
			w.take(w.m.say(&masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: container}}}))
			return
		}
	case "cut":
		w.n.cut()
		w.away = true
	case "register":
		w.n.register()
		w.away = false
	case "kill master":
		if master := masterContainer(w.z, "web"); !w.away && w.n.containers[master] != nil {
			w.n.done(master, &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 137})
			w.m = w.n.launchMaster()
			w.adopt()
		}
	case "restart":
		w.z.restart()
		w.n.register()
		w.away = false
		w.m.connect()
		w.adopt()
	case "pass":
		w.z.pass(12 * time.Second) // long enough to lose a node
	}
	synctest.Wait()
	w.take(w.m.heard())
}

func (w *walk) take(answers []*masterv1.AllocateResponse) {
	for _, answer := range answers {
		for _, allocation := range answer.GetAllocated() {
			w.granted[allocation.GetLease().GetContainerId()] = true
		}
		for _, status := range answer.GetCompleted() {
			delete(w.granted, status.GetLease().GetContainerId())
		}
	}
}

// adopt checks that a registration hands over everything that runs, and takes what it hands over.
func (w *walk) adopt() {
	held := map[string]bool{}
	for _, allocation := range w.m.register.GetContainers() {
		if held[allocation.GetLease().GetContainerId()] {
			w.z.t.Fatalf("%s is handed over twice", allocation.GetLease().GetContainerId())
		}
		held[allocation.GetLease().GetContainerId()] = true
	}
	for container, status := range w.n.containers {
		if status.GetState() == corev1.ContainerStatus_RUNNING && container != masterContainer(w.z, "web") && !held[container] {
			w.z.t.Fatalf("%s runs and is not handed over", container)
		}
	}
	w.granted = held
}

// check compares what the ResourceManager holds with what runs.
func (w *walk) check(step string) {
	w.z.t.Helper()
	node := w.z.node("node-1")
	held := map[string]bool{}
	for _, c := range node.GetContainers() {
		held[c.GetId()] = true
	}
	w.n.mu.Lock()
	for container, status := range w.n.containers {
		if status.GetState() == corev1.ContainerStatus_RUNNING && !held[container] {
			w.z.t.Errorf("after %q: %s runs, and its lease is not held", step, container)
		}
	}
	w.n.mu.Unlock()
	if want := int64(100*masters(node) + 500*(len(held)-masters(node))); node.GetUsed().GetCpuMillis() != want {
		w.z.t.Errorf("after %q: %d containers hold %d, want %d", step, len(held), node.GetUsed().GetCpuMillis(), want)
	}
}

func masters(node *apiv1.Node) int {
	count := 0
	for _, c := range node.GetContainers() {
		if c.GetResources().GetCpuMillis() == 100 {
			count++
		}
	}
	return count
}

// end removes the app, after which nothing may be left.
func (w *walk) end() {
	w.z.t.Helper()
	w.n.register()
	master := masterContainer(w.z, "web")
	if _, err := w.z.apps().RemoveApp(context.Background(), &apiv1.RemoveAppRequest{Name: "web"}); err != nil {
		w.z.t.Fatal(err)
	}
	synctest.Wait()
	w.n.done(master, &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 137})
	w.z.pass(3 * time.Second)
	if node := w.z.node("node-1"); len(node.GetContainers()) != 0 || node.GetUsed().GetCpuMillis() != 0 {
		w.z.t.Errorf("at the end the node holds %v", node.GetContainers())
	}
	if list, err := w.z.apps().ListApps(context.Background(), &apiv1.ListAppsRequest{}); err != nil || len(list.GetApps()) != 0 {
		w.z.t.Errorf("at the end there are %v, %v", list.GetApps(), err)
	}
}
