package images

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/resource"
)

const (
	// grant is how much room is asked for at a time by what is being written.
	grant = 1 << 20
	// relieveEvery is how often, at most, what rests is dropped to make room.
	relieveEvery = time.Second
)

// account is what one user has on its way in.
type account struct {
	uploads int
	bytes   int64
}

// space says how large the store's disk is and how much of it is free.
type space func() (free, size int64, err error)

func spaceAt(dir string) space {
	return func() (free, size int64, err error) {
		var stat syscall.Statfs_t
		if err := syscall.Statfs(dir, &stat); err != nil {
			return 0, 0, fmt.Errorf("look at the image store's disk: %w", err)
		}
		return int64(stat.Bavail) * stat.Bsize, int64(stat.Blocks) * stat.Bsize, nil
	}
}

// setQuotas fills in what is a part of the store's disk.
func (l *Limits) setQuotas(disk space) error {
	_, size, err := disk()
	if err != nil {
		return err
	}
	setDefault(&l.TotalBytes, size/4*3)
	setDefault(&l.UserBytes, size/4)
	setDefault(&l.KeepFree, min(max(size/10, 256<<20), size/4, 4<<30))
	return nil
}

// roomFor reports whether a user may bring so many bytes more. It fails with errdefs.ErrResourceExhausted. The caller
// holds mu.
func (s *Store) roomFor(who peer.User, bytes int64) error {
	free, _, err := s.disk()
	if err != nil {
		return err
	}
	if free-bytes < s.limits.KeepFree {
		return fmt.Errorf("the image store's disk has %s free, of which %s are kept for the zone's own records; remove images with `mammoth image rm`, or free the disk: %w",
			resource.FormatBytes(free), resource.FormatBytes(s.limits.KeepFree), errdefs.ErrResourceExhausted)
	}
	if held := s.storedBytes + s.arriving; held+bytes > s.limits.TotalBytes {
		return fmt.Errorf("the image store holds %s, uploads on their way included, of the %s that it may; remove images with `mammoth image rm`: %w",
			resource.FormatBytes(held), resource.FormatBytes(s.limits.TotalBytes), errdefs.ErrResourceExhausted)
	}
	if who.Operator {
		return nil
	}
	if held := s.ownedBytes(who) + s.account(who).bytes; held+bytes > s.limits.UserBytes {
		return fmt.Errorf("%s has %s in the image store, uploads on their way included, of the %s that one user may; remove images with `mammoth image rm`: %w",
			who, resource.FormatBytes(held), resource.FormatBytes(s.limits.UserBytes), errdefs.ErrResourceExhausted)
	}
	return nil
}

// account is a user's, made when it is first asked for. The caller holds mu.
func (s *Store) account(who peer.User) *account {
	if s.accounts[who] == nil {
		s.accounts[who] = &account{}
	}
	return s.accounts[who]
}

// hold counts bytes that are on their way in, or with a negative number are not any more. The caller holds mu.
func (s *Store) hold(who peer.User, bytes int64) {
	mine := s.account(who)
	mine.bytes += bytes
	s.arriving += bytes
	if *mine == (account{}) {
		delete(s.accounts, who)
	}
}

// ownedBytes is what a user has brought, as far as it is still here: manifests, what they name, and what was pushed for a
// manifest to come. The caller holds mu.
func (s *Store) ownedBytes(who peer.User) int64 {
	if bytes, ok := s.owned[who.Name]; ok {
		return bytes
	}
	counted := map[digest.Digest]int64{}
	for sum, m := range s.catalog.manifests {
		if m.user != who.Name {
			continue
		}
		counted[sum] = m.size
		for _, child := range m.children {
			counted[child.digest] = child.size
		}
	}
	for key, kept := range s.promised {
		if key.user == who.Name && kept.size > 0 {
			counted[key.blob] = kept.size
		}
	}
	var total int64
	for _, size := range counted {
		total += size
	}
	s.owned[who.Name] = total
	return total
}

// reservation is the room that one upload or import takes up, from before it is written until it is stored or dropped.
type reservation struct {
	store *Store
	who   peer.User
	// held is what was granted, used what of that is written.
	held, used int64
}

// writerFunc is told of what is about to be written.
type writerFunc func(bytes int64) error

func (f writerFunc) Write(p []byte) (int, error) { return len(p), f(int64(len(p))) }

// grow makes room for content that is about to be written.
func (r *reservation) grow(ctx context.Context, bytes int64) error {
	r.used += bytes
	for r.used > r.held {
		more := max(grant, r.used-r.held)
		if err := r.store.admit(ctx, r.who, more); err != nil {
			return err
		}
		r.held += more
	}
	return nil
}

// release gives up what is written no more, or counts as stored now.
func (r *reservation) release() {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	r.store.hold(r.who, -r.held)
	r.held, r.used = 0, 0
}

// admit takes room for a user, after what rests was dropped if need be.
func (s *Store) admit(ctx context.Context, who peer.User, bytes int64) error {
	take := func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		err := s.roomFor(who, bytes)
		if err == nil {
			s.hold(who, bytes)
		}
		return err
	}
	err := take()
	if err != nil && s.relieve(ctx) {
		err = take()
	}
	return err
}

// relieve drops uploads that rested for some minutes, and blobs that were pushed as long ago for a manifest that did not
// come, and reports whether it looked: it does so once a second at most.
func (s *Store) relieve(ctx context.Context) bool {
	now := time.Now()
	s.mu.Lock()
	early := now.Sub(s.relieved) < relieveEvery
	if !early {
		s.relieved = now
	}
	s.mu.Unlock()
	if early {
		return false
	}
	s.dropIdleUploads(now, s.limits.PressedIdle)
	// A failure is one to read the pins or the directory: then nothing more is freed.
	_, _ = s.collect(ctx, now, s.limits.PressedIdle, func(*catalog) error { return nil })
	return true
}

// checkCatalog refuses more names and manifests than there may be, in all and of one user.
func (l Limits) checkCatalog(next catalog, who peer.User) error {
	if len(next.tags) > l.Names || len(next.manifests) > 4*l.Names {
		return fmt.Errorf("the image store holds %d names and %d manifests, and may hold %d and %d; remove images with `mammoth image rm`: %w",
			len(next.tags), len(next.manifests), l.Names, 4*l.Names, errdefs.ErrResourceExhausted)
	}
	if who.Operator {
		return nil
	}
	names, manifests := 0, 0
	for _, t := range next.tags {
		if next.manifests[t.digest].user == who.Name {
			names++
		}
	}
	for _, m := range next.manifests {
		if m.user == who.Name {
			manifests++
		}
	}
	if names > l.Names/4 || manifests > l.Names {
		return fmt.Errorf("%s has brought %d names and %d manifests, and may bring %d and %d; remove images with `mammoth image rm`: %w",
			who, names, manifests, l.Names/4, l.Names, errdefs.ErrResourceExhausted)
	}
	return nil
}
