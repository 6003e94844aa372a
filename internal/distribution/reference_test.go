package distribution

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestParseReference(t *testing.T) {
	sum := "sha256:" + strings.Repeat("a", 64)
	for text, want := range map[string]string{
		"web":                           "web:latest",
		"web:1.0":                       "web:1.0",
		"team/web_app:v1":               "team/web_app:v1",
		"a.b-c__d/e---f:X_1.-":          "a.b-c__d/e---f:X_1.-",
		"web@" + sum:                    "web@" + sum,
		"web:1@" + sum:                  "web:1@" + sum,
		"127.0.0.1:7070/web:1.0":        "web:1.0",
		"localhost/web":                 "web:latest",
		"hub.example.test/library/web":  "web:latest",
		"hub.example.test:5000/a/web:2": "a/web:2",
		"hub.example.test/a/web:2":      "hub.example.test/a/web:2",
	} {
		ref, err := ParseReference(text)
		if err != nil || ref.String() != want {
			t.Errorf("%q is read as %q, %v; want %q", text, ref, err, want)
		}
	}
	for _, text := range []string{
		"", ":", "Web", "my image", "web:", "web:-1", "web:a b", "a//b", "/web", "web/", "-web", "web-", "a..b", "a___b",
		"web@sha256:abc", "web@", "web:" + strings.Repeat("t", 129), strings.Repeat("n", 256), "../web", "localhost/",
	} {
		if ref, err := ParseReference(text); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q is read as %q, %v; it should be refused", text, ref, err)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	f.Add("127.0.0.1:7070/team/web:1.0")
	f.Add("web@sha256:" + strings.Repeat("a", 64))
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := ParseReference(text)
		if err != nil {
			return
		}
		if again, err := ParseReference(ref.String()); err != nil || again != ref {
			t.Errorf("%q is read as %q, and that as %q, %v", text, ref, again, err)
		}
		if !ValidName(ref.Repository) || ref.Tag != "" && !ValidTag(ref.Tag) {
			t.Errorf("%q is read as %q, which is not valid", text, ref)
		}
	})
}
