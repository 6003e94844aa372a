package localize_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/mammoth-os/mammoth/internal/distribution"
	"github.com/mammoth-os/mammoth/nodemanager/localize"
)

// imageStore is the zone's image store: real handlers over a map, with faults.
type imageStore struct {
	mu    sync.Mutex
	blobs map[digest.Digest][]byte
	// cut and corrupt are how many further answers for a blob end half-way or have wrong content.
	cut, corrupt map[digest.Digest]int
	served       map[digest.Digest]int64
	requests     []string
	address      string
}

func newImageStore(t *testing.T) *imageStore {
	s := &imageStore{
		blobs: map[digest.Digest][]byte{}, cut: map[digest.Digest]int{}, corrupt: map[digest.Digest]int{}, served: map[digest.Digest]int64{},
	}
	handler := distribution.New(s)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sum := digest.Digest(filepath.Base(r.URL.Path))
		s.mu.Lock()
		s.requests = append(s.requests, r.Method+" "+filepath.Base(filepath.Dir(r.URL.Path))+" "+r.Header.Get("Range"))
		faulty := &faultyWriter{ResponseWriter: w, store: s, sum: sum, left: -1}
		if s.cut[sum] > 0 {
			s.cut[sum]--
			faulty.left = len(s.blobs[sum]) / 2
		}
		if s.corrupt[sum] > 0 {
			s.corrupt[sum]--
			faulty.corrupt = true
		}
		s.mu.Unlock()
		handler.ServeHTTP(faulty, r)
	}))
	t.Cleanup(server.Close)
	s.address = strings.TrimPrefix(server.URL, "http://")
	return s
}

type faultyWriter struct {
	http.ResponseWriter
	store   *imageStore
	sum     digest.Digest
	left    int // -1 is all
	corrupt bool
}

func (w *faultyWriter) Write(p []byte) (int, error) {
	if w.corrupt && len(p) > 0 {
		p = bytes.Clone(p)
		p[0] ^= 1
	}
	if w.left >= 0 && len(p) > w.left {
		_, _ = w.ResponseWriter.Write(p[:w.left])
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	if w.left >= 0 {
		w.left -= len(p)
	}
	w.store.mu.Lock()
	w.store.served[w.sum] += int64(len(p))
	w.store.mu.Unlock()
	return w.ResponseWriter.Write(p)
}

func (s *imageStore) add(content []byte) digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := digest.FromBytes(content)
	s.blobs[sum] = content
	return sum
}

// image makes an image of layers and gives its manifest's digest.
func (s *imageStore) image(layers ...digest.Digest) digest.Digest {
	config := s.add([]byte(fmt.Sprintf(`{"layers":%q}`, layers)))
	type descriptor struct {
		Digest digest.Digest `json:"digest"`
	}
	manifest := map[string]any{"schemaVersion": 2, "mediaType": distribution.MediaTypeManifest, "config": descriptor{config}}
	var list []descriptor
	for _, layer := range layers {
		list = append(list, descriptor{layer})
	}
	manifest["layers"] = list
	raw, _ := json.Marshal(manifest)
	return s.add(raw)
}

func (s *imageStore) get(sum digest.Digest) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	content, ok := s.blobs[sum]
	if !ok {
		return nil, fmt.Errorf("no %s: %w", sum, errdefs.ErrNotFound)
	}
	return content, nil
}

func (s *imageStore) Manifest(_ context.Context, _, reference string) (distribution.Manifest, error) {
	content, err := s.get(digest.Digest(reference))
	return distribution.Manifest{Digest: digest.Digest(reference), MediaType: distribution.MediaTypeManifest, Content: content}, err
}

func (s *imageStore) BlobSize(_ context.Context, _ string, blob digest.Digest) (int64, error) {
	content, err := s.get(blob)
	return int64(len(content)), err
}

func (s *imageStore) Blob(_ context.Context, _ string, blob digest.Digest) (io.ReadSeekCloser, error) {
	content, err := s.get(blob)
	return nopCloser{bytes.NewReader(content)}, err
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

func layer(size int) []byte {
	content := make([]byte, size)
	random := rand.NewChaCha8([32]byte{byte(size)})
	_, _ = random.Read(content)
	return content
}

// run runs a registry until the test ends.
func run(t *testing.T, config localize.Config) *localize.Registry {
	t.Helper()
	r, err := localize.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the registry ended with %v", err)
		}
	})
	return r
}

