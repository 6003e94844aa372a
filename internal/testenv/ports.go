package testenv

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/sockets"
)

// FreePort gives a port of 127.0.0.1 that nobody else takes before it is listened on, nor while whoever does is restarted: the
// kernel gives it to no socket that connects, and no other call gives it while this process runs, in any process of tests.
func FreePort() (int, error) {
	return sockets.FreePort(claim)
}

// Port is such a port for a test, which fails if there is none.
func Port(t testing.TB) int {
	t.Helper()
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// FreeAddress is 127.0.0.1 with such a port.
func FreeAddress() (string, error) {
	port, err := FreePort()
	return fmt.Sprint("127.0.0.1:", port), err
}

// claim keeps a port from the other calls. What is held for it is a name in the network namespace that the port is in, and ends
// with the process.
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
