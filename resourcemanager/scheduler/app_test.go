package scheduler

import (
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

func TestAnAppThatIsRenamedAndMovedAsksInItsNewQueueOnly(t *testing.T) {
	core := New(Config{Epoch: 1})
	app, unit := id.App{ClusterStart: 1, Seq: 1}, resource.Vector{1000, 1 << 30}
	half := Capacity{Percent: 50, IsPercent: true}
	for _, in := range []Input{
		SetQueues{Queues: []QueueSpec{{Name: "root"}, {Name: "low", Parent: "root", Guaranteed: half}, {Name: "high", Parent: "root", Guaranteed: half}}},
		AddApp{App: app, Name: "cache", Queue: "low"},
		// The name that the app is given is one that its name before was kept apart from.
		SetAsk{App: app, Ask: Ask{ID: "a", Pending: 2, Resources: unit, AntiAffinity: []string{"web"}}},
		AddApp{App: app, Name: "web", Queue: "high"},
		SetNode{Node: NodeSpec{Name: "a", Capacity: unit}},
		SetNode{Node: NodeSpec{Name: "b", Capacity: unit}},
		SetNode{Node: NodeSpec{Name: "c", Capacity: unit}},
	} {
		if err := core.Apply(in); err != nil {
			t.Fatal(err)
		}
		if err := verify(core, false); err != nil {
			t.Fatalf("after %T: %v", in, err)
		}
	}
	grants := core.Schedule(time.Unix(0, 0)).Grants
	if len(grants) != 2 || grants[0].Queue != "high" || grants[1].Queue != "high" {
		t.Errorf("granted %+v, want two in queue high", grants)
	}
	if err := verify(core, true); err != nil {
		t.Error(err)
	}
}
