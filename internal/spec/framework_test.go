package spec

import (
	"testing"
)

func TestAnImageIsNamedByItsDigest(t *testing.T) {
	const digest = "sha256:0123"
	for image, want := range map[string]string{
		"web:1.0": "web@sha256:0123", "team/web": "team/web@sha256:0123", "host:5000/web": "host:5000/web@sha256:0123",
		"host:5000/web:2": "host:5000/web@sha256:0123", "web@sha256:0123": "web@sha256:0123", "": "",
	} {
		if got := Pinned(image, digest); got != want {
			t.Errorf("%q became %q, want %q", image, got, want)
		}
	}
	if got := Pinned("web:1.0", ""); got != "web:1.0" {
		t.Errorf("without a digest web:1.0 became %q", got)
	}
}
