package images

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/resource"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

const (
	// maxPending is how many blobs may be pending.
	maxPending = 1 << 16
	// maxCachedLayers is how many layers' facts are cached.
	maxCachedLayers = 4096
	// maxCachedTree is the largest tree that is cached with a layer's facts, and maxCachedTrees the limit of all trees, in
	// names. Other layers are read again.
	maxCachedTree  = 1 << 18
	maxCachedTrees = 1 << 20
	// maxFinished is how many imported uploads are kept for clients that ask again.
	maxFinished = 256
)

// archiveSuffix marks the files of archives: they are kept over a restart, so that their uploads can be resumed.
const archiveSuffix = ".archive"

// upload is an upload of an archive, or of a blob for a repository.
type upload struct {
	id string
	// repository is empty for an archive.
	repository string
	// owner is the user who started it, empty after a restart.
	owner peer.User
	path  string
	// lock is a mutex that can be waited for with a context. It guards the content.
	lock chan struct{}

	// The holder of the lock alone uses these.
	reservation *reservation
	hash        hash.Hash // Of the content, for a blob.
	dropped     bool      // True if it was dropped while others waited for the lock.

	// The holder of the lock changes these while it holds the store's mu; either is enough to read them.
	size int64
	// image is the imported image, kept for a client that asks again.
	image *apiv1.Image

	// The store's mu guards these.
	usedAt    time.Time
	busy      bool
	interrupt func() // Ends the read of the present writer; may be nil.
}

// startUpload starts an upload of a blob for a repository, or of an archive if repository is empty.
func (s *Store) startUpload(ctx context.Context, repository string) (*upload, error) {
	var raw [16]byte
	rand.Read(raw[:])
	who := peer.From(ctx)
	u := &upload{id: hex.EncodeToString(raw[:]), repository: repository, owner: who, lock: make(chan struct{}, 1), usedAt: time.Now()}
	u.path, u.reservation = filepath.Join(s.incomingDir(), u.id), &reservation{store: s, who: who}
	if repository == "" {
		u.path += archiveSuffix
	} else {
		u.hash = sha256.New()
	}
	err := s.register(u)
	if errors.Is(err, errdefs.ErrUnavailable) && s.dropIdle(ctx) {
		err = s.register(u)
	}
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(u.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		s.drop(u)
		return nil, fmt.Errorf("start an upload: %w", diskError(err))
	}
	return u, nil
}

// register adds an upload if its user may have one more. It fails with errdefs.ErrUnavailable.
func (s *Store) register(u *upload) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Those of an operator count for that operator alone: they take nobody's place.
	all := 0
	for owner, account := range s.usage {
		if !owner.Operator {
			all += account.uploads
		}
	}
	mine, most := s.usageOf(u.owner), s.limits.UserUploads
	if u.owner.Operator {
		all, most = 0, s.limits.Uploads
	}
	switch {
	case mine.uploads >= most:
		return fmt.Errorf("%s has %d uploads in progress, which is the limit; try again when one has ended: %w", u.owner, mine.uploads, errdefs.ErrUnavailable)
	case all >= s.limits.Uploads:
		return fmt.Errorf("%d uploads are in progress, which is the limit; try again later: %w", all, errdefs.ErrUnavailable)
	}
	mine.uploads++
	s.uploads[u.id] = u
	return nil
}

// recoverUploads finds the archives whose upload can be resumed and deletes the rest of incoming.
func (s *Store) recoverUploads() error {
	entries, err := os.ReadDir(s.incomingDir())
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(s.incomingDir(), entry.Name())
		id, isArchive := strings.CutSuffix(entry.Name(), archiveSuffix)
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if !isArchive || !info.Mode().IsRegular() || time.Since(info.ModTime()) > s.limits.UploadIdle {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
			continue
		}
		u := &upload{id: id, path: path, lock: make(chan struct{}, 1), size: info.Size(), usedAt: info.ModTime()}
		u.reservation = &reservation{store: s, reserved: u.size, written: u.size}
		s.addIncoming(u.owner, u.size)
		s.usageOf(u.owner).uploads++
		s.uploads[id] = u
	}
	return nil
}

