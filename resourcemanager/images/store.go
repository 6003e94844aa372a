// Package images is the zone's image store. It stores every layer once, by its digest. Images arrive as uploaded archives,
// or are pushed with the OCI distribution API, by which nodes also pull them.
//
// The store owns its directory, an OCI image layout
// (https://github.com/opencontainers/image-spec/blob/main/image-layout.md): index.json lists every tag and manifest,
// under a checksum and with a copy beside it, blobs/sha256 has manifests, configs and layers. Only index.json ever changes, and a blob is on disk before index.json
// refers to it, so that a crash at any point leaves a consistent store. The folder incoming has uploads that are not
// complete or not imported yet.
//
// Vocabulary: an archive is a file of `docker save` or an OCI layout as a tar; to examine a layer is to unpack it in memory
// as an engine would on disk; a pending blob was pushed for a manifest that has not arrived; idle uploads are those that
// receive nothing.
package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/mammoth-os/mammoth/internal/distribution"
	"github.com/mammoth-os/mammoth/internal/peer"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Limits are what the store accepts and how long it keeps what is unused. Zero values are the defaults.
type Limits struct {
	// ArchiveBytes is the largest upload. Default 16 GiB.
	ArchiveBytes int64
	// ExpandedBytes is the largest decompressed archive, and the limit of all layers of an image together. Default 32 GiB.
	ExpandedBytes int64
	// Entries is how many files an archive may have. Default 16384.
	Entries int
	// Layers is how many layers an image may have, LayerEntries how many entries they may have together. Defaults 125, which
	// engines accept, and 4 Mi.
	Layers       int
	LayerEntries int64
	// PathSteps is how many path elements the names in an image's layers may have together, including those of links that
	// they lead through. LinkBytes is the total length of the targets of one layer's symbolic links. Defaults 256 Mi and 64
	// MiB.
	PathSteps, LinkBytes int64
	// TotalBytes is the largest size of the store, including uploads in progress. Default three quarters of its disk.
	TotalBytes int64
	// UserBytes is the share of one user who is no operator. Default a quarter of the disk.
	UserBytes int64
	// KeepFree is how much of the disk uploads leave free for the zone's own records. Default a tenth of the disk, but 256
	// MiB to 4 GiB, and never more than a quarter.
	KeepFree int64
	// Names is how many names the store may have; one user may have a quarter of them. There may be four manifests for each
	// name. Default 16384.
	Names int
	// Uploads is how many uploads may be in progress, UserUploads how many of one user who is no operator. Defaults 256 and
	// 64.
	Uploads, UserUploads int
	// UploadIdle is how long an upload may be idle before it is dropped, and how long a pending blob is kept. UploadIdleFull
	// replaces it while the store has no space for other uploads. Defaults 10m and 2m.
	UploadIdle, UploadIdleFull time.Duration
	// Architecture is Go's name for the architecture of the zone's nodes. Images for others are refused. Default the
	// program's own.
	Architecture string
	// Pinned lists the digests of manifests that must stay, with or without a tag: those that apps run or may roll back to.
	// While it fails nothing is deleted. It may block, and must not call the store.
	Pinned func(context.Context) ([]string, error)
	// MayMove returns errdefs.ErrPermissionDenied if an app uses the name and the user of ctx may not deploy that app. It is
	// called before a name moves to another image. It may block, and must not call the store.
	MayMove func(ctx context.Context, name string) error
	// Unused returns errdefs.ErrFailedPrecondition if an app uses the image by this name. It is called before a name is
	// removed. It may block, and must not call the store.
	Unused func(ctx context.Context, name, digest string) error
}

func (l *Limits) setDefaults() {
	setDefault(&l.ArchiveBytes, 16<<30)
	setDefault(&l.ExpandedBytes, 32<<30)
	setDefault(&l.Entries, 1<<14)
	setDefault(&l.Layers, 125)
	setDefault(&l.LayerEntries, 4<<20)
	setDefault(&l.PathSteps, 1<<28)
	setDefault(&l.LinkBytes, 64<<20)
	setDefault(&l.Names, 1<<14)
	setDefault(&l.Uploads, 256)
	setDefault(&l.UserUploads, 64)
	setDefault(&l.UploadIdle, 10*time.Minute)
	setDefault(&l.UploadIdleFull, 2*time.Minute)
	setDefault(&l.Architecture, runtime.GOARCH)
	if l.Pinned == nil {
		l.Pinned = func(context.Context) ([]string, error) { return nil, nil }
	}
	if l.MayMove == nil {
		l.MayMove = func(context.Context, string) error { return nil }
	}
	if l.Unused == nil {
		l.Unused = func(context.Context, string, string) error { return nil }
	}
}

func setDefault[T comparable](value *T, fallback T) {
	var zero T
	if *value == zero {
		*value = fallback
	}
}

// incoming is the folder of uploads. Open empties it, except for archives whose upload can be resumed.
const incoming = "incoming"

// Store is the image store. It wires its parts: each owns its state, and no part selects a field of another. Its methods may be called
// from many goroutines.
type Store struct {
	dir    string
	limits Limits

	blobs     *blobs
	contents  *contents
	quotas    *quotas
	uploads   *uploads
	examiner  *examiner
	collector *collector
}

