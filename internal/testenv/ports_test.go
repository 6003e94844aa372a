package testenv

import (
	"fmt"
	"net"
	"testing"
)

func TestAPortIsGivenOnce(t *testing.T) {
	given := map[int]bool{}
	for range 20 {
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if given[port] || claim(port) {
			t.Errorf("%d is given again", port)
		}
		given[port] = true
	}
}

// The caller can listen on the port repeatedly.
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
}
