// Package distribution is the OCI distribution API, which Docker and others push to and pull from, as an
// http.Handler over a store. The ResourceManager serves its image store with it, a NodeManager what it reads
// through from there.
//
// Source: https://github.com/opencontainers/distribution-spec (v1.1), and what Docker Engine 20.10 and newer do.
package distribution

import (
	"context"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
)

// The media types of image manifests: Docker's schema 2 and OCI's.
const (
	MediaTypeManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeOCIManifest  = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeOCIIndex     = "application/vnd.oci.image.index.v1+json"
)

// Manifest is one manifest, byte for byte as it was pushed.
type Manifest struct {
	Digest    digest.Digest
	MediaType string
	Content   []byte
}

// Store is what can be pulled. Its methods may block, and fail with errdefs.ErrNotFound for what the store does
// not hold and errdefs.ErrUnavailable for what it cannot get at now. They are called from many goroutines.
type Store interface {
	// Manifest finds a manifest of a repository by its tag or digest.
	Manifest(ctx context.Context, repository, reference string) (Manifest, error)
	// BlobSize tells how large a blob is, if the store holds it. Who pushes asks, and leaves out what is there: a
	// writable store keeps the blob for a manifest that is still to come.
	BlobSize(ctx context.Context, repository string, blob digest.Digest) (int64, error)
	// Blob opens a blob of a repository, a layer or a config, at its start. The handler closes it.
	Blob(ctx context.Context, repository string, blob digest.Digest) (io.ReadSeekCloser, error)
}

// WritableStore is a Store that can be pushed to. Besides the errors of Store, its methods fail with
// errdefs.ErrInvalidArgument for content that is not what it should be and errdefs.ErrResourceExhausted for
// content that has no room.
type WritableStore interface {
	Store
	Uploads
	// PutManifest stores a manifest under a tag or its own digest. It fails with errdefs.ErrNotFound when a blob or
	// manifest that it names is missing.
	PutManifest(ctx context.Context, repository, reference string, manifest Manifest) error
	// DeleteManifest forgets a tag, or a manifest with all its tags.
	DeleteManifest(ctx context.Context, repository, reference string) error
	// Tags lists a repository's tags in lexical order.
	Tags(ctx context.Context, repository string) ([]string, error)
	// Mount makes a blob of the repository from known in another one.
	Mount(ctx context.Context, repository string, blob digest.Digest, from string) error
}

// Uploads takes blobs in, in chunks and resumably.
type Uploads interface {
	// StartUpload begins an empty upload and names it.
	StartUpload(ctx context.Context, repository string) (id string, err error)
	// UploadSize tells how much of an upload has arrived.
	UploadSize(ctx context.Context, repository, id string) (int64, error)
	// AppendUpload adds to an upload and tells its size then. What arrived before an error stays. It fails with
	// errdefs.ErrOutOfRange unless the offset is the upload's size; a negative offset is wherever it is.
	AppendUpload(ctx context.Context, repository, id string, offset int64, content io.Reader) (size int64, err error)
	// FinishUpload makes an upload a blob, and ends it also when it is not the blob that is wanted.
	FinishUpload(ctx context.Context, repository, id string, want digest.Digest) error
	// CancelUpload ends an upload and forgets what arrived.
	CancelUpload(ctx context.Context, repository, id string) error
}

// New serves a store read-only: writes are answered with 405.
func New(store Store) http.Handler {
	return &handler{store: store}
}

// NewWritable serves a store for pull and push.
func NewWritable(store WritableStore) http.Handler {
	return &handler{store: store, writable: store}
}
