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
	// failing is asked before each step that may fail; nil never fails.
	failing func(step string) error
}

func (d disk) path(name string) string { return filepath.Join(d.dir, name) }

func (d disk) fault(step string) error {
	if d.failing == nil {
		return nil
	}
	return d.failing(step)
}

// makeFile makes a whole file, or none.
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

// newSuffix is what a file is called until it is whole.
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

// spareName is the file that the next run is written into: its room is taken beforehand.
const spareName = "spare"

// reserve has the spare file take so much room. On a file system that cannot, there is none.
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

// lowRoom is how much room the disk must have beyond what is reserved for changes to be welcome.
const lowRoom = 4 << 20

// room says whether the disk has room: nil, or an error of the class that errFull has.
func (d disk) room() error {
	var stat unix.Statfs_t
	if err := unix.Statfs(d.dir, &stat); err != nil {
		return nil // nothing is known against it
	}
	if int64(stat.Bavail)*stat.Bsize < lowRoom {
		return d.full(nil)
	}
	return nil
}

// full is the sentence for a disk without room.
func (d disk) full(cause error) error {
	if cause == nil {
		return fmt.Errorf("the disk of %s is full; make room there, and changes are taken again: %w", d.dir, errdefs.ErrResourceExhausted)
	}
	return fmt.Errorf("the disk of %s is full (%w); make room there, and changes are taken again: %w", d.dir, cause, errdefs.ErrResourceExhausted)
}

func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
