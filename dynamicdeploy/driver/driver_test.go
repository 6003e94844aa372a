package driver_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mammoth-os/mammoth/appmaster"
	"github.com/mammoth-os/mammoth/appmaster/mastertest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

func TestAnAppComesUpAndAFailedInstanceIsReplacedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.after(time.Second)
		w.serves("web-1", "web-2", "web-3")
		if w.ReportedGeneration() != 2 || w.Rollout().GetState() != dynamicdeployv1.Rollout_DONE {
			t.Errorf("observed %d, rollout %v", w.ReportedGeneration(), w.Rollout())
		}
		before := w.Registry()["web-2"]
		w.Kill(before)
		w.after(500 * time.Millisecond)
		w.serves("web-1", "web-2", "web-3")
		if w.Registry()["web-2"] == before || w.Starts() != 4 {
			t.Errorf("web-2 runs in %s after %s ended; %d starts", w.Registry()["web-2"], before, w.Starts())
		}
	})
}

func TestADriverKilledThirtyTimesStopsNothingAndStartsNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		w := newWorld(t, 3, func(role *apiv1.RoleSpec) { role.Instances = 10 })
		w.KeepAsks() // the hardest case: grants that answer the dead
		for range 30 {
			w.after(time.Duration(random.IntN(120)) * time.Millisecond)
			w.kill()
			w.after(time.Duration(random.IntN(50)) * time.Millisecond)
			w.start()
		}
		w.after(10 * time.Second)
		if len(w.Registry()) != 10 || w.Starts() != 10 {
			t.Errorf("%d instances in the registry after %d starts, want 10 after 10", len(w.Registry()), w.Starts())
		}
		steady := w.Registry()
		for range 30 {
			w.kill()
			w.start()
			w.after(time.Duration(random.IntN(300)) * time.Millisecond)
			if got := w.Registry(); !maps.Equal(got, steady) {
				t.Fatalf("the registry changed from %v to %v", steady, got)
			}
		}
		w.after(10 * time.Second)
		if got := w.Registry(); !maps.Equal(got, steady) || w.Starts() != 10 || w.Leases() != 10 {
			t.Errorf("registry %v, %d starts, %d leases", got, w.Starts(), w.Leases())
		}
	})
}

func TestAnInstanceThatDiesWhileNoMasterRunsIsReplacedByTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.after(time.Second)
		w.kill()
		w.Kill(w.Registry()["web-1"])
		w.start()
		w.after(time.Second)
		w.serves("web-1", "web-2", "web-3")
		if w.Starts() != 4 {
			t.Errorf("%d starts, want 4", w.Starts())
		}
	})
}

func TestScalingOutAndIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.after(time.Second)
		w.scale(5)
		w.after(time.Second)
		w.serves("web-1", "web-2", "web-3", "web-4", "web-5")
		w.scale(2)
		w.after(time.Second)
		w.serves("web-1", "web-2")
		if w.Leases() != 2 || len(w.Instances()) != 2 {
			t.Errorf("%d leases, reports %v", w.Leases(), w.Instances())
		}
	})
}

func TestTheResourceManagerComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.after(time.Second)
		for i := range 10 {
			w.Restart(time.Duration(i) * 300 * time.Millisecond)
			w.Kill(slices.Collect(maps.Values(w.Registry()))[0])
			w.after(5 * time.Second)
			w.serves("web-1", "web-2", "web-3")
			// The failures are to be a window apart: it is the reconnection that is tried here.
			w.after(11 * time.Minute)
		}
		if w.Leases() != 3 || w.Starts() != 13 {
			t.Errorf("%d leases, %d starts", w.Leases(), w.Starts())
		}
	})
}

func TestACrashLoopBacksOffAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, func(role *apiv1.RoleSpec) { role.Instances = 1 })
		w.behave(crashing("web:1"))
		w.after(30 * time.Minute)
		if starts := w.Starts(); starts < 20 || starts > 50 {
			t.Errorf("%d starts in half an hour of crashes, want about one a minute", starts)
		}
		report := w.Instances()[0]
		if report.GetState() != apiv1.Instance_BACKOFF || report.GetNextAttemptAt() == nil || report.GetReason() == "" {
			t.Errorf("report %v", report)
		}
		if w.Rollout().GetState() != dynamicdeployv1.Rollout_FAILED || len(w.Revisions()) != 0 {
			t.Errorf("rollout %v, reverts %v", w.Rollout(), w.Revisions())
		}
		starts := w.Starts()
		w.kill()
		w.start()
		w.after(20 * time.Second)
		if w.Starts() > starts+1 {
			t.Errorf("the new master forgot the failures: %d starts after %d", w.Starts(), starts)
		}
		w.behave(mastertest.Normal)
		w.after(2 * time.Minute)
		w.serves("web-1")
		if w.Rollout().GetState() != dynamicdeployv1.Rollout_DONE {
			t.Errorf("rollout %v", w.Rollout())
		}
	})
}

func TestAnUnhealthyInstanceIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.after(time.Second)
		sick := w.Registry()["web-2"]
		w.MakeUnhealthy(sick)
		w.after(time.Second)
		w.serves("web-1", "web-2", "web-3")
		if _, ok := w.Containers()[sick]; ok {
			t.Errorf("%s still runs", sick)
		}
	})
}

func TestStopAndRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.after(time.Second)
		w.SetDesired(func(desired *masterv1.DesiredState) { desired.Stopped = true })
		w.after(time.Second)
		w.serves()
		if w.Leases() != 0 || w.Finished() {
			t.Errorf("stopped: %d leases, finished %v", w.Leases(), w.Finished())
		}
		w.SetDesired(func(desired *masterv1.DesiredState) { desired.Stopped = false })
		w.after(time.Second)
		w.serves("web-1", "web-2", "web-3")
		w.SetDesired(func(desired *masterv1.DesiredState) { desired.Removing = true })
		w.after(time.Second)
		if w.Leases() != 0 || !w.Finished() || len(w.Instances()) != 0 {
			t.Errorf("removed: %d leases, finished %v, reports %v", w.Leases(), w.Finished(), w.Instances())
		}
	})
}

func TestAMasterThatWasReplacedEndsWithoutTouchingAnything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.after(time.Second)
		old := w.stop
		w.start()
		w.after(10 * time.Second)
		if err := old(); !errors.Is(err, appmaster.ErrSuperseded) {
			t.Errorf("the replaced master ended with %v", err)
		}
		w.serves("web-1", "web-2", "web-3")
		if w.Starts() != 3 {
			t.Errorf("%d starts", w.Starts())
		}
	})
}

// Everything at once: the master, the ResourceManager, nodes and instances come and go at random. When they stop, what is
// wanted runs, and no rule was broken on the way (see newWorld).
func TestTheCountIsKeptThroughAnything(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 7))
			w := newWorld(t, 3, func(role *apiv1.RoleSpec) { role.Instances = 5 })
			w.after(time.Second)
			lost := ""
			for range 60 {
				switch random.IntN(8) {
				case 0:
					w.kill()
					w.after(time.Duration(random.IntN(100)) * time.Millisecond)
					w.start()
				case 1:
					w.Restart(time.Duration(random.IntN(1000)) * time.Millisecond)
				case 2:
					if running := slices.Sorted(maps.Values(w.Registry())); len(running) > 0 {
						w.Kill(running[random.IntN(len(running))])
					}
				case 3:
					w.scale(int32(random.IntN(8)))
				case 4:
					w.Deploy(func(role *apiv1.RoleSpec) { role.Env = map[string]string{"N": fmt.Sprint(random.IntN(1000))} })
				case 5:
					if lost == "" {
						lost = "node-1"
						w.nodes[lost].Lose()
					} else {
						w.nodes[lost].Return()
						lost = ""
					}
				case 6:
					w.nodes["node-2"].Restart()
				}
				w.after(time.Duration(random.IntN(400)) * time.Millisecond)
			}
			if lost != "" {
				w.nodes[lost].Return()
			}
			w.scale(5)
			w.after(5 * time.Minute)
			if len(w.Registry()) != 5 || w.Leases() != 5 || len(w.Containers()) != 5 {
				t.Errorf("seed %d: %d serve in %d containers under %d leases, want 5: %v",
					seed, len(w.Registry()), len(w.Containers()), w.Leases(), w.Instances())
			}
			for _, report := range w.Instances() {
				if report.GetVersion() != w.Desired().GetVersion() {
					t.Errorf("seed %d: %v is not of version %d", seed, report, w.Desired().GetVersion())
				}
			}
		})
	}
}
