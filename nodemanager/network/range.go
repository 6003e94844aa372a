// Package network keeps a node's host ports: its range, which of them are leased to containers that share the
// host's network, and which are in use by anybody.
package network

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Range is the host ports First to Last, both included. The zero value is empty.
type Range struct {
	First, Last int
}

// ParseRange reads "20000-29999", or a single port.
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

// String is FIRST-LAST, or the one port; this is also how Docker is told a range.
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

// Split gives n nodes of one host disjoint ranges of equal size; what does not divide is left over.
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
