package images

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mammoth-os/mammoth/internal/distribution"
	"github.com/mammoth-os/mammoth/internal/peer"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

const (
	dockerConfig       = "application/vnd.docker.container.image.v1+json"
	dockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	containerImageName = "io.containerd.image.name"
)

// Import imports an archive of `docker save` or in OCI layout, which may be gzip-compressed, and tags the image with name,
// or with the archive's own names if name is empty. Of an image for several architectures it takes the zone's own. Of
// several images it takes the one that name chooses: by the image's name, its tag, or the digest behind "@". It fails with
// errdefs.ErrInvalidArgument for an archive that is malformed or cannot run here, with errdefs.ErrResourceExhausted for one
// that is too large or has no space, and with errdefs.ErrPermissionDenied when the caller may not move a name. Then, and
// when ctx ends, nothing of it stays.
func (s *Store) Import(ctx context.Context, content io.Reader, name string) (*apiv1.Image, error) {
	if _, err := parseChoice(name); err != nil {
		return nil, err
	}
	who := peer.From(ctx)
	finish, err := s.examiner.begin(ctx, who)
	if err != nil {
		return nil, err
	}
	defer finish()
	room := s.quotas.open(who, 0)
	defer room.release()
	dir, err := os.MkdirTemp(incomingDir(s.dir), "import-*")
	if err != nil {
		return nil, fmt.Errorf("unpack the archive: %w", diskError(err))
	}
	defer os.RemoveAll(dir)
	makeRoom := writerFunc(func(bytes int64) error { return room.grow(ctx, bytes) })
	unpacked, err := unpack(ctx, content, dir, s.limits, makeRoom)
	if err != nil {
		return nil, err
	}
	image, err := unpacked.image(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, name := range image.names {
		if err := s.limits.mayMove(ctx, s.contents.now(), name, image.digest); err != nil {
			return nil, err
		}
	}
	return s.storeImage(who, image, dir)
}

// storeImage stores the parts of an image as blobs, and names it, in one step.
func (s *Store) storeImage(who peer.User, image *archivedImage, dir string) (*apiv1.Image, error) {
	files := map[digest.Digest]string{}
	for _, part := range image.parts {
		files[part.digest] = part.path
		if _, err := s.blobs.size(part.digest); err == nil {
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

	var described *apiv1.Image
	var unreadable error
	err = s.contents.add(files, func(next *catalog) error {
		next.add(image.digest, image.manifest, who)
		for _, name := range image.names {
			next.tags[name] = tag{digest: image.digest, createdAt: time.Now()}
		}
		return s.limits.checkCatalog(*next, who)
	}, func(now catalog, _ *pendingBlobs) {
		s.examiner.remember(image.facts)
		described, unreadable = s.limits.describe(storeSource{s.blobs, now}, image.names[0])
	})
	if err == nil {
		err = unreadable
	}
	return described, err
}

// archivedImage is one image of an archive.
type archivedImage struct {
	*candidate
	// names are the image's full names, refs what else the archive calls it: a tag without a name, or any text.
	names, refs []string
	// parts are the config and the layers.
	parts []part
	facts map[digest.Digest]layerFacts
}

// image returns the archive's only image for the zone's nodes, or the one that name chooses, after checking all of it.
func (a *archive) image(ctx context.Context, name string) (*archivedImage, error) {
	choice, err := parseChoice(name)
	if err != nil {
		return nil, err
	}
	images, err := a.images()
	if err != nil {
		return nil, err
	}
	chosen, err := choice.pickFrom(images)
	if err != nil {
		return nil, err
	}
	return chosen, a.check(ctx, chosen)
}

// images lists the images for the zone's nodes without duplicates; there is at least one.
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
		return nil, invalid("this is not an image archive: it has neither %s nor manifest.json", ocispec.ImageIndexFile)
	}
	found := &foundImages{}
	for _, item := range saved {
		image, err := a.assemble(item)
		if err := found.add(image, err); err != nil {
			return nil, err
		}
	}
	return found.all("manifest.json")
}

// savedImage is an image in the manifest.json of `docker save`.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerManifest reads manifest.json; the result is empty without one.
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
		return nil, invalid("the archive's manifest.json has no image")
	}
	names := 0
	for _, item := range saved {
		names += len(item.RepoTags)
	}
	if len(saved) > maxNamed || names > maxNamed {
		return nil, fmt.Errorf("the archive's manifest.json lists %d images with %d names; the limit is %d of each: %w", len(saved), names, maxNamed, errdefs.ErrResourceExhausted)
	}
	return saved, nil
}

