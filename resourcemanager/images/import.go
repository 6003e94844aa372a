package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mammoth-os/mammoth/internal/distribution"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

const (
	dockerConfig       = "application/vnd.docker.container.image.v1+json"
	dockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	containerImageName = "io.containerd.image.name"
)

// Import takes in an archive of `docker save` or in OCI layout, which may be gzip-compressed, and tags it: with name,
// or when that is empty with the archive's own names. Of an image for several architectures it takes the zone's own.
// It fails with errdefs.ErrInvalidArgument for an archive that is not as it should be or cannot run here, and with
// errdefs.ErrResourceExhausted for one that is too large; then nothing of it stays.
func (s *Store) Import(_ context.Context, content io.Reader, name string) (*apiv1.Image, error) {
	if _, err := importName(name); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.incomingDir(), "import-*")
	if err != nil {
		return nil, fmt.Errorf("unpack the archive: %w", diskError(err))
	}
	defer os.RemoveAll(dir)
	unpacked, err := unpack(content, dir, s.limits)
	if err != nil {
		return nil, err
	}
	image, err := unpacked.image(name)
	if err != nil {
		return nil, err
	}
	return s.keep(image, dir)
}

// importName reads the name that an image is to have; it may be empty.
func importName(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	ref, err := distribution.ParseReference(name)
	if err != nil {
		return "", err
	}
	if ref.Digest != "" {
		return "", invalid("an image is imported under a tag, not under the digest in %q", name)
	}
	return ref.String(), nil
}

// keep makes the parts of an image blobs, and names them, in one step.
func (s *Store) keep(image *archivedImage, dir string) (*apiv1.Image, error) {
	files := map[digest.Digest]string{}
	for _, part := range image.parts {
		files[part.digest] = part.path
		if _, err := s.blobSize(part.digest); err == nil {
			continue
		}
		if err := syncFile(part.path); err != nil {
			return nil, fmt.Errorf("store a blob: %w", diskError(err))
		}
	}
	written, err := writeNew(dir, image.content)
	if err != nil {
		return nil, fmt.Errorf("store the manifest: %w", diskError(err))
	}
	files[image.digest] = written

	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.adopt(files); err != nil {
		return nil, err
	}
	next := s.catalog.clone()
	next.manifests[image.digest] = image.manifest.entry()
	for _, name := range image.names {
		next.tags[name] = tag{digest: image.digest, createdAt: time.Now()}
	}
	if err := s.commit(next); err != nil {
		return nil, err
	}
	return s.describe(next, image.names[0])
}

// archivedImage is one image of an archive.
type archivedImage struct {
	names    []string
	digest   digest.Digest
	content  []byte
	manifest parsedManifest
	// parts are the config and the layers.
	parts []part
}

// image finds the archive's one image for the zone's nodes, or the one of that name, and checks all of it.
func (a *archive) image(name string) (*archivedImage, error) {
	name, err := importName(name)
	if err != nil {
		return nil, err
	}
	images, err := a.images()
	if err != nil {
		return nil, err
	}
	var names []string
	chosen := images[0]
	for _, image := range images {
		if slices.Contains(image.names, name) {
			chosen = image
		}
		names = append(names, image.names...)
	}
	if len(images) > 1 && !slices.Contains(chosen.names, name) {
		return nil, invalid("the archive holds %d images (%s); give the name of one", len(images), strings.Join(names, ", "))
	}
	if name != "" {
		chosen.names = []string{name}
	}
	if len(chosen.names) == 0 {
		return nil, invalid("the archive does not say the image's name; give one, as in web:1.0")
	}
	return chosen, a.check(chosen)
}

// images lists the images for the zone's nodes, each once; there is at least one.
func (a *archive) images() ([]*archivedImage, error) {
	saved, err := a.dockerManifest()
	if err != nil {
		return nil, err
	}
	content, ok, err := a.json(ocispec.ImageIndexFile)
	if err != nil {
		return nil, err
	}
	if ok {
		return a.indexed(content, saved)
	}
	if saved == nil {
		return nil, invalid("this is not an image archive: it holds neither %s nor manifest.json", ocispec.ImageIndexFile)
	}
	var images []*archivedImage
	for _, item := range saved {
		image, err := a.assemble(item)
		if err != nil {
			return nil, err
		}
		images = append(images, image)
	}
	return images, nil
}

// savedImage is an image in the manifest.json of `docker save`.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (i savedImage) names() []string {
	var names []string
	for _, tag := range i.RepoTags {
		if ref, err := distribution.ParseReference(tag); err == nil && !slices.Contains(names, ref.String()) {
			names = append(names, ref.String())
		}
	}
	return names
}

// dockerManifest reads manifest.json; without one it is empty.
func (a *archive) dockerManifest() ([]savedImage, error) {
	content, ok, err := a.json("manifest.json")
	if err != nil || !ok {
		return nil, err
	}
	var saved []savedImage
	if err := json.Unmarshal(content, &saved); err != nil {
		return nil, invalid("the archive's manifest.json is not valid: %v", err)
	}
	if len(saved) == 0 {
		return nil, invalid("the archive's manifest.json names no image")
	}
	return saved, nil
}

// assemble makes the manifest that `docker save` leaves out.
func (a *archive) assemble(saved savedImage) (*archivedImage, error) {
	config, ok := a.file(saved.Config)
	if !ok {
		return nil, invalid("the archive lacks the config %q that its manifest names", saved.Config)
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: distribution.MediaTypeManifest,
		Config:    ocispec.Descriptor{MediaType: dockerConfig, Digest: config.digest, Size: config.size},
		Layers:    []ocispec.Descriptor{},
	}
	for _, name := range saved.Layers {
		layer, ok := a.file(name)
		if !ok {
			return nil, invalid("the archive lacks the layer %q that its manifest names", name)
		}
		mediaType := dockerLayer
		compressed, err := isGzip(layer.path)
		if err != nil {
			return nil, err
		}
		if compressed {
			mediaType += ".gzip"
		}
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: mediaType, Digest: layer.digest, Size: layer.size})
	}
	content, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return newImage(content, m.MediaType, saved.names())
}

