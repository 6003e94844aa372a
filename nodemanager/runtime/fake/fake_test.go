package fake_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/network"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/fake"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/runtimetest"
)

func harness(config fake.Config) runtimetest.Harness {
	var nodes atomic.Int64
	engine := func() *fake.Engine {
		engine := fake.NewEngine()
		engine.Missing("missing@sha256:0")
		return engine
	}
	shared := engine()
	last := &config
	return runtimetest.Harness{
		New: func(t *testing.T) func() runtime.Runtime {
			config := config
			config.Node = "node-" + strconv.FormatInt(nodes.Add(1), 10)
			// Channels made outside a bubble cannot be used in one.
			if config.Engine = shared; !config.Listen {
				config.Engine = engine()
			}
			last = &config
			return func() runtime.Runtime { return fake.New(config) }
		},
		Command:      func(args ...string) []string { return args },
		Image:        "program@sha256:1",
		MissingImage: "missing@sha256:0",
		Dial:         config.Listen,
		HostNetwork:  config.AllowHostNetwork,
		Bubble:       !config.Listen,
		Signal: func(t *testing.T, to runtime.Container, number int) {
			if !last.Engine.Signal(last.Node, to.ID, number) {
				t.Fatalf("%v does not run", to.ID)
			}
		},
		StartAgain: func(t *testing.T, ended runtime.Container) {
			if !last.Engine.StartAgain(last.Node, ended.ID) {
				t.Fatalf("%v has not ended", ended.ID)
			}
		},
	}
}

func TestConformanceInABubble(t *testing.T) {
	runtimetest.Run(t, harness(fake.Config{DownloadTime: time.Second, StartTime: 50 * time.Millisecond}))
}

func TestConformanceWithListeners(t *testing.T) {
	runtimetest.Run(t, harness(fake.Config{
		Listen: true, AllowHostNetwork: true, Ports: network.Range{First: 28400, Last: 28599},
	}))
}

func container(seq int) id.Container {
	return id.Container{Epoch: 1, App: id.App{ClusterStart: 1, Seq: 1}, Seq: int64(seq)}
}

func TestProgramOfTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fake.New(fake.Config{Programs: map[string]fake.Program{
			"mammoth": func(ctx context.Context, spec runtime.Spec, output io.Writer) int {
				fmt.Fprintln(output, spec.Env["MAMMOTH_APP"])
				<-ctx.Done()
				return 9
			},
		}})
		spec := runtime.Spec{ID: container(1), Command: []string{"mammoth", "appmaster"}, Env: map[string]string{"MAMMOTH_APP": "web"}}
		if _, err := r.Start(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := r.Stop(t.Context(), spec.ID, time.Second); err != nil {
			t.Fatal(err)
		}
		list, err := r.List(t.Context())
		if err != nil || len(list) != 1 || list[0].Exit == nil || list[0].Exit.Code != 9 {
			t.Errorf("%+v, %v", list, err)
		}
		var said string
		if err := r.Logs(t.Context(), spec.ID, runtime.LogOptions{Tail: -1}, func(line runtime.LogLine) error {
			said = line.Text
			return nil
		}); err != nil || said != "web" {
			t.Errorf("it said %q, %v", said, err)
		}
	})
}

func TestEngineMisbehavesAsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := fake.NewEngine()
		r := fake.New(fake.Config{Engine: engine, Node: "a"})
		spec := runtime.Spec{ID: container(1), Image: "web@sha256:1", Command: []string{"serve"}}

		full := fmt.Errorf("no space: %w", errdefs.ErrResourceExhausted)
		engine.FailPrepares(full)
		if err := r.Prepare(t.Context(), spec, func(runtime.Progress) {}); !errors.Is(err, full) {
			t.Errorf("prepare: %v", err)
		}
		engine.FailPrepares(nil)

		engine.LoseAnswers(1)
		if _, err := r.Start(t.Context(), spec); !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("start with a lost answer: %v", err)
		}
		if adopted, err := r.Start(t.Context(), spec); err != nil || !adopted.Running || engine.Starts() != 1 {
			t.Errorf("adopting: %+v, %v, %d starts", adopted, err, engine.Starts())
		}

		events, err := r.Watch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		engine.SetDown(fmt.Errorf("the engine is down: %w", errdefs.ErrUnavailable))
		if _, ok := <-events; ok {
			t.Error("the watch outlived the engine")
		}
		if _, err := r.List(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("list: %v", err)
		}
		engine.SetDown(nil)
		if !engine.Kill("a", spec.ID) || engine.Kill("a", spec.ID) || engine.Running() != 0 {
			t.Error("the kill did not end it once")
		}
	})
}

func TestThousandsOfContainers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := fake.NewEngine()
		r := fake.New(fake.Config{Engine: engine, StartTime: time.Second})
		for i := range 5000 {
			go func() {
				if _, err := r.Start(t.Context(), runtime.Spec{ID: container(i), Command: []string{"sleep", "10m"}}); err != nil {
					t.Error(err)
				}
			}()
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		if running := engine.Running(); running != 5000 {
			t.Errorf("%d run", running)
		}
		<-time.After(10 * time.Minute)
		synctest.Wait()
		if running := engine.Running(); running != 0 {
			t.Errorf("%d still run", running)
		}
	})
}
