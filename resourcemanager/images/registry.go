package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mammoth-os/mammoth/internal/distribution"
	"github.com/mammoth-os/mammoth/internal/peer"
)

// repositories is the store as the distribution API sees it. Blobs belong to no repository: every repository has all of
// them.
type repositories struct {
	*Store
}

var _ distribution.WritableStore = repositories{}

// Manifest implements distribution.Store.
func (r repositories) Manifest(_ context.Context, repository, reference string) (distribution.Manifest, error) {
	r.mu.Lock()
	current := r.catalog
	r.mu.Unlock()
	sum, err := r.find(current, referenceOf(repository, reference))
	if err != nil {
		return distribution.Manifest{}, err
	}
	content, err := r.readBlob(sum)
	if err != nil {
		return distribution.Manifest{}, err
	}
	return distribution.Manifest{Digest: sum, MediaType: current.manifests[sum].mediaType, Content: content}, nil
}

// BlobSize implements distribution.Store.
func (r repositories) BlobSize(ctx context.Context, repository string, blob digest.Digest) (int64, error) {
	who := peer.From(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	size, err := r.blobSize(blob)
	if err == nil {
		r.keepPending(pendingKey{repository, who.Name, blob}, 0)
	}
	return size, err
}

// Blob implements distribution.Store.
func (r repositories) Blob(_ context.Context, _ string, blob digest.Digest) (io.ReadSeekCloser, error) {
	if _, err := r.blobSize(blob); err != nil {
		return nil, err
	}
	file, err := os.Open(blobPath(r.dir, blob))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the store has no blob %s: %w", blob, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open a blob: %w", err)
	}
	return file, nil
}

// Mount implements distribution.WritableStore.
func (r repositories) Mount(ctx context.Context, repository string, blob digest.Digest, _ string) error {
	_, err := r.BlobSize(ctx, repository, blob)
	return err
}

// StartUpload implements distribution.Uploads.
func (r repositories) StartUpload(ctx context.Context, repository string) (string, error) {
	u, err := r.startUpload(ctx, repository)
	if err != nil {
		return "", err
	}
	return u.id, nil
}

// UploadSize implements distribution.Uploads.
func (r repositories) UploadSize(_ context.Context, repository, id string) (int64, error) {
	return r.uploadSize(repository, id)
}

// AppendUpload implements distribution.Uploads.
func (r repositories) AppendUpload(ctx context.Context, repository, id string, offset int64, content io.Reader) (int64, error) {
	u, err := r.findUpload(repository, id)
	if err != nil {
		return 0, err
	}
	return r.appendUpload(ctx, u, offset, content, nil)
}

// FinishUpload implements distribution.Uploads.
func (r repositories) FinishUpload(ctx context.Context, repository, id string, want digest.Digest) error {
	u, err := r.findUpload(repository, id)
	if err != nil {
		return err
	}
	return r.finishBlob(ctx, u, want)
}

// CancelUpload implements distribution.Uploads.
func (r repositories) CancelUpload(ctx context.Context, repository, id string) error {
	return r.cancelUpload(ctx, repository, id)
}

// PutManifest implements distribution.WritableStore. A tag is given only to an image that the zone's nodes can run and that
// passes the checks of an import. By digest any manifest is accepted, because those of an index are pushed one by one, for
// every architecture.
func (r repositories) PutManifest(ctx context.Context, repository, reference string, m distribution.Manifest) error {
	ref := referenceOf(repository, reference)
	if named, err := distribution.ParseReference(ref.String()); err != nil || named != ref {
		return invalid("the name %q looks like a host, so the image could not be found by it", ref)
	}
	parsed, err := parseManifest(m.Content, m.MediaType)
	if err != nil {
		return err
	}
	who := peer.From(ctx)
	if ref.Digest == "" {
		err := r.checkPushed(ctx, m, parsed)
		if err == nil {
			err = r.mayMove(ctx, ref.String(), m.Digest)
		}
		if errors.Is(err, errdefs.ErrInvalidArgument) || errors.Is(err, errdefs.ErrResourceExhausted) || errors.Is(err, errdefs.ErrPermissionDenied) {
			// This error stays. What is only missing may still be pushed.
			r.mu.Lock()
			r.dropPendingOf(who, repository, m.Digest, parsed)
			r.mu.Unlock()
		}
		if err != nil {
			return err
		}
	}
	room := &reservation{store: r.Store, who: who}
	defer room.release()
	if err := room.grow(ctx, int64(len(m.Content))); err != nil {
		return err
	}
	path, err := writeNew(r.incomingDir(), m.Content)
	if err != nil {
		return fmt.Errorf("store a manifest: %w", diskError(err))
	}
	defer os.Remove(path)

	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.catalog.clone()
	if err := r.checkComplete(next, parsed); err != nil {
		return err
	}
	next.add(m.Digest, parsed, who)
	if ref.Digest == "" {
		next.tags[ref.String()] = tag{digest: m.Digest, createdAt: time.Now()}
	}
	if err := r.limits.checkCatalog(next, who); err != nil {
		return err
	}
	if err := r.adopt(map[digest.Digest]string{m.Digest: path}); err != nil {
		return err
	}
	if err := r.commit(next); err != nil {
		return err
	}
	r.dropPendingOf(who, repository, m.Digest, parsed)
	if ref.Digest != "" {
		// An index or tag that refers to it may follow.
		r.keepPending(pendingKey{repository, who.Name, m.Digest}, 0)
	}
	return nil
}

