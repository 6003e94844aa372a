// Package distribution is the OCI distribution API, with which Docker and others push and pull, as an http.Handler over a
// store. The ResourceManager serves its image store with it, and a NodeManager its cache of that. It owns the protocol; what is
// stored belongs to the Store.
//
// Source: https://github.com/opencontainers/distribution-spec (v1.1), and the behaviour of Docker Engine 20.10 and newer.
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

// Store is a store that can be pulled from. Its methods may block, and fail with errdefs.ErrNotFound for what the store does
// not have and errdefs.ErrUnavailable for what it cannot reach now. They may be called from any goroutine.
type Store interface {
	// Manifest finds a manifest of a repository by its tag or digest.
	Manifest(ctx context.Context, repository, reference string) (Manifest, error)
	// BlobSize returns the size of a blob in the store. A client that pushes asks for it and skips existing blobs, so a
	// writable store keeps the blob for a manifest that has not arrived.
	BlobSize(ctx context.Context, repository string, blob digest.Digest) (int64, error)
	// Blob opens a blob of a repository, a layer or a config, at its start. The handler closes it.
	Blob(ctx context.Context, repository string, blob digest.Digest) (io.ReadSeekCloser, error)
}

// WritableStore is a Store that can be pushed to. In addition to the errors of Store, its methods fail with
// errdefs.ErrInvalidArgument for invalid content and errdefs.ErrResourceExhausted for content that exceeds a limit.
type WritableStore interface {
	Store
	Uploads
	// PutManifest stores a manifest under a tag or its digest. It fails with errdefs.ErrNotFound if a blob or manifest that
	// it refers to is missing.
	PutManifest(ctx context.Context, repository, reference string, manifest Manifest) error
	// DeleteManifest deletes a tag, or a manifest with all its tags.
	DeleteManifest(ctx context.Context, repository, reference string) error
	// Tags lists a repository's tags in lexical order.
	Tags(ctx context.Context, repository string) ([]string, error)
	// Mount makes a blob of another repository available in this one.
	Mount(ctx context.Context, repository string, blob digest.Digest, from string) error
}

// Uploads accepts blobs in chunks; an upload can be resumed.
type Uploads interface {
	// StartUpload begins an empty upload and returns its id.
	StartUpload(ctx context.Context, repository string) (id string, err error)
	// UploadSize is how much of an upload has arrived.
	UploadSize(ctx context.Context, repository, id string) (int64, error)
	// AppendUpload adds to an upload and returns its size. What arrived before an error stays. It fails with
	// errdefs.ErrOutOfRange unless the offset is the upload's size; a negative offset means the end.
	AppendUpload(ctx context.Context, repository, id string, offset int64, content io.Reader) (size int64, err error)
	// FinishUpload makes an upload a blob. The upload ends even if its digest is not want.
	FinishUpload(ctx context.Context, repository, id string, want digest.Digest) error
	// CancelUpload ends an upload and deletes what arrived.
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
