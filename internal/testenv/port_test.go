package testenv

import (
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Whoever was told the port listens on it, again and again; the kernel gives it to nobody else, also while nobody listens.
func TestAPortIsKeptForItsTest(t *testing.T) {
	port := Port(t)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	for range 3 {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		client, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = server.Close() // first, so that this end has the port for a while yet
		_ = client.Close()
		_ = listener.Close()
		if _, err := net.Dial("tcp", address); err == nil {
			t.Error("somebody answers though nobody listens")
		}
	}
	// What the kernel chooses for others it binds as this does.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != unix.EADDRINUSE {
		t.Errorf("a socket of somebody else: %v", err)
	}
}
