package images

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func blobPath(dir string, sum digest.Digest) string {
	return filepath.Join(dir, ocispec.ImageBlobsDir, "sha256", sum.Encoded())
}

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

// blobSize returns the size of a blob. It fails with errdefs.ErrNotFound if the store has none.
func (s *Store) blobSize(sum digest.Digest) (int64, error) {
	if err := checkDigest(sum); err != nil {
		return 0, err
	}
	info, err := os.Stat(blobPath(s.dir, sum))
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("the store has no blob %s: %w", sum, errdefs.ErrNotFound)
	}
	if err != nil {
		return 0, fmt.Errorf("look for a blob: %w", err)
	}
	return info.Size(), nil
}

// adopt moves files with known digests to the blobs. Existing blobs are left alone. The caller holds mu, so that nothing is
// collected before the catalog names it, and has synced large files, so that others need not wait for that.
func (s *Store) adopt(files map[digest.Digest]string) error {
	for sum, path := range files {
		target := blobPath(s.dir, sum)
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
		s.storedBytes += info.Size()
	}
	if err := syncDir(s.blobDir()); err != nil {
		return fmt.Errorf("store blobs: %w", diskError(err))
	}
	return nil
}

// deleteBlobs deletes every blob that is not in keep, manifests first: after a crash a name without its manifest means
// nothing, while a manifest without its layers would be half an image. The caller holds mu.
func (s *Store) deleteBlobs(keep map[digest.Digest]bool) (freed int64, err error) {
	entries, err := os.ReadDir(s.blobDir())
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
		if _, isManifest := s.catalog.manifests[sum]; isManifest {
			manifests = append(manifests, info)
		} else {
			others = append(others, info)
		}
	}
	for _, info := range slices.Concat(manifests, others) {
		if err := os.Remove(filepath.Join(s.blobDir(), info.Name())); err != nil {
			return freed, fmt.Errorf("delete a blob: %w", err)
		}
		freed += info.Size()
		s.storedBytes -= info.Size()
	}
	return freed, nil
}

// StoredBytes is the disk space of all blobs.
func (s *Store) StoredBytes() (int64, error) {
	entries, err := os.ReadDir(s.blobDir())
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
