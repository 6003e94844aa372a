package sockets

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

const (
	// firstFree and pastFree are the range from which FreePort chooses.
	firstFree, pastFree = 10_000, 20_000
	// freeTries is how many ports it tries.
	freeTries = 1000
)

// FreePort returns a port of 127.0.0.1 that no TCP or UDP socket has bound and that allowed accepts. It avoids the kernel's
// ephemeral range if it can: the kernel could give such a port to another connection before the caller listens on it, or while the
// caller restarts.
func FreePort(allowed func(port int) bool) (int, error) {
	first, last := EphemeralRange()
	for try := range freeTries {
		port := firstFree + rand.IntN(pastFree-firstFree)
		kept := port < first || port > last || try >= freeTries/2
		if kept && isFree(port) && allowed(port) {
			return port, nil
		}
	}
	return 0, errors.New("no free port was found")
}

// EphemeralRange returns the first and the last port of the range from which the kernel takes the port of a socket that is not bound.
func EphemeralRange() (first, last int) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(string(text), &first, &last)
	}
	if err != nil {
		return 32_768, 60_999 // Linux's default
	}
	return first, last
}

func isFree(port int) bool {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	stream, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	_ = stream.Close()
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	_ = packets.Close()
	return true
}
