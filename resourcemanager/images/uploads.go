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
	// maxPromised is how many blobs are kept for manifests to come.
	maxPromised = 1 << 16
	// maxChecked is how many layers are known to have been looked at.
	maxChecked = 4096
	// maxTreeKept is how large a layer's tree may be to be kept with what else is known of it, and maxTreesKept how large all
	// of them may be, in names. The layers of other trees are read again.
	maxTreeKept  = 1 << 18
	maxTreesKept = 1 << 20
	// maxFinished is how many imported uploads are remembered for clients that ask again.
	maxFinished = 256
)

// archiveSuffix marks the files of archives: they outlive a restart, so that their uploads can be resumed.
const archiveSuffix = ".archive"

// upload is content on its way in: an archive, or a blob that is pushed to a repository.
type upload struct {
	id string
	// repository is empty for an archive.
	repository string
	// owner is who began it, nobody for one that was found at a start.
	owner peer.User
	path  string
	// turn is held by the one who reads or writes the content.
	turn chan struct{}

	// The turn's holder alone uses these.
	room *reservation
	hash hash.Hash // Of the content, for a blob.
	gone bool      // Dropped while others waited for their turn.

	// The turn's holder alone changes these, with the store's mu held; either is enough to read them.
	size int64
	// image is what the archive became, kept for a client that did not hear the answer and asks again.
	image *apiv1.Image

	// The store's mu guards these.
	usedAt    time.Time
	busy      bool
	interrupt func() // Ends the reading of the writer whose turn it is; may be nil.
}

// startUpload begins an upload: of a blob for a repository, of an archive without one.
func (s *Store) startUpload(ctx context.Context, repository string) (*upload, error) {
	var raw [16]byte
	rand.Read(raw[:])
	who := peer.From(ctx)
	u := &upload{id: hex.EncodeToString(raw[:]), repository: repository, owner: who, turn: make(chan struct{}, 1), usedAt: time.Now()}
	u.path, u.room = filepath.Join(s.incomingDir(), u.id), &reservation{store: s, who: who}
	if repository == "" {
		u.path += archiveSuffix
	} else {
		u.hash = sha256.New()
	}
	err := s.enlist(u)
	if errors.Is(err, errdefs.ErrUnavailable) && s.relieve(ctx) {
		err = s.enlist(u)
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

// enlist takes an upload in, if its user may have one more. It fails with errdefs.ErrUnavailable.
func (s *Store) enlist(u *upload) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Those of an operator count for that operator alone: they take nobody's place.
	all := 0
	for owner, account := range s.accounts {
		if !owner.Operator {
			all += account.uploads
		}
	}
	mine, most := s.account(u.owner), s.limits.UserUploads
	if u.owner.Operator {
		all, most = 0, s.limits.Uploads
	}
	switch {
	case mine.uploads >= most:
		return fmt.Errorf("%s has %d uploads under way, and may have no more at a time; try again when one has ended: %w", u.owner, mine.uploads, errdefs.ErrUnavailable)
	case all >= s.limits.Uploads:
		return fmt.Errorf("%d uploads are under way, which is the limit; try again later: %w", all, errdefs.ErrUnavailable)
	}
	mine.uploads++
	s.uploads[u.id] = u
	return nil
}

// recoverUploads finds the archives that can be resumed and deletes whatever else is under incoming.
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
		u := &upload{id: id, path: path, turn: make(chan struct{}, 1), size: info.Size(), usedAt: info.ModTime()}
		u.room = &reservation{store: s, held: u.size, used: u.size}
		s.hold(u.owner, u.size)
		s.account(u.owner).uploads++
		s.uploads[id] = u
	}
	return nil
}

// findUpload fails with errdefs.ErrNotFound unless the upload is one of the repository.
func (s *Store) findUpload(repository, id string) (*upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uploads[id]
	if u == nil || u.repository != repository {
		return nil, fmt.Errorf("no upload has the id %q; it may have rested too long: %w", id, errdefs.ErrNotFound)
	}
	return u, nil
}

// uploadSize tells how much of an upload has arrived.
func (s *Store) uploadSize(repository, id string) (int64, error) {
	u, err := s.findUpload(repository, id)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return u.size, nil
}

