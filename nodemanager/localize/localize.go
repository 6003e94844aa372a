// Package localize is the node's own registry: engines pull from it over loopback, and it fetches from the zone's image
// store. Each layer crosses the network once, can be resumed, is verified by its digest, and is cached for other images.
//
// It owns the folder of cached layers.
package localize

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/distribution"
)

// Config is the configuration of a Registry.
type Config struct {
	// Dir holds the layers, in layers/sha256/.
	Dir string
	// Upstream is the host:port, or a list of them, of the zone's image store, which speaks the OCI distribution API over HTTP.
	Upstream string
	// Listen is a loopback address; default 127.0.0.1:0.
	Listen string
	// MaxBytes limits the cache; default 10 GiB. The least recently used blobs are deleted first.
	MaxBytes int64
	Logger   *slog.Logger
}

const (
	defaultMaxBytes = 10 << 30
	// maxManifest is the largest manifest.
	maxManifest = 4 << 20
)

// Registry is the node's registry.
type Registry struct {
	log      *slog.Logger
	listener net.Listener
	cache    *cache
	// sources are tried in order.
	sources []source

	// edges is the context of fetches; Run waits for goroutines.
	edges      context.Context
	cancel     context.CancelFunc
	goroutines sync.WaitGroup

	mu      sync.Mutex
	fetches map[digest.Digest]*fetchGroup
	// images are the manifests that refer to each blob, directly or not. Bytes fetched for the blob count for them.
	images  map[digest.Digest]map[digest.Digest]struct{}
	fetched map[digest.Digest]int64
	total   int64
	closed  bool
}

// New opens the cache and listens. Requests are served by Run. It fails with errdefs.ErrInvalidArgument for an address that
// is not loopback, since the registry does not authenticate.
func New(config Config) (*Registry, error) {
	if config.Listen == "" {
		config.Listen = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(config.Listen)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("the node's registry must listen on loopback, not on %q: %w", config.Listen, errdefs.ErrInvalidArgument)
	}
	if _, err := credentials.SplitAddresses(config.Upstream); err != nil {
		return nil, fmt.Errorf("the address of an image store: %w", err)
	}
	if config.MaxBytes == 0 {
		config.MaxBytes = defaultMaxBytes
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	cache, err := openCache(filepath.Join(config.Dir, "layers", "sha256"), config.MaxBytes)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for the node's engines: %w", err)
	}
	edges, cancel := context.WithCancel(context.Background())
	return &Registry{
		log: config.Logger, listener: listener, cache: cache, sources: []source{newUpstream(config.Upstream)},
		edges: edges, cancel: cancel,
		fetches: map[digest.Digest]*fetchGroup{}, images: map[digest.Digest]map[digest.Digest]struct{}{}, fetched: map[digest.Digest]int64{},
	}, nil
}

// Address is the registry's host:port.
func (r *Registry) Address() string { return r.listener.Addr().String() }

// Run serves until ctx ends, and returns after all fetches have ended. It may be called once.
func (r *Registry) Run(ctx context.Context) error {
	server := credentials.NewHTTPServer(distribution.New(store{r}))
	stop := context.AfterFunc(ctx, func() {
		r.cancel()
		_ = server.Close()
	})
	defer stop()
	err := server.Serve(r.listener)
	r.cancel()
	_ = server.Close()
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.goroutines.Wait()
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the node's registry: %w", err)
}

// Fetched is how many bytes were fetched for an image, NAME@sha256:…, since the start.
func (r *Registry) Fetched(image string) int64 {
	_, sum, _ := strings.Cut(image, "@")
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fetched[digest.Digest(sum)]
}

// TotalFetched is how many bytes were fetched since the start.
func (r *Registry) TotalFetched() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

func (r *Registry) count(blob digest.Digest, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total += n
	r.fetched[blob] += n
	for image := range r.images[blob] {
		r.fetched[image] += n
	}
}

// addPart records that a blob is part of an image, and of every image of which that one is a part.
func (r *Registry) addPart(blob, image digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	images := r.images[blob]
	if images == nil {
		images = map[digest.Digest]struct{}{}
		r.images[blob] = images
	}
	images[image] = struct{}{}
	for whole := range r.images[image] {
		images[whole] = struct{}{}
	}
}

// store implements the distribution API.
type store struct{ *Registry }

var _ distribution.Store = store{}

// Manifest implements distribution.Store for digests, the only names of images on a node.
func (s store) Manifest(ctx context.Context, repository, reference string) (distribution.Manifest, error) {
	sum := digest.Digest(reference)
	if sum.Validate() != nil {
		return distribution.Manifest{}, fmt.Errorf("the node's registry knows images by digest only, not by the tag %q: %w", reference, errdefs.ErrNotFound)
	}
	file, err := s.open(ctx, blob{repository: repository, digest: sum, manifest: true})
	if err != nil {
		return distribution.Manifest{}, err
	}
	defer func() { _ = file.Close() }()
	content, err := readManifest(file)
	if err != nil {
		return distribution.Manifest{}, fmt.Errorf("manifest %s: %w", sum, err)
	}
	mediaType, parts, err := parseManifest(content)
	if err != nil {
		return distribution.Manifest{}, fmt.Errorf("manifest %s: %w", sum, err)
	}
	for _, part := range parts {
		s.addPart(part, sum)
	}
	return distribution.Manifest{Digest: sum, MediaType: mediaType, Content: content}, nil
}

// BlobSize implements distribution.Store.
func (s store) BlobSize(ctx context.Context, repository string, sum digest.Digest) (int64, error) {
	file, err := s.open(ctx, blob{repository: repository, digest: sum})
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Blob implements distribution.Store.
func (s store) Blob(ctx context.Context, repository string, sum digest.Digest) (io.ReadSeekCloser, error) {
	file, err := s.open(ctx, blob{repository: repository, digest: sum})
	if err != nil {
		return nil, err
	}
	return file, nil
}

func readManifest(file *os.File) ([]byte, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > maxManifest {
		return nil, fmt.Errorf("it has %d bytes, which is too long for a manifest: %w", info.Size(), errdefs.ErrInvalidArgument)
	}
	content := make([]byte, info.Size())
	_, err = file.ReadAt(content, 0)
	return content, err
}

// parseManifest returns a manifest's type and the digests that it refers to.
func parseManifest(content []byte) (mediaType string, parts []digest.Digest, err error) {
	type descriptor struct {
		Digest digest.Digest `json:"digest"`
	}
	var manifest struct {
		MediaType string       `json:"mediaType"`
		Config    descriptor   `json:"config"`
		Layers    []descriptor `json:"layers"`
		Manifests []descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(content, &manifest); err != nil {
		return "", nil, fmt.Errorf("it is not a manifest: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	mediaType = manifest.MediaType
	switch {
	case mediaType != "":
	case manifest.Manifests != nil:
		mediaType = distribution.MediaTypeOCIIndex
	default:
		mediaType = distribution.MediaTypeOCIManifest
	}
	for _, part := range append(append(manifest.Layers, manifest.Manifests...), manifest.Config) {
		if part.Digest.Validate() == nil {
			parts = append(parts, part.Digest)
		}
	}
	return mediaType, parts, nil
}
