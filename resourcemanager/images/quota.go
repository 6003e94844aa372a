package images

import (
	"context"
	"fmt"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// reserveStep is how much is reserved at a time.
const reserveStep = 1 << 20

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

// quotas owns how many bytes are being uploaded and imported, by whom, and decides how many more may come.
type quotas struct {
	limits   Limits
	disk     diskSpace
	contents *contents
	// relieve drops what is idle, and reports whether it has looked for any.
	relieve func(context.Context) bool

	mu sync.Mutex
	// incoming is the size of all uploads and imports in progress, byUser that of each user's, which is never zero.
	incoming int64
	byUser   map[peer.User]int64
}

// reserve reserves space for a user. If there is none, it drops idle uploads first. It fails with errdefs.ErrResourceExhausted.
func (q *quotas) reserve(ctx context.Context, who peer.User, bytes int64) error {
	take := func() error {
		return q.contents.measured(who, func(stored, owned int64) error { return q.take(who, bytes, stored, owned) })
	}
	err := take()
	if err != nil && q.relieve(ctx) {
		err = take()
	}
	return err
}

// take reserves space if a user may add so many bytes to those that the store has and those that the user has brought.
func (q *quotas) take(who peer.User, bytes, stored, owned int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.check(who, bytes, stored, owned); err != nil {
		return err
	}
	q.add(who, bytes)
	return nil
}

// check checks whether there is space. The caller holds mu.
func (q *quotas) check(who peer.User, bytes, stored, owned int64) error {
	free, _, err := q.disk()
	if err != nil {
		return err
	}
	if free-bytes < q.limits.KeepFree {
		return fmt.Errorf("the image store's disk has %s free, of which %s are reserved for the zone's own records; remove images with `mammoth image rm`, or free the disk: %w",
			resource.FormatBytes(free), resource.FormatBytes(q.limits.KeepFree), errdefs.ErrResourceExhausted)
	}
	if held := stored + q.incoming; held+bytes > q.limits.TotalBytes {
		return fmt.Errorf("the image store has %s of the %s that it may have, including uploads in progress; remove images with `mammoth image rm`: %w",
			resource.FormatBytes(held), resource.FormatBytes(q.limits.TotalBytes), errdefs.ErrResourceExhausted)
	}
	if who.Operator {
		return nil
	}
	if held := owned + q.byUser[who]; held+bytes > q.limits.UserBytes {
		return fmt.Errorf("%s has %s of the %s that one user may have in the image store, including uploads in progress; remove images with `mammoth image rm`: %w",
			who, resource.FormatBytes(held), resource.FormatBytes(q.limits.UserBytes), errdefs.ErrResourceExhausted)
	}
	return nil
}

// add adds to the bytes that are on their way; a negative number subtracts. The caller holds mu.
func (q *quotas) add(who peer.User, bytes int64) {
	q.incoming += bytes
	if q.byUser[who] += bytes; q.byUser[who] == 0 {
		delete(q.byUser, who)
	}
}

// open begins a reservation for a user, of what is written already.
func (q *quotas) open(who peer.User, written int64) *reservation {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(who, written)
	return &reservation{quotas: q, who: who, reserved: written, written: written}
}

// release ends the reservation of so many bytes.
func (q *quotas) release(who peer.User, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(who, -bytes)
}

// reservation is the space of one upload or import, from before it is written until it is stored or dropped.
type reservation struct {
	quotas *quotas
	who    peer.User
	// reserved is the reserved space, written how much of it is used.
	reserved, written int64
}

// grow reserves space for what is about to be written.
func (r *reservation) grow(ctx context.Context, bytes int64) error {
	r.written += bytes
	for r.written > r.reserved {
		more := max(reserveStep, r.written-r.reserved)
		if err := r.quotas.reserve(ctx, r.who, more); err != nil {
			return err
		}
		r.reserved += more
	}
	return nil
}

// release ends the reservation.
func (r *reservation) release() {
	r.quotas.release(r.who, r.reserved)
	r.reserved, r.written = 0, 0
}

// writerFunc is called with the number of bytes that are about to be written.
type writerFunc func(bytes int64) error

func (f writerFunc) Write(p []byte) (int, error) { return len(p), f(int64(len(p))) }

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
