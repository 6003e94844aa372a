package records

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// disk is the folder of a store.
type disk struct {
	dir    string
	noSync bool
	// failpoint is called before each step that may fail; nil never fails.
	failpoint func(step string) error
}

func (d disk) path(name string) string { return filepath.Join(d.dir, name) }

func (d disk) fault(step string) error {
	if d.failpoint == nil {
		return nil
	}
	return d.failpoint(step)
}

// makeFile creates a complete file, or none.
func (d disk) makeFile(name string, fill func(*os.File) error) error {
	file, err := os.OpenFile(d.path(name+newSuffix), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err = d.fault("make"); err == nil {
		err = fill(file)
	}
	if err == nil {
		err = d.sync(file)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(d.path(name+newSuffix)))
	}
	return d.rename(name+newSuffix, name)
}

// newSuffix is the suffix of incomplete files.
const newSuffix = ".new"

func (d disk) rename(from, to string) error {
	if err := d.fault("rename"); err != nil {
		return err
	}
	if err := os.Rename(d.path(from), d.path(to)); err != nil {
		return err
	}
	return d.syncFolder()
}

func (d disk) sync(file *os.File) error {
	if err := d.fault("sync"); err != nil || d.noSync {
		return err
	}
	return file.Sync()
}

func (d disk) syncFolder() error {
	if d.noSync {
		return nil
	}
	folder, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// spareName is the file for the next run, whose space is allocated in advance.
const spareName = "spare"

// reserve allocates the spare file, if the file system supports that.
func (d disk) reserve(size int64) error {
	file, err := os.OpenFile(d.path(spareName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err = d.fault("reserve"); err == nil {
		err = unix.Fallocate(int(file.Fd()), 0, 0, size)
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = nil
	}
	return errors.Join(err, file.Close())
}

// minFree is how much free space the disk must have in addition to the reserved space.
const minFree = 4 << 20

// room returns nil or an error of the class of errFull.
func (d disk) room() error {
	var stat unix.Statfs_t
	if err := unix.Statfs(d.dir, &stat); err != nil {
		return nil // unknown counts as free
	}
	if int64(stat.Bavail)*stat.Bsize < minFree {
		return d.full(nil)
	}
	return nil
}

// full is the error of a full disk.
func (d disk) full(cause error) error {
	if cause == nil {
		return fmt.Errorf("the disk of %s is full; make room there, and changes are taken again: %w", d.dir, errdefs.ErrResourceExhausted)
	}
	return fmt.Errorf("the disk of %s is full (%w); make room there, and changes are taken again: %w", d.dir, cause, errdefs.ErrResourceExhausted)
}

func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
