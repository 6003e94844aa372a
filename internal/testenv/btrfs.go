package testenv

import (
	"fmt"
	"os/exec"
)

// MountBtrfs makes a file of a size that truncate reads ("2G"), with a btrfs in it, and mounts it on dir. An unmount gives the loop
// device back.
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
