// Package signal parses the names of the signals that end programs, as people and images write them.
// It has the one table of them.
package signal

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Linux's real-time signals, as far as the C library leaves them to programs.
const (
	first = 34
	last  = 64
)

// Name is the usual name of a signal, such as SIGKILL.
func Name(number int) string {
	if name := unix.SignalName(unix.Signal(number)); name != "" {
		return name
	}
	return "signal " + strconv.Itoa(number)
}

// Number parses a signal: QUIT, SIGQUIT, 3 or RTMIN+3, in either case.
func Number(text string) (int, error) {
	if number, err := strconv.Atoi(text); err == nil {
		if number < 1 || number > last {
			return 0, fmt.Errorf("%q is not a signal; Linux has those from 1 to %d", text, last)
		}
		return number, nil
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if number := int(unix.SignalNum("SIG" + name)); number > 0 {
		return number, nil
	}
	for _, end := range []struct {
		name   string
		number int
		sign   int
	}{{"RTMIN", first, 1}, {"RTMAX", last, -1}} {
		rest, ok := strings.CutPrefix(name, end.name)
		if !ok {
			continue
		}
		distance := 0
		if rest != "" {
			n, err := strconv.ParseUint(rest[1:], 10, 8)
			if err != nil || strings.IndexByte("-+", rest[0]) != (end.sign+1)/2 {
				break
			}
			distance = int(n)
		}
		if number := end.number + end.sign*distance; number >= first && number <= last {
			return number, nil
		}
	}
	return 0, fmt.Errorf("%q is not a signal; write for example QUIT, SIGINT or a number", text)
}
