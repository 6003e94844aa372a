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
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

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

// Store is the image store. Its methods may be called from many goroutines.
type Store struct {
	dir    string
	limits Limits

	// mu is held while the catalog changes and while blobs are added to it or deleted; never while content arrives.
	mu      sync.Mutex
	catalog catalog
	// pending are the blobs that were pushed, or that exist and a client did not push again, and whose manifest has not
	// arrived.
	pending map[pendingKey]pendingBlob
	// pendingByUser is the number of pending blobs of each user.
	pendingByUser map[string]int
	uploads       map[string]*upload
	// layerCache has the facts of examined layers.
	layerCache map[digest.Digest]layerFacts
	// storedBytes is the size of all blobs, incomingBytes that of all uploads and imports in progress, by user in usage.
	storedBytes, incomingBytes int64
	usage                      map[peer.User]*usage
	// owned caches ownedBytes of each user until the next change.
	owned map[string]int64
	// idleDropped is when dropIdle last ran.
	idleDropped time.Time

	disk         diskSpace
	examinations *limiter

	stop    context.CancelFunc
	stopped chan struct{}
}

// pendingKey identifies a pending blob of a user's push to a repository.
type pendingKey struct {
	repository, user string
	blob             digest.Digest
}

// pendingBlob is since when a blob is pending, and its size if the user has pushed it.
type pendingBlob struct {
	since time.Time
	size  int64
}

// Open opens the store in a directory, which it creates if needed, and deletes what a crash left there. The caller closes
// it.
func Open(dir string, limits Limits) (*Store, error) {
	limits.setDefaults()
	s := &Store{
		dir:           dir,
		limits:        limits,
		pending:       map[pendingKey]pendingBlob{},
		pendingByUser: map[string]int{},
		uploads:       map[string]*upload{},
		layerCache:    map[digest.Digest]layerFacts{},
		usage:         map[peer.User]*usage{},
		owned:         map[string]int64{},
		disk:          spaceAt(dir),
		stopped:       make(chan struct{}),

		examinations: newLimiter(),
	}
	for _, sub := range []string{s.blobDir(), s.incomingDir()} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return nil, fmt.Errorf("open the image store: %w", err)
		}
	}
	var twice bool
	var err error
	if s.catalog, twice, err = loadCatalog(dir); err != nil {
		return nil, fmt.Errorf("open the image store in %s: %w", dir, err)
	}
	// A store has an index before its first blob, and what was damaged is put right by the other file.
	if !twice {
		if err := s.catalog.save(dir); err != nil && !errors.Is(diskError(err), errdefs.ErrResourceExhausted) {
			return nil, fmt.Errorf("write the image store's index in %s: %w", dir, err)
		}
	}
	if err := errors.Join(s.recoverUploads(), s.limits.setQuotas(s.disk)); err != nil {
		return nil, fmt.Errorf("open the image store in %s: %w", dir, err)
	}
	if s.storedBytes, err = s.StoredBytes(); err != nil {
		return nil, fmt.Errorf("open the image store in %s: %w", dir, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go s.sweep(ctx)
	return s, nil
}

// Close ends the store's goroutine. Uploads can be resumed after the next Open.
func (s *Store) Close() error {
	s.stop()
	<-s.stopped
	return nil
}

// sweep drops idle uploads and old pending blobs at intervals.
func (s *Store) sweep(ctx context.Context) {
	defer close(s.stopped)
	ticker := time.NewTicker(max(s.limits.UploadIdle/6, time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			s.dropIdleUploads(now, s.limits.UploadIdle)
			// An error means that the pins or the directory cannot be read. The next round tries again.
			_, _ = s.collect(ctx, now, s.limits.UploadIdle, func(*catalog) error { return nil })
		}
	}
}

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
	if err := s.mayForget(ctx, ref.String()); err != nil {
		return 0, err
	}
	return s.collect(ctx, time.Now(), s.limits.UploadIdle, func(next *catalog) error {
		if _, ok := next.tags[ref.String()]; !ok {
			return s.notFoundError(next, ref)
		}
		delete(next.tags, ref.String())
		return nil
	})
}

