package images

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/mammoth-os/mammoth/internal/peer"
)

// contents owns what the store has: the catalog and the pending blobs. They change in one step with the blobs on disk, and never
// while content arrives.
type contents struct {
	dir   string
	blobs *blobs

	mu      sync.Mutex
	catalog catalog
	pending pendingBlobs
	// owned caches ownedBytes of each user until the next change.
	owned map[string]int64
}

// openContents reads the catalog of a store's folder, and puts right an index of which one file was damaged.
func openContents(dir string, b *blobs) (*contents, error) {
	loaded, twice, err := loadCatalog(dir)
	if err != nil {
		return nil, fmt.Errorf("open the image store in %s: %w", dir, err)
	}
	// A store has an index before its first blob, and what was damaged is put right by the other file.
	if !twice {
		if err := loaded.save(dir); err != nil && !errors.Is(diskError(err), errdefs.ErrResourceExhausted) {
			return nil, fmt.Errorf("write the image store's index in %s: %w", dir, err)
		}
	}
	return &contents{dir: dir, blobs: b, catalog: loaded, pending: newPendingBlobs(), owned: map[string]int64{}}, nil
}

// now is the catalog at present.
func (c *contents) now() catalog {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.catalog
}

// add moves files with known digests to the blobs and changes the catalog, in one step; change may be nil. Before anything else can
// change it calls then, which may be nil. The caller has synced large files.
func (c *contents) add(files map[digest.Digest]string, change func(next *catalog) error, then func(now catalog, pending *pendingBlobs)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.catalog
	if change != nil {
		next = next.clone()
		if err := change(&next); err != nil {
			return err
		}
	}
	if err := c.blobs.adopt(files); err != nil {
		return err
	}
	if change != nil {
		if err := c.commit(next); err != nil {
			return err
		}
	}
	if then != nil {
		then(next, &c.pending)
	}
	clear(c.owned)
	return nil
}

// keep keeps a blob that the store has for a later manifest, and returns its size. It fails with errdefs.ErrNotFound if there is
// none.
func (c *contents) keep(key pendingKey) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size, err := c.blobs.size(key.blob)
	if err == nil {
		c.pending.keep(key, 0)
		clear(c.owned)
	}
	return size, err
}

// forget drops pending blobs.
func (c *contents) forget(keys []pendingKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending.drop(keys...)
	clear(c.owned)
}

// collection is a deletion of what nothing refers to.
type collection struct {
	// pinned are the digests that stay although nothing in the catalog refers to them.
	pinned []string
	// pushing are the pushes in progress. Pending blobs of others are kept for the time idle before now.
	pushing map[push]bool
	now     time.Time
	idle    time.Duration
	// change is made to the catalog before.
	change func(*catalog) error
	// kept is called with all that stays, before anything else can change.
	kept func(map[digest.Digest]bool)
}

// collect changes the catalog and deletes the blobs that nothing refers to any more.
func (c *contents) collect(what collection) (freed int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.catalog.clone()
	if err := what.change(&next); err != nil {
		return 0, err
	}
	c.pending.dropOld(what.now, what.idle, what.pushing)
	clear(c.owned)
	roots := c.pending.digests()
	for _, tag := range next.tags {
		roots = append(roots, tag.digest)
	}
	for _, sum := range what.pinned {
		roots = append(roots, digest.Digest(sum))
	}
	keep := next.reach(roots)
	maps.DeleteFunc(next.manifests, func(sum digest.Digest, _ manifest) bool { return !keep[sum] })
	what.kept(keep)
	err = c.commit(next)
	if errors.Is(err, errdefs.ErrResourceExhausted) {
		// A full disk may have no space for the index until blobs are deleted. An index is read without what does not exist.
		freed, err = c.deleteOthers(keep)
		err = errors.Join(err, c.commit(next))
		c.catalog = next
		return freed, err
	}
	if err != nil {
		return 0, err
	}
	return c.deleteOthers(keep)
}

func (c *contents) deleteOthers(keep map[digest.Digest]bool) (freed int64, err error) {
	return c.blobs.deleteOthers(keep, func(sum digest.Digest) bool {
		_, ok := c.catalog.manifests[sum]
		return ok
	})
}

// commit replaces the catalog, on disk first. The caller holds mu.
func (c *contents) commit(next catalog) error {
	if !next.equal(c.catalog) {
		if err := next.save(c.dir); err != nil {
			return fmt.Errorf("write the image store's index: %w", diskError(err))
		}
	}
	c.catalog = next
	clear(c.owned)
	return nil
}

// measured calls check with the size of all blobs and of those that a user has brought, before anything can change. That is zero for
// an operator.
func (c *contents) measured(who peer.User, check func(stored, owned int64) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var owned int64
	if !who.Operator {
		owned = c.ownedBytes(who)
	}
	return check(c.blobs.bytes(), owned)
}

// ownedBytes is the size of what a user has brought: manifests, what they refer to, and blobs pushed for a later manifest.
// The caller holds mu.
func (c *contents) ownedBytes(who peer.User) int64 {
	if bytes, ok := c.owned[who.Name]; ok {
		return bytes
	}
	counted := map[digest.Digest]int64{}
	for sum, m := range c.catalog.manifests {
		if m.user != who.Name {
			continue
		}
		counted[sum] = m.size
		for _, child := range m.children {
			counted[child.digest] = child.size
		}
	}
	maps.Copy(counted, c.pending.pushedBy(who.Name))
	var total int64
	for _, size := range counted {
		total += size
	}
	c.owned[who.Name] = total
	return total
}
