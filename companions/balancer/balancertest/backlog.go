package balancertest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// backlog is a listening socket on which nobody accepts connections.
type backlog struct{ fd, port int }

func (b backlog) close() { _ = unix.Close(b.fd) }

func listenWithoutBacklog() (backlog, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return backlog{}, fmt.Errorf("making a socket: %w", err)
	}
	b := backlog{fd: fd}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		b.close()
		return backlog{}, fmt.Errorf("binding a socket: %w", err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		b.close()
		return backlog{}, fmt.Errorf("listening: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		b.close()
		return backlog{}, fmt.Errorf("finding a socket's port: %w", err)
	}
	b.port = name.(*unix.SockaddrInet4).Port
	return b, nil
}
