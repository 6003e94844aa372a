package registry

import (
	"net"
	"sync"
)

// guests counts the connections of each address. A container could otherwise take every file that its NodeManager may open.
type guests struct {
	mu    sync.Mutex
	total int
	count map[string]int
}

// welcome counts a connection in, unless there are too many.
func (g *guests) welcome(address string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= most || g.count[address] >= mostOfOne {
		return false
	}
	g.total++
	g.count[address]++
	return true
}

func (g *guests) leave(address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.count[address]--; g.count[address] == 0 {
		delete(g.count, address)
	}
}

// limited accepts no more connections than there may be; it closes the others at once.
type limited struct {
	net.Listener
	guests *guests
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		address, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		if l.guests.welcome(address) {
			return &counted{Conn: conn, left: sync.OnceFunc(func() { l.guests.leave(address) })}, nil
		}
		_ = conn.Close()
	}
}

// counted is a connection that is counted out when it is closed.
type counted struct {
	net.Conn
	left func()
}

func (c *counted) Close() error {
	defer c.left()
	return c.Conn.Close()
}
