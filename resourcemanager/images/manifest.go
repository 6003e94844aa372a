package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/distribution"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

const (
	// maxJSON is the largest manifest, index or config.
	maxJSON = 4 << 20
	// maxNamed is how many layers or manifests one manifest may have.
	maxNamed = 512
)

// parsedManifest is a manifest, which has a config and layers, or an index, which has manifests.
type parsedManifest struct {
	MediaType    string               `json:"mediaType"`
	Version      int                  `json:"schemaVersion"`
	ArtifactType string               `json:"artifactType"`
	Subject      *ocispec.Descriptor  `json:"subject"`
	Config       *ocispec.Descriptor  `json:"config"`
	Layers       []ocispec.Descriptor `json:"layers"`
	Manifests    []ocispec.Descriptor `json:"manifests"`

	size int64
}

// parseManifest reads a manifest or index. MediaType is the type that it was sent with; a type in the content must be the
// same. It fails with errdefs.ErrInvalidArgument.
func parseManifest(content []byte, mediaType string) (parsedManifest, error) {
	var m parsedManifest
	if err := json.Unmarshal(content, &m); err != nil {
		return m, invalid("the manifest is not valid JSON: %v", err)
	}
	m.size = int64(len(content))
	if m.MediaType != "" && mediaType != "" && m.MediaType != mediaType {
		return m, invalid("the manifest's own type is %q, but it was sent as %q", m.MediaType, mediaType)
	}
	if m.MediaType == "" {
		m.MediaType = mediaType
	}
	if m.Version != 2 {
		return m, invalid("the manifest's schema version is %d; only version 2 is supported, which Docker writes since 1.10", m.Version)
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
		return m, invalid("manifests of the type %q are not supported", m.MediaType)
	}
	if n := len(m.Layers) + len(m.Manifests); n > maxNamed {
		return m, fmt.Errorf("the manifest has %d layers or manifests; the limit is %d: %w", n, maxNamed, errdefs.ErrResourceExhausted)
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

// descriptors lists the descriptors of everything that it refers to.
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
		entry.children = append(entry.children, child{descriptor.Digest, descriptor.Size})
	}
	return entry
}

// Resolve finds an image by NAME:TAG, NAME (the tag is "latest" then) or NAME@DIGEST. It returns the digest of the manifest
// for the zone's nodes, by which they pull it, and the image's config. It fails with errdefs.ErrNotFound, naming what the
// store has, and with errdefs.ErrInvalidArgument for an invalid name or an image that cannot run here.
func (s *Store) Resolve(ctx context.Context, name string) (manifestDigest string, config Config, err error) {
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
	found, err := s.read(current, sum)
	if err == nil && ref.Digest != "" {
		// What has a name was examined when it was named. What has only a digest may be anything.
		err = s.examineStored(ctx, found)
	}
	if err != nil {
		return "", Config{}, fmt.Errorf("image %q: %w", name, err)
	}
	found.config.files = s.filesOf(found.manifest)
	return found.digest.String(), found.config, nil
}

// filesOf returns an image's files, nil if a layer was not examined.
func (s *Store) filesOf(m parsedManifest) *imageFiles {
	var files imageFiles
	whole := true
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, layer := range m.Layers {
		facts, ok := s.layerCache[layer.Digest]
		if !ok {
			return nil
		}
		files.users, files.groups = facts.users.overlay(files.users), facts.groups.overlay(files.groups)
		files.root, whole = append(files.root, facts.tree), whole && facts.tree != nil
	}
	if !whole {
		files.root = nil
	}
	return &files
}

// find returns the digest of a reference. A digest in the reference precedes the tag.
func (s *Store) find(current catalog, ref distribution.Reference) (digest.Digest, error) {
	sum := ref.Digest
	if sum == "" {
		sum = current.tags[ref.String()].digest
	}
	if _, ok := current.manifests[sum]; !ok {
		return "", s.notFoundError(&current, ref)
	}
	return sum, nil
}

// storeSource is the store as a source of images.
type storeSource struct {
	*Store
	catalog catalog
}

func (s storeSource) manifest(descriptor ocispec.Descriptor) ([]byte, error) {
	if _, ok := s.catalog.manifests[descriptor.Digest]; !ok {
		return nil, fmt.Errorf("the store has no manifest %s: %w", descriptor.Digest, errdefs.ErrNotFound)
	}
	return s.readBlob(descriptor.Digest)
}

func (s storeSource) config(sum digest.Digest) ([]byte, error) { return s.readBlob(sum) }

// read follows a manifest or index of the store to the image for the zone's nodes.
func (s *Store) read(current catalog, sum digest.Digest) (*candidate, error) {
	return s.limits.pick(storeSource{s, current}, current.descriptor(sum))
}

// readBlob reads a small blob: a manifest or a config.
func (s *Store) readBlob(sum digest.Digest) ([]byte, error) {
	size, err := s.blobSize(sum)
	if err != nil {
		return nil, err
	}
	if size > maxJSON {
		return nil, invalid("%s is too long for a manifest or config: %d bytes", sum, size)
	}
	content, err := os.ReadFile(blobPath(s.dir, sum))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the store has no blob %s: %w", sum, errdefs.ErrNotFound)
	}
	return content, err
}

// describe describes the image of a tag, as far as it can be read if it cannot run here.
func (s *Store) describe(current catalog, name string) (*apiv1.Image, error) {
	tagged := current.tags[name]
	image := &apiv1.Image{
		Name: name, Digest: tagged.digest.String(), SizeBytes: current.manifests[tagged.digest].size, CreatedAt: timestamppb.New(tagged.createdAt),
	}
	found, err := s.read(current, tagged.digest)
	if errors.Is(err, errdefs.ErrInvalidArgument) {
		return image, nil
	}
	if err != nil {
		return nil, err
	}
	image.Digest, image.Architecture = found.digest.String(), found.config.Architecture
	image.SizeBytes = found.manifest.size + found.manifest.Config.Size
	for _, layer := range found.manifest.Layers {
		image.Layers = append(image.Layers, &apiv1.Layer{Digest: layer.Digest.String(), SizeBytes: layer.Size})
		image.SizeBytes += layer.Size
	}
	return image, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
