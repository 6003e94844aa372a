package registry

import (
	"net"
	"sync"
)

// connLimiter counts the connections of each address. Without it a container could use up the file descriptors of its
// NodeManager.
type connLimiter struct {
	mu    sync.Mutex
	total int
	count map[string]int
}

// acquire counts a new connection, and reports whether it is permitted.
func (g *connLimiter) acquire(address string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= maxConns || g.count[address] >= maxConnsPerAddress {
		return false
	}
	g.total++
	g.count[address]++
	return true
}

func (g *connLimiter) release(address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.count[address]--; g.count[address] == 0 {
		delete(g.count, address)
	}
}

// limitedListener closes connections above the limits at once.
type limitedListener struct {
	net.Listener
	guests *connLimiter
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		address, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		if l.guests.acquire(address) {
			return &countedConn{Conn: conn, release: sync.OnceFunc(func() { l.guests.release(address) })}, nil
		}
		_ = conn.Close()
	}
}

// countedConn is a connection that is counted until it is closed.
type countedConn struct {
	net.Conn
	release func()
}

func (c *countedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
