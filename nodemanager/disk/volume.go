package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// Volume is a directory of a fixed size: an ext4 file system in a sparse file, mounted through a loop device. It
// outlives reboots; Mount brings it back.
type Volume struct {
	// File holds the file system.
	File string
	// Dir is where it is mounted.
	Dir string
}

// minVolume is the least size for which mkfs.ext4 leaves room beside its journal.
const minVolume = 16 << 20

// Create makes the file system and mounts it. One that exists already is mounted as it is.
func (v Volume) Create(ctx context.Context, size int64) error {
	if size < minVolume {
		return fmt.Errorf("a data volume of %s is too small; the least is %s: %w",
			resource.FormatBytes(size), resource.FormatBytes(minVolume), errdefs.ErrInvalidArgument)
	}
	if _, err := os.Stat(v.File); err == nil {
		return v.Mount(ctx)
	}
	if err := os.MkdirAll(filepath.Dir(v.File), 0o750); err != nil {
		return err
	}
	// It gets its name only once it is whole.
	unfinished := v.File + ".new"
	file, err := os.OpenFile(unfinished, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Truncate(size), file.Close()); err != nil {
		return err
	}
	// No blocks are kept back for root: the size is the container's.
	if err := tool(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1", unfinished); err != nil {
		return errors.Join(err, os.Remove(unfinished))
	}
	if err := os.Rename(unfinished, v.File); err != nil {
		return err
	}
	return v.Mount(ctx)
}

// Mount mounts the volume if it is not mounted.
func (v Volume) Mount(ctx context.Context) error {
	if mounted, err := v.mounted(); err != nil || mounted {
		return err
	}
	if err := os.MkdirAll(v.Dir, 0o755); err != nil {
		return err
	}
	return tool(ctx, "mount", "-o", "loop,nodev,nosuid", v.File, v.Dir)
}

// mounted compares the device of Dir with that of its parent.
func (v Volume) mounted() (bool, error) {
	var dir, parent unix.Stat_t
	if err := unix.Stat(v.Dir, &dir); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if err := unix.Stat(filepath.Dir(filepath.Clean(v.Dir)), &parent); err != nil {
		return false, err
	}
	return dir.Dev != parent.Dev, nil
}

// Grow makes a mounted volume larger, while it is in use where the kernel lets this process do that (it asks for
// CAP_SYS_RESOURCE), else between an unmount and a mount. It is never made smaller.
func (v Volume) Grow(ctx context.Context, size int64) error {
	info, err := os.Stat(v.File)
	if err != nil {
		return err
	}
	if size < info.Size() {
		return fmt.Errorf("a data volume of %s cannot be made smaller: %w", resource.FormatBytes(info.Size()), errdefs.ErrInvalidArgument)
	}
	if err := os.Truncate(v.File, size); err != nil {
		return err
	}
	device, err := v.device(ctx)
	if err != nil {
		return err
	}
	if err := tool(ctx, "losetup", "--set-capacity", device); err != nil {
		return err
	}
	if tool(ctx, "resize2fs", device) == nil {
		return nil
	}
	if err := v.Unmount(ctx); err != nil {
		return fmt.Errorf("a data volume in use cannot grow without CAP_SYS_RESOURCE (%w): %w", err, errdefs.ErrFailedPrecondition)
	}
	// resize2fs wants to see a checked file system.
	checked := mend(ctx, v.File)
	if checked == nil {
		checked = tool(ctx, "resize2fs", v.File)
	}
	return errors.Join(checked, v.Mount(ctx))
}

func (v Volume) device(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "losetup", "--noheadings", "--output", "NAME", "--associated", v.File).Output()
	if err != nil {
		return "", fmt.Errorf("losetup: %w", err)
	}
	device, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if device == "" {
		return "", fmt.Errorf("volume %s is not mounted: %w", v.File, errdefs.ErrFailedPrecondition)
	}
	return device, nil
}

// Unmount lets the loop device go; the data stays. Idempotent.
func (v Volume) Unmount(ctx context.Context) error {
	if mounted, err := v.mounted(); err != nil || !mounted {
		return err
	}
	return tool(ctx, "umount", v.Dir)
}

// Delete unmounts the volume and deletes its data. Idempotent.
func (v Volume) Delete(ctx context.Context) error {
	if err := v.Unmount(ctx); err != nil {
		return err
	}
	if err := os.Remove(v.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(v.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// mend checks a file system that is not mounted. e2fsck ends with 1 when it has mended something: then all is well.
func mend(ctx context.Context, file string) error {
	err := tool(ctx, "e2fsck", "-f", "-p", file)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil
	}
	return err
}

// tool runs a program of the system; what it says goes into the error.
func tool(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		said := strings.TrimSpace(string(out))
		return fmt.Errorf("%s: %w: %s", name, err, said[strings.LastIndexByte(said, '\n')+1:])
	}
	return nil
}
