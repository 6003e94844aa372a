package images

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mammoth-os/mammoth/internal/distribution"
)

// pushBlob uploads a blob as Docker does: start, one chunk, finish.
func pushBlob(t *testing.T, store *Store, repository string, content []byte) {
	t.Helper()
	location := ask(t, store, "POST", "/v2/"+repository+"/blobs/uploads/", nil).want(t, 202, "").header.Get("Location")
	ask(t, store, "PATCH", location, bytes.NewReader(content)).want(t, 202, "")
	sum := digest.FromBytes(content).String()
	done := ask(t, store, "PUT", location+"?digest="+sum, nil).want(t, 201, "")
	if got := done.header.Get("Docker-Content-Digest"); got != sum {
		t.Errorf("stored as %s, not %s", got, sum)
	}
}

func pushBlobs(t *testing.T, store *Store, repository string, image testImage) {
	t.Helper()
	pushBlob(t, store, repository, image.config(t))
	for _, layer := range image.layers {
		pushBlob(t, store, repository, layer)
	}
}

func putManifest(t *testing.T, store *Store, path string, content []byte, mediaType string) answer {
	t.Helper()
	return ask(t, store, "PUT", path, bytes.NewReader(content), "Content-Type", mediaType)
}

func TestPushInChunksAndResume(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	content := []byte("0123456789abcdef")
	sum := digest.FromBytes(content).String()
	location := ask(t, store, "POST", "/v2/web/blobs/uploads/", nil).want(t, 202, "").header.Get("Location")
	ask(t, store, "PATCH", location, bytes.NewReader(content[:6]), "Content-Range", "0-5").want(t, 202, "")
	ask(t, store, "PATCH", location, bytes.NewReader(content[8:]), "Content-Range", "8-15").want(t, 416, "BLOB_UPLOAD_INVALID")
	ask(t, store, "PATCH", location, bytes.NewReader(content[6:8]), "Content-Range", "6-9").want(t, 416, "does not fit the content")
	if at := ask(t, store, "GET", location, nil).want(t, 204, "").header.Get("Range"); at != "0-5" {
		t.Errorf("the upload holds %q", at)
	}
	// Ids of one repository mean nothing in another.
	ask(t, store, "GET", strings.Replace(location, "/web/", "/api/", 1), nil).want(t, 404, "BLOB_UPLOAD_UNKNOWN")
	ask(t, store, "PATCH", location, bytes.NewReader(content[6:10]), "Content-Range", "6-9").want(t, 202, "")
	ask(t, store, "PUT", location+"?digest="+sum, bytes.NewReader(content[10:])).want(t, 201, "")
	if got := ask(t, store, "GET", "/v2/web/blobs/"+sum, nil).want(t, 200, ""); !bytes.Equal(got.body, content) {
		t.Errorf("it reads %q", got.body)
	}
	if got := ask(t, store, "GET", "/v2/web/blobs/"+sum, nil, "Range", "bytes=10-").want(t, 206, ""); string(got.body) != "abcdef" {
		t.Errorf("the range reads %q", got.body)
	}
	ask(t, store, "PUT", location+"?digest="+sum, nil).want(t, 404, "BLOB_UPLOAD_UNKNOWN")
}

// deadlines notes until when the server waits for a body.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetReadDeadline(until time.Time) error {
	d.set = append(d.set, until)
	return nil
}

func TestAPushThatBringsNothingIsNotWaitedForWithoutEnd(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	location := ask(t, store, "POST", "/v2/web/blobs/uploads/", nil).want(t, 202, "").header.Get("Location")
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	store.Handler().ServeHTTP(w, httptest.NewRequest("PATCH", location, strings.NewReader("0123")))
	if w.Code != 202 || len(w.set) < 2 {
		t.Fatalf("answer %d, deadlines %v", w.Code, w.set)
	}
	for i, until := range w.set {
		if last := i == len(w.set)-1; until.IsZero() != last {
			t.Errorf("deadlines %v: there must be one for each read, and none behind the body", w.set)
		}
	}
}

func TestPushInOneRequest(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	content := []byte("all at once")
	sum := digest.FromBytes(content).String()
	ask(t, store, "POST", "/v2/web/blobs/uploads/?digest="+sum, bytes.NewReader([]byte("something else"))).want(t, 400, "DIGEST_INVALID")
	ask(t, store, "POST", "/v2/web/blobs/uploads/?digest=sha256:1", bytes.NewReader(content)).want(t, 400, "DIGEST_INVALID")
	ask(t, store, "POST", "/v2/web/blobs/uploads/?digest="+digest.SHA512.FromBytes(content).String(), bytes.NewReader(content)).want(t, 400, "not a sha256 digest")
	if left := incomingFiles(t, store); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	ask(t, store, "POST", "/v2/web/blobs/uploads/?digest="+sum, bytes.NewReader(content)).want(t, 201, "")
	// Another repository mounts it; what nobody has has to be uploaded.
	ask(t, store, "POST", "/v2/api/blobs/uploads/?from=web&mount="+sum, nil).want(t, 201, "")
	ask(t, store, "POST", "/v2/api/blobs/uploads/?from=web&mount="+digest.FromString("x").String(), nil).want(t, 202, "")
	if got := ask(t, store, "HEAD", "/v2/api/blobs/"+sum, nil).want(t, 200, "").header.Get("Content-Length"); got != fmt.Sprint(len(content)) {
		t.Errorf("its length is %q", got)
	}
	ask(t, store, "DELETE", "/v2/api/blobs/"+sum, nil).want(t, 405, "UNSUPPORTED")
}