// mayMove checks whether the caller may move a name to another image.
func (s *Store) mayMove(ctx context.Context, name string, sum digest.Digest) error {
	s.mu.Lock()
	current, ok := s.catalog.tags[name]
	s.mu.Unlock()
	if ok && current.digest == sum {
		return nil
	}
	return s.limits.MayMove(ctx, name)
}

// mayForget checks that no app uses a name that is to be removed.
func (s *Store) mayForget(ctx context.Context, name string) error {
	s.mu.Lock()
	current := s.catalog
	s.mu.Unlock()
	tagged, ok := current.tags[name]
	if !ok {
		return nil
	}
	if found, err := s.read(current, tagged.digest); err == nil {
		if err := s.limits.Unused(ctx, name, found.digest.String()); err != nil {
			return err
		}
	}
	return s.limits.MayMove(ctx, name)
}

// collect changes the catalog and deletes the blobs that nothing refers to any more. Pending blobs are kept for the time
// idle.
func (s *Store) collect(ctx context.Context, now time.Time, idle time.Duration, change func(*catalog) error) (freed int64, err error) {
	pinned, err := s.limits.Pinned(ctx)
	if err != nil {
		return 0, fmt.Errorf("learn which images are in use: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.catalog.clone()
	if err := change(&next); err != nil {
		return 0, err
	}
	roots := make([]digest.Digest, 0, len(next.tags)+len(pinned)+len(s.pending))
	for _, tag := range next.tags {
		roots = append(roots, tag.digest)
	}
	for _, sum := range pinned {
		roots = append(roots, digest.Digest(sum))
	}
	s.dropOldPending(now, idle)
	for key := range s.pending {
		roots = append(roots, key.blob)
	}
	keep := next.reach(roots)
	maps.DeleteFunc(next.manifests, func(sum digest.Digest, _ manifest) bool { return !keep[sum] })
	maps.DeleteFunc(s.layerCache, func(sum digest.Digest, _ layerFacts) bool { return !keep[sum] })
	err = s.commit(next)
	if errors.Is(err, errdefs.ErrResourceExhausted) {
		// A full disk may have no space for the index until blobs are deleted. An index is read without what does not exist.
		freed, err = s.deleteBlobs(keep)
		err = errors.Join(err, s.commit(next))
		s.catalog = next
		return freed, err
	}
	if err != nil {
		return 0, err
	}
	return s.deleteBlobs(keep)
}

// dropOldPending drops what was pending for longer than idle, unless the same user still pushes to the repository. The
// caller holds mu.
func (s *Store) dropOldPending(now time.Time, idle time.Duration) {
	type pushing struct{ repository, user string }
	busy := map[pushing]bool{}
	for _, u := range s.uploads {
		if u.repository != "" && u.busy {
			busy[pushing{u.repository, u.owner.Name}] = true
		}
	}
	for key, kept := range s.pending {
		if now.Sub(kept.since) > idle && !busy[pushing{key.repository, key.user}] {
			s.dropPending(key)
		}
	}
}

// commit replaces the catalog, on disk first. The caller holds mu.
func (s *Store) commit(next catalog) error {
	if !next.equal(s.catalog) {
		if err := next.save(s.dir); err != nil {
			return fmt.Errorf("write the image store's index: %w", diskError(err))
		}
	}
	s.catalog = next
	clear(s.owned)
	return nil
}

// List lists every tag, sorted by name.
func (s *Store) List(context.Context) ([]*apiv1.Image, error) {
	s.mu.Lock()
	current := s.catalog
	s.mu.Unlock()
	list := make([]*apiv1.Image, 0, len(current.tags))
	for _, name := range slices.Sorted(maps.Keys(current.tags)) {
		image, err := s.describe(current, name)
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

// notFoundError is the error for an unknown name; it lists what the store has.
func (s *Store) notFoundError(current *catalog, ref distribution.Reference) error {
	var same, others []string
	for _, name := range slices.Sorted(maps.Keys(current.tags)) {
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

func (s *Store) blobDir() string     { return filepath.Join(s.dir, ocispec.ImageBlobsDir, "sha256") }
func (s *Store) incomingDir() string { return filepath.Join(s.dir, incoming) }
