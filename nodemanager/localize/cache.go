package localize

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// cache is the folder of fetched blobs, each in a file named by its digest. A file that is being fetched has the suffix
// .partial and is resumed after a crash.
type cache struct {
	dir string
	max int64

	mu      sync.Mutex
	entries map[string]*entry
	total   int64
}

type entry struct {
	name string
	size int64
	used time.Time
	// verified is the file's modification time when its content was last verified; zero if it was not since the start.
	verified time.Time
}

const partialSuffix = ".partial"

var hexName = regexp.MustCompile(`^[0-9a-f]{64}$`)

func openCache(dir string, limit int64) (*cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the folder of layers: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the folder of layers: %w", err)
	}
	c := &cache{dir: dir, max: limit, entries: map[string]*entry{}}
	for _, file := range files {
		name := file.Name()
		info, err := file.Info()
		if err != nil || !info.Mode().IsRegular() || !hexName.MatchString(strings.TrimSuffix(name, partialSuffix)) {
			continue // not a blob
		}
		if strings.HasSuffix(name, partialSuffix) {
			if time.Since(info.ModTime()) > 24*time.Hour {
				_ = os.Remove(filepath.Join(dir, name))
			}
			continue
		}
		c.entries[name] = &entry{name: name, size: info.Size(), used: info.ModTime()}
		c.total += info.Size()
	}
	c.evict("")
	return c, nil
}

func (c *cache) path(sum digest.Digest) string { return filepath.Join(c.dir, sum.Encoded()) }

// open opens a blob if it exists and is unchanged. Changed content is deleted; the error is errdefs.ErrDataLoss.
func (c *cache) open(sum digest.Digest) (*os.File, error) {
	file, err := os.Open(c.path(sum))
	if errors.Is(err, os.ErrNotExist) {
		c.forget(sum.Encoded())
		return nil, fmt.Errorf("%s is not in the cache: %w", sum, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	if !c.use(sum.Encoded(), info) {
		if err := verify(file, sum); err != nil {
			_ = file.Close()
			_ = os.Remove(c.path(sum))
			c.forget(sum.Encoded())
			return nil, err
		}
		c.add(sum.Encoded(), info)
	}
	return file, nil
}

// verify checks a file's digest and rewinds it.
func verify(file *os.File, sum digest.Digest) error {
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return fmt.Errorf("read %s: %w", sum, err)
	}
	if got := digest.NewDigest(digest.SHA256, hash); got != sum {
		return fmt.Errorf("the cached file %s has the digest %s: %w", sum, got, errdefs.ErrDataLoss)
	}
	_, err := file.Seek(0, io.SeekStart)
	return err
}

// use records that a blob is used, and reports whether it is known to be unchanged.
func (c *cache) use(name string, info os.FileInfo) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[name]
	if e == nil {
		return false
	}
	e.used = time.Now()
	return e.size == info.Size() && !e.verified.IsZero() && e.verified.Equal(info.ModTime())
}

// add adds a verified blob and evicts others if needed.
func (c *cache) add(name string, info os.FileInfo) {
	c.mu.Lock()
	if old := c.entries[name]; old != nil {
		c.total -= old.size
	}
	c.entries[name] = &entry{name: name, size: info.Size(), used: time.Now(), verified: info.ModTime()}
	c.total += info.Size()
	c.mu.Unlock()
	c.evict(name)
}

func (c *cache) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.entries[name]; old != nil {
		c.total -= old.size
		delete(c.entries, name)
	}
}

// evict deletes the least recently used blobs until the rest fits; never keep. A reader of an open file is not affected.
func (c *cache) evict(keep string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total <= c.max {
		return
	}
	oldest := make([]*entry, 0, len(c.entries))
	for _, e := range c.entries {
		oldest = append(oldest, e)
	}
	slices.SortFunc(oldest, func(a, b *entry) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.name, b.name)) })
	for _, e := range oldest {
		if c.total <= c.max {
			return
		}
		if e.name == keep {
			continue
		}
		_ = os.Remove(filepath.Join(c.dir, e.name))
		c.total -= e.size
		delete(c.entries, e.name)
	}
}
