package images

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func blobPath(dir string, sum digest.Digest) string {
	return filepath.Join(dir, ocispec.ImageBlobsDir, "sha256", sum.Encoded())
}

// blobDir is the folder of a store's blobs.
func blobDir(dir string) string { return filepath.Join(dir, ocispec.ImageBlobsDir, "sha256") }

// checkDigest refuses what is not the name of a blob.
func checkDigest(sum digest.Digest) error {
	if err := sum.Validate(); err != nil {
		return fmt.Errorf("%q is not a digest: %w", sum, errdefs.ErrInvalidArgument)
	}
	if sum.Algorithm() != digest.SHA256 {
		return fmt.Errorf("%s is not a sha256 digest, and the store has no others: %w", sum, errdefs.ErrInvalidArgument)
	}
	return nil
}

// blobs owns the files of the blobs: they are written once, under the digest of their content.
type blobs struct {
	dir string
	// stored is the size of all.
	stored atomic.Int64
}

// openBlobs looks at the blobs of a store's folder.
func openBlobs(dir string) (*blobs, error) {
	b := &blobs{dir: blobDir(dir)}
	stored, err := b.measure()
	b.stored.Store(stored)
	return b, err
}

// bytes is the size of all blobs.
func (b *blobs) bytes() int64 { return b.stored.Load() }

func (b *blobs) path(sum digest.Digest) string { return filepath.Join(b.dir, sum.Encoded()) }

// open opens a blob. It fails with errdefs.ErrNotFound if the store has none.
func (b *blobs) open(sum digest.Digest) (*os.File, error) {
	if _, err := b.size(sum); err != nil {
		return nil, err
	}
	file, err := os.Open(b.path(sum))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the store has no blob %s: %w", sum, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open a blob: %w", err)
	}
	return file, nil
}

// size returns the size of a blob. It fails with errdefs.ErrNotFound if the store has none.
func (b *blobs) size(sum digest.Digest) (int64, error) {
	if err := checkDigest(sum); err != nil {
		return 0, err
	}
	info, err := os.Stat(b.path(sum))
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("the store has no blob %s: %w", sum, errdefs.ErrNotFound)
	}
	if err != nil {
		return 0, fmt.Errorf("look for a blob: %w", err)
	}
	return info.Size(), nil
}

// adopt moves files with known digests to the blobs. Existing blobs are left alone. The caller holds the lock of
// the contents, so that nothing is collected before the catalog names it, and has synced large files, so that others need not wait
// for that.
func (b *blobs) adopt(files map[digest.Digest]string) error {
	for sum, path := range files {
		target := b.path(sum)
		if _, err := os.Stat(target); err == nil {
			continue
		}
		err := syncFile(path)
		var info os.FileInfo
		if err == nil {
			info, err = os.Stat(path)
		}
		if err == nil {
			err = os.Rename(path, target)
		}
		if err != nil {
			return fmt.Errorf("store a blob: %w", diskError(err))
		}
		b.stored.Add(info.Size())
	}
	if err := syncDir(b.dir); err != nil {
		return fmt.Errorf("store blobs: %w", diskError(err))
	}
	return nil
}

// deleteOthers deletes every blob that is not in keep, manifests first: after a crash a name without its manifest means
// nothing, while a manifest without its layers would be half an image.
func (b *blobs) deleteOthers(keep map[digest.Digest]bool, isManifest func(digest.Digest) bool) (freed int64, err error) {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return 0, fmt.Errorf("list the blobs: %w", err)
	}
	var manifests, others []os.FileInfo
	for _, entry := range entries {
		sum := digest.NewDigestFromEncoded(digest.SHA256, entry.Name())
		if keep[sum] {
			continue
		}
		info, err := entry.Info()
		if err != nil {
			return freed, fmt.Errorf("look at a blob: %w", err)
		}
		if isManifest(sum) {
			manifests = append(manifests, info)
		} else {
			others = append(others, info)
		}
	}
	for _, info := range slices.Concat(manifests, others) {
		if err := os.Remove(filepath.Join(b.dir, info.Name())); err != nil {
			return freed, fmt.Errorf("delete a blob: %w", err)
		}
		freed += info.Size()
		b.stored.Add(-info.Size())
	}
	return freed, nil
}

// measure is the disk space of all blobs.
func (b *blobs) measure() (int64, error) {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return 0, fmt.Errorf("list the blobs: %w", err)
	}
	var total int64
	for _, entry := range entries {
		info, err := entry.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("look at a blob: %w", err)
		}
		total += info.Size()
	}
	return total, nil
}

// read reads a small blob: a manifest or a config.
func (b *blobs) read(sum digest.Digest) ([]byte, error) {
	size, err := b.size(sum)
	if err != nil {
		return nil, err
	}
	if size > maxJSON {
		return nil, invalid("%s is too long for a manifest or config: %d bytes", sum, size)
	}
	content, err := os.ReadFile(b.path(sum))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the store has no blob %s: %w", sum, errdefs.ErrNotFound)
	}
	return content, err
}

// writeNew writes and syncs a file under a new name, which it returns.
func writeNew(dir string, content []byte) (path string, err error) {
	file, err := os.CreateTemp(dir, "new-*")
	if err != nil {
		return "", err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return "", errors.Join(err, os.Remove(file.Name()))
	}
	return file.Name(), nil
}

// replaceFile replaces a file atomically and durably. The new content is written under incoming first.
func replaceFile(dir, name string, content []byte) error {
	path, err := writeNew(filepath.Join(dir, incoming), content)
	if err != nil {
		return err
	}
	if err := os.Rename(path, filepath.Join(dir, name)); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return syncDir(dir)
}

func syncFile(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// diskError classifies the error of a full disk.
func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("the image store's disk is full (%w): %w", err, errdefs.ErrResourceExhausted)
	}
	return err
}
