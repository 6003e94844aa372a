package mastertest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/mammoth-os/mammoth/internal/credentials"
)

// network is the in-memory network of a zone, whose servers have addresses.
type network struct {
	mu        sync.Mutex
	servers   map[string]*grpc.Server
	listeners map[string]*bufconn.Listener
	closed    bool
}

func newNetwork() *network {
	return &network{servers: map[string]*grpc.Server{}, listeners: map[string]*bufconn.Listener{}}
}

// serve starts a server at an address, unless the network is closed.
func (n *network) serve(address string, register func(*grpc.Server)) {
	server := credentials.NewServer(16 << 20)
	register(server)
	listener := bufconn.Listen(64 << 10)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.servers[address], n.listeners[address] = server, listener
	go func() { _ = server.Serve(listener) }()
}

// stop ends the server at an address, if there is one.
func (n *network) stop(address string) {
	n.mu.Lock()
	server := n.servers[address]
	delete(n.servers, address)
	delete(n.listeners, address)
	n.mu.Unlock()
	if server != nil {
		server.Stop()
	}
}

// dial connects to the server at an address.
func (n *network) dial(ctx context.Context, address string) (net.Conn, error) {
	n.mu.Lock()
	listener := n.listeners[address]
	n.mu.Unlock()
	if listener == nil {
		return nil, fmt.Errorf("no server listens on %s", address)
	}
	return listener.DialContext(ctx)
}

// close ends all servers.
func (n *network) close() {
	n.mu.Lock()
	n.closed = true
	addresses := slices.Collect(maps.Keys(n.servers))
	n.mu.Unlock()
	for _, address := range addresses {
		n.stop(address)
	}
}
