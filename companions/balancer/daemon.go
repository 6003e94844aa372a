package balancer

import (
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

// LockFolder makes a folder and takes it for this process alone, until the file is closed.
func LockFolder(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the balancer's folder: %w", err)
	}
	lock, err := Lock(filepath.Join(dir, "companion.lock"))
	if errdefs.IsFailedPrecondition(err) {
		return nil, fmt.Errorf("another companion keeps the balancer in %s; end it, or choose another folder: %w", dir, errdefs.ErrFailedPrecondition)
	}
	return lock, err
}

// Lock takes a file for this companion alone. The file is made if need be; closing it, or dying, lets go. If another
// one has it, that is errdefs.ErrFailedPrecondition.
func Lock(path string) (*os.File, error) {
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking the balancer: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("another companion has %s: %w", path, errdefs.ErrFailedPrecondition)
	}
	return lock, nil
}

// WriteFile writes a file that is whole and on disk when it is there, and nobody else's to read: there are secrets in it.
func WriteFile(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("writing the balancer's configuration: %w", err)
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("writing the balancer's configuration: %w", err)
	}
	return nil
}

// Launch runs a command that leaves a daemon behind, in a session of its own, so that it outlives the companion.
// Its output goes to a file rather than a pipe: a pipe that the daemon inherits would never be seen to end.
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

// Zombie reports whether a process has ended, even if nobody has taken note of it.
func Zombie(pid int) bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return rest == "" || rest[0] == 'Z'
}

// PortProblem says in one sentence why nobody can listen on a port of an address; empty if it is free.
func PortProblem(host string, port int32) string {
	listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
	if err != nil {
		return fmt.Sprintf("tcp port %d is in use by another program on the balancer's machine", port)
	}
	_ = listener.Close()
	return ""
}

// LastLine is the last thing that a program said, or else how it ended.
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

// CheckFront says what is wrong with a front address.
func CheckFront(address string) error {
	host, port, err := net.SplitHostPort(address)
	number, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || number == 0 || net.ParseIP(host) == nil {
		return fmt.Errorf("the front address %q must be IP:PORT: %w", address, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Connections is how many connections a proxy can hold at most, at two files each, under this machine's limit.
func Connections() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 512
	}
	return int(min(max(limit.Max, 1200)-200, 65536) / 4)
}
