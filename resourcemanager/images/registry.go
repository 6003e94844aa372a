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

	"github.com/mammoth-os/mammoth/internal/distribution"
)

// repositories is the store as the distribution API sees it. Blobs belong to no repository: what the store has,
// every repository has.
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
func (r repositories) BlobSize(_ context.Context, repository string, blob digest.Digest) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	size, err := r.blobSize(blob)
	if err == nil {
		r.promise(repository, blob)
	}
	return size, err
}

// Blob implements distribution.Store.
func (r repositories) Blob(_ context.Context, _ string, blob digest.Digest) (distribution.Blob, error) {
	size, err := r.blobSize(blob)
	if err != nil {
		return distribution.Blob{}, err
	}
	file, err := os.Open(blobPath(r.dir, blob))
	if errors.Is(err, os.ErrNotExist) {
		return distribution.Blob{}, fmt.Errorf("the store has no blob %s: %w", blob, errdefs.ErrNotFound)
	}
	if err != nil {
		return distribution.Blob{}, fmt.Errorf("open a blob: %w", err)
	}
	return distribution.Blob{Size: size, Content: file}, nil
}

// Mount implements distribution.WritableStore.
func (r repositories) Mount(ctx context.Context, repository string, blob digest.Digest, _ string) error {
	_, err := r.BlobSize(ctx, repository, blob)
	return err
}

// StartUpload implements distribution.Uploads.
func (r repositories) StartUpload(_ context.Context, repository string) (string, error) {
	u, err := r.startUpload(repository)
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

// PutManifest implements distribution.WritableStore. A tag is given only to an image that the zone's nodes can run,
// which is looked at as closely as an archive's; by its digest any is taken, since those of an index come one by one,
// for every architecture.
func (r repositories) PutManifest(_ context.Context, repository, reference string, m distribution.Manifest) error {
	ref := referenceOf(repository, reference)
	if named, err := distribution.ParseReference(ref.String()); err != nil || named != ref {
		return invalid("the zone could not find an image by the name %q again: it looks like a host", ref)
	}
	parsed, err := parseManifest(m.Content, m.MediaType)
	if err != nil {
		return err
	}
	if ref.Digest == "" {
		err := r.checkPushed(m.Digest, parsed)
		if errors.Is(err, errdefs.ErrInvalidArgument) || errors.Is(err, errdefs.ErrResourceExhausted) {
			// It will never do. What is only missing may still be pushed.
			r.mu.Lock()
			r.forget(repository, m.Digest, parsed)
			r.mu.Unlock()
		}
		if err != nil {
			return err
		}
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
	if err := r.adopt(map[digest.Digest]string{m.Digest: path}); err != nil {
		return err
	}
	next.manifests[m.Digest] = parsed.entry()
	if ref.Digest == "" {
		next.tags[ref.String()] = tag{digest: m.Digest, createdAt: time.Now()}
	}
	if err := r.commit(next); err != nil {
		return err
	}
	r.forget(repository, m.Digest, parsed)
	if ref.Digest != "" {
		// An index or a tag that leads to it is about to follow.
		r.promise(repository, m.Digest)
	}
	return nil
}

// forget ends the promises that were made for the sake of a manifest. The caller holds mu.
func (r repositories) forget(repository string, sum digest.Digest, m parsedManifest) {
	children := m.entry().children
	maps.DeleteFunc(r.promised, func(key promise, _ time.Time) bool {
		return key.repository == repository && (key.blob == sum || slices.Contains(children, key.blob))
	})
}

// checkComplete refuses a manifest that names what the store does not have: errdefs.ErrNotFound.
func (r repositories) checkComplete(current catalog, m parsedManifest) error {
	for _, descriptor := range m.Manifests {
		if _, ok := current.manifests[descriptor.Digest]; !ok {
			return fmt.Errorf("the index names %s, which the store does not have: %w", descriptor.Digest, errdefs.ErrNotFound)
		}
	}
	for _, descriptor := range m.descriptors() {
		size, err := r.blobSize(descriptor.Digest)
		if errors.Is(err, errdefs.ErrNotFound) {
			return fmt.Errorf("the manifest names %s, which the store does not have: %w", descriptor.Digest, errdefs.ErrNotFound)
		}
		if err != nil {
			return err
		}
		if size != descriptor.Size {
			return invalid("the manifest says that %s is %d bytes long, but it is %d", descriptor.Digest, descriptor.Size, size)
		}
	}
	return nil
}

// checkPushed looks at the image for the zone's nodes: its config, and the layers that were not looked at before.
func (r repositories) checkPushed(sum digest.Digest, m parsedManifest) error {
	r.mu.Lock()
	current := r.catalog
	r.mu.Unlock()
	if err := r.checkComplete(current, m); err != nil {
		return err
	}
	_, m, config, err := r.follow(current, sum, m)
	if err != nil {
		return err
	}
	if err := matchLayers(m, config); err != nil {
		return err
	}
	for i, layer := range m.Layers {
		r.mu.Lock()
		known := r.checked[layer.Digest]
		r.mu.Unlock()
		if known == config.diffIDs[i] {
			continue
		}
		if err := r.limits.checkLayer(part{digest: layer.Digest, size: layer.Size, path: blobPath(r.dir, layer.Digest)}, config.diffIDs[i]); err != nil {
			return err
		}
		r.mu.Lock()
		r.checked[layer.Digest] = config.diffIDs[i]
		r.mu.Unlock()
	}
	return nil
}

// DeleteManifest implements distribution.WritableStore.
func (r repositories) DeleteManifest(ctx context.Context, repository, reference string) error {
	ref := referenceOf(repository, reference)
	_, err := r.collect(ctx, time.Now(), func(next *catalog) error {
		sum, err := r.find(*next, ref)
		if err != nil {
			return err
		}
		if ref.Digest == "" {
			delete(next.tags, ref.String())
			return nil
		}
		maps.DeleteFunc(next.tags, func(name string, t tag) bool {
			return t.digest == sum && strings.HasPrefix(name, repository+":")
		})
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

// referenceOf reads a tag or digest of the API's paths, which the handler has found to be valid.
func referenceOf(repository, reference string) distribution.Reference {
	if sum := digest.Digest(reference); sum.Validate() == nil {
		return distribution.Reference{Repository: repository, Digest: sum}
	}
	return distribution.Reference{Repository: repository, Tag: reference}
}
