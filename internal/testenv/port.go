package testenv

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Port is a TCP port of 127.0.0.1 for a program that the test starts, and perhaps starts again. A socket that is bound to it and never
// listens keeps it until the test ends: meanwhile the kernel gives it to nobody who asks for any port, and takes it for no connection.
// A program that sets SO_REUSEADDR before it binds, as servers do and Go does, can listen on it.
func Port(t testing.TB) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return name.(*unix.SockaddrInet4).Port
}
