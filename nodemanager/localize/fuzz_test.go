package localize

import (
	"strings"
	"testing"
)

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:` + strings.Repeat("a", 64) + `"},"layers":[{"digest":"x"}]}`))
	f.Add([]byte(`{"manifests":[{"digest":"sha256:` + strings.Repeat("0", 64) + `"}]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, content []byte) {
		mediaType, parts, err := parseManifest(content)
		if err == nil && mediaType == "" {
			t.Error("a manifest without a type")
		}
		for _, part := range parts {
			if part.Validate() != nil {
				t.Errorf("names %q", part)
			}
		}
	})
}

func FuzzRangeStart(f *testing.F) {
	f.Add("bytes 5-9/10")
	f.Add("bytes -1-")
	f.Fuzz(func(t *testing.T, header string) {
		if at, err := rangeStart(header); err == nil && at < 0 {
			t.Errorf("%q begins at %d", header, at)
		}
	})
}
