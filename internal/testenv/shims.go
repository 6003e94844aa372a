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

// EndShims ends the container shims of an engine that has ended, by the folder of its containerd's socket: sometimes
// containerd ends before it has told a shim that its container has. Nothing else of them is left to end.
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
