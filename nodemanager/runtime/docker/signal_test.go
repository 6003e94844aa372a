package docker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// What asks a container to end is its spec's signal, else its image's. One that no engine knows keeps nobody from being ended.
func TestTheSignalOfTheImage(t *testing.T) {
	b, w := newWorld(t)
	with := func(name, signal string) runtime.Spec {
		img := program(t)
		file, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		config := file.Config
		config.StopSignal = signal
		if img, err = mutate.Config(img, config); err != nil {
			t.Fatal(err)
		}
		spec := w.Spec("signals")
		spec.Image = b.push(t, "conformance/"+name, img)
		return spec
	}
	stopped := func(spec runtime.Spec, grace time.Duration) string {
		if err := w.Prepare(t.Context(), spec, func(runtime.Progress) {}); err != nil {
			t.Fatal(err)
		}
		w.Run(spec)
		w.AwaitLine(spec.ID, "waiting")
		began := time.Now()
		if err := w.Stop(t.Context(), spec.ID, grace); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > grace+5*time.Second {
			t.Errorf("the stop took %v", took)
		}
		return w.Output(spec.ID, runtime.LogOptions{Tail: 1})
	}
	quit := with("quit", "SIGQUIT")
	if got := stopped(quit, time.Minute); got != "got 3" {
		t.Errorf("the image's signal is QUIT, and its last words were %q", got)
	}
	other := with("other", "SIGQUIT")
	other.StopSignal = "TERM"
	if got := stopped(other, time.Minute); got != "got 15" {
		t.Errorf("the spec's signal is TERM, and its last words were %q", got)
	}
	unknown := with("unknown", "SIGFOO")
	if got := stopped(unknown, 100*time.Millisecond); strings.Contains(got, "got") && got != "got 15" {
		t.Errorf("the image's signal is none, and its last words were %q", got)
	}
	if found, ok := w.Find(unknown.ID); !ok || found.Running || found.Exit == nil {
		t.Errorf("after the stop: %+v", found)
	}
}
