package testenv

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// RemoveGroups removes the control group with a name at the top of every hierarchy, and all groups below it. Tests use it for the
// parent group of an engine's containers. It fails if a process is in one of them.
func RemoveGroups(name string) error {
	const root = "/sys/fs/cgroup"
	tops, err := filepath.Glob(filepath.Join(root, "*", name)) // version 1, and version 2 beside it
	if err != nil {
		return err
	}
	var groups []string
	for _, top := range append(tops, filepath.Join(root, name)) {
		err = errors.Join(err, filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				groups = append(groups, path)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}))
	}
	// Children come after their parents in the list.
	for _, group := range slices.Backward(groups) {
		if removed := unix.Rmdir(group); removed != nil && !errors.Is(removed, unix.ENOENT) {
			err = errors.Join(err, &fs.PathError{Op: "rmdir", Path: group, Err: removed})
		}
	}
	return err
}
