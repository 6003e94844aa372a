package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// established is TCP_ESTABLISHED. A socket in any other state has lost its process, or is about to: the kernel then
// says that it is root's, which is the one answer that must not be believed.
const established = 1

// errNoSocket means that the kernel knows no such socket in this network namespace.
var errNoSocket = errors.New("no such socket")

// owner is the user id of the socket at the other end of a loopback connection.
func owner(connection net.Conn) (uid uint32, known bool) {
	ours, theirs := address(connection.LocalAddr()), address(connection.RemoteAddr())
	if !ours.IsValid() || !theirs.IsValid() || !ours.Addr().IsLoopback() || !theirs.Addr().IsLoopback() {
		return 0, false
	}
	found, err := diagnose(theirs, ours)
	if err != nil {
		// Also for an error that says it does not exist: so does a kernel without the module.
		found, err = readProc("/proc/net", theirs, ours)
	}
	if err != nil || found.state != established || !found.held || found.local != theirs || found.remote != ours {
		return 0, false
	}
	// Our end is still connected, so the socket that was just found is the one that it is connected with, and not a later
	// one of somebody else's on the same port.
	if !connected(connection) {
		return 0, false
	}
	return found.uid, true
}

func address(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := tcp.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
}

// connected reports whether the client has neither closed nor reset our end's other side.
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
	return err == nil && state == established
}

// socket is one TCP socket of this network namespace.
type socket struct {
	local, remote netip.AddrPort
	state         uint8
	uid           uint32
	// held says that a process has it: it has an inode.
	held bool
}

// Layouts of linux/netlink.h and linux/inet_diag.h: headers in the machine's byte order, addresses and ports in the network's.
const (
	headerSize  = 16
	requestSize = 56
	answerSize  = 72
	anyCookie   = 0xffffffff
)

// diagnose asks the kernel about the one socket between two addresses, whatever the number of others.
func diagnose(local, remote netip.AddrPort) (socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return socket{}, fmt.Errorf("ask the kernel for a socket's owner: %w", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return socket{}, fmt.Errorf("ask the kernel for a socket's owner: %w", err)
	}
	if err := unix.Sendto(fd, request(local, remote), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return socket{}, fmt.Errorf("ask the kernel for a socket's owner: %w", err)
	}
	answer := make([]byte, 4096)
	for {
		n, from, err := unix.Recvfrom(fd, answer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return socket{}, fmt.Errorf("hear of a socket's owner: %w", err)
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); ok && kernel.Pid == 0 {
			return readAnswer(answer[:n])
		}
	}
}

func request(local, remote netip.AddrPort) []byte {
	message := make([]byte, headerSize+requestSize)
	native, network := binary.NativeEndian, binary.BigEndian
	native.PutUint32(message[0:], uint32(len(message)))
	native.PutUint16(message[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(message[6:], unix.NLM_F_REQUEST)
	body := message[headerSize:]
	body[0], body[1] = unix.AF_INET, unix.IPPROTO_TCP
	if local.Addr().Is6() {
		body[0] = unix.AF_INET6
	}
	native.PutUint32(body[4:], 1<<established)
	network.PutUint16(body[8:], local.Port())
	network.PutUint16(body[10:], remote.Port())
	copy(body[12:28], local.Addr().AsSlice())
	copy(body[28:44], remote.Addr().AsSlice())
	native.PutUint32(body[48:], anyCookie)
	native.PutUint32(body[52:], anyCookie)
	return message
}

func readAnswer(message []byte) (socket, error) {
	native, network := binary.NativeEndian, binary.BigEndian
	if len(message) < headerSize+4 {
		return socket{}, fmt.Errorf("the kernel's answer has %d bytes: %w", len(message), errNoSocket)
	}
	kind, body := native.Uint16(message[4:]), message[headerSize:]
	switch {
	case kind == unix.NLMSG_ERROR:
		return socket{}, fmt.Errorf("%w: %w", errNoSocket, syscall.Errno(-int32(native.Uint32(body))))
	case kind != unix.SOCK_DIAG_BY_FAMILY || len(body) < answerSize:
		return socket{}, fmt.Errorf("the kernel's answer is of kind %d and has %d bytes: %w", kind, len(message), errNoSocket)
	}
	length := 4
	if body[0] == unix.AF_INET6 {
		length = 16
	}
	local, _ := netip.AddrFromSlice(body[8 : 8+length])
	remote, _ := netip.AddrFromSlice(body[24 : 24+length])
	return socket{
		local:  netip.AddrPortFrom(local.Unmap(), network.Uint16(body[4:])),
		remote: netip.AddrPortFrom(remote.Unmap(), network.Uint16(body[6:])),
		state:  body[1],
		uid:    native.Uint32(body[64:]),
		held:   native.Uint32(body[68:]) != 0,
	}, nil
}
