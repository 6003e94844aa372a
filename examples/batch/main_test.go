package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/mammoth-os/mammoth/appmaster/mastertest"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func TestEveryContainerRunsItsCommandOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := mastertest.NewZone(t, "echo")
		node := zone.AddNode("node-1", 2)
		failed := false
		node.SetBehaviour(func(*corev1.ContainerSpec) mastertest.Behaviour {
			behaviour := mastertest.Behaviour{Launch: 10 * time.Millisecond, Exit: time.Second, Succeeds: failed}
			failed = true
			return behaviour
		})
		if err := run(t.Context(), zone.Master(), 5, container("", []string{"/bin/true"})); err != nil {
			t.Fatal(err)
		}
		if !zone.Finished() || zone.Starts() != 6 || len(zone.Containers()) != 0 {
			t.Errorf("finished %v after %d starts, want 6 since the first one fails; left: %v", zone.Finished(), zone.Starts(), zone.Containers())
		}
	})
}

func TestARestartedFrameworkGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := mastertest.NewZone(t, "echo")
		zone.AddNode("node-1", 2).SetBehaviour(func(*corev1.ContainerSpec) mastertest.Behaviour {
			return mastertest.Behaviour{Launch: 10 * time.Millisecond, Exit: time.Second, Succeeds: true}
		})
		first := make(chan error, 1)
		config := zone.Master()
		go func() { first <- run(t.Context(), config, 4, container("", []string{"/bin/true"})) }()
		time.Sleep(500 * time.Millisecond)
		if err := run(t.Context(), zone.Master(), 4, container("", []string{"/bin/true"})); err != nil {
			t.Fatal(err)
		}
		if err := <-first; err == nil {
			t.Error("the replaced attempt thinks that it has finished")
		}
		if zone.Starts() != 4 {
			t.Errorf("%d starts of 4 commands", zone.Starts())
		}
	})
}

func TestWorkThatKeepsFailingHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := mastertest.NewZone(t, "echo")
		zone.AddNode("node-1", 2).SetBehaviour(func(*corev1.ContainerSpec) mastertest.Behaviour {
			return mastertest.Behaviour{Launch: 10 * time.Millisecond, Exit: time.Second}
		})
		if err := run(t.Context(), zone.Master(), 2, container("", []string{"/bin/false"})); err != nil {
			t.Fatal(err)
		}
		if !zone.Finished() || !zone.Failed() || len(zone.Containers()) != 0 {
			t.Errorf("finished %v, failed %v; left: %v", zone.Finished(), zone.Failed(), zone.Containers())
		}
	})
}