// assemble builds the manifest that `docker save` leaves out.
func (a *archive) assemble(saved savedImage) (*archivedImage, error) {
	config, ok := a.file(saved.Config)
	if !ok {
		return nil, invalid("the archive lacks the config %s that its manifest refers to", shortened(saved.Config))
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: distribution.MediaTypeManifest,
		Config:    ocispec.Descriptor{MediaType: dockerConfig, Digest: config.digest, Size: config.size},
		Layers:    []ocispec.Descriptor{},
	}
	if err := a.limits.checkDepth(len(saved.Layers)); err != nil {
		return nil, err
	}
	for _, name := range saved.Layers {
		layer, ok := a.file(name)
		if !ok {
			return nil, invalid("the archive lacks the layer %s that its manifest refers to", shortened(name))
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
	parsed, err := parseManifest(content, m.MediaType)
	if err != nil {
		return nil, err
	}
	written, err := a.config(config.digest)
	if err != nil {
		return nil, err
	}
	settings, err := a.limits.parseConfig(written)
	if err != nil {
		return nil, err
	}
	image := &candidate{digest: digest.FromBytes(content), content: content, manifest: parsed, config: settings}
	return &archivedImage{candidate: image, names: fullNames(saved.RepoTags)}, nil
}

// indexed lists the images of an OCI layout.
func (a *archive) indexed(content []byte, saved []savedImage) ([]*archivedImage, error) {
	index, err := parseManifest(content, distribution.MediaTypeOCIIndex)
	if err != nil {
		return nil, err
	}
	found := &foundImages{}
	for _, descriptor := range index.Manifests {
		var image *archivedImage
		one, err := a.limits.pick(a, descriptor)
		if err == nil {
			image = &archivedImage{candidate: one}
			image.names, image.refs = a.namesOf(one, descriptor, saved)
		}
		if err := found.add(image, err); err != nil {
			return nil, err
		}
	}
	return found.all(ocispec.ImageIndexFile)
}

// manifest implements source.
func (a *archive) manifest(descriptor ocispec.Descriptor) ([]byte, error) {
	found, ok := a.blob(descriptor.Digest)
	if !ok {
		return nil, &missing{fmt.Sprintf("the archive lacks the manifest %s that its index refers to", descriptor.Digest)}
	}
	return a.small(found, "manifest")
}

// config implements source.
func (a *archive) config(sum digest.Digest) ([]byte, error) {
	found, ok := a.blob(sum)
	if !ok {
		return nil, invalid("the archive lacks the config %s that its manifest refers to", sum)
	}
	return a.small(found, "config")
}

func (a *archive) small(found part, what string) ([]byte, error) {
	if found.size > maxJSON {
		return nil, invalid("the %s %s is too long: %d bytes", what, found.digest, found.size)
	}
	if a.jsonRead += found.size; a.jsonRead > maxPicked {
		return nil, fmt.Errorf("the archive's manifests and configs are more than %d MiB, which is the limit: %w", maxPicked>>20, errdefs.ErrResourceExhausted)
	}
	content, err := os.ReadFile(found.path)
	if err != nil {
		return nil, fmt.Errorf("read the image's %s: %w", what, err)
	}
	return content, nil
}

// check reads the image's settings and layers as a node will, and collects its parts.
func (a *archive) check(ctx context.Context, image *archivedImage) error {
	found, ok := a.blob(image.manifest.Config.Digest)
	if !ok || image.manifest.Config.Size != found.size {
		return invalid("the manifest gives the config a size of %d bytes, but it has %d", image.manifest.Config.Size, found.size)
	}
	if err := a.limits.matchLayers(image.manifest, image.config); err != nil {
		return err
	}
	image.parts = append(image.parts, found)
	examined := a.limits.examine()
	for i, descriptor := range image.manifest.Layers {
		layer, ok := a.blob(descriptor.Digest)
		if !ok {
			return invalid("the archive lacks the layer %s that its manifest refers to", descriptor.Digest)
		}
		if layer.size != descriptor.Size {
			return invalid("the manifest gives layer %s a size of %d bytes, but it has %d", layer.digest, descriptor.Size, layer.size)
		}
		if err := examined.layer(ctx, layer, image.config.diffIDs[i]); err != nil {
			return err
		}
		image.parts = append(image.parts, layer)
	}
	image.facts = examined.known
	return image.config.checkSettings(examined)
}
