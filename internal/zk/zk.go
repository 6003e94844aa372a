// Package zk is a ZooKeeper client with contexts. It waits for a connection instead of failing without one, reports every
// new connection and session, hides a chroot, and protects what it creates with a digest.
//
// A Client owns its connection and session. Its callers own what they create with it.
package zk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/go-zookeeper/zk"
)

// Config is the configuration of a Client.
type Config struct {
	// host:port of each server.
	Servers []string `yaml:"servers"`
	// The parent of every path; empty is none. It is created if it does not exist.
	Chroot string `yaml:"chroot"`
	// How long the servers keep the session of a silent client. Default 10s.
	SessionTimeout time.Duration `yaml:"sessionTimeout"`
	// "user:password". Only this user can change what the client creates; everybody can read it.
	Digest string       `yaml:"digest"`
	Log    *slog.Logger `yaml:"-"`
}

// Validate sets defaults and returns what is wrong.
func (c *Config) Validate() error {
	if c.SessionTimeout == 0 {
		c.SessionTimeout = 10 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if len(c.Servers) == 0 {
		return fmt.Errorf("ZooKeeper needs at least one server, host:port: %w", errdefs.ErrInvalidArgument)
	}
	for _, server := range c.Servers {
		if _, _, err := net.SplitHostPort(server); err != nil {
			return fmt.Errorf("the ZooKeeper server %q must be host:port: %w", server, errdefs.ErrInvalidArgument)
		}
	}
	if c.Chroot != "" && (path.Clean(c.Chroot) != c.Chroot || !strings.HasPrefix(c.Chroot, "/")) {
		return fmt.Errorf("the chroot %q must be an absolute path: %w", c.Chroot, errdefs.ErrInvalidArgument)
	}
	if c.Chroot == "/" {
		c.Chroot = ""
	}
	if user, _, found := strings.Cut(c.Digest, ":"); c.Digest != "" && (!found || user == "") {
		return fmt.Errorf("ZooKeeper's digest must be user:password: %w", errdefs.ErrInvalidArgument)
	}
	if c.SessionTimeout < 100*time.Millisecond {
		return fmt.Errorf("the session timeout must be at least 100ms, but is %s: %w", c.SessionTimeout, errdefs.ErrInvalidArgument)
	}
	return nil
}

// State is the state of a client's connection.
type State struct {
	Connected bool
	// The number of the connection: after a new one changes may have been missed.
	Connection int64
}

// Client is a ZooKeeper client. Its methods are safe for concurrent use. They wait for a connection as long as their context
// permits, and fail with errors of the errdefs classes: errdefs.ErrUnavailable if a connection was lost and a change may or
// may not have been made.
type Client struct {
	config Config
	acl    []zk.ACL
	conn   *zk.Conn
	ended  context.Context
	end    context.CancelFunc
	calls  sync.WaitGroup

	mu            sync.Mutex
	state         State
	authenticated bool
	// Closed and replaced when the state changes.
	changed chan struct{}
}

// New returns a client that connects and reconnects by itself until Close.
func New(config Config) (*Client, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	c := &Client{config: config, acl: zk.WorldACL(zk.PermAll), authenticated: config.Digest == "", changed: make(chan struct{})}
	c.ended, c.end = context.WithCancel(context.Background())
	if user, password, found := strings.Cut(config.Digest, ":"); found {
		c.acl = append(zk.DigestACL(zk.PermAll, user, password), zk.WorldACL(zk.PermRead)...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	conn, _, err := zk.Connect(config.Servers, config.SessionTimeout,
		zk.WithEventCallback(c.onEvent), zk.WithDialer(c.dial), zk.WithLogger(logger{config.Log}), zk.WithLogInfo(false))
	if err != nil {
		return nil, fmt.Errorf("ZooKeeper at %s: %w: %w", strings.Join(config.Servers, ","), err, errdefs.ErrInvalidArgument)
	}
	c.conn = conn
	if config.Digest != "" {
		c.calls.Go(c.authenticate)
	}
	return c, nil
}

// logger writes the library's many messages at debug level.
type logger struct{ log *slog.Logger }

func (l logger) Printf(format string, values ...any) {
	l.log.Debug("zookeeper", "detail", fmt.Sprintf(format, values...))
}

func (c *Client) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: timeout}
	conn, err := dialer.Dial(network, address)
	if err != nil {
		return nil, err
	}
	return &bounded{conn, c.config.SessionTimeout / 3}, nil
}

// bounded is a connection that fails if the first answer takes longer than a third of a session. The library waits for several
// sessions, and a server that is shutting down never answers: the session would expire before another server is tried.
type bounded struct {
	net.Conn
	// How long to wait for the first answer; zero once it has come. Later the library uses the session's own timeout.
	first time.Duration
}

// SetReadDeadline implements net.Conn. One goroutine calls it at a time.
func (c *bounded) SetReadDeadline(at time.Time) error {
	if c.first > 0 {
		at = time.Now().Add(c.first)
		c.first = 0
	}
	return c.Conn.SetReadDeadline(at)
}

// authenticate sends the digest on the first connection; the library repeats it on later ones.
func (c *Client) authenticate() {
	for c.ended.Err() == nil {
		if c.conn.AddAuth("digest", []byte(c.config.Digest)) == nil {
			c.mu.Lock()
			c.authenticated = true
			c.notify()
			c.mu.Unlock()
			return
		}
		pause(c.ended, 20*time.Millisecond)
	}
}

// onEvent receives the library's connection events.
func (c *Client) onEvent(event zk.Event) {
	if event.Type != zk.EventSession {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch event.State {
	case zk.StateHasSession:
		c.state.Connected = true
		c.state.Connection++
	case zk.StateDisconnected, zk.StateExpired, zk.StateConnecting:
		if !c.state.Connected {
			return
		}
		c.state.Connected = false
	default:
		return
	}
	c.notify()
}

// notify wakes those who wait for the state. Callers hold the lock.
func (c *Client) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// State is the present state, and a channel that is closed when it changes.
func (c *Client) State() (State, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := c.state
	state.Connected = state.Connected && c.authenticated
	return state, c.changed
}

// AwaitConnected waits for a connection.
func (c *Client) AwaitConnected(ctx context.Context) (State, error) {
	for {
		state, changed := c.State()
		if state.Connected {
			return state, nil
		}
		select {
		case <-changed:
		case <-c.ended.Done():
			return state, errClosed
		case <-ctx.Done():
			return state, fmt.Errorf("ZooKeeper at %s does not answer: %w: %w", strings.Join(c.config.Servers, ","), context.Cause(ctx), errdefs.ErrUnavailable)
		}
	}
}

var errClosed = fmt.Errorf("the ZooKeeper client is closed: %w", errdefs.ErrUnavailable)

// Close ends the session and waits for calls in progress.
func (c *Client) Close() {
	c.end()
	c.conn.Close()
	c.calls.Wait()
}

// call runs one request of the library, which has no contexts.
func call[T any](ctx context.Context, c *Client, what, name string, request func(path string) (T, error)) (T, error) {
	var none T
	if err := checkPath(name); err != nil {
		return none, err
	}
	if _, err := c.AwaitConnected(ctx); err != nil {
		return none, fmt.Errorf("%s %q in ZooKeeper: %w", what, name, err)
	}
	type result struct {
		value T
		err   error
	}
	answer := make(chan result, 1)
	c.calls.Go(func() {
		value, err := request(c.full(name))
		answer <- result{value, err}
	})
	select {
	case r := <-answer:
		if r.err != nil {
			return none, fmt.Errorf("%s %q in ZooKeeper: %w", what, name, classify(r.err))
		}
		return r.value, nil
	case <-ctx.Done():
		return none, fmt.Errorf("%s %q in ZooKeeper: %w: %w", what, name, context.Cause(ctx), errdefs.ErrUnavailable)
	}
}

// look runs a read, which is repeated when its connection was lost.
func look[T any](ctx context.Context, c *Client, what, name string, request func(path string) (T, error)) (T, error) {
	for {
		value, err := call(ctx, c, what, name, request)
		if err == nil || !errors.Is(err, errdefs.ErrUnavailable) || ctx.Err() != nil || c.ended.Err() != nil {
			return value, err
		}
		pause(ctx, 5*time.Millisecond)
	}
}

func (c *Client) full(name string) string {
	if name == "/" && c.config.Chroot != "" {
		return c.config.Chroot
	}
	return c.config.Chroot + name
}

func checkPath(name string) error {
	if !strings.HasPrefix(name, "/") || path.Clean(name) != name || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%.128q is not a path in ZooKeeper: %w", name, errdefs.ErrInvalidArgument)
	}
	return nil
}

// classify converts the library's errors to errdefs classes.
func classify(err error) error {
	for class, causes := range map[error][]error{
		errdefs.ErrNotFound:           {zk.ErrNoNode},
		errdefs.ErrAlreadyExists:      {zk.ErrNodeExists},
		errdefs.ErrAborted:            {zk.ErrBadVersion},
		errdefs.ErrPermissionDenied:   {zk.ErrNoAuth, zk.ErrInvalidACL},
		errdefs.ErrUnauthenticated:    {zk.ErrAuthFailed},
		errdefs.ErrFailedPrecondition: {zk.ErrNotEmpty, zk.ErrNoChildrenForEphemerals},
		errdefs.ErrInvalidArgument:    {zk.ErrInvalidPath, zk.ErrBadArguments},
		errdefs.ErrUnavailable:        {zk.ErrConnectionClosed, zk.ErrSessionExpired, zk.ErrSessionMoved, zk.ErrNoServer, zk.ErrClosing},
	} {
		for _, cause := range causes {
			if errors.Is(err, cause) {
				return fmt.Errorf("%w: %w", err, class)
			}
		}
	}
	return err
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
