package driver_test

import (
	"context"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/appmaster/mastertest"
	"github.com/mammoth-os/mammoth/dynamicdeploy/driver"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// world is a zone with an app whose master runs until stop is called.
type world struct {
	*testing.T
	*mastertest.Zone
	nodes map[string]*mastertest.Node
	stop  func() error
}

func newWorld(t *testing.T, nodes int, change func(*apiv1.RoleSpec)) *world {
	w := &world{T: t, Zone: mastertest.NewZone(t, "web"), nodes: map[string]*mastertest.Node{}}
	for i := range nodes {
		w.add("node-" + string(rune('1'+i)))
	}
	w.SetDesired(func(desired *masterv1.DesiredState) {
		role := desired.GetSpec().GetRoles()[0]
		role.Image, role.Instances, role.Update = "web:1", 3, atOnce()
		if change != nil {
			change(role)
		}
	})
	w.start()
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Errorf("the driver ended with %v", err)
		}
		for _, breach := range w.Violations() {
			t.Error(breach)
		}
	})
	return w
}

// atOnce is a policy by which an instance counts as soon as it is healthy.
func atOnce() *apiv1.UpdatePolicy {
	return &apiv1.UpdatePolicy{MaxSurge: 1, AutoRevert: true, MinHealthy: durationpb.New(0)}
}

// Rollout is the detail of the newest status.
func (w *world) Rollout() *dynamicdeployv1.Rollout {
	rollout := &dynamicdeployv1.Rollout{}
	if detail := w.Status().GetDetail(); detail != nil && detail.UnmarshalTo(rollout) != nil {
		w.Errorf("the detail of the status is a %s", detail.GetTypeUrl())
	}
	return rollout
}

func (w *world) add(name string) { w.nodes[name] = w.AddNode(name, 100) }

// behave sets the behaviour of containers that are started from now on, on all nodes.
func (w *world) behave(behave func(*corev1.ContainerSpec) mastertest.Behaviour) {
	for _, node := range w.nodes {
		node.SetBehaviour(behave)
	}
}

// crashing containers of one image end as soon as they run.
func crashing(image string) func(*corev1.ContainerSpec) mastertest.Behaviour {
	return func(spec *corev1.ContainerSpec) mastertest.Behaviour {
		behaviour := mastertest.Normal(spec)
		if spec.GetImage() == image {
			behaviour.Exit = 10 * time.Millisecond
		}
		return behaviour
	}
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

// kill ends the master at once. Its instances keep running.
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

func (w *world) scale(instances int32) {
	w.SetDesired(func(desired *masterv1.DesiredState) { desired.GetSpec().GetRoles()[0].Instances = instances })
}
