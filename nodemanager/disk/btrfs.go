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

// Btrfs is a btrfs whose quota groups hold containers to a size. The kernel gives up on them when it finds that they do not add up,
// as it does now and then when a group is deleted soon after its subvolume: no size is held to any more, until somebody has them
// counted again.
type Btrfs struct {
	dir string
	// inconsistent is the kernel's file that says 1 when it has given up.
	inconsistent string
	recounts     atomic.Int64
}

// The requests of linux/btrfs.h, and the sizes of what they take.
const (
	btrfsInfo       = 0x8400941f
	btrfsRescan     = 0x4040942c
	btrfsInfoSize   = 1024
	btrfsRescanSize = 64
	// fsid is where the answer to btrfsInfo has the file system's id.
	fsid = 16
)

// OpenBtrfs finds the file system that a folder is on. It fails with an error if that is no btrfs.
func OpenBtrfs(dir string) (*Btrfs, error) {
	info := make([]byte, btrfsInfoSize)
	if err := btrfsRequest(dir, btrfsInfo, info); err != nil {
		return nil, fmt.Errorf("ask for the btrfs of %s: %w", dir, err)
	}
	id := info[fsid : fsid+16]
	name := fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	return &Btrfs{dir: dir, inconsistent: filepath.Join("/sys/fs/btrfs", name, "qgroups/inconsistent")}, nil
}

// Holds reports whether sizes are held to. A kernel that does not say is believed to.
func (b *Btrfs) Holds() bool {
	said, err := os.ReadFile(b.inconsistent)
	return err != nil || strings.TrimSpace(string(said)) != "1"
}

// Recount has the kernel count all quota groups anew, after which sizes are held to again. It does not wait for that. begun is false
// if it counts already.
func (b *Btrfs) Recount() (begun bool, err error) {
	err = btrfsRequest(b.dir, btrfsRescan, make([]byte, btrfsRescanSize))
	if errors.Is(err, unix.EINPROGRESS) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("have the quota groups of %s counted again: %w", b.dir, err)
	}
	b.recounts.Add(1)
	return true, nil
}

// Recounts is how often that was begun: whoever is on the file system since before may have written more than its size.
func (b *Btrfs) Recounts() int64 { return b.recounts.Load() }

func btrfsRequest(dir string, request uintptr, argument []byte) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it was not written
	if _, _, failed := unix.Syscall(unix.SYS_IOCTL, file.Fd(), request, uintptr(unsafe.Pointer(&argument[0]))); failed != 0 {
		return failed
	}
	return nil
}
