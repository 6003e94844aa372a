package balancer

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
)

// LockFolder creates a folder and locks it for this process until the file is closed.
func LockFolder(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create the balancer's folder: %w", err)
	}
	lock, err := Lock(filepath.Join(dir, "companion.lock"))
	if errdefs.IsFailedPrecondition(err) {
		return nil, fmt.Errorf("another companion manages the balancer in %s; end it, or choose another folder: %w", dir, errdefs.ErrFailedPrecondition)
	}
	return lock, err
}

// Lock locks a file for this companion, and creates it if needed. Closing the file, or the end of the process, unlocks it.
// If it is locked, the error is errdefs.ErrFailedPrecondition.
func Lock(path string) (*os.File, error) {
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the balancer: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("another companion has locked %s: %w", path, errdefs.ErrFailedPrecondition)
	}
	return lock, nil
}

// WriteFile writes a file in place and syncs it. Only its owner can read it, because it may have secrets. A crash may leave a part of it:
// write what must be whole beside the file and rename it.
func WriteFile(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write the balancer's configuration: %w", err)
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write the balancer's configuration: %w", err)
	}
	return nil
}

// Launch runs a command that starts a daemon, in a session of its own, so that it outlives the companion. Its output goes to
// a file, because a pipe that the daemon inherits would never end.
func Launch(command *exec.Cmd, output string) ([]byte, error) {
	file, err := os.Create(output)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	command.Stdout, command.Stderr = file, file
	runErr := command.Run()
	text, _ := os.ReadFile(output)
	return text, runErr
}

// HasEnded reports whether a process has ended, even if its parent has not waited for it.
func HasEnded(pid int) bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return true
	}
	// The program's name, in parentheses, may have any characters.
	name := bytes.LastIndexByte(text, ')')
	return name < 0 || len(text) < name+3 || text[name+2] == 'Z'
}

// CheckPort is one sentence about why a port cannot be listened on; empty if it is free.
func CheckPort(host string, port int32) string {
	listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
	if err != nil {
		return fmt.Sprintf("tcp port %d is in use by another program on the balancer's machine", port)
	}
	_ = listener.Close()
	return ""
}

// LastLine is the last line of a program's output, or else its error.
func LastLine(out []byte, err error) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
		return last
	}
	return err.Error()
}

// Pause waits a moment, or until ctx ends.
func Pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// CheckFrontAddress returns what is wrong with a front address.
func CheckFrontAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	number, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || number == 0 || net.ParseIP(host) == nil {
		return fmt.Errorf("the front address %q must be IP:PORT: %w", address, errdefs.ErrInvalidArgument)
	}
	return nil
}

// MaxConnections is how many connections a proxy can have under this process's limit of file descriptors: each may need two, to its client and
// to its instance, and old processes have theirs too.
func MaxConnections() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 512
	}
	return int(min(max(limit.Max, 1200)-200, 65536) / 4)
}