// take waits for one's turn on an upload. Interrupt, which may be nil, makes the new holder's own reading end, for
// the sake of one who comes later.
func (s *Store) take(ctx context.Context, u *upload, interrupt func()) error {
	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if u.gone {
		<-u.turn
		return fmt.Errorf("the upload %q has ended: %w", u.id, errdefs.ErrNotFound)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u.busy, u.interrupt, u.usedAt = true, interrupt, time.Now()
	return nil
}

func (s *Store) giveBack(u *upload) {
	s.mu.Lock()
	u.busy, u.interrupt, u.usedAt = false, nil, time.Now()
	s.mu.Unlock()
	<-u.turn
}

// appendUpload adds content at an offset, or where the upload is when the offset is negative. What arrived before an
// error stays; an upload for which there is no room is dropped.
func (s *Store) appendUpload(ctx context.Context, u *upload, offset int64, content io.Reader, interrupt func()) (size int64, err error) {
	s.mu.Lock()
	earlier := u.interrupt
	s.mu.Unlock()
	if earlier != nil {
		// The same client on a new connection: the old one may hang until somebody ends it.
		earlier()
	}
	if err := s.take(ctx, u, interrupt); err != nil {
		return 0, err
	}
	defer s.giveBack(u)
	if u.image != nil {
		return u.size, fmt.Errorf("the upload has become an image already: %w", errdefs.ErrFailedPrecondition)
	}
	if offset >= 0 && offset != u.size {
		return u.size, fmt.Errorf("the upload goes on at %d, not at %d: %w", u.size, offset, errdefs.ErrOutOfRange)
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

// fill writes content behind what the file holds.
func (s *Store) fill(ctx context.Context, u *upload, file io.WriterAt, content io.Reader) error {
	buffer := make([]byte, 64<<10)
	for {
		n, readErr := content.Read(buffer)
		if u.size+int64(n) > s.limits.ArchiveBytes {
			return fmt.Errorf("the upload is larger than %s, which is the limit: %w", resource.FormatBytes(s.limits.ArchiveBytes), errdefs.ErrResourceExhausted)
		}
		if n > 0 {
			if err := u.room.grow(ctx, int64(n)); err != nil {
				return err
			}
			// Behind what counts as arrived: a write that failed half-way is overwritten by the next.
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
			return fmt.Errorf("the upload broke off after %d bytes: %w: %w", u.size, readErr, errdefs.ErrAborted)
		}
	}
}

// finishBlob makes an upload the blob that is wanted. The upload ends in any case.
func (s *Store) finishBlob(ctx context.Context, u *upload, want digest.Digest) error {
	if err := s.take(ctx, u, nil); err != nil {
		return err
	}
	defer s.giveBack(u)
	defer s.drop(u)
	if err := checkDigest(want); err != nil {
		return err
	}
	if got := digest.NewDigest(digest.SHA256, u.hash); got != want {
		return invalid("what was uploaded has the digest %s, not %s", got, want)
	}
	// What was written but does not count is cut off.
	if err := errors.Join(os.Truncate(u.path, u.size), syncFile(u.path)); err != nil {
		return fmt.Errorf("store a blob: %w", diskError(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.adopt(map[digest.Digest]string{want: u.path}); err != nil {
		return err
	}
	s.promise(promise{u.repository, u.owner.Name, want}, u.size)
	return nil
}

// promise keeps a blob for a manifest of the repository that is to come. Above a number, of one user a quarter, no more is
// promised, so that what was pushed may have to be pushed again. The caller holds mu.
func (s *Store) promise(key promise, size int64) {
	before, known := s.promised[key]
	switch {
	case known:
		size = max(size, before.size)
	case len(s.promised) >= maxPromised, s.promises[key.user] >= maxPromised/4:
		return
	default:
		s.promises[key.user]++
	}
	s.promised[key] = kept{since: time.Now(), size: size}
	clear(s.owned)
}

// release ends a promise. The caller holds mu.
func (s *Store) release(key promise) {
	if _, ok := s.promised[key]; !ok {
		return
	}
	delete(s.promised, key)
	if s.promises[key.user]--; s.promises[key.user] == 0 {
		delete(s.promises, key.user)
	}
	clear(s.owned)
}

// cancelUpload ends an upload and forgets what arrived.
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
	if err := s.take(ctx, u, nil); err != nil {
		return err
	}
	defer s.giveBack(u)
	s.drop(u)
	return nil
}

// drop forgets an upload and deletes its file, if it is still there. The caller has the turn.
func (s *Store) drop(u *upload) {
	u.gone = true
	u.room.release()
	s.mu.Lock()
	if _, ok := s.uploads[u.id]; ok {
		delete(s.uploads, u.id)
		if u.image == nil {
			s.account(u.owner).uploads--
			s.hold(u.owner, 0)
		}
	}
	s.mu.Unlock()
	// What cannot be deleted now is deleted by the next Open.
	_ = os.Remove(u.path)
}

// finish makes an archive's upload one that has become an image, which takes up no room any more.
func (s *Store) finish(u *upload, image *apiv1.Image) {
	u.room.release()
	s.mu.Lock()
	defer s.mu.Unlock()
	u.image = image
	s.account(u.owner).uploads--
	s.hold(u.owner, 0)
	// Those that ended first are forgotten first.
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

// dropIdleUploads ends the uploads that nobody has touched for longer than idle.
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
		case u.turn <- struct{}{}:
			s.drop(u)
			<-u.turn
		default: // Somebody came back for it after all.
		}
	}
}
