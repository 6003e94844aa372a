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

// PutManifest implements distribution.WritableStore. A tag is refused to an image that no node of the zone can run;
// by its digest any is taken, since those of an index come one by one, for every architecture.
func (r repositories) PutManifest(_ context.Context, repository, reference string, m distribution.Manifest) error {
	ref := referenceOf(repository, reference)
	if named, err := distribution.ParseReference(ref.String()); err != nil || named != ref {
		return invalid("the zone could not find an image by the name %q again: it looks like a host", ref)
	}
	parsed, err := parseManifest(m.Content, m.MediaType)
	if err != nil {
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
	next.manifests[m.Digest] = parsed.entry()
	for _, descriptor := range parsed.descriptors() {
		if slices.ContainsFunc(parsed.Manifests, func(d ocispec.Descriptor) bool { return d.Digest == descriptor.Digest }) {
			if _, ok := next.manifests[descriptor.Digest]; !ok {
				return fmt.Errorf("the index names %s, which the store does not have: %w", descriptor.Digest, errdefs.ErrNotFound)
			}
			continue
		}
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
	if ref.Digest == "" {
		if _, _, _, err := r.follow(next, m.Digest, parsed); err != nil {
			return err
		}
		next.tags[ref.String()] = tag{digest: m.Digest, createdAt: time.Now()}
	}
	if err := r.adopt(map[digest.Digest]string{m.Digest: path}); err != nil {
		return err
	}
	if err := r.commit(next); err != nil {
		return err
	}
	maps.DeleteFunc(r.promised, func(key promise, _ time.Time) bool {
		return key.repository == repository && (key.blob == m.Digest || slices.Contains(next.manifests[m.Digest].children, key.blob))
	})
	if ref.Digest != "" {
		// An index or a tag that leads to it is about to follow.
		r.promise(repository, m.Digest)
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