func get(t *testing.T, r *localize.Registry, path, span string) (int, []byte, http.Header) {
	t.Helper()
	request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.Address()+"/v2/"+path, nil)
	if span != "" {
		request.Header.Set("Range", span)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, body, response.Header
}

// pull fetches an image as an engine does and fails unless everything is what it should be.
func pull(t *testing.T, r *localize.Registry, image digest.Digest) {
	t.Helper()
	code, raw, header := get(t, r, "web/manifests/"+image.String(), "")
	if code != http.StatusOK || digest.FromBytes(raw) != image || header.Get("Content-Type") != distribution.MediaTypeManifest {
		t.Fatalf("manifest: %d %v %s", code, header, raw)
	}
	var manifest struct {
		Config struct{ Digest digest.Digest }
		Layers []struct{ Digest digest.Digest }
	}
	if err := json.Unmarshal(raw, &manifest); err != nil {
		t.Fatal(err)
	}
	for _, blob := range append(manifest.Layers, manifest.Config) {
		if code, content, _ := get(t, r, "web/blobs/"+blob.Digest.String(), ""); code != http.StatusOK || digest.FromBytes(content) != blob.Digest {
			t.Fatalf("blob %s: %d, %d bytes", blob.Digest, code, len(content))
		}
	}
}

func TestASecondImageMovesOnlyWhatIsNew(t *testing.T) {
	store := newImageStore(t)
	base, one, two := store.add(layer(1<<20)), store.add(layer(1000)), store.add(layer(2000))
	first, second := store.image(base, one), store.image(base, two)
	r := run(t, localize.Config{Dir: t.TempDir(), Upstream: store.address})
	pull(t, r, first)
	if moved := r.Fetched("web@" + first.String()); moved < 1<<20+1000 || moved > 1<<20+3000 {
		t.Errorf("the first image moved %d bytes", moved)
	}
	pull(t, r, second)
	if moved := r.Fetched("web@" + second.String()); moved < 2000 || moved > 4000 {
		t.Errorf("the second image moved %d bytes; its new layer has 2000", moved)
	}
	before := r.TotalFetched()
	pull(t, r, first)
	if after := r.TotalFetched(); after != before {
		t.Errorf("an image that is here moved %d bytes", after-before)
	}
}

func TestOneTransferServesAllWhoWant(t *testing.T) {
	store := newImageStore(t)
	blob := store.add(layer(4 << 20))
	r := run(t, localize.Config{Dir: t.TempDir(), Upstream: store.address})
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if code, content, _ := get(t, r, "web/blobs/"+blob.String(), ""); code != http.StatusOK || digest.FromBytes(content) != blob {
				t.Errorf("got %d, %d bytes", code, len(content))
			}
		})
	}
	group.Wait()
	if r.TotalFetched() != 4<<20 {
		t.Errorf("%d bytes crossed the network for a blob of %d", r.TotalFetched(), 4<<20)
	}
}

func TestATransferThatBrokeIsResumedWhereItBroke(t *testing.T) {
	store := newImageStore(t)
	blob := store.add(layer(1 << 20))
	store.cut[blob] = 1
	r := run(t, localize.Config{Dir: t.TempDir(), Upstream: store.address})
	if code, content, _ := get(t, r, "web/blobs/"+blob.String(), ""); code != http.StatusOK || digest.FromBytes(content) != blob {
		t.Fatalf("got %d, %d bytes", code, len(content))
	}
	if r.TotalFetched() != 1<<20 {
		t.Errorf("%d bytes crossed the network for a blob of %d", r.TotalFetched(), 1<<20)
	}
	if len(store.requests) != 2 || !strings.HasSuffix(store.requests[1], "bytes=524288-") {
		t.Errorf("requests %q", store.requests)
	}
}

