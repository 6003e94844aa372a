package zk_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/zk"
	"github.com/mammoth-os/mammoth/internal/zk/zktest"
)

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// client is a client whose session outlasts what a busy machine keeps it waiting, unless its test wants another one: a change that
// is under way when a connection is lost fails.
func client(t *testing.T, config zk.Config) *zk.Client {
	t.Helper()
	if config.SessionTimeout == 0 {
		config.SessionTimeout = time.Minute
	}
	c, err := zk.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestZooKeeper(t *testing.T) {
	server := zktest.Start(t)
	for _, test := range []struct {
		name string
		test func(t *testing.T, server *zktest.Server)
	}{
		{"nodes are made, read, changed and deleted", testNodes},
		{"a chroot is all that its client sees", testChroot},
		{"what a digest protects is changed by its owner alone", testDigest},
		{"calls wait for a connection as long as they may", testAwait},
		{"a read is repeated until the server is back", testStopped},
		{"each connection has a number of its own", testCut},
		{"the digest is sent in a new session too", testExpired},
		{"after Close every call fails", testClosed},
	} {
		t.Run(test.name, func(t *testing.T) { test.test(t, server) })
	}
}

func testNodes(t *testing.T, server *zktest.Server) {
	ctx, c := within(t), client(t, zk.Config{Servers: []string{server.Address}})
	if _, err := c.Get(ctx, "/nodes"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("reading what is not there: %v", err)
	}
	if err := c.Create(ctx, "/nodes/a/b", nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("making a node below none: %v", err)
	}
	for range 2 {
		if err := c.Ensure(ctx, "/nodes/a/b"); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Create(ctx, "/nodes/a/b", nil); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("making it twice: %v", err)
	}
	if err := c.Set(ctx, "/nodes/a/b", []byte("one"), zk.AnyVersion); err != nil {
		t.Fatal(err)
	}
	node, err := c.Get(ctx, "/nodes/a/b")
	if err != nil || string(node.Data) != "one" || node.Version != 1 {
		t.Fatalf("the node is %+v, %v", node, err)
	}
	if err := c.Set(ctx, "/nodes/a/b", []byte("two"), 0); !errors.Is(err, errdefs.ErrAborted) {
		t.Errorf("changing an old version: %v", err)
	}
	if err := c.Delete(ctx, "/nodes/a", zk.AnyVersion); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("deleting a node with children: %v", err)
	}
	if names, err := c.Children(ctx, "/nodes"); err != nil || !slices.Equal(names, []string{"a"}) {
		t.Errorf("children are %v, %v", names, err)
	}
	for range 2 {
		if err := c.Delete(ctx, "/nodes/a/b", zk.AnyVersion); err != nil {
			t.Fatal(err)
		}
	}
	for _, wrong := range []string{"", "nodes", "/nodes/", "/a/../b", "/a\x00"} {
		if _, err := c.Get(ctx, wrong); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("the path %q: %v", wrong, err)
		}
	}
}

func testChroot(t *testing.T, server *zktest.Server) {
	ctx := within(t)
	outside := client(t, zk.Config{Servers: []string{server.Address}})
	inside := client(t, zk.Config{Servers: []string{server.Address}, Chroot: "/zone/one"})
	if err := inside.Ensure(ctx, "/services"); err != nil {
		t.Fatal(err)
	}
	if err := inside.Create(ctx, "/services/a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if node, err := outside.Get(ctx, "/zone/one/services/a"); err != nil || string(node.Data) != "x" {
		t.Errorf("from outside it is %+v, %v", node, err)
	}
	if names, err := inside.Children(ctx, "/"); err != nil || !slices.Equal(names, []string{"services"}) {
		t.Errorf("inside there is %v, %v", names, err)
	}
}

func testDigest(t *testing.T, server *zktest.Server) {
	ctx := within(t)
	owner := client(t, zk.Config{Servers: []string{server.Address}, Digest: "mammoth:secret"})
	other := client(t, zk.Config{Servers: []string{server.Address}, Digest: "mammoth:guess"})
	again := client(t, zk.Config{Servers: []string{server.Address}, Digest: "mammoth:secret"})
	if err := owner.Ensure(ctx, "/digest/a"); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Get(ctx, "/digest/a"); err != nil {
		t.Errorf("others cannot read: %v", err)
	}
	if err := other.Set(ctx, "/digest/a", nil, zk.AnyVersion); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Errorf("changing with another password: %v", err)
	}
	if err := other.Ensure(ctx, "/digest/a"); err != nil {
		t.Errorf("ensuring what is there: %v", err)
	}
	if err := other.Create(ctx, "/digest/b", nil); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Errorf("making a node below with another password: %v", err)
	}
	if err := again.Set(ctx, "/digest/a", []byte("x"), zk.AnyVersion); err != nil {
		t.Errorf("the same user over another connection: %v", err)
	}
}

