package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Btrfs is a btrfs file system whose quota groups enforce the size of containers. The kernel marks them inconsistent now and
// then, for example when a group is deleted soon after its subvolume: then it enforces nothing until a rescan.
type Btrfs struct {
	dir string
	// inconsistent is the kernel's file that is 1 in that case.
	inconsistent string
	rescans      atomic.Int64
}

// These are requests of linux/btrfs.h, and the sizes of their arguments.
const (
	btrfsInfo       = 0x8400941f
	btrfsRescan     = 0x4040942c
	btrfsInfoSize   = 1024
	btrfsRescanSize = 64
	// fsid is the offset of the file system's id in the answer to btrfsInfo.
	fsid = 16
)

// OpenBtrfs finds the file system of a folder. It fails if that is not btrfs.
func OpenBtrfs(dir string) (*Btrfs, error) {
	info := make([]byte, btrfsInfoSize)
	if err := btrfsRequest(dir, btrfsInfo, info); err != nil {
		return nil, fmt.Errorf("ask for the btrfs of %s: %w", dir, err)
	}
	id := info[fsid : fsid+16]
	name := fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	return &Btrfs{dir: dir, inconsistent: filepath.Join("/sys/fs/btrfs", name, "qgroups/inconsistent")}, nil
}

// Enforces reports whether sizes are enforced. A kernel without the file is assumed to.
func (b *Btrfs) Enforces() bool {
	text, err := os.ReadFile(b.inconsistent)
	return err != nil || strings.TrimSpace(string(text)) != "1"
}

// Rescan starts a rescan of all quota groups, after which sizes are enforced again. It does not wait. begun is false if a
// rescan is in progress.
func (b *Btrfs) Rescan() (begun bool, err error) {
	err = btrfsRequest(b.dir, btrfsRescan, make([]byte, btrfsRescanSize))
	if errors.Is(err, unix.EINPROGRESS) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("rescan the quota groups of %s: %w", b.dir, err)
	}
	b.rescans.Add(1)
	return true, nil
}

// Rescans is how many rescans were started. A container that is older than one may have exceeded its size.
func (b *Btrfs) Rescans() int64 { return b.rescans.Load() }

func btrfsRequest(dir string, request uintptr, argument []byte) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // nothing was written
	if _, _, failed := unix.Syscall(unix.SYS_IOCTL, file.Fd(), request, uintptr(unsafe.Pointer(&argument[0]))); failed != 0 {
		return failed
	}
	return nil
}
