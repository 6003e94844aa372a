// Package sockets asks the kernel about the TCP sockets of this network namespace: the user of a socket, and the bound
// ports. It uses netlink, and reads /proc/net/tcp and tcp6 if the kernel does not support that.
package sockets

import (
	"errors"
	"net/netip"
)

// States of a socket, as the kernel numbers them.
const (
	Established = 1
	// timeWait is a closed connection: its port can be bound again.
	timeWait = 6
)

// ErrNone means that the kernel knows no such socket in this network namespace.
var ErrNone = errors.New("no such socket")

// Socket is one TCP socket.
type Socket struct {
	Local, Remote netip.AddrPort
	State         uint8
	// UID is the socket's user. For a socket without a process the kernel reports root.
	UID uint32
	// Held is true if a process has the socket open: it has an inode.
	Held bool
}

// Find returns the one socket between two addresses.
func Find(local, remote netip.AddrPort) (Socket, error) {
	found, err := diagnose(local, remote)
	if err != nil {
		// A kernel without the module also reports that the socket does not exist.
		return findInTables("/proc/net", local, remote)
	}
	return found, nil
}

// BoundPorts are the local ports of all sockets that cannot be bound again.
func BoundPorts() (map[int]bool, error) {
	bound, err := dumpPorts()
	if err != nil {
		return portsInTables("/proc/net")
	}
	return bound, nil
}
