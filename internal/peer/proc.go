package peer

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// readProc finds a socket in the tables that the kernel shows as text, for kernels that do not answer over netlink. It
// goes over all sockets.
func readProc(dir string, local, remote netip.AddrPort) (socket, error) {
	var failed error
	for _, table := range []string{"tcp", "tcp6"} {
		found, err := searchTable(filepath.Join(dir, table), local, remote)
		if err == nil {
			return found, nil
		}
		failed = errors.Join(failed, err)
	}
	return socket{}, failed
}

func searchTable(path string, local, remote netip.AddrPort) (socket, error) {
	file, err := os.Open(path)
	if err != nil {
		return socket{}, fmt.Errorf("look for a socket's owner: %w", err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if s, err := parseRow(lines.Text()); err == nil && s.local == local && s.remote == remote {
			return s, nil
		}
	}
	if err := lines.Err(); err != nil {
		return socket{}, fmt.Errorf("look for a socket's owner: %w", err)
	}
	return socket{}, errNoSocket
}

// parseRow reads a line such as
//
//	3: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 12345 1 …
//
// whose columns are a number, two addresses, the state, queues, a timer, retransmissions, the user, a timeout and the inode.
func parseRow(line string) (s socket, err error) {
	columns := strings.Fields(line)
	if len(columns) < 10 {
		return s, errors.New("too few columns")
	}
	state, err1 := strconv.ParseUint(columns[3], 16, 8)
	uid, err2 := strconv.ParseUint(columns[7], 10, 32)
	inode, err3 := strconv.ParseUint(columns[9], 10, 64)
	local, err4 := parseAddress(columns[1])
	remote, err5 := parseAddress(columns[2])
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return s, err
	}
	return socket{local: local, remote: remote, state: uint8(state), uid: uint32(uid), held: inode != 0}, nil
}

// parseAddress reads 0100007F:1F90: words of four bytes in the machine's order, and a port.
func parseAddress(text string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", text)
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is no address: %w", text, err)
	}
	address, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(address.Unmap(), uint16(number)), nil
}
