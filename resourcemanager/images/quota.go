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
	// reserveStep is how much is reserved at a time.
	reserveStep = 1 << 20
	// evictEvery is the shortest time between two calls of dropIdle that look for something.
	evictEvery = time.Second
)

// usage is what one user has in uploads.
type usage struct {
	uploads int
	bytes   int64
}

// diskSpace returns the size of the store's disk and how much of it is free.
type diskSpace func() (free, size int64, err error)

func spaceAt(dir string) diskSpace {
	return func() (free, size int64, err error) {
		var stat syscall.Statfs_t
		if err := syscall.Statfs(dir, &stat); err != nil {
			return 0, 0, fmt.Errorf("look at the image store's disk: %w", err)
		}
		return int64(stat.Bavail) * stat.Bsize, int64(stat.Blocks) * stat.Bsize, nil
	}
}

// setQuotas sets the limits that depend on the disk's size.
func (l *Limits) setQuotas(disk diskSpace) error {
	_, size, err := disk()
	if err != nil {
		return err
	}
	setDefault(&l.TotalBytes, size/4*3)
	setDefault(&l.UserBytes, size/4)
	setDefault(&l.KeepFree, min(max(size/10, 256<<20), size/4, 4<<30))
	return nil
}

// checkQuota checks whether a user may add so many bytes. It fails with errdefs.ErrResourceExhausted. The caller holds mu.
func (s *Store) checkQuota(who peer.User, bytes int64) error {
	free, _, err := s.disk()
	if err != nil {
		return err
	}
	if free-bytes < s.limits.KeepFree {
		return fmt.Errorf("the image store's disk has %s free, of which %s are reserved for the zone's own records; remove images with `mammoth image rm`, or free the disk: %w",
			resource.FormatBytes(free), resource.FormatBytes(s.limits.KeepFree), errdefs.ErrResourceExhausted)
	}
	if held := s.storedBytes + s.incomingBytes; held+bytes > s.limits.TotalBytes {
		return fmt.Errorf("the image store has %s of the %s that it may have, including uploads in progress; remove images with `mammoth image rm`: %w",
			resource.FormatBytes(held), resource.FormatBytes(s.limits.TotalBytes), errdefs.ErrResourceExhausted)
	}
	if who.Operator {
		return nil
	}
	if held := s.ownedBytes(who) + s.usageOf(who).bytes; held+bytes > s.limits.UserBytes {
		return fmt.Errorf("%s has %s of the %s that one user may have in the image store, including uploads in progress; remove images with `mammoth image rm`: %w",
			who, resource.FormatBytes(held), resource.FormatBytes(s.limits.UserBytes), errdefs.ErrResourceExhausted)
	}
	return nil
}

// usageOf returns a user's usage and creates it if there is none. The caller holds mu.
func (s *Store) usageOf(who peer.User) *usage {
	if s.usage[who] == nil {
		s.usage[who] = &usage{}
	}
	return s.usage[who]
}

// addIncoming adds to the bytes that are being uploaded; a negative number subtracts. The caller holds mu.
func (s *Store) addIncoming(who peer.User, bytes int64) {
	mine := s.usageOf(who)
	mine.bytes += bytes
	s.incomingBytes += bytes
	if *mine == (usage{}) {
		delete(s.usage, who)
	}
}

// ownedBytes is the size of what a user has brought: manifests, what they refer to, and blobs pushed for a later manifest.
// The caller holds mu.
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
	for key, kept := range s.pending {
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

// reservation is the space of one upload or import, from before it is written until it is stored or dropped.
type reservation struct {
	store *Store
	who   peer.User
	// reserved is the reserved space, written how much of it is used.
	reserved, written int64
}

// writerFunc is called with the number of bytes that are about to be written.
type writerFunc func(bytes int64) error

func (f writerFunc) Write(p []byte) (int, error) { return len(p), f(int64(len(p))) }

// grow reserves space for what is about to be written.
func (r *reservation) grow(ctx context.Context, bytes int64) error {
	r.written += bytes
	for r.written > r.reserved {
		more := max(reserveStep, r.written-r.reserved)
		if err := r.store.reserve(ctx, r.who, more); err != nil {
			return err
		}
		r.reserved += more
	}
	return nil
}

// release ends the reservation.
func (r *reservation) release() {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	r.store.addIncoming(r.who, -r.reserved)
	r.reserved, r.written = 0, 0
}

// reserve reserves space for a user. If there is none, it drops idle uploads first.
func (s *Store) reserve(ctx context.Context, who peer.User, bytes int64) error {
	take := func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		err := s.checkQuota(who, bytes)
		if err == nil {
			s.addIncoming(who, bytes)
		}
		return err
	}
	err := take()
	if err != nil && s.dropIdle(ctx) {
		err = take()
	}
	return err
}

// dropIdle drops uploads that were idle for UploadIdleFull, and blobs pushed as long ago whose manifest did not come. It
// reports whether it looked for any, which it does once a second at most.
func (s *Store) dropIdle(ctx context.Context) bool {
	now := time.Now()
	s.mu.Lock()
	early := now.Sub(s.idleDropped) < evictEvery
	if !early {
		s.idleDropped = now
	}
	s.mu.Unlock()
	if early {
		return false
	}
	s.dropIdleUploads(now, s.limits.UploadIdleFull)
	// An error means that the pins or the directory cannot be read. Then nothing more is freed.
	_, _ = s.collect(ctx, now, s.limits.UploadIdleFull, func(*catalog) error { return nil })
	return true
}

// checkCatalog refuses more names and manifests than the limits allow, in total and of one user.
func (l Limits) checkCatalog(next catalog, who peer.User) error {
	if len(next.tags) > l.Names || len(next.manifests) > 4*l.Names {
		return fmt.Errorf("the image store has %d names and %d manifests; the limits are %d and %d; remove images with `mammoth image rm`: %w",
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
		return fmt.Errorf("%s has %d names and %d manifests in the image store; the limits are %d and %d; remove images with `mammoth image rm`: %w",
			who, names, manifests, l.Names/4, l.Names, errdefs.ErrResourceExhausted)
	}
	return nil
}
