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
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/resource"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// maxFinished is how many imported uploads are kept for clients that ask again.
const maxFinished = 256

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

	// The holder of the lock changes these while it holds the mu of the uploads; either is enough to read them.
	size int64
	// image is the imported image, kept for a client that asks again.
	image *apiv1.Image

	// The mu of the uploads guards these.
	usedAt    time.Time
	busy      bool
	interrupt func() // Ends the read of the present writer; may be nil.
}

// uploads owns the uploads of archives and blobs: their files under incoming, and who writes to each.
type uploads struct {
	dir    string
	limits Limits
	quotas *quotas
	// relieve drops what is idle, and reports whether it has looked for any.
	relieve func(context.Context) bool

	mu sync.Mutex
	// all has the imported ones too, while their images are kept for clients that ask again.
	all map[string]*upload
	// byUser is how many each user has in progress, which is never zero.
	byUser map[peer.User]int
}

// push is a user's push to a repository.
type push struct{ repository, user string }

// start starts an upload of a blob for a repository, or of an archive if repository is empty, and returns its id.
func (s *uploads) start(ctx context.Context, repository string) (string, error) {
	var raw [16]byte
	rand.Read(raw[:])
	who := peer.From(ctx)
	u := &upload{id: hex.EncodeToString(raw[:]), repository: repository, owner: who, lock: make(chan struct{}, 1), usedAt: time.Now()}
	u.path, u.reservation = filepath.Join(s.dir, u.id), s.quotas.open(who, 0)
	if repository == "" {
		u.path += archiveSuffix
	} else {
		u.hash = sha256.New()
	}
	err := s.register(u)
	if errors.Is(err, errdefs.ErrUnavailable) && s.relieve(ctx) {
		err = s.register(u)
	}
	if err != nil {
		return "", err
	}
	file, err := os.OpenFile(u.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		s.drop(u)
		return "", fmt.Errorf("start an upload: %w", diskError(err))
	}
	return u.id, nil
}

// register adds an upload if its user may have one more. It fails with errdefs.ErrUnavailable.
func (s *uploads) register(u *upload) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Those of an operator count for that operator alone: they take nobody's place.
	all := 0
	for owner, uploads := range s.byUser {
		if !owner.Operator {
			all += uploads
		}
	}
	mine, most := s.byUser[u.owner], s.limits.UserUploads
	if u.owner.Operator {
		all, most = 0, s.limits.Uploads
	}
	switch {
	case mine >= most:
		return fmt.Errorf("%s has %d uploads in progress, which is the limit; try again when one has ended: %w", u.owner, mine, errdefs.ErrUnavailable)
	case all >= s.limits.Uploads:
		return fmt.Errorf("%d uploads are in progress, which is the limit; try again later: %w", all, errdefs.ErrUnavailable)
	}
	s.count(u.owner, 1)
	s.all[u.id] = u
	return nil
}

// recover finds the archives whose upload can be resumed and deletes the rest of incoming.
func (s *uploads) recover() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(s.dir, entry.Name())
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
		u.reservation = s.quotas.open(u.owner, u.size)
		s.count(u.owner, 1)
		s.all[id] = u
	}
	return nil
}

// find returns an upload of the repository. It fails with errdefs.ErrNotFound.
func (s *uploads) find(repository, id string) (*upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.all[id]
	if u == nil || u.repository != repository {
		return nil, fmt.Errorf("there is no upload with the id %q; it may have been idle for too long: %w", id, errdefs.ErrNotFound)
	}
	return u, nil
}

// size is how much of an upload has arrived.
func (s *uploads) size(repository, id string) (int64, error) {
	u, err := s.find(repository, id)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return u.size, nil
}

