package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// EndShims ends the container shims that an ended engine has left. dir is the folder of its containerd's socket. A shim remains if
// containerd ends before it has handled the end of the shim's container.
func EndShims(dir string) error {
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, file := range processes {
		line, readErr := os.ReadFile(file)
		args := bytes.Split(line, []byte{0})
		if readErr != nil || filepath.Base(string(args[0])) != "containerd-shim-runc-v2" || !bytes.Contains(line, []byte("\x00"+dir+"/")) {
			continue // It may have gone meanwhile.
		}
		pid, parseErr := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if parseErr != nil {
			return fmt.Errorf("%s: %w", file, parseErr)
		}
		if killed := unix.Kill(pid, unix.SIGKILL); killed != nil && !errors.Is(killed, unix.ESRCH) {
			err = errors.Join(err, fmt.Errorf("end the shim %d: %w", pid, killed))
		}
	}
	return err
}