func newImage(content []byte, mediaType string, names []string) (*archivedImage, error) {
	m, err := parseManifest(content, mediaType)
	if err != nil {
		return nil, err
	}
	return &archivedImage{names: names, digest: digest.FromBytes(content), content: content, manifest: m}, nil
}

// indexed lists the images of an OCI layout. Those for other architectures are passed over, if one is for the zone's
// nodes.
func (a *archive) indexed(content []byte, saved []savedImage) ([]*archivedImage, error) {
	index, err := parseManifest(content, distribution.MediaTypeOCIIndex)
	if err != nil {
		return nil, err
	}
	var images []*archivedImage
	var other error
	for _, descriptor := range index.Manifests {
		if descriptor.Platform != nil && descriptor.Platform.OS == "unknown" {
			continue // An attestation.
		}
		image, err := a.descend(descriptor, 0)
		if errors.As(err, new(*platformError)) {
			other = err
			continue
		}
		if err != nil {
			return nil, err
		}
		image.names = a.namesOf(image, descriptor, saved)
		same := slices.IndexFunc(images, func(other *archivedImage) bool { return other.digest == image.digest })
		if same < 0 {
			images = append(images, image)
			continue
		}
		images[same].names = slices.Concat(images[same].names, image.names)
		slices.Sort(images[same].names)
		images[same].names = slices.Compact(images[same].names)
	}
	switch {
	case len(images) == 0 && other != nil:
		return nil, other
	case len(images) == 0:
		return nil, invalid("the archive's %s names no image", ocispec.ImageIndexFile)
	}
	return images, nil
}

// descend follows a descriptor through nested indexes to the manifest for the zone's nodes.
func (a *archive) descend(descriptor ocispec.Descriptor, depth int) (*archivedImage, error) {
	if depth > maxIndexDepth {
		return nil, invalid("the archive's index is nested more than %d deep", maxIndexDepth)
	}
	content, ok, err := a.json(blobName(descriptor.Digest))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, invalid("the archive lacks the manifest %s that its index names", descriptor.Digest)
	}
	m, err := parseManifest(content, descriptor.MediaType)
	if err != nil {
		return nil, err
	}
	if m.isIndex() {
		chosen, err := a.limits.choose(m)
		if err != nil {
			return nil, err
		}
		return a.descend(chosen, depth+1)
	}
	image, err := newImage(content, m.MediaType, nil)
	if err != nil {
		return nil, err
	}
	_, _, err = a.config(image)
	return image, err
}

// namesOf are an image's names: those that `docker save` wrote beside it, else those of its descriptor.
func (a *archive) namesOf(image *archivedImage, descriptor ocispec.Descriptor, saved []savedImage) []string {
	for _, item := range saved {
		if config, ok := a.file(item.Config); ok && config.digest == image.manifest.Config.Digest {
			return item.names()
		}
	}
	for _, key := range []string{containerImageName, ocispec.AnnotationRefName} {
		name := descriptor.Annotations[key]
		if key == ocispec.AnnotationRefName && !strings.ContainsAny(name, ":/") {
			continue // By itself it is only a tag.
		}
		if ref, err := distribution.ParseReference(name); err == nil && ref.Digest == "" {
			return []string{ref.String()}
		}
	}
	return nil
}

// config reads the image's config.
func (a *archive) config(image *archivedImage) (part, Config, error) {
	sum := image.manifest.Config.Digest
	found, ok := a.blob(sum)
	if !ok {
		return part{}, Config{}, invalid("the archive lacks the config %s that its manifest names", sum)
	}
	if found.size > maxJSON {
		return part{}, Config{}, invalid("the config %s is %d bytes long, too long for what it should be", sum, found.size)
	}
	content, err := os.ReadFile(found.path)
	if err != nil {
		return part{}, Config{}, fmt.Errorf("read the image's config: %w", err)
	}
	config, err := a.limits.parseConfig(content)
	return found, config, err
}

// check reads the image's config and layers as a node will, and collects them.
func (a *archive) check(image *archivedImage) error {
	found, config, err := a.config(image)
	if err != nil {
		return err
	}
	if image.manifest.Config.Size != found.size {
		return invalid("the manifest says that the config is %d bytes long, but it is %d", image.manifest.Config.Size, found.size)
	}
	if err := matchLayers(image.manifest, config); err != nil {
		return err
	}
	image.parts = append(image.parts, found)
	for i, descriptor := range image.manifest.Layers {
		layer, ok := a.blob(descriptor.Digest)
		if !ok {
			return invalid("the archive lacks the layer %s that its manifest names", descriptor.Digest)
		}
		if layer.size != descriptor.Size {
			return invalid("the manifest says that layer %s is %d bytes long, but it is %d", layer.digest, descriptor.Size, layer.size)
		}
		if err := a.limits.checkLayer(layer, config.diffIDs[i]); err != nil {
			return err
		}
		image.parts = append(image.parts, layer)
	}
	return nil
}

// blob finds content by its digest, whatever its name.
func (a *archive) blob(sum digest.Digest) (part, bool) {
	if found, ok := a.file(blobName(sum)); ok && found.digest == sum {
		return found, true
	}
	for _, found := range a.files {
		if found.digest == sum {
			return found, true
		}
	}
	return part{}, false
}

func blobName(sum digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, sum.Algorithm().String(), sum.Encoded())
}