// findUpload returns an upload of the repository. It fails with errdefs.ErrNotFound.
func (s *Store) findUpload(repository, id string) (*upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uploads[id]
	if u == nil || u.repository != repository {
		return nil, fmt.Errorf("there is no upload with the id %q; it may have been idle for too long: %w", id, errdefs.ErrNotFound)
	}
	return u, nil
}

// uploadSize is how much of an upload has arrived.
func (s *Store) uploadSize(repository, id string) (int64, error) {
	u, err := s.findUpload(repository, id)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return u.size, nil
}

// lockUpload waits for the lock of an upload. Interrupt, which may be nil, ends the new holder's read when a later caller
// waits.
func (s *Store) lockUpload(ctx context.Context, u *upload, interrupt func()) error {
	select {
	case u.lock <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if u.dropped {
		<-u.lock
		return fmt.Errorf("the upload %q has ended: %w", u.id, errdefs.ErrNotFound)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u.busy, u.interrupt, u.usedAt = true, interrupt, time.Now()
	return nil
}

func (s *Store) unlockUpload(u *upload) {
	s.mu.Lock()
	u.busy, u.interrupt, u.usedAt = false, nil, time.Now()
	s.mu.Unlock()
	<-u.lock
}

// appendUpload adds content at an offset, or at the end if the offset is negative. What arrived before an error stays. An
// upload without space is dropped.
func (s *Store) appendUpload(ctx context.Context, u *upload, offset int64, content io.Reader, interrupt func()) (size int64, err error) {
	s.mu.Lock()
	earlier := u.interrupt
	s.mu.Unlock()
	if earlier != nil {
		// The same client may use a new connection while the old one hangs.
		earlier()
	}
	if err := s.lockUpload(ctx, u, interrupt); err != nil {
		return 0, err
	}
	defer s.unlockUpload(u)
	if u.image != nil {
		return u.size, fmt.Errorf("the upload was already imported: %w", errdefs.ErrFailedPrecondition)
	}
	if offset >= 0 && offset != u.size {
		return u.size, fmt.Errorf("the upload continues at %d, not at %d: %w", u.size, offset, errdefs.ErrOutOfRange)
	}
	file, err := os.OpenFile(u.path, os.O_WRONLY, 0)
	if err != nil {
		return u.size, fmt.Errorf("write to the upload: %w", err)
	}
	err = s.fill(ctx, u, file, content)
	err = errors.Join(err, file.Close())
	if errors.Is(err, errdefs.ErrResourceExhausted) {
		s.drop(u)
	}
	return u.size, err
}

// fill appends content to the file.
func (s *Store) fill(ctx context.Context, u *upload, file io.WriterAt, content io.Reader) error {
	buffer := make([]byte, 64<<10)
	for {
		n, readErr := content.Read(buffer)
		if u.size+int64(n) > s.limits.ArchiveBytes {
			return fmt.Errorf("the upload is larger than %s, which is the limit: %w", resource.FormatBytes(s.limits.ArchiveBytes), errdefs.ErrResourceExhausted)
		}
		if n > 0 {
			if err := u.reservation.grow(ctx, int64(n)); err != nil {
				return err
			}
			// This is beyond the counted size: a write that failed half-way is overwritten by the next.
			if _, err := file.WriteAt(buffer[:n], u.size); err != nil {
				return fmt.Errorf("write to the upload: %w", diskError(err))
			}
			if u.hash != nil {
				u.hash.Write(buffer[:n])
			}
			s.mu.Lock()
			u.size += int64(n)
			s.mu.Unlock()
		}
		if readErr == io.EOF {
			return nil
		}
		if readErr != nil {
			return fmt.Errorf("the upload ended early, after %d bytes: %w: %w", u.size, readErr, errdefs.ErrAborted)
		}
	}
}

// finishBlob stores an upload as the blob of the digest. The upload ends in any case.
func (s *Store) finishBlob(ctx context.Context, u *upload, want digest.Digest) error {
	if err := s.lockUpload(ctx, u, nil); err != nil {
		return err
	}
	defer s.unlockUpload(u)
	defer s.drop(u)
	if err := checkDigest(want); err != nil {
		return err
	}
	if got := digest.NewDigest(digest.SHA256, u.hash); got != want {
		return invalid("the uploaded content has the digest %s, not %s", got, want)
	}
	// What was written and not counted is cut off.
	if err := errors.Join(os.Truncate(u.path, u.size), syncFile(u.path)); err != nil {
		return fmt.Errorf("store a blob: %w", diskError(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.adopt(map[digest.Digest]string{want: u.path}); err != nil {
		return err
	}
	s.keepPending(pendingKey{u.repository, u.owner.Name, want}, u.size)
	return nil
}

// keepPending keeps a blob for a later manifest of the repository. Above the limit, of which one user has a quarter, it is
// not kept and may have to be pushed again. The caller holds mu.
func (s *Store) keepPending(key pendingKey, size int64) {
	before, known := s.pending[key]
	switch {
	case known:
		size = max(size, before.size)
	case len(s.pending) >= maxPending, s.pendingByUser[key.user] >= maxPending/4:
		return
	default:
		s.pendingByUser[key.user]++
	}
	s.pending[key] = pendingBlob{since: time.Now(), size: size}
	clear(s.owned)
}

// dropPending ends that. The caller holds mu.
func (s *Store) dropPending(key pendingKey) {
	if _, ok := s.pending[key]; !ok {
		return
	}
	delete(s.pending, key)
	if s.pendingByUser[key.user]--; s.pendingByUser[key.user] == 0 {
		delete(s.pendingByUser, key.user)
	}
	clear(s.owned)
}

// cancelUpload ends an upload and deletes what arrived.
func (s *Store) cancelUpload(ctx context.Context, repository, id string) error {
	u, err := s.findUpload(repository, id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	interrupt := u.interrupt
	s.mu.Unlock()
	if interrupt != nil {
		interrupt()
	}
	if err := s.lockUpload(ctx, u, nil); err != nil {
		return err
	}
	defer s.unlockUpload(u)
	s.drop(u)
	return nil
}

// drop ends an upload and deletes its file. The caller has the lock.
func (s *Store) drop(u *upload) {
	u.dropped = true
	u.reservation.release()
	s.mu.Lock()
	if _, ok := s.uploads[u.id]; ok {
		delete(s.uploads, u.id)
		if u.image == nil {
			s.usageOf(u.owner).uploads--
			s.addIncoming(u.owner, 0)
		}
	}
	s.mu.Unlock()
	// Otherwise the next Open deletes it.
	_ = os.Remove(u.path)
}

// finish records the imported image of an upload, whose space is free then.
func (s *Store) finish(u *upload, image *apiv1.Image) {
	u.reservation.release()
	s.mu.Lock()
	defer s.mu.Unlock()
	u.image = image
	s.usageOf(u.owner).uploads--
	s.addIncoming(u.owner, 0)
	// The oldest are dropped.
	var oldest *upload
	finished := 0
	for _, other := range s.uploads {
		if other.image == nil {
			continue
		}
		finished++
		if !other.busy && (oldest == nil || other.usedAt.Before(oldest.usedAt)) {
			oldest = other
		}
	}
	if finished > maxFinished && oldest != nil {
		delete(s.uploads, oldest.id)
	}
}

// dropIdleUploads drops the uploads that were idle for longer than idle.
func (s *Store) dropIdleUploads(now time.Time, idle time.Duration) {
	var resting []*upload
	s.mu.Lock()
	for _, u := range s.uploads {
		if !u.busy && now.Sub(u.usedAt) > idle {
			resting = append(resting, u)
		}
	}
	s.mu.Unlock()
	for _, u := range resting {
		select {
		case u.lock <- struct{}{}:
			s.drop(u)
			<-u.lock
		default: // It is in use again.
		}
	}
}