func testAwait(t *testing.T, server *zktest.Server) {
	line := zktest.NewLine(t, server.Address)
	line.Cut()
	c := client(t, zk.Config{Servers: []string{line.Address}})
	short, cancel := context.WithTimeout(within(t), 100*time.Millisecond)
	defer cancel()
	if _, err := c.Get(short, "/"); !errors.Is(err, errdefs.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a connection: %v", err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := c.Children(within(t), "/")
		answered <- err
	}()
	line.Mend()
	if err := <-answered; err != nil {
		t.Errorf("after the connection came: %v", err)
	}
}

func testStopped(t *testing.T, server *zktest.Server) {
	ctx, c := within(t), client(t, zk.Config{Servers: []string{server.Address}})
	must(t, c.Ensure(ctx, "/stopped"))
	must(t, c.Set(ctx, "/stopped", []byte("x"), zk.AnyVersion))
	session := c.Session()
	for range 2 {
		server.Stop()
		type answer struct {
			node zk.Node
			err  error
		}
		answered := make(chan answer, 1)
		go func() {
			node, err := c.Get(ctx, "/stopped")
			answered <- answer{node, err}
		}()
		server.Restart()
		if got := <-answered; got.err != nil || string(got.node.Data) != "x" {
			t.Fatalf("read %+v, %v", got.node, got.err)
		}
	}
	if now := c.Session(); now != session {
		t.Errorf("the session was %x, is %x: want the same over new connections", session, now)
	}
}

func testCut(t *testing.T, server *zktest.Server) {
	ctx := within(t)
	line := zktest.NewLine(t, server.Address)
	c := client(t, zk.Config{Servers: []string{line.Address}})
	before, err := c.AwaitConnected(ctx)
	must(t, err)
	for range 5 {
		line.Break()
		after := before
		for after.Connection == before.Connection {
			_, changed := c.State()
			if after, err = c.AwaitConnected(ctx); err != nil {
				t.Fatalf("the state was %+v, is %+v, %v", before, after, err)
			}
			if after.Connection == before.Connection {
				<-changed
			}
		}
		before = after
	}
}

func testExpired(t *testing.T, server *zktest.Server) {
	ctx := within(t)
	line := zktest.NewLine(t, server.Address)
	c := client(t, zk.Config{Servers: []string{line.Address}, SessionTimeout: time.Second, Digest: "mammoth:secret"})
	must(t, c.Ensure(ctx, "/expired"))
	before := c.Session()
	for c.Session() == before {
		// The server ends a session that is silent for a second. The first connection after that is in a new one.
		line.Cut()
		<-time.After(2 * time.Second)
		line.Mend()
		_, err := c.AwaitConnected(ctx)
		must(t, err)
	}
	if err := retry(ctx, func() error { return c.Set(ctx, "/expired", []byte("mine"), zk.AnyVersion) }); err != nil {
		t.Errorf("the digest was not sent in the new session: %v", err)
	}
}

func testClosed(t *testing.T, server *zktest.Server) {
	ctx, c := within(t), client(t, zk.Config{Servers: []string{server.Address}})
	_, err := c.Get(ctx, "/")
	must(t, err)
	c.Close()
	if _, err := c.Get(ctx, "/"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("reading after Close: %v", err)
	}
}

func TestValidate(t *testing.T) {
	for what, config := range map[string]zk.Config{
		"at least one server":                    {},
		"must be host:port":                      {Servers: []string{"localhost"}},
		"must be an absolute path":               {Servers: []string{"a:1"}, Chroot: "mammoth/"},
		"must be user:password":                  {Servers: []string{"a:1"}, Digest: "secret"},
		"session timeout must be at least 100ms": {Servers: []string{"a:1"}, SessionTimeout: time.Millisecond},
	} {
		if _, err := zk.New(config); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), what) {
			t.Errorf("%+v: %v, want %q", config, err, what)
		}
	}
}

// retry repeats a change whose connection was lost under it.
func retry(ctx context.Context, change func() error) error {
	for {
		err := change()
		if !errors.Is(err, errdefs.ErrUnavailable) || ctx.Err() != nil {
			return err
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A server that is being shut down accepts a connection and never answers. The next server, or the same one after its start, is asked
// while the session lasts.
func TestAServerThatNeverAnswersIsLeft(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	const session = 18 * time.Second
	client(t, zk.Config{Servers: []string{listener.Addr().String()}, SessionTimeout: session})
	// Until it connects; then, until it does so again.
	for _, patience := range []time.Duration{time.Minute, session} {
		if err := listener.(*net.TCPListener).SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		conn, err := listener.Accept()
		if err != nil {
			t.Fatalf("the client goes on waiting for a server that is silent: %v", err)
		}
		defer conn.Close()
	}
}
