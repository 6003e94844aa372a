package testenv

import (
	"fmt"
	"os/exec"
	"strings"
)

// MountBtrfs makes a file of a size that truncate reads ("2G"), with a btrfs in it, and mounts it on dir. An unmount gives the loop
// device back.
//
// The device writes past the page cache. Otherwise the kernel charges what it caches of the file to the container that wrote, and a
// container near its memory quota can wait for writes that wait for memory of the container.
func MountBtrfs(file, size, dir string) error {
	if _, err := output("truncate", "-s", size, file); err != nil {
		return err
	}
	if _, err := output("mkfs.btrfs", "-q", file); err != nil {
		return err
	}
	device, err := output("losetup", "--find", "--show", "--direct-io=on", file)
	if err != nil {
		return err
	}
	_, mounting := output("mount", device, dir)
	// A device that is in use is detached when it is unmounted.
	if _, err := output("losetup", "--detach", device); err != nil && mounting == nil {
		return err
	}
	return mounting
}

func output(program string, args ...string) (string, error) {
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