// lock waits for the lock of an upload. Interrupt, which may be nil, ends the new holder's read when a later caller
// waits.
func (s *uploads) lock(ctx context.Context, u *upload, interrupt func()) error {
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

func (s *uploads) unlock(u *upload) {
	s.mu.Lock()
	u.busy, u.interrupt, u.usedAt = false, nil, time.Now()
	s.mu.Unlock()
	<-u.lock
}

// append adds content at an offset, or at the end if the offset is negative. What arrived before an error stays. An
// upload without space is dropped.
func (s *uploads) append(ctx context.Context, u *upload, offset int64, content io.Reader, interrupt func()) (size int64, err error) {
	s.mu.Lock()
	earlier := u.interrupt
	s.mu.Unlock()
	if earlier != nil {
		// The same client may use a new connection while the old one hangs.
		earlier()
	}
	if err := s.lock(ctx, u, interrupt); err != nil {
		return 0, err
	}
	defer s.unlock(u)
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
func (s *uploads) fill(ctx context.Context, u *upload, file io.WriterAt, content io.Reader) error {
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

// cancel ends an upload and deletes what arrived.
func (s *uploads) cancel(ctx context.Context, repository, id string) error {
	u, err := s.find(repository, id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	interrupt := u.interrupt
	s.mu.Unlock()
	if interrupt != nil {
		interrupt()
	}
	if err := s.lock(ctx, u, nil); err != nil {
		return err
	}
	defer s.unlock(u)
	s.drop(u)
	return nil
}

// drop ends an upload and deletes its file. The caller has the lock.
func (s *uploads) drop(u *upload) {
	u.dropped = true
	u.reservation.release()
	s.mu.Lock()
	if _, ok := s.all[u.id]; ok {
		delete(s.all, u.id)
		if u.image == nil {
			s.count(u.owner, -1)
		}
	}
	s.mu.Unlock()
	// Otherwise the next Open deletes it.
	_ = os.Remove(u.path)
}

// finish records the imported image of an upload, whose space is free then.
func (s *uploads) finish(u *upload, image *apiv1.Image) {
	u.reservation.release()
	s.mu.Lock()
	defer s.mu.Unlock()
	u.image = image
	s.count(u.owner, -1)
	// The oldest are dropped.
	var oldest *upload
	finished := 0
	for _, other := range s.all {
		if other.image == nil {
			continue
		}
		finished++
		if !other.busy && (oldest == nil || other.usedAt.Before(oldest.usedAt)) {
			oldest = other
		}
	}
	if finished > maxFinished && oldest != nil {
		delete(s.all, oldest.id)
	}
}

// dropIdle drops the uploads that were idle for longer than idle.
func (s *uploads) dropIdle(now time.Time, idle time.Duration) {
	var resting []*upload
	s.mu.Lock()
	for _, u := range s.all {
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

// count adds to the number of a user's uploads in progress. The caller holds mu.
func (s *uploads) count(who peer.User, more int) {
	if s.byUser[who] += more; s.byUser[who] == 0 {
		delete(s.byUser, who)
	}
}

// pushing is the set of pushes of which a blob is being written.
func (s *uploads) pushing() map[push]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	busy := map[push]bool{}
	for _, u := range s.all {
		if u.repository != "" && u.busy {
			busy[push{u.repository, u.owner.Name}] = true
		}
	}
	return busy
}

// complete hands an uploaded blob to store, by the file in which it is. The upload ends in any case.
func (s *uploads) complete(ctx context.Context, u *upload, want digest.Digest, store func(path string, owner peer.User, size int64) error) error {
	if err := s.lock(ctx, u, nil); err != nil {
		return err
	}
	defer s.unlock(u)
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
	return store(u.path, u.owner, u.size)
}

// importArchive has an uploaded archive imported, with a context that ends with the upload. The archive is dropped, unless the client
// can try again: after an error of the store or of the name. A repeated request gets the same image.
func (s *uploads) importArchive(ctx context.Context, id string, do func(context.Context, io.Reader) (*apiv1.Image, error)) (*apiv1.Image, error) {
	u, err := s.find("", id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := s.lock(ctx, u, cancel); err != nil {
		return nil, err
	}
	defer s.unlock(u)
	if u.image != nil {
		return u.image, nil
	}
	file, err := os.Open(u.path)
	if err != nil {
		return nil, fmt.Errorf("read the upload: %w", err)
	}
	defer file.Close()
	image, err := do(ctx, io.NewSectionReader(file, 0, u.size))
	if errors.Is(err, errdefs.ErrInvalidArgument) || errors.Is(err, errdefs.ErrResourceExhausted) || errors.Is(err, errdefs.ErrPermissionDenied) {
		s.drop(u)
	}
	if err != nil {
		return nil, err
	}
	s.finish(u, image)
	_ = os.Remove(u.path) // Otherwise it is deleted with the upload.
	return image, nil
}
