// Package sockets asks the kernel about the TCP sockets of this network namespace: whose one of them is, and which ports are
// bound. It asks over netlink, and reads /proc/net/tcp and tcp6 where the kernel does not answer that.
package sockets

import (
	"errors"
	"net/netip"
)

// States of a socket, as the kernel numbers them.
const (
	Established = 1
	// timeWait is a connection that is over: its port can be bound again.
	timeWait = 6
)

// ErrNone means that the kernel knows no such socket in this network namespace.
var ErrNone = errors.New("no such socket")

// Socket is one TCP socket.
type Socket struct {
	Local, Remote netip.AddrPort
	State         uint8
	// UID is the user whose it is. Of a socket that no process holds the kernel says that it is root's.
	UID uint32
	// Held says that a process has it: it has an inode.
	Held bool
}

// Find gives the one socket between two addresses.
func Find(local, remote netip.AddrPort) (Socket, error) {
	found, err := diagnose(local, remote)
	if err != nil {
		// Also for an error that says it does not exist: so does a kernel without the module.
		return findInTables("/proc/net", local, remote)
	}
	return found, nil
}

// BoundPorts are the local ports of all sockets that nobody else can bind.
func BoundPorts() (map[int]bool, error) {
	bound, err := dumpPorts()
	if err != nil {
		return portsInTables("/proc/net")
	}
	return bound, nil
}
