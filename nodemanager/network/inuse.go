package network

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"
)

// InUse reads from /proc which local TCP ports somebody has bound, in this process's network namespace.
func InUse() (map[int]bool, error) {
	used := make(map[int]bool)
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		parseTable(table, used)
	}
	return used, nil
}

// timeWait is the state of a connection that is over; its port can be bound again.
const timeWait = "06"

// parseTable adds the local ports of a table like /proc/net/tcp to used. Lines of another shape are passed over.
func parseTable(table []byte, used map[int]bool) {
	for line := range bytes.Lines(table) {
		fields := bytes.Fields(line)
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
}