func TestManifestsNameOnlyWhatIsThere(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	image := webImage(t)
	m := image.manifest(t)
	sum := digest.FromBytes(m).String()
	pushBlob(t, store, "web", image.config(t))
	pushBlob(t, store, "web", image.layers[0])
	putManifest(t, store, "/v2/web/manifests/1", m, distribution.MediaTypeOCIManifest).want(t, 404, "MANIFEST_BLOB_UNKNOWN")
	pushBlob(t, store, "web", image.layers[1])
	putManifest(t, store, "/v2/web/manifests/1", m, distribution.MediaTypeManifest).want(t, 400, "MANIFEST_INVALID")
	putManifest(t, store, "/v2/web/manifests/1", []byte("{"), distribution.MediaTypeManifest).want(t, 400, "MANIFEST_INVALID")
	putManifest(t, store, "/v2/web/manifests/"+digest.FromString("x").String(), m, distribution.MediaTypeOCIManifest).want(t, 400, "DIGEST_INVALID")
	putManifest(t, store, "/v2/web/manifests/.1", m, distribution.MediaTypeOCIManifest).want(t, 400, "MANIFEST_INVALID")
	wrongSize := bytes.Replace(m, fmt.Appendf(nil, `"size":%d`, len(image.layers[0])), []byte(`"size":1`), 1)
	putManifest(t, store, "/v2/web/manifests/1", wrongSize, distribution.MediaTypeOCIManifest).want(t, 400, "a size of 1 bytes, but it has")
	if left := incomingFiles(t, store); len(left) > 0 || len(names(t, store)) > 0 {
		t.Errorf("left behind: %q, %q", left, names(t, store))
	}

	for _, tag := range []string{"c", "a", "b"} {
		put := putManifest(t, store, "/v2/web/manifests/"+tag, m, distribution.MediaTypeOCIManifest).want(t, 201, "")
		if put.header.Get("Docker-Content-Digest") != sum {
			t.Errorf("put as %v", put.header)
		}
	}
	for _, reference := range []string{"a", sum} {
		got := ask(t, store, "GET", "/v2/web/manifests/"+reference, nil).want(t, 200, "")
		if !bytes.Equal(got.body, m) || got.header.Get("Content-Type") != distribution.MediaTypeOCIManifest || got.header.Get("Docker-Content-Digest") != sum {
			t.Errorf("%s reads %s, %v", reference, got.body, got.header)
		}
	}
	ask(t, store, "GET", "/v2/web/manifests/9", nil).want(t, 404, `MANIFEST_UNKNOWN`)

	ask(t, store, "GET", "/v2/web/tags/list", nil).want(t, 200, `{"name":"web","tags":["a","b","c"]}`)
	page := ask(t, store, "GET", "/v2/web/tags/list?n=2", nil).want(t, 200, `["a","b"]`)
	if link := page.header.Get("Link"); link != `</v2/web/tags/list?n=2&last=b>; rel="next"` {
		t.Errorf("the next page is %q", link)
	}
	ask(t, store, "GET", "/v2/web/tags/list?n=2&last=b", nil).want(t, 200, `["c"]`)
	ask(t, store, "GET", "/v2/web/tags/list?n=x", nil).want(t, 400, "")
	ask(t, store, "GET", "/v2/none/tags/list", nil).want(t, 404, "NAME_UNKNOWN")

	ask(t, store, "DELETE", "/v2/web/manifests/b", nil).want(t, 202, "")
	ask(t, store, "GET", "/v2/web/tags/list", nil).want(t, 200, `["a","c"]`)
	ask(t, store, "DELETE", "/v2/web/manifests/"+sum, nil).want(t, 202, "")
	ask(t, store, "DELETE", "/v2/web/manifests/"+sum, nil).want(t, 404, "MANIFEST_UNKNOWN")
	if size := stored(t, store); size != 0 {
		t.Errorf("%d bytes are left", size)
	}
}

