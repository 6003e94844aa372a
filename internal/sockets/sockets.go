// Package sockets asks the kernel about the TCP sockets of this network namespace: the user of a socket, the listening sockets and those
// of Unix sockets, the bound ports, and the range of ephemeral ports. It uses netlink, and reads /proc/net/tcp and tcp6 if the kernel does
// not support that.
package sockets

import (
	"errors"
	"net/netip"
)

// States of a socket, as the kernel numbers them.
const (
	Established = 1
	// timeWait is a closed connection: its port can be bound again.
	timeWait  = 6
	listening = 10
)

// ErrNone means that the kernel knows no such socket in this network namespace.
var ErrNone = errors.New("no such socket")

// Socket is one TCP socket.
type Socket struct {
	Local, Remote netip.AddrPort
	State         uint8
	// UID is the socket's user. For a socket without a process the kernel reports root.
	UID uint32
	// Inode is the number of its inode; 0 if no process has the socket open.
	Inode uint64
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
	bound := map[int]bool{}
	err := list(func(s Socket) {
		if s.State != timeWait {
			bound[int(s.Local.Port())] = true
		}
	})
	return bound, err
}

// Listening returns the inodes of the TCP and Unix sockets on which connections are accepted. A process that has one open has a link to
// socket:[INODE] among its files.
func Listening() (map[uint64]bool, error) {
	accepting := map[uint64]bool{}
	err := list(func(s Socket) {
		if s.State == listening {
			accepting[s.Inode] = true
		}
	})
	if err != nil {
		return nil, err
	}
	return accepting, eachUnixListener("/proc/net", func(inode uint64) { accepting[inode] = true })
}

// list calls each for all sockets, and for some of them perhaps twice.
func list(each func(Socket)) error {
	if dump(each) == nil {
		return nil
	}
	return eachRow("/proc/net", func(s Socket) bool {
		each(s)
		return true
	})
}
