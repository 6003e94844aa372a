package network

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/sockets"
)

// Leases says which ports of a node's range are spoken for. The runtimes of one node share one. It holds nothing
// that a restart would lose: each runtime tells it again what its containers hold.
type Leases struct {
	ports Range
	inUse func() (map[int]bool, error)

	mu sync.Mutex
	// held are the ports leased to containers with the host's network.
	held map[int]id.Container
	// offered counts, for each port, the offers to an engine that are not settled yet.
	offered map[int]int
}

// NewLeases leases out of ports. inUse tells the ports that somebody on the host has bound; nil asks the kernel.
func NewLeases(ports Range, inUse func() (map[int]bool, error)) *Leases {
	if inUse == nil {
		inUse = sockets.BoundPorts
	}
	return &Leases{ports: ports, inUse: inUse, held: make(map[int]id.Container), offered: make(map[int]int)}
}

// Hold records that a container that is already there holds ports.
func (l *Leases) Hold(container id.Container, ports ...int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, port := range ports {
		l.held[port] = container
	}
}

// Lease takes count random ports that no container holds and nobody uses. ErrResourceExhausted if there are not
// so many.
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

// Release gives back every port that a container holds.
func (l *Leases) Release(container id.Container) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for port, holder := range l.held {
		if holder == container {
			delete(l.held, port)
		}
	}
}

// Offer is a short random stretch of the range for an engine to bind one of: all its ports look free, and none is
// leased. The engine binds, so that whoever is faster wins and the other is told. An engine does not begin at the
// stretch's first port, and 20.10 does not go on to the next when somebody else has it: hence no port that is
// known to be taken may be in it. settle must be called once the engine has bound or refused.
func (l *Leases) Offer() (offer Range, settle func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	used, err := l.inUse()
	if err != nil {
		return Range{}, nil, err
	}
	free := func(port int) bool { return l.ports.Contains(port) && !used[port] && l.held[port].IsZero() }
	apart := func(port int) bool { return free(port) && l.offered[port] == 0 }
	// Two starts at a time rather get different ports at once than have the engine sort it out.
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
