// Package disk measures what containers write, and enforces their quota if the storage driver cannot.
//
// A Watcher owns the list of containers that it measures, and one goroutine for all of them. It reports who is over the quota; the
// runtime stops the container.
package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// Free is how many bytes an unprivileged process can still write to the file system of path, and its size.
func Free(path string) (free, total int64, err error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return 0, 0, fmt.Errorf("free space of %s: %w", path, err)
	}
	return int64(stat.Bavail) * stat.Bsize, int64(stat.Blocks) * stat.Bsize, nil
}

const (
	// fewFiles is how many files are always counted, and soon how long counting may go on after that.
	fewFiles = 1000
	soon     = 250 * time.Millisecond
)

// UsageSoon is Usage with a time limit. It counts a thousand files, and then more for up to a quarter of a second. If there are
// still more, the result is too low.
func UsageSoon(paths ...string) (int64, error) { return usageSoon(soon, paths) }

func usageSoon(soon time.Duration, paths []string) (int64, error) {
	began, counted := time.Now(), 0
	return usage(paths, func() bool {
		counted++
		return counted <= fewFiles || time.Since(began) < soon
	})
}

// file identifies a file.
type file struct{ device, inode uint64 }

// Usage is the disk space of everything at and below paths: holes do not count, and a file with several names counts once.
// Files that disappear during the walk are skipped.
func Usage(paths ...string) (int64, error) {
	return usage(paths, func() bool { return true })
}

func usage(paths []string, more func() bool) (int64, error) {
	var total int64
	seen := make(map[file]bool)
	for _, path := range paths {
		used, err := walk(path, seen, func(*unix.Stat_t) bool { return true }, more)
		if err != nil {
			return 0, err
		}
		total += used
	}
	return total, nil
}

// UsageOfRoot is the disk space of everything on the file system of a process's root, including its image.
func UsageOfRoot(pid int) (int64, error) {
	root := fmt.Sprintf("/proc/%d/root/", pid)
	var top unix.Stat_t
	if err := unix.Stat(root, &top); err != nil {
		return 0, fmt.Errorf("look at the root of process %d: %w", pid, err)
	}
	return walk(root, make(map[file]bool), func(stat *unix.Stat_t) bool { return stat.Dev == top.Dev }, func() bool { return true })
}

// walk adds up the disk space of the files at and below a path that within accepts. It skips files in seen, and stops when more
// returns false.
func walk(path string, seen map[file]bool, within func(*unix.Stat_t) bool, more func() bool) (int64, error) {
	var total int64
	err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if !more() {
			return fs.SkipAll
		}
		var stat unix.Stat_t
		if err == nil {
			err = unix.Lstat(name, &stat)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !within(&stat) && entry.IsDir():
			return fs.SkipDir
		case !within(&stat):
			return nil
		}
		if stat.Nlink > 1 && stat.Mode&unix.S_IFMT == unix.S_IFREG {
			if seen[file{stat.Dev, stat.Ino}] {
				return nil
			}
			seen[file{stat.Dev, stat.Ino}] = true
		}
		total += stat.Blocks * 512
		return nil
	})
	return total, err
}

// Deleted is the size of deleted files that the processes have open, which no walk finds.
func Deleted(pids []int) int64 {
	var total int64
	seen := make(map[file]bool)
	for _, pid := range pids {
		folder := "/proc/" + strconv.Itoa(pid) + "/fd"
		descriptors, err := os.ReadDir(folder)
		if err != nil {
			continue // it has ended
		}
		for _, descriptor := range descriptors {
			path := filepath.Join(folder, descriptor.Name())
			target, err := os.Readlink(path)
			if err != nil || !strings.HasSuffix(target, " (deleted)") {
				continue
			}
			var stat unix.Stat_t
			var system unix.Statfs_t
			if unix.Stat(path, &stat) != nil || unix.Statfs(path, &system) != nil {
				continue
			}
			onDisk := stat.Mode&unix.S_IFMT == unix.S_IFREG && stat.Nlink == 0 &&
				system.Type != unix.TMPFS_MAGIC && system.Type != unix.HUGETLBFS_MAGIC
			if key := (file{stat.Dev, stat.Ino}); onDisk && !seen[key] {
				seen[key] = true
				total += stat.Blocks * 512
			}
		}
	}
	return total
}

// Exceeded is the message about a container that has exceeded its disk quota.
func Exceeded(used, quota int64) string {
	return fmt.Sprintf("disk quota exceeded (%s of %s)", resource.FormatBytes(used), resource.FormatBytes(quota))
}

// DriverMayQuota reports whether Docker's storage driver, according to the engine, may be able to enforce a size. That is
// certain once it has accepted one.
func DriverMayQuota(driver string, status [][2]string) bool {
	switch driver {
	case "btrfs", "zfs":
		return true
	case "overlay2", "vfs":
		// It can on xfs with project quotas; the mount option is not in the status.
		return slices.Contains(status, [2]string{"Backing Filesystem", "xfs"})
	}
	return false
}
