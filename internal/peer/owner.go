package peer

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/sockets"
)

// owner is the user id of the socket at the other end of a loopback connection.
func owner(connection net.Conn) (uid uint32, known bool) {
	ours, theirs := address(connection.LocalAddr()), address(connection.RemoteAddr())
	if !ours.IsValid() || !theirs.IsValid() || !ours.Addr().IsLoopback() || !theirs.Addr().IsLoopback() {
		return 0, false
	}
	found, err := sockets.Find(theirs, ours)
	// For a socket in any other state the kernel reports root, since its process has closed it or is about to. That must not be
	// trusted.
	if err != nil || found.State != sockets.Established || found.Inode == 0 || found.Local != theirs || found.Remote != ours {
		return 0, false
	}
	// If this end is still connected, the socket is its peer, and not a later one of another user on the same port.
	if !connected(connection) {
		return 0, false
	}
	return found.UID, true
}

func address(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := tcp.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
}

// connected reports whether the client has neither closed nor reset the connection.
func connected(connection net.Conn) bool {
	holder, ok := connection.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := holder.SyscallConn()
	if err != nil {
		return false
	}
	state := uint8(0)
	err = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			state = info.State
		}
	})
	return err == nil && state == sockets.Established
}
