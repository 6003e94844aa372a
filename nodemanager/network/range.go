// Package network manages a node's host ports: its range, the ports that are leased to containers on the host's network, and
// the ports that any process has bound.
//
// Leases owns which port is held by which container. Ports of containers on the bridge are bound by the engine and are not in it.
package network

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Range is the host ports from First to Last, inclusive. The zero value is empty.
type Range struct {
	First, Last int
}

// ParseRange parses "20000-29999", or a single port.
func ParseRange(text string) (Range, error) {
	first, last, ok := strings.Cut(strings.TrimSpace(text), "-")
	if !ok {
		last = first
	}
	a, errA := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	b, errB := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	if errA != nil || errB != nil || a == 0 || a > b {
		return Range{}, fmt.Errorf("%q is not a range of ports; write for example 20000-29999: %w", text, errdefs.ErrInvalidArgument)
	}
	return Range{First: int(a), Last: int(b)}, nil
}

// String is FIRST-LAST, or the single port; Docker has the same format.
func (r Range) String() string {
	if r.First == r.Last {
		return strconv.Itoa(r.First)
	}
	return strconv.Itoa(r.First) + "-" + strconv.Itoa(r.Last)
}

// Len is the number of ports.
func (r Range) Len() int {
	if r.First <= 0 || r.Last < r.First {
		return 0
	}
	return r.Last - r.First + 1
}

// Contains reports whether port is one of r.
func (r Range) Contains(port int) bool { return r.Len() > 0 && port >= r.First && port <= r.Last }

// Split divides the range into n disjoint ranges of equal size, for nodes on one host. A remainder is unused.
func (r Range) Split(n int) ([]Range, error) {
	if n < 1 || r.Len() < n {
		return nil, fmt.Errorf("the ports %s cannot be split among %d nodes: %w", r, n, errdefs.ErrInvalidArgument)
	}
	size := r.Len() / n
	parts := make([]Range, n)
	for i := range parts {
		first := r.First + i*size
		parts[i] = Range{First: first, Last: first + size - 1}
	}
	return parts, nil
}