// dropPendingOf ends the pending blobs that a user pushed for a manifest. The caller holds mu.
func (r repositories) dropPendingOf(who peer.User, repository string, sum digest.Digest, m parsedManifest) {
	r.dropPending(pendingKey{repository, who.Name, sum})
	for _, descriptor := range m.descriptors() {
		r.dropPending(pendingKey{repository, who.Name, descriptor.Digest})
	}
}

// checkComplete refuses a manifest that refers to something the store does not have: errdefs.ErrNotFound.
func (r repositories) checkComplete(current catalog, m parsedManifest) error {
	for _, descriptor := range m.Manifests {
		if _, ok := current.manifests[descriptor.Digest]; !ok {
			return fmt.Errorf("the index refers to %s, which the store does not have: %w", descriptor.Digest, errdefs.ErrNotFound)
		}
	}
	for _, descriptor := range m.descriptors() {
		size, err := r.blobSize(descriptor.Digest)
		if errors.Is(err, errdefs.ErrNotFound) {
			return fmt.Errorf("the manifest refers to %s, which the store does not have: %w", descriptor.Digest, errdefs.ErrNotFound)
		}
		if err != nil {
			return err
		}
		if size != descriptor.Size {
			return invalid("the manifest gives %s a size of %d bytes, but it has %d", descriptor.Digest, descriptor.Size, size)
		}
	}
	return nil
}

// checkPushed checks the image for the zone's nodes that a pushed manifest or index refers to.
func (r repositories) checkPushed(ctx context.Context, m distribution.Manifest, parsed parsedManifest) error {
	r.mu.Lock()
	current := r.catalog.clone()
	r.mu.Unlock()
	if err := r.checkComplete(current, parsed); err != nil {
		return err
	}
	current.add(m.Digest, parsed, peer.User{})
	found, err := r.limits.pick(withPushed{storeSource{r.Store, current}, m}, current.descriptor(m.Digest))
	if err != nil {
		return err
	}
	return r.examineStored(ctx, found)
}

// withPushed is the store with one more manifest.
type withPushed struct {
	storeSource
	with distribution.Manifest
}

func (p withPushed) manifest(descriptor ocispec.Descriptor) ([]byte, error) {
	if descriptor.Digest == p.with.Digest {
		return p.with.Content, nil
	}
	return p.storeSource.manifest(descriptor)
}

// examineStored checks an image in the store as an import does: its settings, and the layers that were not examined before.
func (s *Store) examineStored(ctx context.Context, image *candidate) error {
	if err := s.limits.matchLayers(image.manifest, image.config); err != nil {
		return err
	}
	finish, err := s.examinations.acquire(ctx, peer.From(ctx))
	if err != nil {
		return err
	}
	defer finish()
	examined := s.limits.examine()
	for i, layer := range image.manifest.Layers {
		s.mu.Lock()
		if facts, ok := s.layerCache[layer.Digest]; ok {
			examined.known[layer.Digest] = facts
		}
		s.mu.Unlock()
		if err := examined.layer(ctx, part{digest: layer.Digest, size: layer.Size, path: blobPath(s.dir, layer.Digest)}, image.config.diffIDs[i]); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.cacheLayers(examined.known)
	s.mu.Unlock()
	return image.config.checkSettings(examined)
}

// cacheLayers caches the facts of layers, so that they are not read again. The caller holds mu.
func (s *Store) cacheLayers(facts map[digest.Digest]layerFacts) {
	if len(s.layerCache)+len(facts) > maxCachedLayers {
		clear(s.layerCache)
	}
	maps.Copy(s.layerCache, facts)
	var total int64
	for sum, one := range s.layerCache {
		if one.tree == nil {
			continue
		}
		if weight := one.tree.cost(); weight > maxCachedTree || total+weight > maxCachedTrees {
			one.tree = nil
			s.layerCache[sum] = one
		} else {
			total += weight
		}
	}
}

// DeleteManifest implements distribution.WritableStore.
func (r repositories) DeleteManifest(ctx context.Context, repository, reference string) error {
	ref := referenceOf(repository, reference)
	r.mu.Lock()
	var names []string
	for name, t := range r.catalog.tags {
		if ref.Digest == "" && name == ref.String() || t.digest == ref.Digest && strings.HasPrefix(name, repository+":") {
			names = append(names, name)
		}
	}
	r.mu.Unlock()
	for _, name := range names {
		if err := r.mayForget(ctx, name); err != nil {
			return err
		}
	}
	_, err := r.collect(ctx, time.Now(), r.limits.UploadIdle, func(next *catalog) error {
		sum, err := r.find(*next, ref)
		if err != nil {
			return err
		}
		maps.DeleteFunc(next.tags, func(name string, t tag) bool { return t.digest == sum && slices.Contains(names, name) })
		return nil
	})
	return err
}

// Tags implements distribution.WritableStore.
func (r repositories) Tags(_ context.Context, repository string) ([]string, error) {
	r.mu.Lock()
	current := r.catalog
	r.mu.Unlock()
	var tags []string
	for name := range current.tags {
		if tag, ok := strings.CutPrefix(name, repository+":"); ok {
			tags = append(tags, tag)
		}
	}
	if tags == nil {
		return nil, fmt.Errorf("no image is named %q: %w", repository, errdefs.ErrNotFound)
	}
	slices.Sort(tags)
	return tags, nil
}

// referenceOf converts a tag or digest of the API's paths, which the handler has checked.
func referenceOf(repository, reference string) distribution.Reference {
	if sum := digest.Digest(reference); sum.Validate() == nil {
		return distribution.Reference{Repository: repository, Digest: sum}
	}
	return distribution.Reference{Repository: repository, Tag: reference}
}
