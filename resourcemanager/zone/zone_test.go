package zone

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/peer"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

func webSpec(instances int32) *apiv1.AppSpec {
	return &apiv1.AppSpec{Name: "web", Framework: "dynamicdeploy", Queue: "default", Roles: []*apiv1.RoleSpec{{
		Image: "web:1", Instances: instances,
		Resources: &corev1.Resources{CpuMillis: 500, MemoryBytes: 64 << 20, DiskBytes: 64 << 20},
	}}}
}

// empty is a zone without anything at an instant.
func empty(t testing.TB, now time.Time) *Core {
	t.Helper()
	z, _, err := Load(store.OpenMemory(&store.Disk{}, store.Options{Now: now, EventRetention: 10}), Start{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// take lets the zone take inputs at an instant.
func take(t *testing.T, z *Core, now time.Time, inputs ...Input) *Ready {
	t.Helper()
	z.Begin(now, Seed{})
	for _, in := range inputs {
		if _, err := z.Step(in); err != nil {
			t.Fatalf("%T: %v", in, err)
		}
	}
	out, err := z.Ready()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestManyAppsThatWaitAreLookedAtABitAtATime(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	z := empty(t, now)
	const apps = 1000
	var deployed []Input
	for i := range apps {
		spec := webSpec(1)
		spec.Name = fmt.Sprintf("app-%d", i)
		deployed = append(deployed, Deploy{Who: peer.User{Operator: true}, Request: &apiv1.DeployRequest{Spec: spec, IfGeneration: -1}})
	}
	take(t, z, now, deployed...)
	for range 30 {
		now = now.Add(100 * time.Millisecond)
		take(t, z, now)
	}
	all := z.Apps()
	if len(all) != apps {
		t.Fatalf("%d apps", len(all))
	}
	for _, app := range all {
		if len(app.GetWaiting()) != 1 {
			t.Fatalf("%s waits for %v", app.GetName(), app.GetWaiting())
		}
	}
	for _, a := range z.waits.due {
		a.wait.at = z.turn.now // all are due
	}
	var looked []int
	for left := apps; left > 0; {
		z.waits.inspectDue()
		before := left
		left = 0
		for _, a := range z.waits.due {
			if !a.wait.at.After(z.turn.now) {
				left++
			}
		}
		looked = append(looked, before-left)
	}
	if !slices.Equal(looked, []int{400, 400, 200}) {
		t.Errorf("so many are looked at in each turn: %v", looked)
	}
}

func TestADryRunSpeaksOfOneInstanceAsOfOne(t *testing.T) {
	for want, n := range map[string][2]int32{
		"no further instance of web would be started":                           {0, 0},
		"the instance of web would be started at once":                          {1, 0},
		"the instance of web could not be started now":                          {0, 1},
		"all 2 instances of web would be started at once":                       {2, 0},
		"none of the 2 instances of web could be started now":                   {0, 2},
		"1 of 2 instances of web would be started at once; the rest would wait": {1, 1},
	} {
		if got := planSentence("web", n[0], n[1]); got != want {
			t.Errorf("%v: %q, want %q", n, got, want)
		}
	}
}

// What changes all the time is shown so often that it takes a fiftieth of the time, after what may be shown at once.
func TestAPaceBoundsTheTimeOfViews(t *testing.T) {
	for parts, want := range map[int][2]int{0: {1100, 2200}, 1000: {40, 45}, 10_000: {4, 6}} {
		now, shown := time.Unix(1_700_000_000, 0), 0
		var p pace
		for range 10_000 {
			if p.mayShow(now, parts) {
				shown++
			} else if !p.at().After(now) {
				t.Fatalf("of %d parts it says that it may be shown at %v, which is over", parts, p.at())
			}
			now = now.Add(100 * time.Microsecond)
		}
		if shown < want[0] || shown > want[1] {
			t.Errorf("%d parts are shown %d times a second, want %v", parts, shown, want)
		}
	}
}

// BenchmarkView makes a view of 10,000 instances of which one has changed.
func BenchmarkView(b *testing.B) {
	a := &app{record: &storev1.App{Spec: webSpec(1)}, instances: map[string]*storev1.Instance{}}
	for n := range 10_000 {
		name := fmt.Sprintf("web-%d", n)
		a.instances[name] = &storev1.Instance{Report: &masterv1.InstanceReport{Id: name, State: apiv1.Instance_RUNNING}}
	}
	z := empty(b, time.Unix(1_700_000_000, 0))
	for b.Loop() {
		a.instances["web-5"].Report = &masterv1.InstanceReport{Id: "web-5", State: apiv1.Instance_RUNNING}
		z.apps.touch(a)
		z.views.of(a)
	}
}
