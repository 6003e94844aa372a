package admission

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/peer"
)

// These are the times for which a connection must be silent before it may be closed for a new one.
const (
	// silentBeforeRequest is for a connection without a received byte: a client starts with its request.
	silentBeforeRequest = 500 * time.Millisecond
	// silentAfterRequest is for others.
	silentAfterRequest = 10 * time.Second
	// silentTrusted is for trusted callers. It is longer than the 40 s within which a live gRPC peer answers a ping.
	silentTrusted = 45 * time.Second
)

// logInterval is the shortest time between two log lines about refused connections.
const logInterval = time.Minute

// Limits bound the connections of one listener.
type Limits struct {
	// Total is the limit of all connections.
	Total int
	// Others is the limit of all callers that are not trusted together.
	Others int
	// PerCaller is the limit of one caller that is not trusted.
	PerCaller int
}

// LimitsFor leaves half of this process's file descriptors, at most 2,048, to everything else. most is the upper limit.
func LimitsFor(most Limits) Limits {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return most
	}
	return most.within(files.Cur)
}

func (most Limits) within(descriptors uint64) Limits {
	left := int(min(descriptors-min(descriptors/2, 2048), 1<<20))
	inAll := min(most.Total, left)
	return Limits{Total: inAll, Others: min(most.Others, inAll/2), PerCaller: min(most.PerCaller, inAll/4)}
}

// Config is the configuration of a Listener.
type Config struct {
	Limits Limits
	// Trusted reports whether Limits.Others and Limits.PerCaller do not apply to a user.
	Trusted func(peer.User) bool
	Logger  *slog.Logger
}

// Listener limits how many connections are open. At the limit it closes the connection that has been silent longest, if that
// was long enough, and otherwise the new one. Without file descriptors, Accept waits and tries again.
type Listener struct {
	net.Listener
	config Config
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	open    map[*connection]struct{}
	others  int
	callers map[string]int

	refused  atomic.Int64
	loggedAt time.Time // Accept's
}

// Listen limits the connections of a listener.
func Listen(listener net.Listener, config Config) *Listener {
	return &Listener{
		Listener: listener, config: config, closed: make(chan struct{}),
		open: map[*connection]struct{}{}, callers: map[string]int{},
	}
}

// Refused is how many connections were closed because there were too many.
func (l *Listener) Refused() int64 { return l.refused.Load() }

// Accept implements net.Listener. It fails only when no further connection can be accepted.
func (l *Listener) Accept() (net.Conn, error) {
	failures, retry := 0, backoff.Policy{Min: 5 * time.Millisecond, Max: time.Second}
	for {
		accepted, err := l.Listener.Accept()
		if err == nil {
			failures = 0
			if c := l.admit(accepted); c != nil {
				return c, nil
			}
			continue
		}
		if !passing(err) {
			return nil, err
		}
		// Without a file descriptor the next client would wait for ever.
		l.closeSilent(everybody)
		l.log("cannot accept connections", "error", err)
		failures++
		select {
		case <-time.After(retry.After(failures)):
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
}

// passing reports whether a later Accept may succeed: the client has disconnected, or the system lacks file descriptors or
// memory.
func passing(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.ECONNRESET,
		syscall.EPROTO, syscall.EINTR, syscall.EPERM, syscall.ENETDOWN, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// admit returns the connection to serve; nil if it was refused.
func (l *Listener) admit(accepted net.Conn) *connection {
	who := peer.Of(accepted).User()
	c := &connection{Conn: accepted, listener: l, caller: Caller(who, accepted.RemoteAddr()), trusted: l.config.Trusted(who)}
	c.lastActive.Store(time.Now().UnixNano())
	for _, bound := range []struct {
		reached func() bool
		of      func(*connection) bool
	}{
		{func() bool { return !c.trusted && l.callers[c.caller] >= l.config.Limits.PerCaller }, func(o *connection) bool { return o.caller == c.caller }},
		{func() bool { return !c.trusted && l.others >= l.config.Limits.Others }, func(o *connection) bool { return !o.trusted }},
		{func() bool { return len(l.open) >= l.config.Limits.Total }, everybody},
	} {
		if l.holds(bound.reached) && !l.closeSilent(bound.of) {
			l.refused.Add(1)
			l.log("a connection is refused: there are too many", "caller", c.caller)
			_ = accepted.Close()
			return nil
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[c] = struct{}{}
	if !c.trusted {
		l.others++
		l.callers[c.caller]++
	}
	return c
}

func (l *Listener) holds(bound func() bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bound()
}

func everybody(*connection) bool { return true }

// closeSilent closes the connection that has been silent longest, if one was silent for long enough.
func (l *Listener) closeSilent(among func(*connection) bool) bool {
	now := time.Now().UnixNano()
	var silent *connection
	since := now
	l.mu.Lock()
	for c := range l.open {
		if moved := c.lastActive.Load(); moved < since && now-moved >= int64(c.mayBeSilent()) && among(c) {
			silent, since = c, moved
		}
	}
	l.mu.Unlock()
	if silent == nil {
		return false
	}
	l.refused.Add(1)
	_ = silent.Close()
	return true
}

func (l *Listener) log(message string, args ...any) {
	if time.Since(l.loggedAt) < logInterval {
		return
	}
	l.loggedAt = time.Now()
	l.config.Logger.Warn(message, args...)
}

// Caller is the user at the other end of a connection if the kernel knows it, else the address.
func Caller(who peer.User, address net.Addr) string {
	if who.Name != "" {
		return "user " + who.Name
	}
	if host, _, err := net.SplitHostPort(address.String()); err == nil {
		return host
	}
	return address.String()
}

// connection counts until it is closed.
type connection struct {
	net.Conn
	listener *Listener
	caller   string
	trusted  bool
	// lastActive is when a byte was last sent or received, in nanoseconds since 1970; at first when it was accepted.
	lastActive  atomic.Int64
	hasReceived atomic.Bool
	once        sync.Once
}

// mayBeSilent is how long the connection may be silent before it may be closed.
func (c *connection) mayBeSilent() time.Duration {
	switch {
	case !c.hasReceived.Load():
		return silentBeforeRequest
	case c.trusted:
		return silentTrusted
	}
	return silentAfterRequest
}

// Read implements net.Conn.
func (c *connection) Read(into []byte) (int, error) {
	n, err := c.Conn.Read(into)
	if n > 0 {
		c.hasReceived.Store(true)
		c.lastActive.Store(time.Now().UnixNano())
	}
	return n, err
}

// Write implements net.Conn.
func (c *connection) Write(from []byte) (int, error) {
	n, err := c.Conn.Write(from)
	if n > 0 {
		c.lastActive.Store(time.Now().UnixNano())
	}
	return n, err
}

// SyscallConn implements syscall.Conn, which internal/peer needs to find the user at the other end.
func (c *connection) SyscallConn() (syscall.RawConn, error) {
	inner, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, syscall.EOPNOTSUPP
	}
	return inner.SyscallConn()
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.once.Do(c.forget)
	return c.Conn.Close()
}

func (c *connection) forget() {
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
	if c.trusted {
		return
	}
	l.others--
	if l.callers[c.caller]--; l.callers[c.caller] == 0 {
		delete(l.callers, c.caller)
	}
}
