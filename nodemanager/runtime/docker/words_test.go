package docker_test

import (
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// What a container runs is the spec's command and arguments; what the spec is silent about is the image's, and an empty list
// of arguments is none.
func TestTheWordsOfTheImage(t *testing.T) {
	b, w := newWorld(t)
	img := program(t)
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config := file.Config
	config.Entrypoint, config.Cmd = []string{"/program", "words"}, []string{"of", "the", "image"}
	if img, err = mutate.Config(img, config); err != nil {
		t.Fatal(err)
	}
	image := b.push(t, "conformance/words", img)
	own := []string{"/program", "words", "own"}
	for _, test := range []struct {
		command, args []string
		want          string
	}{
		{nil, nil, "[of the image]"},
		{nil, []string{}, "[]"},
		{nil, []string{"a b"}, "[a b]"},
		{own, nil, "[own of the image]"},
		{own, []string{}, "[own]"},
		{own, []string{"", "x"}, "[own  x]"},
	} {
		spec := w.Spec()
		spec.Image, spec.Command, spec.Args = image, test.command, test.args
		if err := w.Prepare(t.Context(), spec, func(runtime.Progress) {}); err != nil {
			t.Fatal(err)
		}
		w.Run(spec)
		w.End(spec.ID)
		if got := w.Output(spec.ID, runtime.LogOptions{Tail: -1}); got != test.want {
			t.Errorf("command %q and args %q printed %s, want %s", test.command, test.args, got, test.want)
		}
	}
}
