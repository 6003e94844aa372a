package docker_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// Neither the name nor what else is written on a container matters once the node has noted which it started.
func TestARenamedContainerIsStillTheNodes(t *testing.T) {
	b, w := newWorld(t)
	spec := w.Spec("serve")
	mine := w.Run(spec)
	name := "mammoth-" + spec.ID.String()
	if err := b.client.ContainerRename(t.Context(), mine.RuntimeID, "renamed-"+spec.ID.String()); err != nil {
		t.Fatal(err)
	}
	end := b.copy(t, mine)
	copies, err := b.client.ContainerList(t.Context(), container.ListOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range copies {
		if one.Labels["mammoth.container"] == spec.ID.String() && one.ID != mine.RuntimeID {
			if err := b.client.ContainerRename(t.Context(), one.ID, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.Restart()
	if listed, err := w.List(t.Context()); err != nil || len(listed) != 1 || listed[0].RuntimeID != mine.RuntimeID {
		t.Errorf("lists %+v, %v", listed, err)
	}
	if again, err := w.Start(t.Context(), spec); err != nil || again.RuntimeID != mine.RuntimeID {
		t.Errorf("started again as %+v, %v", again, err)
	}
	if code, err := w.Exec(t.Context(), spec.ID, runtime.Exec{Command: w.Command("exit", "3")}); code != 3 || err != nil {
		t.Errorf("a command in it: %d, %v", code, err)
	}
	end()
	if err := w.Stop(t.Context(), spec.ID, time.Minute); err != nil {
		t.Fatal(err)
	}
	if found, ok := w.Find(spec.ID); !ok || found.Running || found.Exit.Code != 0 {
		t.Errorf("after the stop it is %+v", found)
	}
}

// Whoever pauses a container, gives it other quotas or has the engine restart it does so for some seconds.
func TestAContainerIsKeptAsItWasStarted(t *testing.T) {
	b, w := newWorld(t)
	events, err := w.Watch(w.Context())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range events { // a runtime that nobody listens to sees nothing
		}
	}()
	mine := w.Run(w.Spec("serve"))
	before, err := b.client.ContainerInspect(t.Context(), mine.RuntimeID)
	if err != nil {
		t.Fatal(err)
	}
	pids := int64(4000)
	_, err = b.client.ContainerUpdate(t.Context(), mine.RuntimeID, container.UpdateConfig{
		Resources:     container.Resources{NanoCPUs: 2e9, Memory: 256 << 20, MemorySwap: 256 << 20, PidsLimit: &pids},
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyAlways},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.client.ContainerPause(t.Context(), mine.RuntimeID); err != nil {
		t.Fatal(err)
	}
	for {
		after, err := b.client.ContainerInspect(t.Context(), mine.RuntimeID)
		if err != nil {
			t.Fatal(err)
		}
		h, want := after.HostConfig, before.HostConfig
		if !after.State.Paused && h.NanoCPUs == want.NanoCPUs && h.Memory == want.Memory && *h.PidsLimit == *want.PidsLimit && h.RestartPolicy.IsNone() {
			return
		}
		select {
		case <-w.Context().Done():
			t.Fatalf("it is paused %v, with %+v", after.State.Paused, h.Resources)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// A start is given up while the engine is busy with the create, which it goes on with.
func TestAStartGivenUpInTheMiddleLeavesNothing(t *testing.T) {
	testenv.Need(t, "docker", "root")
	b := newBench(t, testenv.DockerSocket())
	l := newLossy(t, b.socket)
	w := b.through(t, l, "given-up")
	w.Run(w.Spec("exit", "0"))
	for _, late := range []string{"/containers/create", "/start"} {
		spec := w.Spec("serve")
		ctx, cancel := context.WithCancel(w.Context())
		l.hold(late, func(http.ResponseWriter, *http.Request) { cancel() })
		if _, err := w.Start(ctx, spec); !errors.Is(err, context.Canceled) {
			t.Errorf("a start given up during %s: %v", late, err)
		}
		cancel()
		if left, err := b.client.ContainerInspect(t.Context(), "mammoth-"+spec.ID.String()); err == nil {
			t.Errorf("given up during %s, it is left as %s", late, left.State.Status)
		}
	}
}
