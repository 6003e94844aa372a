package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/distribution"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

const (
	// maxJSON is how large a manifest, index or config may be.
	maxJSON = 4 << 20
	// maxIndexDepth is how deep indexes may be nested.
	maxIndexDepth = 4
)

// parsedManifest is an image manifest, which has a config and layers, or an index, which has manifests.
type parsedManifest struct {
	MediaType string               `json:"mediaType"`
	Version   int                  `json:"schemaVersion"`
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Manifests []ocispec.Descriptor `json:"manifests"`

	size int64
}

// parseManifest reads a manifest or index. The media type is what came with it; what the content says of itself
// must not differ. It fails with errdefs.ErrInvalidArgument.
func parseManifest(content []byte, mediaType string) (parsedManifest, error) {
	var m parsedManifest
	if err := json.Unmarshal(content, &m); err != nil {
		return m, invalid("the manifest is not valid JSON: %v", err)
	}
	m.size = int64(len(content))
	if m.MediaType != "" && mediaType != "" && m.MediaType != mediaType {
		return m, invalid("the manifest says that it is %q, but came as %q", m.MediaType, mediaType)
	}
	if m.MediaType == "" {
		m.MediaType = mediaType
	}
	if m.Version != 2 {
		return m, invalid("the manifest's schema version is %d; only version 2 is known, which Docker writes since 1.10", m.Version)
	}
	if m.MediaType == "" && m.Config != nil {
		m.MediaType = distribution.MediaTypeOCIManifest
	} else if m.MediaType == "" {
		m.MediaType = distribution.MediaTypeOCIIndex
	}
	switch m.MediaType {
	case distribution.MediaTypeManifest, distribution.MediaTypeOCIManifest:
		if m.Config == nil || m.Manifests != nil {
			return m, invalid("the manifest is not one of an image: it must have a config and no manifests")
		}
	case distribution.MediaTypeManifestList, distribution.MediaTypeOCIIndex:
		if m.Config != nil || m.Layers != nil {
			return m, invalid("the index must have manifests, and neither a config nor layers")
		}
	default:
		return m, invalid("manifests of the type %q are not known here", m.MediaType)
	}
	for _, descriptor := range m.descriptors() {
		if err := checkDigest(descriptor.Digest); err != nil {
			return m, err
		}
		if descriptor.Size < 0 {
			return m, invalid("the manifest gives %s a negative size", descriptor.Digest)
		}
	}
	return m, nil
}

// descriptors are those of everything that it names.
func (m parsedManifest) descriptors() []ocispec.Descriptor {
	all := slices.Concat(m.Layers, m.Manifests)
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	return all
}

func (m parsedManifest) isIndex() bool { return m.Config == nil }

func (m parsedManifest) entry() manifest {
	entry := manifest{mediaType: m.MediaType, size: m.size}
	for _, descriptor := range m.descriptors() {
		entry.children = append(entry.children, descriptor.Digest)
	}
	return entry
}

// Config is what an image says of how to run it.
type Config struct {
	// Architecture and OS in Go's words, for example "amd64" and "linux".
	Architecture string
	OS           string
	Entrypoint   []string
	Cmd          []string
	// Env as KEY=VALUE.
	Env        []string
	WorkingDir string
	User       string
	StopSignal string
	// ExposedPorts as PORT/PROTOCOL, sorted.
	ExposedPorts []string
	Labels       map[string]string

	// diffIDs are the digests of the layers' tars.
	diffIDs []digest.Digest
}

// HasCommand reports whether the image says itself what to run.
func (c Config) HasCommand() bool { return len(c.Entrypoint)+len(c.Cmd) > 0 }

// parseConfig reads an image's config, and checks that the zone's nodes can run it: errdefs.ErrInvalidArgument.
func (l Limits) parseConfig(content []byte) (Config, error) {
	var image ocispec.Image
	if err := json.Unmarshal(content, &image); err != nil {
		return Config{}, invalid("the image's config is not valid JSON: %v", err)
	}
	config := Config{
		Architecture: image.Architecture,
		OS:           image.OS,
		Entrypoint:   image.Config.Entrypoint,
		Cmd:          image.Config.Cmd,
		Env:          image.Config.Env,
		WorkingDir:   image.Config.WorkingDir,
		User:         image.Config.User,
		StopSignal:   image.Config.StopSignal,
		ExposedPorts: slices.Sorted(maps.Keys(image.Config.ExposedPorts)),
		Labels:       image.Config.Labels,
		diffIDs:      image.RootFS.DiffIDs,
	}
	// The oldest builders leave them out and mean their own machine.
	setDefault(&config.Architecture, l.Architecture)
	setDefault(&config.OS, "linux")
	if config.OS != "linux" {
		return config, l.wrongPlatform(config.OS + "/" + config.Architecture)
	}
	if config.Architecture != l.Architecture {
		return config, l.wrongPlatform(config.Architecture)
	}
	return config, nil
}

// platformError says that an image is sound, but not for the zone's nodes.
type platformError struct {
	image []string
	nodes string
}

func (e *platformError) Error() string {
	return fmt.Sprintf("the image is for %s, this zone's nodes are %s", strings.Join(e.image, ", "), e.nodes)
}

func (e *platformError) Unwrap() error { return errdefs.ErrInvalidArgument }