func TestAPartOfALayerSurvivesARestart(t *testing.T) {
	store := newImageStore(t)
	content := layer(1 << 20)
	blob := store.add(content)
	dir := t.TempDir()
	partial := filepath.Join(dir, "layers", "sha256", blob.Encoded()+".partial")
	if err := os.MkdirAll(filepath.Dir(partial), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(partial, content[:700_000], 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, localize.Config{Dir: dir, Upstream: store.address})
	if code, got, _ := get(t, r, "web/blobs/"+blob.String(), ""); code != http.StatusOK || !bytes.Equal(got, content) {
		t.Fatalf("got %d, %d bytes", code, len(got))
	}
	if r.TotalFetched() != 1<<20-700_000 {
		t.Errorf("%d bytes crossed the network", r.TotalFetched())
	}
}

func TestACorruptedLayerIsRefusedAndFetchedAnew(t *testing.T) {
	store := newImageStore(t)
	blob := store.add(layer(100_000))
	store.corrupt[blob] = 1
	dir := t.TempDir()
	r := run(t, localize.Config{Dir: dir, Upstream: store.address})
	if code, content, _ := get(t, r, "web/blobs/"+blob.String(), ""); code != http.StatusOK || digest.FromBytes(content) != blob {
		t.Fatalf("got %d, %d bytes", code, len(content))
	}

	// The same when it is damaged on the node.
	path := filepath.Join(dir, "layers", "sha256", blob.Encoded())
	if err := os.WriteFile(path, layer(99_999), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, content, _ := get(t, r, "web/blobs/"+blob.String(), ""); code != http.StatusOK || digest.FromBytes(content) != blob {
		t.Fatalf("after the damage: got %d, %d bytes", code, len(content))
	}
}

func TestALayerThatIsNeverRightIsNotServedAndLeavesNothing(t *testing.T) {
	store := newImageStore(t)
	blob := store.add(layer(1000))
	store.corrupt[blob] = 100
	dir := t.TempDir()
	r := run(t, localize.Config{Dir: dir, Upstream: store.address})
	code, body, _ := get(t, r, "web/blobs/"+blob.String(), "")
	if code != http.StatusInternalServerError || !strings.Contains(string(body), "has the digest") {
		t.Errorf("got %d %s", code, body)
	}
	if len(store.requests) != 3 {
		t.Errorf("it was fetched %d times, want 3", len(store.requests))
	}
	files, err := os.ReadDir(filepath.Join(dir, "layers", "sha256"))
	if err != nil || len(files) != 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

func TestRanges(t *testing.T) {
	store := newImageStore(t)
	content := layer(10_000)
	blob := store.add(content)
	r := run(t, localize.Config{Dir: t.TempDir(), Upstream: store.address})
	code, part, _ := get(t, r, "web/blobs/"+blob.String(), "bytes=9000-")
	if code != http.StatusPartialContent || !bytes.Equal(part, content[9000:]) {
		t.Errorf("got %d, %d bytes", code, len(part))
	}
}

func TestWhatTheStoreDoesNotHaveIsNotFound(t *testing.T) {
	store := newImageStore(t)
	r := run(t, localize.Config{Dir: t.TempDir(), Upstream: store.address})
	for _, path := range []string{"web/blobs/" + digest.FromString("x").String(), "web/manifests/" + digest.FromString("x").String(), "web/manifests/latest"} {
		if code, body, _ := get(t, r, path, ""); code != http.StatusNotFound {
			t.Errorf("%s: got %d %s", path, code, body)
		}
	}
	if len(store.requests) != 2 {
		t.Errorf("the store was asked %q", store.requests)
	}
}

func TestTheCacheForgetsWhatWasUsedLongestAgo(t *testing.T) {
	store := newImageStore(t)
	dir := t.TempDir()
	r := run(t, localize.Config{Dir: dir, Upstream: store.address, MaxBytes: 25_000})
	var blobs []digest.Digest
	for i := range 3 {
		blobs = append(blobs, store.add(layer(10_000+i)))
		get(t, r, "web/blobs/"+blobs[i].String(), "")
	}
	for i, want := range []bool{false, true, true} {
		_, err := os.Stat(filepath.Join(dir, "layers", "sha256", blobs[i].Encoded()))
		if have := err == nil; have != want {
			t.Errorf("blob %d is kept: %v, want %v", i, have, want)
		}
	}
}

func TestItListensOnLoopbackOnly(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", ":0", "192.0.2.1:5000"} {
		if _, err := localize.New(localize.Config{Dir: t.TempDir(), Upstream: "127.0.0.1:1", Listen: listen}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", listen, err)
		}
	}
}

func BenchmarkServe(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20, 16 << 20} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			content := layer(size)
			sum := digest.FromBytes(content)
			dir := b.TempDir()
			path := filepath.Join(dir, "layers", "sha256", sum.Encoded())
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				b.Fatal(err)
			}
			if err := os.WriteFile(path, content, 0o600); err != nil {
				b.Fatal(err)
			}
			r, err := localize.New(localize.Config{Dir: dir, Upstream: "127.0.0.1:1"})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- r.Run(ctx) }()
			b.SetBytes(int64(size))
			for b.Loop() {
				response, err := http.Get("http://" + r.Address() + "/v2/web/blobs/" + sum.String())
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
			}
			cancel()
			<-done
		})
	}
}
