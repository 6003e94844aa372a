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
	// maxJSON is how large a manifest, index or config may be.
	maxJSON = 4 << 20
	// maxNamed is how many layers or manifests one manifest may name.
	maxNamed = 512
)

// parsedManifest is a manifest of an image or of something else, which has a config and layers, or an index, which has
// manifests.
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
	if n := len(m.Layers) + len(m.Manifests); n > maxNamed {
		return m, fmt.Errorf("the manifest names %d layers or manifests, and may name %d: %w", n, maxNamed, errdefs.ErrResourceExhausted)
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
		entry.children = append(entry.children, child{descriptor.Digest, descriptor.Size})
	}
	return entry
}

// Resolve finds an image by NAME:TAG, NAME (then the tag is "latest") or NAME@DIGEST. It tells the digest of the
// manifest for the zone's nodes, by which they pull it, and the image's config. It fails with errdefs.ErrNotFound,
// saying what the store has, and with errdefs.ErrInvalidArgument when the name is none or the image cannot run here.
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
		// Behind a name is what was looked at when it was named; behind a digest may be anything.
		err = s.examineStored(ctx, found)
	}
	if err != nil {
		return "", Config{}, fmt.Errorf("image %q: %w", name, err)
	}
	found.config.files = s.filesOf(found.manifest)
	return found.digest.String(), found.config, nil
}

// filesOf are an image's own files, nil if a layer was not looked at.
func (s *Store) filesOf(m parsedManifest) *imageFiles {
	var files imageFiles
	whole := true
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, layer := range m.Layers {
		facts, ok := s.checked[layer.Digest]
		if !ok {
			return nil
		}
		files.users, files.groups = facts.users.over(files.users), facts.groups.over(files.groups)
		files.root, whole = append(files.root, facts.tree), whole && facts.tree != nil
	}
	if !whole {
		files.root = nil
	}
	return &files
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

// inStore is the catalog with its blobs as a source of images.
type inStore struct {
	*Store
	catalog catalog
}

func (s inStore) manifest(descriptor ocispec.Descriptor) ([]byte, error) {
	if _, ok := s.catalog.manifests[descriptor.Digest]; !ok {
		return nil, fmt.Errorf("the store has no manifest %s: %w", descriptor.Digest, errdefs.ErrNotFound)
	}
	return s.readBlob(descriptor.Digest)
}

func (s inStore) config(sum digest.Digest) ([]byte, error) { return s.readBlob(sum) }

// read follows a manifest or index of the store to the image for the zone's nodes.
func (s *Store) read(current catalog, sum digest.Digest) (*candidate, error) {
	return s.limits.pick(inStore{s, current}, current.descriptor(sum))
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
