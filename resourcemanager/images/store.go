// Package images is the zone's image store: every layer once, by its digest. Images come in as uploaded archives or
// are pushed with the OCI distribution API, by which the nodes read them too.
//
// The directory is an OCI image layout (https://github.com/opencontainers/image-spec/blob/main/image-layout.md):
// index.json names every tag and manifest, under a checksum and with a copy beside it, blobs/sha256 holds manifests, configs and layers. Only index.json ever
// changes, and a blob that it leads to is on disk before it is named there, so that a crash at any point leaves a
// consistent store. What is under incoming has not arrived whole, or was not taken in yet.
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

// Limits say what the store takes in and how long it keeps what nobody uses. Zero values are the defaults.
type Limits struct {
	// ArchiveBytes is how large one upload may be. Default 16 GiB.
	ArchiveBytes int64
	// ExpandedBytes is how large an archive may become when it is expanded, and all layers of an image together.
	// Default 32 GiB.
	ExpandedBytes int64
	// Entries is how many files an archive may hold. Default 16384.
	Entries int
	// Layers is how many layers an image may have, LayerEntries how many entries they may hold together. Default 125,
	// which is what engines stack, and 4 Mi.
	Layers       int
	LayerEntries int64
	// PathSteps is how many parts the names in an image's layers may have together, links that they lead through
	// included. LinkBytes is how long the targets of one layer's symbolic links may be together. Defaults 256 Mi and 64 MiB.
	PathSteps, LinkBytes int64
	// TotalBytes is how much the store may hold, with what is on its way in. Default three quarters of its disk.
	TotalBytes int64
	// UserBytes is how much of that may be of one user who is no operator. Default a quarter of the disk.
	UserBytes int64
	// KeepFree is how much of the disk uploads leave free, for the zone's own records. Default a tenth of the disk, but
	// 256 MiB to 4 GiB, and never more than a quarter.
	KeepFree int64
	// Names is how many names the store may hold. Of one user it may hold a quarter. There may be four manifests for each
	// name. Default 16384.
	Names int
	// Uploads is how many uploads may be under way, UserUploads how many of them of one user who is no operator.
	// Defaults 256 and 64.
	Uploads, UserUploads int
	// UploadIdle is how long an upload may rest before it is dropped, and how long a blob is kept for a manifest that
	// a client is about to push. PressedIdle is the same while there is no room for others. Defaults 10m and 2m.
	UploadIdle, PressedIdle time.Duration
	// Architecture is that of the zone's nodes, in Go's words; others are refused. Default the program's own.
	Architecture string
	// Pinned lists manifest digests that must stay, tagged or not: those that apps run or may go back to. While it
	// fails nothing is deleted. It may block, and must not call the store.
	Pinned func(context.Context) ([]string, error)
	// MayMove refuses whoever ctx is of to have a name mean another image: errdefs.ErrPermissionDenied, when an app
	// uses the name that is not that user's to deploy over. It may block, and must not call the store.
	MayMove func(ctx context.Context, name string) error
	// Unused refuses to have a name mean nothing any more: errdefs.ErrFailedPrecondition, when an app uses the image by
	// this name. It may block, and must not call the store.
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
	setDefault(&l.PressedIdle, 2*time.Minute)
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

func setDefault[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

// incoming is the folder of what is on its way in. Open empties it, except for archives that can still be resumed.
const incoming = "incoming"

// Store is the image store. Its methods may be called from many goroutines.
type Store struct {
	dir    string
	limits Limits

	// mu is held while the catalog changes and while blobs are named by it or deleted; never while content arrives.
	mu      sync.Mutex
	catalog catalog
	// promised keeps blobs that a client was told it need not push, or has pushed, until its manifest arrives.
	promised map[promise]kept
	// promises are how many of them are whose.
	promises map[string]int
	uploads  map[string]*upload
	// checked are the layers that were looked at. It only saves work.
	checked map[digest.Digest]layerFacts
	// storedBytes is the size of all blobs, arriving that of everything on its way in, by user in accounts.
	storedBytes, arriving int64
	accounts              map[peer.User]*account
	// owned are the bytes that users have brought, as far as they were asked for since the last change.
	owned map[string]int64
	// relieved is when room was last made for others.
	relieved time.Time

	disk      space
	examining *turns

	stop    context.CancelFunc
	stopped chan struct{}
}

// promise is a blob that a manifest is expected to name which the user is about to push to the repository.
type promise struct {
	repository, user string
	blob             digest.Digest
}

// kept says since when a blob is promised, and how large it is if the user has brought it.
type kept struct {
	since time.Time
	size  int64
}

// Open opens the store in a directory, which it creates if need be, and removes what a crash left behind there.
// The caller closes it.
func Open(dir string, limits Limits) (*Store, error) {
	limits.setDefaults()
	s := &Store{
		dir:      dir,
		limits:   limits,
		promised: map[promise]kept{},
		promises: map[string]int{},
		uploads:  map[string]*upload{},
		checked:  map[digest.Digest]layerFacts{},
		accounts: map[peer.User]*account{},
		owned:    map[string]int64{},
		disk:     spaceAt(dir),
		stopped:  make(chan struct{}),

		examining: newTurns(),
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

// Close ends the store's own work. What is being uploaded can go on after the next Open.
func (s *Store) Close() error {
	s.stop()
	<-s.stopped
	return nil
}

// sweep drops, now and then, what nobody came back for.
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
			// A failure is one to read the pins or the directory; the next round tries again.
			_, _ = s.collect(ctx, now, s.limits.UploadIdle, func(*catalog) error { return nil })
		}
	}
}

// Remove forgets a tag and deletes what only it needed. It tells how many bytes that freed: none while an app
// runs the image or may go back to it.
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
			return s.noImage(next, ref)
		}
		delete(next.tags, ref.String())
		return nil
	})
}

