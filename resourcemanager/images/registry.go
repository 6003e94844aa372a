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
	// dir has what is not a blob yet.
	dir       string
	limits    Limits
	blobs     *blobs
	contents  *contents
	quotas    *quotas
	uploads   *uploads
	examiner  *examiner
	collector *collector
}

// repositories is the store as the distribution API sees it.
func (s *Store) repositories() repositories {
	return repositories{incomingDir(s.dir), s.limits, s.blobs, s.contents, s.quotas, s.uploads, s.examiner, s.collector}
}

var _ distribution.WritableStore = repositories{}

// Manifest implements distribution.Store.
func (r repositories) Manifest(_ context.Context, repository, reference string) (distribution.Manifest, error) {
	current := r.contents.now()
	sum, err := current.find(referenceOf(repository, reference))
	if err != nil {
		return distribution.Manifest{}, err
	}
	content, err := r.blobs.read(sum)
	if err != nil {
		return distribution.Manifest{}, err
	}
	return distribution.Manifest{Digest: sum, MediaType: current.manifests[sum].mediaType, Content: content}, nil
}

// BlobSize implements distribution.Store.
func (r repositories) BlobSize(ctx context.Context, repository string, blob digest.Digest) (int64, error) {
	return r.contents.keep(pendingKey{repository, peer.From(ctx).Name, blob})
}

// Blob implements distribution.Store.
func (r repositories) Blob(_ context.Context, _ string, blob digest.Digest) (io.ReadSeekCloser, error) {
	file, err := r.blobs.open(blob)
	if err != nil {
		return nil, err
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
	return r.uploads.start(ctx, repository)
}

// UploadSize implements distribution.Uploads.
func (r repositories) UploadSize(_ context.Context, repository, id string) (int64, error) {
	return r.uploads.size(repository, id)
}

// AppendUpload implements distribution.Uploads.
func (r repositories) AppendUpload(ctx context.Context, repository, id string, offset int64, content io.Reader) (int64, error) {
	u, err := r.uploads.find(repository, id)
	if err != nil {
		return 0, err
	}
	return r.uploads.append(ctx, u, offset, content, nil)
}

// FinishUpload implements distribution.Uploads.
func (r repositories) FinishUpload(ctx context.Context, repository, id string, want digest.Digest) error {
	u, err := r.uploads.find(repository, id)
	if err != nil {
		return err
	}
	return r.uploads.complete(ctx, u, want, func(path string, owner peer.User, size int64) error {
		return r.contents.add(map[digest.Digest]string{want: path}, nil, func(_ catalog, pending *pendingBlobs) {
			pending.keep(pendingKey{repository, owner.Name, want}, size)
		})
	})
}

// CancelUpload implements distribution.Uploads.
func (r repositories) CancelUpload(ctx context.Context, repository, id string) error {
	return r.uploads.cancel(ctx, repository, id)
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
			err = r.limits.mayMove(ctx, r.contents.now(), ref.String(), m.Digest)
		}
		if errors.Is(err, errdefs.ErrInvalidArgument) || errors.Is(err, errdefs.ErrResourceExhausted) || errors.Is(err, errdefs.ErrPermissionDenied) {
			// This error stays. What is only missing may still be pushed.
			r.contents.forget(pushedFor(who, repository, m.Digest, parsed))
		}
		if err != nil {
			return err
		}
	}
	room := r.quotas.open(who, 0)
	defer room.release()
	if err := room.grow(ctx, int64(len(m.Content))); err != nil {
		return err
	}
	path, err := writeNew(r.dir, m.Content)
	if err != nil {
		return fmt.Errorf("store a manifest: %w", diskError(err))
	}
	defer os.Remove(path)

	return r.contents.add(map[digest.Digest]string{m.Digest: path}, func(next *catalog) error {
		if err := r.checkComplete(*next, parsed); err != nil {
			return err
		}
		next.add(m.Digest, parsed, who)
		if ref.Digest == "" {
			next.tags[ref.String()] = tag{digest: m.Digest, createdAt: time.Now()}
		}
		return r.limits.checkCatalog(*next, who)
	}, func(_ catalog, pending *pendingBlobs) {
		pending.drop(pushedFor(who, repository, m.Digest, parsed)...)
		if ref.Digest != "" {
			// An index or tag that refers to it may follow.
			pending.keep(pendingKey{repository, who.Name, m.Digest}, 0)
		}
	})
}

// pushedFor lists the pending blobs that a user pushed for a manifest, and the manifest.
func pushedFor(who peer.User, repository string, sum digest.Digest, m parsedManifest) []pendingKey {
	keys := []pendingKey{{repository, who.Name, sum}}
	for _, descriptor := range m.descriptors() {
		keys = append(keys, pendingKey{repository, who.Name, descriptor.Digest})
	}
	return keys
}

// checkComplete refuses a manifest that refers to something the store does not have: errdefs.ErrNotFound.
func (r repositories) checkComplete(current catalog, m parsedManifest) error {
	for _, descriptor := range m.Manifests {
		if _, ok := current.manifests[descriptor.Digest]; !ok {
			return fmt.Errorf("the index refers to %s, which the store does not have: %w", descriptor.Digest, errdefs.ErrNotFound)
		}
	}
	for _, descriptor := range m.descriptors() {
		size, err := r.blobs.size(descriptor.Digest)
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
	current := r.contents.now().clone()
	if err := r.checkComplete(current, parsed); err != nil {
		return err
	}
	current.add(m.Digest, parsed, peer.User{})
	found, err := r.limits.pick(withPushed{storeSource{r.blobs, current}, m}, current.descriptor(m.Digest))
	if err != nil {
		return err
	}
	return r.examiner.examine(ctx, found)
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

// DeleteManifest implements distribution.WritableStore.
func (r repositories) DeleteManifest(ctx context.Context, repository, reference string) error {
	ref := referenceOf(repository, reference)
	now := r.contents.now()
	var names []string
	for name, t := range now.tags {
		if ref.Digest == "" && name == ref.String() || t.digest == ref.Digest && strings.HasPrefix(name, repository+":") {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if err := r.limits.mayForget(ctx, storeSource{r.blobs, now}, name); err != nil {
			return err
		}
	}
	_, err := r.collector.collect(ctx, func(next *catalog) error {
		sum, err := next.find(ref)
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
	current := r.contents.now()
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
