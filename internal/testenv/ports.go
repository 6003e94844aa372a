package testenv

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/sockets"
)

// FreePort returns a port of 127.0.0.1 that stays free for the caller, also while a server that listens on it restarts. It is
// outside the kernel's ephemeral range, and while this process runs, no other call returns it, in any test process.
func FreePort() (int, error) {
	return sockets.FreePort(claim)
}

// Port is FreePort for a test, which fails if there is none.
func Port(t testing.TB) int {
	t.Helper()
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// FreeAddress is 127.0.0.1 with a port of FreePort.
func FreeAddress() (string, error) {
	port, err := FreePort()
	return fmt.Sprint("127.0.0.1:", port), err
}

// claim reserves a port for this process. It binds an abstract Unix socket named after the port, which exists in the same network
// namespace until the process ends.
func claim(port int) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprint("@mammoth-test-port-", port)}); err != nil {
		_ = unix.Close(fd)
		return false
	}
	return true
}
