package sockets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Layouts of linux/inet_diag.h: headers in the machine's byte order, addresses and ports in the network's.
const (
	questionSize = 56
	answerSize   = 72
)

// diagnose asks for the one socket between two addresses. The kernel finds it in its hash table, whatever the number of
// others.
//
// netlink.SocketGet does not: it makes the kernel list all sockets and compares ports but not addresses. Of two with the
// same ports it returns either, and it fails for three; anybody can open such sockets, on other addresses of the loopback
// network. Nor does it find an IPv4 connection of an IPv6 socket, such as Java's.
func diagnose(local, remote netip.AddrPort) (Socket, error) {
	request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	request.AddData(question{local, remote})
	answers, err := request.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	if err != nil {
		return Socket{}, fmt.Errorf("%w: %w", ErrNone, err)
	}
	if len(answers) != 1 {
		return Socket{}, fmt.Errorf("the kernel answers with %d sockets: %w", len(answers), ErrNone)
	}
	return readAnswer(answers[0])
}

// question is a struct inet_diag_req_v2 about a connection.
type question struct{ local, remote netip.AddrPort }

// Len implements nl.NetlinkRequestData.
func (question) Len() int { return questionSize }

// Serialize implements nl.NetlinkRequestData.
func (q question) Serialize() []byte {
	native, network := binary.NativeEndian, binary.BigEndian
	body := make([]byte, questionSize)
	body[0], body[1] = unix.AF_INET, unix.IPPROTO_TCP
	if q.local.Addr().Is6() {
		body[0] = unix.AF_INET6
	}
	native.PutUint32(body[4:], 1<<Established)
	network.PutUint16(body[8:], q.local.Port())
	network.PutUint16(body[10:], q.remote.Port())
	copy(body[12:28], q.local.Addr().AsSlice())
	copy(body[28:44], q.remote.Addr().AsSlice())
	native.PutUint32(body[48:], nl.TCPDIAG_NOCOOKIE)
	native.PutUint32(body[52:], nl.TCPDIAG_NOCOOKIE)
	return body
}

// readAnswer reads a struct inet_diag_msg.
func readAnswer(body []byte) (Socket, error) {
	native, network := binary.NativeEndian, binary.BigEndian
	if len(body) < answerSize {
		return Socket{}, fmt.Errorf("the kernel's answer has %d bytes: %w", len(body), ErrNone)
	}
	length := 4
	if body[0] == unix.AF_INET6 {
		length = 16
	}
	local, _ := netip.AddrFromSlice(body[8 : 8+length])
	remote, _ := netip.AddrFromSlice(body[24 : 24+length])
	return Socket{
		Local:  netip.AddrPortFrom(local.Unmap(), network.Uint16(body[4:])),
		Remote: netip.AddrPortFrom(remote.Unmap(), network.Uint16(body[6:])),
		State:  body[1],
		UID:    native.Uint32(body[64:]),
		Inode:  uint64(native.Uint32(body[68:])),
	}, nil
}

// dump calls each for all sockets. A list that changes meanwhile may be incomplete, so it is repeated a few times.
func dump(each func(Socket)) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := netlink.SocketDiagTCP(family)
		for range 3 {
			if !errors.Is(err, netlink.ErrDumpInterrupted) {
				break
			}
			sockets, err = netlink.SocketDiagTCP(family)
		}
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return fmt.Errorf("list the sockets of this machine: %w", err)
		}
		for _, socket := range sockets {
			local, _ := netip.AddrFromSlice(socket.ID.Source)
			remote, _ := netip.AddrFromSlice(socket.ID.Destination)
			each(Socket{
				Local:  netip.AddrPortFrom(local.Unmap(), socket.ID.SourcePort),
				Remote: netip.AddrPortFrom(remote.Unmap(), socket.ID.DestinationPort),
				State:  socket.State, UID: socket.UID, Inode: uint64(socket.INode),
			})
		}
	}
	return nil
}
