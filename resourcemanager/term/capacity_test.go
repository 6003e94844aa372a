package term

import (
	"context"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// sized is an app of one instance that wants so much cpu.
func sized(name string, millis int64) *apiv1.AppSpec {
	spec := webSpec(1)
	spec.Name, spec.Roles[0].Resources.CpuMillis = name, millis
	return spec
}

func TestWhatFitsNoNodeBesideItsOwnMasterIsRefused(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1") // of four cores
		_, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Spec: sized("big", 4000)})
		if err == nil || !strings.Contains(err.Error(), "beside its own application master") || !strings.Contains(err.Error(), "ask for 3.9 at most") {
			t.Errorf("all of the only node: %v", err)
		}
		if _, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Spec: sized("big", 3900)}); err != nil {
			t.Errorf("all of the only node but what its master needs: %v", err)
		}
		z.addNode("node-2")
		if _, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Spec: sized("large", 4000)}); err != nil {
			t.Errorf("all of one of two nodes: %v", err)
		}
	})
}

// Names are kept for the resources that nodes have, however many an app makes up.
func TestAResourceThatNoNodeHasIsRefused(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		named := func(names ...string) error {
			spec := sized(names[0], 100)
			spec.Roles[0].Resources.Extended = map[string]int64{}
			for _, name := range names {
				spec.Roles[0].Resources.Extended[name] = 1
			}
			_, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Spec: spec})
			return err
		}
		for range 3 {
			if err := named("a", "b", "c", "d"); err == nil || !strings.Contains(err.Error(), `no node has a resource named "a"; nodes have cpu, memory, disk, ports`) {
				t.Errorf("resources that nobody has: %v", err)
			}
		}
		n.cut()
		n.capacity.Extended = map[string]int64{"gpu": 2}
		n.register()
		if err := named("gpu"); err != nil {
			t.Errorf("a resource that a node has: %v", err)
		}
		if err := named("gup"); err == nil || !strings.Contains(err.Error(), `no node has a resource named "gup"; nodes have cpu, memory, disk, ports, gpu`) {
			t.Errorf("its name, misspelt: %v", err)
		}
	})
}

// Resources are counted by position, of which a zone has four for those that its nodes name.
func TestANodeWithAFifthResourceIsRefused(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		register := func(name string, extended map[string]int64) error {
			_, err := trackerv1.NewResourceTrackerClient(z.conn).Register(context.Background(), &trackerv1.RegisterRequest{
				NodeId: name, Address: "10.0.0.1", ContainerManager: name + ":7071", Health: &corev1.NodeHealth{Healthy: true},
				Capacity: &corev1.Resources{CpuMillis: 1000, MemoryBytes: 1 << 30, DiskBytes: 1 << 30, Extended: extended},
			})
			return err
		}
		n.cut()
		n.capacity.Extended = map[string]int64{"a": 1, "b": 1, "c": 1, "d": 1}
		n.register()
		if err := register("node-2", map[string]int64{"d": 7}); err != nil {
			t.Errorf("a node with a resource that the zone counts: %v", err)
		}
		if err := register("node-3", map[string]int64{"e": 1}); err == nil || !strings.Contains(err.Error(), `it has no room for "e"`) {
			t.Errorf("a node with a fifth resource: %v", err)
		}
	})
}

func TestAnAskThatCannotBeMetKeepsNothingFromOthers(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		service := func(name string) *masterv1.Ask {
			ask := ask1(name)
			ask.Resources.CpuMillis, ask.Service = 100, true
			return ask
		}
		small := z.master(n, "small", "")
		lost := allocated(small.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{service("small-1/1")}}))
		n.run(lost[0].GetLease().GetContainerId(), nil)
		big := z.master(n, "big", "")
		large := service("big-1/1")
		large.Resources.CpuMillis = 3900
		if got := allocated(big.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{large}})); len(got) != 0 {
			t.Fatalf("3.9 of the 3.7 cores that are left were given away: %v", got)
		}
		z.pass(time.Minute)
		// What fails is replaced, and what comes later starts.
		n.done(lost[0].GetLease().GetContainerId(), &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 1})
		again := service("small-1/2")
		again.Replaces = true
		if got := allocated(small.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{again}})); len(got) != 1 {
			t.Errorf("a failed instance was not replaced: %v", got)
		}
		late := z.master(n, "late", "")
		if got := allocated(late.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{service("late-1/1")}})); len(got) != 1 {
			t.Errorf("an app that came later was given %v", got)
		}
		explanation, err := z.apps().ExplainApp(context.Background(), &apiv1.GetAppRequest{Name: "big"})
		if err != nil {
			t.Fatal(err)
		}
		obstacle := explanation.GetObstacles()[0]
		if !strings.Contains(obstacle.GetReason(), "node-1 has 3.5 cpu free, 3.9 are requested") || !strings.Contains(obstacle.GetHelp(), "node-1 comes nearest and lacks 0.4 cpu") {
			t.Errorf("the large one is told %v", obstacle)
		}
	})
}

func TestTheFirstAppOfAQueueHasItsMaster(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		tree := []*apiv1.QueueSpec{{Name: "root"}, {Name: "default", Parent: "root", MaxMasterPercent: 1}, {Name: "tiny", Parent: "root", Maximum: &apiv1.Capacity{Absolute: &corev1.Resources{CpuMillis: 90}}}}
		if _, err := z.rm.SetQueues(as("root"), &apiv1.SetQueuesRequest{Queues: tree}); err != nil {
			t.Fatal(err)
		}
		z.deploy(sized("web", 500))
		n.launchMaster()
		spec := sized("never", 10)
		spec.Queue = "tiny"
		_, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Spec: spec})
		if err == nil || !strings.Contains(err.Error(), "an application master alone needs 0.1 cpu, and queue tiny may hold 0.09, so that no app can ever start") {
			t.Errorf("a queue that has no room for a master: %v", err)
		}
	})
}
