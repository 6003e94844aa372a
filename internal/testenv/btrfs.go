package testenv

import (
	"fmt"
	"os/exec"
)

// MountBtrfs creates a file with a btrfs and mounts it on dir. size is in the format of truncate, such as "2G". An unmount also
// frees the loop device.
func MountBtrfs(file, size, dir string) error {
	for _, command := range [][]string{
		{"truncate", "-s", size, file}, {"mkfs.btrfs", "-q", file}, {"mount", "-o", "loop", file, dir},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", command, err, out)
		}
	}
	return nil
}
