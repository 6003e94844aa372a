package network

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
)

// InUse reads from /proc which local TCP ports somebody has bound, in this process's network namespace.
func InUse() (map[int]bool, error) {
	used := make(map[int]bool)
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		err = errors.Join(readTable(table, used), table.Close())
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
	}
	return used, nil
}

// timeWait is the state of a connection that is over; its port can be bound again.
const timeWait = "06"

// readTable adds the local ports of a table like /proc/net/tcp to used. Lines of another shape are passed over. It reads
// line by line: on a busy host the table has megabytes of connections that are over.
func readTable(table io.Reader, used map[int]bool) error {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) < 4 || string(fields[3]) == timeWait {
			continue
		}
		_, hex, ok := bytes.Cut(fields[1], []byte(":"))
		if !ok {
			continue
		}
		if port, err := strconv.ParseUint(string(hex), 16, 16); err == nil {
			used[int(port)] = true
		}
	}
	return lines.Err()
}