// mayMove refuses to have a name mean another image than it does, unless it is the caller's to move.
func (s *Store) mayMove(ctx context.Context, name string, sum digest.Digest) error {
	s.mu.Lock()
	current, ok := s.catalog.tags[name]
	s.mu.Unlock()
	if ok && current.digest == sum {
		return nil
	}
	return s.limits.MayMove(ctx, name)
}

// mayForget refuses to have a name mean nothing while an app uses it.
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

// collect changes the catalog and deletes the blobs that nothing leads to any more. Blobs for manifests that did not come
// are kept for as long as idle says.
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
	roots := make([]digest.Digest, 0, len(next.tags)+len(pinned)+len(s.promised))
	for _, tag := range next.tags {
		roots = append(roots, tag.digest)
	}
	for _, sum := range pinned {
		roots = append(roots, digest.Digest(sum))
	}
	s.forgetPromises(now, idle)
	for key := range s.promised {
		roots = append(roots, key.blob)
	}
	keep := next.reach(roots)
	maps.DeleteFunc(next.manifests, func(sum digest.Digest, _ manifest) bool { return !keep[sum] })
	maps.DeleteFunc(s.checked, func(sum digest.Digest, _ layerFacts) bool { return !keep[sum] })
	err = s.commit(next)
	if errors.Is(err, errdefs.ErrResourceExhausted) {
		// A full disk has no room for the shorter index, but for want of blobs it will have. An index that names what is gone
		// is read without it.
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

// forgetPromises drops what was promised for too long, unless the same user is still pushing to the repository. The
// caller holds mu.
func (s *Store) forgetPromises(now time.Time, idle time.Duration) {
	type pushing struct{ repository, user string }
	busy := map[pushing]bool{}
	for _, u := range s.uploads {
		if u.repository != "" && u.busy {
			busy[pushing{u.repository, u.owner.Name}] = true
		}
	}
	for key, kept := range s.promised {
		if now.Sub(kept.since) > idle && !busy[pushing{key.repository, key.user}] {
			s.release(key)
		}
	}
}

// commit makes a changed catalog the store's, on disk first. The caller holds mu.
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

// List tells every tag, sorted by name.
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

// noImage says that a name means nothing here, and what there is instead.
func (s *Store) noImage(current *catalog, ref distribution.Reference) error {
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
