package sockets

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// findInTables finds a socket in the kernel's text tables. It reads all sockets.
func findInTables(dir string, local, remote netip.AddrPort) (Socket, error) {
	found := Socket{}
	err := eachRow(dir, func(s Socket) bool {
		if s.Local == local && s.Remote == remote {
			found = s
		}
		return found == Socket{}
	})
	if err == nil && found == (Socket{}) {
		err = ErrNone
	}
	return found, err
}

// eachRow reads the tables line by line until each returns false: on a busy host they have megabytes of closed connections.
// Lines of another form are skipped.
func eachRow(dir string, each func(Socket) bool) error {
	for _, table := range []string{"tcp", "tcp6"} {
		file, err := os.Open(filepath.Join(dir, table))
		if errors.Is(err, fs.ErrNotExist) && table == "tcp6" {
			return nil // a kernel without IPv6
		}
		if err != nil {
			return fmt.Errorf("list the sockets of this machine: %w", err)
		}
		goOn := true
		lines := bufio.NewScanner(file)
		for goOn && lines.Scan() {
			if s, err := parseRow(lines.Text()); err == nil {
				goOn = each(s)
			}
		}
		if err := errors.Join(lines.Err(), file.Close()); err != nil {
			return fmt.Errorf("list the sockets of this machine: %w", err)
		}
		if !goOn {
			return nil
		}
	}
	return nil
}

// parseRow reads a line such as
//
//	3: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 12345 1 …
//
// whose columns are a number, two addresses, the state, queues, a timer, retransmissions, the user, a timeout and the inode.
func parseRow(line string) (s Socket, err error) {
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
	return Socket{Local: local, Remote: remote, State: uint8(state), UID: uint32(uid), Inode: inode}, nil
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

// unixListens is the flag of a Unix socket that accepts connections, __SO_ACCEPTCON.
const unixListens = 1 << 16

// eachUnixListener calls each for the Unix sockets that accept connections. Netlink is not asked for them: it needs a module of the
// kernel that many machines do not have.
func eachUnixListener(dir string, each func(inode uint64)) error {
	file, err := os.Open(filepath.Join(dir, "unix"))
	if err != nil {
		return fmt.Errorf("list the Unix sockets of this machine: %w", err)
	}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// Num: RefCount Protocol Flags Type St Inode Path
		field := strings.Fields(lines.Text())
		if len(field) < 7 {
			continue
		}
		flags, flagsErr := strconv.ParseUint(field[3], 16, 64)
		inode, inodeErr := strconv.ParseUint(field[6], 10, 64)
		if flagsErr == nil && inodeErr == nil && flags&unixListens != 0 {
			each(inode)
		}
	}
	if err := errors.Join(lines.Err(), file.Close()); err != nil {
		return fmt.Errorf("list the Unix sockets of this machine: %w", err)
	}
	return nil
}
