package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mammoth-os/mammoth/internal/distribution"
	"github.com/mammoth-os/mammoth/internal/notes"
	"github.com/mammoth-os/mammoth/internal/peer"
)

// userAnnotation is the annotation in index.json with the user who brought a manifest.
const userAnnotation = "mammoth.user"

// catalog lists what the store has. A published catalog is never changed; a change is made to a clone.
type catalog struct {
	// tags by NAME:TAG.
	tags      map[string]tag
	manifests map[digest.Digest]manifest
}

type tag struct {
	digest    digest.Digest
	createdAt time.Time
}

type manifest struct {
	mediaType string
	size      int64
	// user is the user who brought it first, empty if unknown.
	user string
	// children are the blobs and manifests that it refers to.
	children []child
}

type child struct {
	digest digest.Digest
	size   int64
}

// add adds a manifest unless it is in the catalog.
func (c catalog) add(sum digest.Digest, m parsedManifest, who peer.User) {
	if _, ok := c.manifests[sum]; !ok {
		entry := m.entry()
		entry.user = who.Name
		c.manifests[sum] = entry
	}
}

func (c catalog) clone() catalog {
	return catalog{tags: maps.Clone(c.tags), manifests: maps.Clone(c.manifests)}
}

func (c catalog) equal(other catalog) bool {
	return maps.Equal(c.tags, other.tags) && maps.EqualFunc(c.manifests, other.manifests, func(a, b manifest) bool {
		return a.mediaType == b.mediaType && a.size == b.size
	})
}

// reach is the set of everything that the roots refer to, directly or not, and the roots.
func (c catalog) reach(roots []digest.Digest) map[digest.Digest]bool {
	reached := map[digest.Digest]bool{}
	for len(roots) > 0 {
		sum := roots[len(roots)-1]
		roots = roots[:len(roots)-1]
		if !reached[sum] {
			reached[sum] = true
			for _, child := range c.manifests[sum].children {
				roots = append(roots, child.digest)
			}
		}
	}
	return reached
}

// find returns the digest of a reference. A digest in the reference precedes the tag.
func (c catalog) find(ref distribution.Reference) (digest.Digest, error) {
	sum := ref.Digest
	if sum == "" {
		sum = c.tags[ref.String()].digest
	}
	if _, ok := c.manifests[sum]; !ok {
		return "", c.notFoundError(ref)
	}
	return sum, nil
}

// notFoundError is the error for an unknown name; it lists what the store has.
func (c catalog) notFoundError(ref distribution.Reference) error {
	var same, others []string
	for _, name := range slices.Sorted(maps.Keys(c.tags)) {
		if strings.HasPrefix(name, ref.Repository+":") {
			same = append(same, name)
		} else {
			others = append(others, name)
		}
	}
	has := "the store is empty"
	if known := append(same, others...); len(known) > 0 {
		const most = 8
		has = "the store has " + strings.Join(known[:min(len(known), most)], ", ")
		if len(known) > most {
			has += fmt.Sprintf(" and %d more", len(known)-most)
		}
	}
	return fmt.Errorf("no image is named %q; %s: %w", ref, has, errdefs.ErrNotFound)
}

// loadCatalog reads the index and the manifests in it. A manifest whose file is missing is left out, so that one damaged
// image does not keep the zone from starting. Twice reports whether the index and its copy say the same.
func loadCatalog(dir string) (c catalog, twice bool, err error) {
	c = catalog{tags: map[string]tag{}, manifests: map[digest.Digest]manifest{}}
	index, twice, err := readIndex(dir)
	if err != nil {
		return c, false, err
	}
	for _, descriptor := range index.Manifests {
		if _, known := c.manifests[descriptor.Digest]; !known {
			content, err := os.ReadFile(filepath.Join(blobDir(dir), descriptor.Digest.Encoded()))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return c, false, err
			}
			parsed, err := parseManifest(content, descriptor.MediaType)
			if err != nil {
				continue
			}
			entry := parsed.entry()
			entry.user = descriptor.Annotations[userAnnotation]
			c.manifests[descriptor.Digest] = entry
		}
		if name := descriptor.Annotations[ocispec.AnnotationRefName]; name != "" {
			// An unreadable time is read as zero.
			createdAt, _ := time.Parse(time.RFC3339Nano, descriptor.Annotations[ocispec.AnnotationCreated])
			c.tags[name] = tag{digest: descriptor.Digest, createdAt: createdAt}
		}
	}
	return c, twice, nil
}

// save replaces index.json and its copy, each atomically.
func (c catalog) save(dir string) error {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	index.Manifests = []ocispec.Descriptor{}
	tagged := map[digest.Digest]bool{}
	for _, name := range slices.Sorted(maps.Keys(c.tags)) {
		tag := c.tags[name]
		tagged[tag.digest] = true
		descriptor := c.descriptor(tag.digest)
		if descriptor.Annotations == nil {
			descriptor.Annotations = map[string]string{}
		}
		descriptor.Annotations[ocispec.AnnotationRefName] = name
		descriptor.Annotations[ocispec.AnnotationCreated] = tag.createdAt.UTC().Format(time.RFC3339Nano)
		index.Manifests = append(index.Manifests, descriptor)
	}
	for _, sum := range slices.Sorted(maps.Keys(c.manifests)) {
		if !tagged[sum] {
			index.Manifests = append(index.Manifests, c.descriptor(sum))
		}
	}
	content, err := sealIndex(index)
	if err != nil {
		return err
	}
	layout, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, ocispec.ImageLayoutFile)); errors.Is(err, os.ErrNotExist) {
		if err := replaceFile(dir, ocispec.ImageLayoutFile, layout); err != nil {
			return err
		}
	}
	// The copy is never older than the index, so that it names no blob that was deleted for want of a name in the index.
	if err := replaceFile(dir, notes.Copy(ocispec.ImageIndexFile), content); err != nil {
		return err
	}
	return replaceFile(dir, ocispec.ImageIndexFile, content)
}

func (c catalog) descriptor(sum digest.Digest) ocispec.Descriptor {
	entry := c.manifests[sum]
	descriptor := ocispec.Descriptor{MediaType: entry.mediaType, Digest: sum, Size: entry.size}
	if entry.user != "" {
		descriptor.Annotations = map[string]string{userAnnotation: entry.user}
	}
	return descriptor
}
