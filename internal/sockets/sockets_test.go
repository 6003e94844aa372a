package sockets

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// connected gives the addresses of both ends of a connection to a new listener, and the port that the client is to have; zero is any.
func connected(t *testing.T, listen string, port int) (client, server netip.AddrPort) {
	t.Helper()
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	at := listener.Addr().(*net.TCPAddr)
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: at.IP, Port: port}}).Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.LocalAddr().(*net.TCPAddr).AddrPort(), conn.RemoteAddr().(*net.TCPAddr).AddrPort()
}

func mine(local, remote netip.AddrPort) Socket {
	return Socket{Local: local, Remote: remote, State: Established, UID: uint32(os.Geteuid())}
}

// held requires that a process has the socket open, and returns it without its inode.
func held(t *testing.T, s Socket) Socket {
	t.Helper()
	if s.Inode == 0 {
		t.Errorf("%+v has no inode", s)
	}
	s.Inode = 0
	return s
}

func TestBothWaysToAskTheKernelAgree(t *testing.T) {
	client, server := connected(t, "127.0.0.1:0", 0)
	asked, err := diagnose(client, server)
	if want := mine(client, server); err != nil || held(t, asked) != want {
		t.Errorf("netlink says %+v, %v, want %+v", asked, err, want)
	}
	if read, err := findInTables("/proc/net", client, server); err != nil || read != asked {
		t.Errorf("/proc/net says %+v, %v, and netlink %+v", read, err, asked)
	}
	listed := false
	if err := dump(func(s Socket) { listed = listed || s == asked }); err != nil || !listed {
		t.Errorf("netlink lists %+v: %v, %v", asked, listed, err)
	}
}

func TestListeningSocketsAreKnownByTheirInodes(t *testing.T) {
	inode := func(socket any) uint64 {
		raw, err := socket.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var stat unix.Stat_t
		if controlErr := raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &stat) }); controlErr != nil || err != nil {
			t.Fatal(controlErr, err)
		}
		return stat.Ino
	}
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": t.TempDir() + "/socket"} {
		listener, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial(network, listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		accepting, connected := inode(listener), inode(conn)
		if all, err := Listening(); err != nil || !all[accepting] || all[connected] {
			t.Errorf("%s: the listener listens: %v, its client does: %v, %v", network, all[accepting], all[connected], err)
		}
		_ = listener.Close()
		if all, err := Listening(); err != nil || all[accepting] {
			t.Errorf("%s: a closed listener listens: %v, %v", network, all[accepting], err)
		}
	}
}

// Sockets with the same two ports, on several addresses of the loopback network, are what netlink.SocketGet takes for one another.
func TestASocketIsFoundByItsAddressesToo(t *testing.T) {
	first, server := connected(t, "127.0.0.1:0", 0)
	pairs := [][2]netip.AddrPort{{first, server}}
	for _, host := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"} {
		client, server := connected(t, fmt.Sprintf("%s:%d", host, server.Port()), int(first.Port()))
		pairs = append(pairs, [2]netip.AddrPort{client, server})
	}
	for _, pair := range pairs {
		if found, err := Find(pair[0], pair[1]); err != nil || held(t, found) != mine(pair[0], pair[1]) {
			t.Errorf("between %v and %v is %+v, %v", pair[0], pair[1], found, err)
		}
	}
	if found, err := netlink.SocketGet(net.TCPAddrFromAddrPort(first), net.TCPAddrFromAddrPort(server)); err == nil {
		t.Errorf("netlink.SocketGet finds %+v among four now: is diagnose still needed?", found)
	}
}

// A program whose sockets are IPv6's connects to 127.0.0.1 too.
func TestAnIPv4ConnectionOfAnIPv6SocketIsFound(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Logf("no IPv6 here: %v", err)
		return
	}
	defer unix.Close(fd)
	_, server := connected(t, "127.0.0.1:0", 0)
	mapped := netip.AddrFrom16(server.Addr().As16())
	if err := unix.Connect(fd, &unix.SockaddrInet6{Addr: mapped.As16(), Port: int(server.Port())}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	client := netip.AddrPortFrom(server.Addr(), uint16(name.(*unix.SockaddrInet6).Port))
	if found, err := diagnose(client, server); err != nil || held(t, found) != mine(client, server) {
		t.Errorf("between %v and %v is %+v, %v", client, server, found, err)
	}
}

func TestWhatIsNotThereIsNotFound(t *testing.T) {
	client, server := connected(t, "127.0.0.1:0", 0)
	if found, err := Find(client, netip.AddrPortFrom(server.Addr(), client.Port())); err == nil {
		t.Errorf("there is %+v", found)
	}
}

func TestBoundPortsHaveListeners(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("no listener on %s here: %v", address, err)
			continue
		}
		defer listener.Close()
		bound, err := BoundPorts()
		if err != nil {
			t.Fatal(err)
		}
		if port := listener.Addr().(*net.TCPAddr).Port; !bound[port] {
			t.Errorf("port %d on %s is not bound", port, address)
		}
	}
}

func TestRowsOfTheKernelsTables(t *testing.T) {
	got, err := parseRow("   3: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0000000000000000 20 4 30 10 -1")
	want := Socket{Local: netip.MustParseAddrPort("127.0.0.1:8080"), Remote: netip.MustParseAddrPort("127.0.0.1:50000"), State: 1, UID: 1000, Inode: 12345}
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	mapped, err := parseAddress("0000000000000000FFFF00000100007F:1F90")
	if err != nil || mapped != want.Local {
		t.Errorf("an IPv4 address in an IPv6 socket is %v, %v", mapped, err)
	}
	for _, row := range []string{"", "sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode", strings.Repeat("x ", 12)} {
		if s, err := parseRow(row); err == nil {
			t.Errorf("%q became %+v", row, s)
		}
	}
}

func FuzzTables(f *testing.F) {
	f.Add("  sl  local_address rem_address   st\n3: 0100007F:1F90 0100007F:C350 01 0:0 0:0 0 1000 0 12345\n")
	f.Fuzz(func(t *testing.T, table string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "tcp"), []byte(table), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = eachRow(dir, func(s Socket) bool {
			if !s.Local.IsValid() || !s.Remote.IsValid() {
				t.Errorf("%q became %+v", table, s)
			}
			return true
		})
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(make([]byte, answerSize))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		if s, err := readAnswer(body); err == nil && (!s.Local.IsValid() || !s.Remote.IsValid()) {
			t.Errorf("%x became %+v", body, s)
		}
	})
}

func TestAFreePortIsNobodys(t *testing.T) {
	first, last := EphemeralRange()
	taken := map[int]bool{}
	for range 20 {
		port, err := FreePort(func(port int) bool { return !taken[port] })
		if err != nil {
			t.Fatal(err)
		}
		if taken[port] || port >= first && port <= last && (first > firstFree || last < pastFree-1) {
			t.Errorf("%d is taken, or one that the kernel gives away: %d to %d", port, first, last)
		}
		taken[port] = true
		listener, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			t.Fatal(err)
		}
		if isFree(port) {
			t.Errorf("%d counts as free, and somebody listens there", port)
		}
		_ = listener.Close()
	}
}
