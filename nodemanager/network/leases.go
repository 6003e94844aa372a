package network

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/sockets"
)

// Leases is which ports of a node's range are taken. The runtimes of one node share it. It stores nothing: after a restart
// each runtime reports the ports of its containers again.
type Leases struct {
	ports Range
	inUse func() (map[int]bool, error)

	mu sync.Mutex
	// held are the ports that are leased to containers on the host's network.
	held map[int]id.Container
	// offered counts, for each port, the offers to an engine that are not settled.
	offered map[int]int
}

// NewLeases leases out of ports. inUse returns the ports that any process of the host has bound; nil asks the kernel.
func NewLeases(ports Range, inUse func() (map[int]bool, error)) *Leases {
	if inUse == nil {
		inUse = sockets.BoundPorts
	}
	return &Leases{ports: ports, inUse: inUse, held: make(map[int]id.Container), offered: make(map[int]int)}
}

// Hold records the ports of an existing container.
func (l *Leases) Hold(container id.Container, ports ...int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, port := range ports {
		l.held[port] = container
	}
}

// Lease leases count random ports that nobody uses. It fails with ErrResourceExhausted if there are not enough.
func (l *Leases) Lease(container id.Container, count int) ([]int, error) {
	if count == 0 {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	used, err := l.inUse()
	if err != nil {
		return nil, err
	}
	leased := make([]int, 0, count)
	l.walk(func(port int) bool {
		if !used[port] && l.held[port].IsZero() && l.offered[port] == 0 {
			leased = append(leased, port)
		}
		return len(leased) < count
	})
	if len(leased) < count {
		return nil, fmt.Errorf("no %d free host ports in %s: %w", count, l.ports, errdefs.ErrResourceExhausted)
	}
	for _, port := range leased {
		l.held[port] = container
	}
	return leased, nil
}

// Release frees the ports of a container.
func (l *Leases) Release(container id.Container) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for port, holder := range l.held {
		if holder == container {
			delete(l.held, port)
		}
	}
}

// Offer is a short random part of the range for an engine to bind one port of. All its ports look free, and none is leased:
// the engine binds, so that in a race one side gets an error. An engine does not start with the first port of the part, and
// 20.10 does not try the next when one is taken; so the part contains no port that is known to be taken. settle must be
// called once the engine has bound or failed.
func (l *Leases) Offer() (offer Range, settle func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	used, err := l.inUse()
	if err != nil {
		return Range{}, nil, err
	}
	free := func(port int) bool { return l.ports.Contains(port) && !used[port] && l.held[port].IsZero() }
	apart := func(port int) bool { return free(port) && l.offered[port] == 0 }
	// Two concurrent starts should get different ports, without a retry in the engine.
	for _, fits := range []func(int) bool{apart, free} {
		first := 0
		l.walk(func(port int) bool {
			if fits(port) {
				first = port
			}
			return first == 0
		})
		if first == 0 {
			continue
		}
		offer = Range{First: first, Last: first}
		for size := min(32, max(1, l.ports.Len()/16)); offer.Len() < size && fits(offer.Last+1); {
			offer.Last++
		}
		for port := offer.First; port <= offer.Last; port++ {
			l.offered[port]++
		}
		return offer, func() { l.settle(offer) }, nil
	}
	return Range{}, nil, fmt.Errorf("no free host port in %s: %w", l.ports, errdefs.ErrResourceExhausted)
}

func (l *Leases) settle(offer Range) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for port := offer.First; port <= offer.Last; port++ {
		if l.offered[port]--; l.offered[port] <= 0 {
			delete(l.offered, port)
		}
	}
}

// walk visits every port once, from a random one on, until visit returns false.
func (l *Leases) walk(visit func(port int) bool) {
	size := l.ports.Len()
	if size == 0 {
		return
	}
	start := rand.IntN(size)
	for i := range size {
		if !visit(l.ports.First + (start+i)%size) {
			return
		}
	}
}
