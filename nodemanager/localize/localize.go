// Package localize is the node's own registry: engines pull from it over loopback, and it reads through to the
// zone's image store. Each layer crosses the network once, resumably, is believed only by its digest, and is kept
// for the next image that has it.
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

// Config is what a Registry has to be told.
type Config struct {
	// Dir holds the layers, in layers/sha256/.
	Dir string
	// Upstream is the host:port of the zone's image store, which speaks the OCI distribution API over HTTP.
	Upstream string
	// Listen is a loopback address; default 127.0.0.1:0.
	Listen string
	// MaxBytes bounds what is kept; default 10 GiB. What was used longest ago goes first.
	MaxBytes int64
	Logger   *slog.Logger
}

const (
	defaultMaxBytes = 10 << 30
	// maxManifest is how large a manifest may be.
	maxManifest = 4 << 20
)

// Registry is the node's registry.
type Registry struct {
	log      *slog.Logger
	listener net.Listener
	cache    *cache
	// sources are asked in order; a peer that has the layer would come before the zone's store.
	sources []source

	// edges is the context of fetches, and fetching what Run waits for.
	edges    context.Context
	cancel   context.CancelFunc
	fetching sync.WaitGroup

	mu      sync.Mutex
	flights map[digest.Digest]*flight
	// images are the manifests that name a blob: what is moved for it was moved for them.
	images map[digest.Digest]map[digest.Digest]struct{}
	moved  map[digest.Digest]int64
	total  int64
	closed bool
}

// New opens the cache and listens. Requests are served once Run runs. It fails with errdefs.ErrInvalidArgument
// when it is asked to listen beyond loopback: the registry asks nobody who he is.
func New(config Config) (*Registry, error) {
	if config.Listen == "" {
		config.Listen = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(config.Listen)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("the node's registry must listen on loopback, not on %q: %w", config.Listen, errdefs.ErrInvalidArgument)
	}
	if _, _, err := net.SplitHostPort(config.Upstream); err != nil {
		return nil, fmt.Errorf("%q is not the host:port of an image store: %w", config.Upstream, errdefs.ErrInvalidArgument)
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
		flights: map[digest.Digest]*flight{}, images: map[digest.Digest]map[digest.Digest]struct{}{}, moved: map[digest.Digest]int64{},
	}, nil
}

// Address is the registry's host:port.
func (r *Registry) Address() string { return r.listener.Addr().String() }

// Run serves until ctx ends, and returns once nothing is fetched any more. It may be called once.
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
	r.fetching.Wait()
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the node's registry: %w", err)
}

// Moved is how many bytes were fetched for an image, NAME@sha256:…, since the start.
func (r *Registry) Moved(image string) int64 {
	_, sum, _ := strings.Cut(image, "@")
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.moved[digest.Digest(sum)]
}

// Total is how many bytes were fetched since the start.
func (r *Registry) Total() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

func (r *Registry) count(blob digest.Digest, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total += n
	r.moved[blob] += n
	for image := range r.images[blob] {
		r.moved[image] += n
	}
}

// belongs notes that a blob is part of an image, and of every image that has that one as a part.
func (r *Registry) belongs(blob, image digest.Digest) {
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

// store is what the distribution API serves.
type store struct{ *Registry }

var _ distribution.Store = store{}

// Manifest implements distribution.Store for digests: what a node runs is named by what it is.
func (s store) Manifest(ctx context.Context, repository, reference string) (distribution.Manifest, error) {
	sum := digest.Digest(reference)
	if sum.Validate() != nil {
		return distribution.Manifest{}, fmt.Errorf("the node's registry knows images by digest only, not by the tag %q: %w", reference, errdefs.ErrNotFound)
	}
	file, err := s.open(ctx, wanted{repository: repository, digest: sum, manifest: true})
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
		s.belongs(part, sum)
	}
	return distribution.Manifest{Digest: sum, MediaType: mediaType, Content: content}, nil
}

// BlobSize implements distribution.Store.
func (s store) BlobSize(ctx context.Context, repository string, blob digest.Digest) (int64, error) {
	file, err := s.open(ctx, wanted{repository: repository, digest: blob})
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
func (s store) Blob(ctx context.Context, repository string, blob digest.Digest) (io.ReadSeekCloser, error) {
	file, err := s.open(ctx, wanted{repository: repository, digest: blob})
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
		return nil, fmt.Errorf("it has %d bytes, which no manifest has: %w", info.Size(), errdefs.ErrInvalidArgument)
	}
	content := make([]byte, info.Size())
	_, err = file.ReadAt(content, 0)
	return content, err
}

// parseManifest tells a manifest's type and the digests of what it names.
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