func TestAnImageForSeveralMachinesIsPushed(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	ours, theirs := webImage(t), other(t)
	theirs.architecture = "arm64"
	index := indexOf(t,
		withPlatform(describeBlob(distribution.MediaTypeOCIManifest, theirs.manifest(t)), "linux", "arm64"),
		withPlatform(describeBlob(distribution.MediaTypeOCIManifest, ours.manifest(t)), "linux", "amd64"),
	)
	pushBlobs(t, store, "web", theirs)
	pushBlob(t, store, "web", ours.config(t))
	putManifest(t, store, "/v2/web/manifests/1", theirs.manifest(t), distribution.MediaTypeOCIManifest).
		want(t, 400, "the image is for arm64, this zone's nodes are amd64")
	byDigest := func(content []byte) string { return "/v2/web/manifests/" + digest.FromBytes(content).String() }
	putManifest(t, store, byDigest(theirs.manifest(t)), theirs.manifest(t), distribution.MediaTypeOCIManifest).want(t, 201, "")
	putManifest(t, store, "/v2/web/manifests/1", index, distribution.MediaTypeOCIIndex).want(t, 404, "MANIFEST_BLOB_UNKNOWN")
	putManifest(t, store, byDigest(ours.manifest(t)), ours.manifest(t), distribution.MediaTypeOCIManifest).want(t, 201, "")
	putManifest(t, store, "/v2/web/manifests/1", index, distribution.MediaTypeOCIIndex).want(t, 201, "")

	want := digest.FromBytes(ours.manifest(t)).String()
	if sum, config, err := store.Resolve(t.Context(), "web:1"); err != nil || sum != want || config.Architecture != "amd64" {
		t.Errorf("resolved to %s, %+v, %v; want %s", sum, config, err, want)
	}
	if _, _, err := store.Resolve(t.Context(), "web@"+digest.FromBytes(theirs.manifest(t)).String()); err == nil || !strings.Contains(err.Error(), "is for arm64") {
		t.Errorf("the other machine's resolves to %v", err)
	}
	if freed, err := store.Remove(t.Context(), "web:1"); err != nil || freed == 0 || stored(t, store) != 0 {
		t.Errorf("freed %d, %v; %d bytes are left", freed, err, stored(t, store))
	}
}

func TestPushedLayersAreLookedAt(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testImage)
		status int
		says   string
	}{
		"a name leads out": {func(i *testImage) { i.layers[0] = tarOf(t, entry{name: "../../x"}) }, 400, "leads out of the container"},
		"another content":  {func(i *testImage) { i.diffIDs = []digest.Digest{"sha256:1", "sha256:2"} }, 400, "as in the image's config"},
		"too few":          {func(i *testImage) { i.diffIDs = []digest.Digest{"sha256:1"} }, 400, "has 2 layers, its config 1"},
	} {
		t.Run(name, func(t *testing.T) {
			store := openStore(t, t.TempDir(), Limits{})
			image := webImage(t)
			c.change(&image)
			pushBlobs(t, store, "web", image)
			putManifest(t, store, "/v2/web/manifests/1", image.manifest(t), distribution.MediaTypeOCIManifest).want(t, c.status, c.says)
			if got := names(t, store); len(got) > 0 {
				t.Errorf("it has %q", got)
			}
			if _, err := store.collector.collect(t.Context(), func(*catalog) error { return nil }); err != nil || stored(t, store) != 0 {
				t.Errorf("%v; %d bytes are left", err, stored(t, store))
			}
		})
	}
}

func TestABlobThatAClientNeedNotPushStays(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	importImage(t, store, webImage(t), "web:1")
	image := other(t)
	for _, layer := range image.layers {
		ask(t, store, "HEAD", "/v2/new/blobs/"+digest.FromBytes(layer).String(), nil).want(t, 200, "")
	}
	if _, err := store.Remove(t.Context(), "web:1"); err != nil {
		t.Fatal(err)
	}
	pushBlob(t, store, "new", image.config(t))
	putManifest(t, store, "/v2/new/manifests/1", image.manifest(t), distribution.MediaTypeOCIManifest).want(t, 201, "")
	if _, err := store.Remove(t.Context(), "new:1"); err != nil || stored(t, store) != 0 {
		t.Errorf("%v; %d bytes are left", err, stored(t, store))
	}
}

func TestNamesThatNobodyCouldFindAgainAreRefused(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	image := webImage(t)
	pushBlobs(t, store, "localhost/web", image)
	putManifest(t, store, "/v2/localhost/web/manifests/1", image.manifest(t), distribution.MediaTypeOCIManifest).want(t, 400, "looks like a host")
	putManifest(t, store, "/v2/hub.example.test/web/manifests/1", image.manifest(t), distribution.MediaTypeOCIManifest).want(t, 201, "")
	if _, _, err := store.Resolve(t.Context(), "hub.example.test/web:1"); err != nil {
		t.Error(err)
	}
}

func TestIndexOfMediaTypes(t *testing.T) {
	for mediaType, content := range map[string]string{
		ocispec.MediaTypeImageManifest:                              `{"schemaVersion":2,"manifests":[]}`,
		distribution.MediaTypeOCIIndex:                              `{"schemaVersion":2,"config":{},"layers":[]}`,
		"application/vnd.docker.distribution.manifest.v1+prettyjws": `{"schemaVersion":1}`,
		distribution.MediaTypeManifest:                              `{"schemaVersion":2,"config":{"digest":"sha256:1"}}`,
		"text/plain":                                                `{"schemaVersion":2}`,
	} {
		if m, err := parseManifest([]byte(content), mediaType); err == nil {
			t.Errorf("%s of %s is read as %+v", content, mediaType, m)
		}
	}
}
