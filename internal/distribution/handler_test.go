package distribution

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// shelf is a read-only store of one repository.
type shelf struct {
	manifest Manifest
	blobs    map[digest.Digest]string
	down     bool
}

func (s shelf) Manifest(_ context.Context, repository, reference string) (Manifest, error) {
	if s.down {
		return Manifest{}, fmt.Errorf("the zone does not answer: %w", errdefs.ErrUnavailable)
	}
	if repository != "team/web" || reference != "1" && reference != s.manifest.Digest.String() {
		return Manifest{}, fmt.Errorf("no %s here: %w", reference, errdefs.ErrNotFound)
	}
	return s.manifest, nil
}

func (s shelf) BlobSize(_ context.Context, _ string, blob digest.Digest) (int64, error) {
	content, ok := s.blobs[blob]
	if !ok {
		return 0, fmt.Errorf("no %s here: %w", blob, errdefs.ErrNotFound)
	}
	return int64(len(content)), nil
}

func (s shelf) Blob(ctx context.Context, repository string, blob digest.Digest) (io.ReadSeekCloser, error) {
	if _, err := s.BlobSize(ctx, repository, blob); err != nil {
		return nil, err
	}
	return closing{strings.NewReader(s.blobs[blob])}, nil
}

type closing struct{ io.ReadSeeker }

func (closing) Close() error { return nil }

func newShelf() shelf {
	m := []byte(`{"schemaVersion":2}`)
	const layer = "0123456789"
	return shelf{
		manifest: Manifest{Digest: digest.FromBytes(m), MediaType: MediaTypeManifest, Content: m},
		blobs:    map[digest.Digest]string{digest.FromString(layer): layer},
	}
}

func TestReadOnlyRegistry(t *testing.T) {
	s := newShelf()
	layer := digest.FromString("0123456789").String()
	absent := digest.FromString("x").String()
	for _, c := range []struct {
		method, path string
		ranged       string
		status       int
		body         string
		header       string
	}{
		{"GET", "/v2/", "", 200, "{}", "Docker-Distribution-Api-Version: registry/2.0"},
		{"GET", "/v2", "", 200, "{}", ""},
		{"GET", "/v2/team/web/manifests/1", "", 200, string(s.manifest.Content), "Content-Type: " + MediaTypeManifest},
		{"GET", "/v2/team/web/manifests/" + s.manifest.Digest.String(), "", 200, string(s.manifest.Content), "Docker-Content-Digest: " + s.manifest.Digest.String()},
		{"HEAD", "/v2/team/web/manifests/1", "", 200, "", "Content-Length: 19"},
		{"GET", "/v2/team/web/manifests/2", "", 404, "MANIFEST_UNKNOWN", ""},
		{"GET", "/v2/team/web/manifests/-2", "", 400, "MANIFEST_INVALID", ""},
		{"GET", "/v2/Team/manifests/1", "", 400, "NAME_INVALID", ""},
		{"GET", "/v2/team/web/blobs/" + layer, "", 200, "0123456789", "Docker-Content-Digest: " + layer},
		{"HEAD", "/v2/team/web/blobs/" + layer, "", 200, "", "Content-Length: 10"},
		{"GET", "/v2/team/web/blobs/" + layer, "bytes=3-5", 206, "345", "Content-Range: bytes 3-5/10"},
		{"GET", "/v2/team/web/blobs/" + layer, "bytes=-2", 206, "89", ""},
		{"GET", "/v2/team/web/blobs/" + layer, "bytes=10-", 416, "", ""},
		{"GET", "/v2/team/web/blobs/" + absent, "", 404, "BLOB_UNKNOWN", ""},
		{"HEAD", "/v2/team/web/blobs/" + absent, "", 404, "", ""},
		{"GET", "/v2/team/web/blobs/sha256:12", "", 400, "DIGEST_INVALID", ""},
		{"GET", "/v2/team/web/blobs/uploads/1", "", 405, "UNSUPPORTED", ""},
		{"POST", "/v2/team/web/blobs/uploads/", "", 405, "UNSUPPORTED", ""},
		{"POST", "/v2/", "", 405, "UNSUPPORTED", "Allow: GET, HEAD"},
		{"PUT", "/v2/team/web/manifests/1", "", 405, "UNSUPPORTED", "Allow: GET, HEAD"},
		{"DELETE", "/v2/team/web/manifests/1", "", 405, "UNSUPPORTED", ""},
		{"DELETE", "/v2/team/web/blobs/" + layer, "", 405, "UNSUPPORTED", ""},
		{"GET", "/v2/team/web/tags/list", "", 405, "UNSUPPORTED", ""},
		{"GET", "/v2/team/web/referrers/" + layer, "", 404, "UNSUPPORTED", ""},
		{"GET", "/v2/manifests/1", "", 404, "UNSUPPORTED", ""},
		{"GET", "/v3/", "", 404, "UNSUPPORTED", ""},
	} {
		t.Run(c.method+" "+c.path+" "+c.ranged, func(t *testing.T) {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(c.method, c.path, nil)
			if c.ranged != "" {
				r.Header.Set("Range", c.ranged)
			}
			New(s).ServeHTTP(w, r)
			if w.Code != c.status {
				t.Fatalf("status %d, want %d: %s", w.Code, c.status, w.Body)
			}
			if c.status >= 400 && c.status != 416 && c.method != "HEAD" {
				checkError(t, w.Body.Bytes(), c.body)
			} else if c.method != "HEAD" && c.status < 400 && w.Body.String() != c.body {
				t.Errorf("body %q, want %q", w.Body, c.body)
			}
			if key, want, ok := strings.Cut(c.header, ": "); ok && w.Header().Get(key) != want {
				t.Errorf("%s is %q, want %q", key, w.Header().Get(key), want)
			}
		})
	}
}

// checkError checks that an answer is in the API's form.
func checkError(t *testing.T, body []byte, code string) {
	t.Helper()
	var said struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(body, &said); err != nil || len(said.Errors) != 1 || said.Errors[0].Code != code || said.Errors[0].Message == "" {
		t.Errorf("the error is %s, want %s", body, code)
	}
}

func TestAStoreThatIsDownIsSaid(t *testing.T) {
	s := newShelf()
	s.down = true
	w := httptest.NewRecorder()
	New(s).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v2/team/web/manifests/1", nil))
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), `"the zone does not answer"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestContentOffset(t *testing.T) {
	for header, want := range map[string]int64{"": -1, "0-9": 0, "5-14": 5, "0-0": -2, "x-9": -2, "9-5": -2, "-1-8": -2, "bytes 0-9": -2, "0": -2} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPatch, "/v2/web/blobs/uploads/1", bytes.NewReader(make([]byte, 10)))
		r.Header.Set("Content-Range", header)
		got, ok := contentOffset(w, r)
		if !ok {
			got = -2
			if w.Code != http.StatusRequestedRangeNotSatisfiable {
				t.Errorf("%q is answered with %d", header, w.Code)
			}
		}
		if got != want {
			t.Errorf("%q is read as %d, want %d", header, got, want)
		}
	}
}