// Open opens the store in a directory, which it creates if needed, and deletes what a crash left there. The caller closes
// it.
func Open(dir string, limits Limits) (*Store, error) {
	limits.setDefaults()
	for _, sub := range []string{blobDir(dir), incomingDir(dir)} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return nil, fmt.Errorf("open the image store: %w", err)
		}
	}
	disk := spaceAt(dir)
	if err := limits.setQuotas(disk); err != nil {
		return nil, fmt.Errorf("open the image store in %s: %w", dir, err)
	}
	stored, err := openBlobs(dir)
	if err != nil {
		return nil, fmt.Errorf("open the image store in %s: %w", dir, err)
	}
	has, err := openContents(dir, stored)
	if err != nil {
		return nil, err
	}
	e := newExaminer(limits, stored)
	c := &collector{limits: limits, contents: has, examiner: e}
	q := &quotas{limits: limits, disk: disk, contents: has, relieve: c.dropIdle, byUser: map[peer.User]int64{}}
	u := &uploads{
		dir: incomingDir(dir), limits: limits, quotas: q, relieve: c.dropIdle, all: map[string]*upload{}, byUser: map[peer.User]int{},
	}
	if err := u.recover(); err != nil {
		return nil, fmt.Errorf("open the image store in %s: %w", dir, err)
	}
	c.start(u)
	return &Store{
		dir: dir, limits: limits, blobs: stored, contents: has, quotas: q, uploads: u, examiner: e, collector: c,
	}, nil
}

// Close ends the store's goroutine. Uploads can be resumed after the next Open.
func (s *Store) Close() error {
	s.collector.close()
	return nil
}

// source is what the store has at present.
func (s *Store) source() storeSource { return storeSource{s.blobs, s.contents.now()} }

// Remove removes a tag and deletes what only it referred to. It returns how many bytes that freed: none while an app runs
// the image or may roll back to it.
func (s *Store) Remove(ctx context.Context, name string) (freed int64, err error) {
	ref, err := distribution.ParseReference(name)
	if err != nil {
		return 0, err
	}
	if ref.Digest != "" {
		return 0, fmt.Errorf("%q is removed by its tag, not by its digest: %w", name, errdefs.ErrInvalidArgument)
	}
	if err := s.limits.mayForget(ctx, s.source(), ref.String()); err != nil {
		return 0, err
	}
	return s.collector.collect(ctx, func(next *catalog) error {
		if _, ok := next.tags[ref.String()]; !ok {
			return next.notFoundError(ref)
		}
		delete(next.tags, ref.String())
		return nil
	})
}

// mayMove checks whether the caller may move a name to another image.
func (l Limits) mayMove(ctx context.Context, now catalog, name string, sum digest.Digest) error {
	if current, ok := now.tags[name]; ok && current.digest == sum {
		return nil
	}
	return l.MayMove(ctx, name)
}

// mayForget checks that no app uses a name that is to be removed.
func (l Limits) mayForget(ctx context.Context, from storeSource, name string) error {
	tagged := from.tag(name)
	if tagged.digest == "" {
		return nil
	}
	if found, err := l.read(from, tagged.digest); err == nil {
		if err := l.Unused(ctx, name, found.digest.String()); err != nil {
			return err
		}
	}
	return l.MayMove(ctx, name)
}

// Resolve finds an image by NAME:TAG, NAME (the tag is "latest" then) or NAME@DIGEST. It returns the digest of the manifest
// for the zone's nodes, by which they pull it, and the image's config. It fails with errdefs.ErrNotFound, naming what the
// store has, and with errdefs.ErrInvalidArgument for an invalid name or an image that cannot run here.
func (s *Store) Resolve(ctx context.Context, name string) (manifestDigest string, config Config, err error) {
	ref, err := distribution.ParseReference(name)
	if err != nil {
		return "", Config{}, err
	}
	current := s.source()
	sum, err := current.find(ref)
	if err != nil {
		return "", Config{}, err
	}
	found, err := s.limits.read(current, sum)
	if err == nil && ref.Digest != "" {
		// What has a name was examined when it was named. What has only a digest may be anything.
		err = s.examiner.examine(ctx, found)
	}
	if err != nil {
		return "", Config{}, fmt.Errorf("image %q: %w", name, err)
	}
	found.config.files = s.examiner.files(found.manifest)
	return found.digest.String(), found.config, nil
}

// List lists every tag, sorted by name.
func (s *Store) List(context.Context) ([]*apiv1.Image, error) {
	source := s.source()
	names := source.names()
	list := make([]*apiv1.Image, 0, len(names))
	for _, name := range names {
		image, err := s.limits.describe(source, name)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue // Deleted meanwhile.
		}
		if err != nil {
			return nil, err
		}
		list = append(list, image)
	}
	return list, nil
}

// StoredBytes is the disk space of all blobs.
func (s *Store) StoredBytes() (int64, error) { return s.blobs.measure() }

// incomingDir is the folder of a store's uploads.
func incomingDir(dir string) string { return filepath.Join(dir, incoming) }
