package driver_test

import (
	"context"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mammoth-os/mammoth/appmaster/mastertest"
	"github.com/mammoth-os/mammoth/dynamicdeploy/driver"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// world is a zone with an app whose master runs until stop is called.
type world struct {
	*testing.T
	*mastertest.Zone
	stop func() error
}

func newWorld(t *testing.T, nodes int, change func(*apiv1.RoleSpec)) *world {
	w := &world{T: t, Zone: mastertest.NewZone(t, "web")}
	for i := range nodes {
		w.AddNode("node-"+string(rune('1'+i)), 100)
	}
	w.Want(func(wanted *masterv1.Wanted) {
		role := wanted.GetSpec().GetRoles()[0]
		role.Image, role.Instances = "web:1", 3
		if change != nil {
			change(role)
		}
	})
	w.start()
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Errorf("the driver ended with %v", err)
		}
		for _, breach := range w.Breaches() {
			t.Error(breach)
		}
	})
	return w
}

// start runs a new attempt of the master.
func (w *world) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	config := driver.Config{Master: w.Master()}
	go func() { done <- driver.Run(ctx, config) }()
	w.stop = func() error {
		cancel()
		return <-done
	}
}

// kill ends the master at once; its instances go on.
func (w *world) kill() {
	if err := w.stop(); err != nil {
		w.Fatalf("the driver ended with %v", err)
	}
}

// after lets time pass.
func (w *world) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// serves fails the test unless exactly these instances are in the registry.
func (w *world) serves(instances ...string) {
	w.Helper()
	if got := slices.Sorted(maps.Keys(w.Registry())); !slices.Equal(got, instances) {
		w.Fatalf("in the registry are %v, want %v; reports: %v", got, instances, w.Instances())
	}
}

func TestAnAppComesUpAndAFailedInstanceIsReplacedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		w.after(time.Second)
		w.serves("web-1", "web-2", "web-3")
		if w.Observed() != 2 || w.Rollout().GetState() != apiv1.Rollout_DONE {
			t.Errorf("observed %d, rollout %v", w.Observed(), w.Rollout())
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
