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
	// firstFree and pastFree bound the ports that FreePort looks among.
	firstFree, pastFree = 10_000, 20_000
	// freeTries is how many of them it looks at.
	freeTries = 1000
)

// FreePort gives a port of 127.0.0.1 that no socket holds, neither of TCP nor of UDP, and for which allowed says yes. Unless the
// kernel may give all of them to sockets that connect, it is none of those: such a port can be gone before anybody listens on it,
// and while whoever does is restarted.
func FreePort(allowed func(port int) bool) (int, error) {
	first, last := connecting()
	for try := range freeTries {
		port := firstFree + rand.IntN(pastFree-firstFree)
		kept := port < first || port > last || try >= freeTries/2
		if kept && isFree(port) && allowed(port) {
			return port, nil
		}
	}
	return 0, errors.New("no free port was found")
}

// connecting gives the first and the last port that the kernel takes for sockets that connect.
func connecting() (first, last int) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(string(text), &first, &last)
	}
	if err != nil {
		return 32_768, 60_999 // as Linux comes
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
