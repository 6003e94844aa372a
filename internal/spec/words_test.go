package spec_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/spec"
)

func TestACommandIsWhatCanBePassedOn(t *testing.T) {
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"sh", "-c", "echo 日本"}, ""},
		{[]string{"sh", "-c", "caf\xe9"}, "word 3 of the command is not UTF-8"},
		{[]string{"a\x00b"}, "word 1 of the command has a NUL character"},
		{[]string{"cat", strings.Repeat("x", spec.MaxWord)}, "word 2 of the command has 128KiB, and Linux takes less than 128KiB"},
	} {
		err := spec.CheckWords(c.words)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want) || !errors.Is(err, errdefs.ErrInvalidArgument)) {
			t.Errorf("%.40q: %v, want %q", c.words, err, c.want)
		}
	}
}

func TestAPathIsWrittenInItsShortestForm(t *testing.T) {
	for path, want := range map[string]string{
		"/srv/haproxy": "<nil>", "/": "<nil>",
		"/srv//haproxy": `"/srv//haproxy" is to be written as "/srv/haproxy"`, "/srv/a/../b/": `"/srv/a/../b/" is to be written as "/srv/b"`,
		"srv": `"srv" is not an absolute path without blanks and special characters`, "/a b": `"/a b" is not an absolute path without blanks and special characters`,
	} {
		if got := fmt.Sprint(spec.CheckPlainPath(path)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
