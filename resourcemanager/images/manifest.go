package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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

// storeSource is the store as a source of images.
type storeSource struct {
	blobs   *blobs
	catalog catalog
}

func (s storeSource) manifest(descriptor ocispec.Descriptor) ([]byte, error) {
	if _, ok := s.catalog.manifests[descriptor.Digest]; !ok {
		return nil, fmt.Errorf("the store has no manifest %s: %w", descriptor.Digest, errdefs.ErrNotFound)
	}
	return s.blobs.read(descriptor.Digest)
}

func (s storeSource) descriptor(sum digest.Digest) ocispec.Descriptor {
	return s.catalog.descriptor(sum)
}

// names lists the tags, sorted.
func (s storeSource) names() []string { return slices.Sorted(maps.Keys(s.catalog.tags)) }

func (s storeSource) find(ref distribution.Reference) (digest.Digest, error) {
	return s.catalog.find(ref)
}

func (s storeSource) tag(name string) tag { return s.catalog.tags[name] }

func (s storeSource) config(sum digest.Digest) ([]byte, error) { return s.blobs.read(sum) }

// read follows a manifest or index of the store to the image for the zone's nodes.
func (l Limits) read(from storeSource, sum digest.Digest) (*candidate, error) {
	return l.pick(from, from.descriptor(sum))
}

// describe describes the image of a tag, as far as it can be read if it cannot run here.
func (l Limits) describe(from storeSource, name string) (*apiv1.Image, error) {
	tagged := from.tag(name)
	image := &apiv1.Image{
		Name: name, Digest: tagged.digest.String(), SizeBytes: from.descriptor(tagged.digest).Size, CreatedAt: timestamppb.New(tagged.createdAt),
	}
	found, err := l.read(from, tagged.digest)
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