func (l Limits) wrongPlatform(image ...string) error {
	slices.Sort(image)
	return &platformError{image: slices.Compact(image), nodes: l.Architecture}
}

// choose finds the manifest of an index that is for the zone's nodes.
func (l Limits) choose(index parsedManifest) (ocispec.Descriptor, error) {
	var others []string
	var unsaid *ocispec.Descriptor
	for _, descriptor := range index.Manifests {
		switch platform := descriptor.Platform; {
		case platform == nil:
			if unsaid == nil {
				unsaid = &descriptor
			}
		case platform.OS == "linux" && platform.Architecture == l.Architecture:
			return descriptor, nil
		case platform.OS == "linux":
			others = append(others, platform.Architecture)
		case platform.OS != "unknown": // Attestations, which builders put beside images.
			others = append(others, platform.OS+"/"+platform.Architecture)
		}
	}
	if unsaid != nil {
		return *unsaid, nil // Its config tells.
	}
	if others == nil {
		return ocispec.Descriptor{}, invalid("the index names no image")
	}
	return ocispec.Descriptor{}, l.wrongPlatform(others...)
}

// Resolve finds an image by NAME:TAG, NAME (then the tag is "latest") or NAME@DIGEST. It tells the digest of the
// manifest for the zone's nodes, by which they pull it, and the image's config. It fails with errdefs.ErrNotFound,
// saying what the store has, and with errdefs.ErrInvalidArgument when the name is none or the image cannot run here.
func (s *Store) Resolve(_ context.Context, name string) (manifestDigest string, config Config, err error) {
	ref, err := distribution.ParseReference(name)
	if err != nil {
		return "", Config{}, err
	}
	s.mu.Lock()
	current := s.catalog
	s.mu.Unlock()
	sum, err := s.find(current, ref)
	if err != nil {
		return "", Config{}, err
	}
	sum, _, config, err = s.read(current, sum)
	if err != nil {
		return "", Config{}, fmt.Errorf("image %q: %w", name, err)
	}
	return sum.String(), config, nil
}

// find is the digest that a reference means; the digest in it counts before the tag.
func (s *Store) find(current catalog, ref distribution.Reference) (digest.Digest, error) {
	sum := ref.Digest
	if sum == "" {
		sum = current.tags[ref.String()].digest
	}
	if _, ok := current.manifests[sum]; !ok {
		return "", s.noImage(&current, ref)
	}
	return sum, nil
}

// read reads a manifest and follows it.
func (s *Store) read(current catalog, sum digest.Digest) (digest.Digest, parsedManifest, Config, error) {
	m, err := s.readManifest(current, sum)
	if err != nil {
		return sum, m, Config{}, err
	}
	return s.follow(current, sum, m)
}

// follow goes from an index to the image for the zone's nodes, and reads its config.
func (s *Store) follow(current catalog, sum digest.Digest, m parsedManifest) (digest.Digest, parsedManifest, Config, error) {
	for depth := 0; m.isIndex(); depth++ {
		if depth == maxIndexDepth {
			return sum, m, Config{}, invalid("the index is nested more than %d deep", maxIndexDepth)
		}
		chosen, err := s.limits.choose(m)
		if err != nil {
			return sum, m, Config{}, err
		}
		sum = chosen.Digest
		if m, err = s.readManifest(current, sum); err != nil {
			return sum, m, Config{}, err
		}
	}
	content, err := s.readBlob(m.Config.Digest)
	if err != nil {
		return sum, m, Config{}, err
	}
	config, err := s.limits.parseConfig(content)
	return sum, m, config, err
}

func (s *Store) readManifest(current catalog, sum digest.Digest) (parsedManifest, error) {
	entry, ok := current.manifests[sum]
	if !ok {
		return parsedManifest{}, fmt.Errorf("the store has no manifest %s: %w", sum, errdefs.ErrNotFound)
	}
	content, err := s.readBlob(sum)
	if err != nil {
		return parsedManifest{}, err
	}
	return parseManifest(content, entry.mediaType)
}

// readBlob reads a small blob: a manifest or a config.
func (s *Store) readBlob(sum digest.Digest) ([]byte, error) {
	size, err := s.blobSize(sum)
	if err != nil {
		return nil, err
	}
	if size > maxJSON {
		return nil, invalid("%s is %d bytes long, too long for a manifest or config", sum, size)
	}
	content, err := os.ReadFile(blobPath(s.dir, sum))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the store has no blob %s: %w", sum, errdefs.ErrNotFound)
	}
	return content, err
}

// describe tells about a tag. An image that cannot run here is told too, as far as it can be read.
func (s *Store) describe(current catalog, name string) (*apiv1.Image, error) {
	tagged := current.tags[name]
	sum, m, config, err := s.read(current, tagged.digest)
	if err != nil && !errors.Is(err, errdefs.ErrInvalidArgument) {
		return nil, err
	}
	image := &apiv1.Image{
		Name:         name,
		Digest:       sum.String(),
		Architecture: config.Architecture,
		SizeBytes:    m.size,
		CreatedAt:    timestamppb.New(tagged.createdAt),
	}
	for _, layer := range m.Layers {
		image.Layers = append(image.Layers, &apiv1.Layer{Digest: layer.Digest.String(), SizeBytes: layer.Size})
		image.SizeBytes += layer.Size
	}
	if m.Config != nil {
		image.SizeBytes += m.Config.Size
	}
	return image, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
