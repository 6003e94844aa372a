package zk_test

import (
	"context"
	"errors"
	"fmt"
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
		{"a watch tells the newest state", testWatch},
		{"children are watched", testWatchChildren},
		{"calls wait for a connection as long as they may", testAwait},
		{"no change is lost while the server is stopped", testStopped},
		{"no change is lost while the line is cut", testCut},
		{"a session that expired takes its ephemeral nodes along, and watches go on", testExpired},
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
	if _, err := c.Create(ctx, "/nodes/a/b", nil, zk.Persistent); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("making a node below none: %v", err)
	}
	for range 2 {
		if err := c.Ensure(ctx, "/nodes/a/b"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Create(ctx, "/nodes/a/b", nil, zk.Persistent); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("making it twice: %v", err)
	}
	if err := c.Set(ctx, "/nodes/a/b", []byte("one"), zk.AnyVersion); err != nil {
		t.Fatal(err)
	}
	node, err := c.Get(ctx, "/nodes/a/b")
	if err != nil || string(node.Data) != "one" || node.Version != 1 || node.Owner != 0 {
		t.Fatalf("the node is %+v, %v", node, err)
	}
	if err := c.Set(ctx, "/nodes/a/b", []byte("two"), 0); !errors.Is(err, errdefs.ErrAborted) {
		t.Errorf("changing an old version: %v", err)
	}
	if err := c.Delete(ctx, "/nodes/a", zk.AnyVersion); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("deleting a node with children: %v", err)
	}
	one, err := c.Create(ctx, "/nodes/n-", nil, zk.EphemeralSequence)
	if err != nil {
		t.Fatal(err)
	}
	two, err := c.Create(ctx, "/nodes/n-", nil, zk.EphemeralSequence)
	if err != nil || one >= two {
		t.Fatalf("made %q and %q, %v", one, two, err)
	}
	state, _ := c.State()
	if node, err := c.Get(ctx, two); err != nil || node.Owner != state.Session {
		t.Errorf("the ephemeral node belongs to %x, %v; the session is %x", node.Owner, err, state.Session)
	}
	if names, err := c.Children(ctx, "/nodes"); err != nil || len(names) != 3 || names[0] != "a" {
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
	made, err := inside.Create(ctx, "/services/n-", []byte("x"), zk.EphemeralSequence)
	if err != nil || !strings.HasPrefix(made, "/services/n-") {
		t.Fatalf("made %q, %v", made, err)
	}
	if node, err := outside.Get(ctx, "/zone/one"+made); err != nil || string(node.Data) != "x" {
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
	if _, err := other.Create(ctx, "/digest/b", nil, zk.Persistent); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Errorf("making a node below with another password: %v", err)
	}
	if err := again.Set(ctx, "/digest/a", []byte("x"), zk.AnyVersion); err != nil {
		t.Errorf("the same user over another connection: %v", err)
	}
}

func testWatch(t *testing.T, server *zktest.Server) {
	ctx, c := within(t), client(t, zk.Config{Servers: []string{server.Address}})
	watch := c.Watch("/watched")
	expect := func(want string) {
		t.Helper()
		node, err := watch.Next(ctx)
		if err != nil || node.Exists != (want != "-") || node.Exists && string(node.Data) != want {
			t.Fatalf("the watch tells %+v, %v; want %q", node, err, want)
		}
	}
	expect("-")
	must(t, c.Ensure(ctx, "/watched"))
	expect("")
	must(t, c.Set(ctx, "/watched", []byte("1"), zk.AnyVersion))
	expect("1")
	must(t, c.Set(ctx, "/watched", []byte("2"), zk.AnyVersion))
	must(t, c.Set(ctx, "/watched", []byte("3"), zk.AnyVersion))
	for node, err := watch.Next(ctx); string(node.Data) != "3"; node, err = watch.Next(ctx) {
		must(t, err)
	}
	must(t, c.Delete(ctx, "/watched", zk.AnyVersion))
	expect("-")
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if node, err := watch.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a change the watch tells %+v, %v", node, err)
	}
}

func testWatchChildren(t *testing.T, server *zktest.Server) {
	ctx, c := within(t), client(t, zk.Config{Servers: []string{server.Address}})
	watch := c.WatchChildren("/parent")
	expect := func(want ...string) {
		t.Helper()
		for {
			names, err := watch.Next(ctx)
			must(t, err)
			if slices.Equal(names, want) {
				return
			}
			if len(names) >= len(want) {
				t.Fatalf("the watch tells %v, want %v", names, want)
			}
		}
	}
	expect()
	must(t, c.Ensure(ctx, "/parent/b"))
	must(t, c.Ensure(ctx, "/parent/a"))
	expect("a", "b")
	must(t, c.Delete(ctx, "/parent/a", zk.AnyVersion))
	expect("b")
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
	writer := client(t, zk.Config{Servers: []string{server.Address}})
	must(t, c.Ensure(ctx, "/stopped"))
	watch := c.Watch("/stopped")
	_, err := watch.Next(ctx)
	must(t, err)
	before, _ := c.State()
	for n := range 2 {
		server.Stop()
		told := make(chan string, 1)
		go func() {
			node, _ := watch.Next(ctx)
			told <- string(node.Data)
		}()
		server.Restart()
		want := fmt.Sprint(n)
		must(t, retry(ctx, func() error { return writer.Set(ctx, "/stopped", []byte(want), zk.AnyVersion) }))
		if got := <-told; got != want {
			t.Fatalf("the watch tells %q, want %q", got, want)
		}
	}
	after, _ := c.State()
	if after.Session != before.Session || after.Connection < before.Connection+2 {
		t.Errorf("the state was %+v, is %+v: want the same session over new connections", before, after)
	}
}

func testCut(t *testing.T, server *zktest.Server) {
	ctx := within(t)
	line := zktest.NewLine(t, server.Address)
	c := client(t, zk.Config{Servers: []string{line.Address}})
	writer := client(t, zk.Config{Servers: []string{server.Address}})
	must(t, c.Ensure(ctx, "/cut"))
	watch, children := c.Watch("/cut"), c.WatchChildren("/cut")
	_, err := watch.Next(ctx)
	must(t, err)
	_, err = children.Next(ctx)
	must(t, err)
	for n := range 5 {
		line.Cut()
		want := fmt.Sprint(n)
		must(t, writer.Set(ctx, "/cut", []byte(want), zk.AnyVersion))
		must(t, writer.Ensure(ctx, "/cut/"+want))
		line.Mend()
		if node, err := watch.Next(ctx); err != nil || string(node.Data) != want {
			t.Fatalf("the watch tells %+v, %v; want %q", node, err, want)
		}
		if names, err := children.Next(ctx); err != nil || len(names) != n+1 {
			t.Fatalf("the watch tells the children %v, %v; want %d", names, err, n+1)
		}
	}
}

func testExpired(t *testing.T, server *zktest.Server) {
	ctx := within(t)
	line := zktest.NewLine(t, server.Address)
	c := client(t, zk.Config{Servers: []string{line.Address}, SessionTimeout: time.Second, Digest: "mammoth:secret"})
	other := client(t, zk.Config{Servers: []string{server.Address}, Digest: "mammoth:secret"})
	must(t, c.Ensure(ctx, "/expired"))
	watch := c.Watch("/expired")
	_, err := watch.Next(ctx)
	must(t, err)
	// On a busy machine so short a session loses its connection now and then, and an answer with it; or it ends before anybody looks.
	var before zk.State
	for owner := int64(0); owner == 0 || owner != before.Session; {
		must(t, retry(ctx, func() error {
			_, err := c.Create(ctx, "/expired/mine", nil, zk.Ephemeral)
			if errors.Is(err, errdefs.ErrAlreadyExists) {
				return nil
			}
			return err
		}))
		node, err := other.Get(ctx, "/expired/mine")
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			t.Fatal(err)
		}
		owner = node.Owner
		before, _ = c.State()
	}
	line.Cut()
	gone := other.Watch("/expired/mine")
	for node, err := gone.Next(ctx); node.Exists; node, err = gone.Next(ctx) {
		must(t, err)
	}
	must(t, other.Set(ctx, "/expired", []byte("meanwhile"), zk.AnyVersion))
	line.Mend()
	if node, err := watch.Next(ctx); err != nil || string(node.Data) != "meanwhile" {
		t.Fatalf("the watch tells %+v, %v", node, err)
	}
	if after, err := c.AwaitConnected(ctx); err != nil || after.Session == before.Session {
		t.Errorf("the session was %x, is %x, %v; want a new one", before.Session, after.Session, err)
	}
	if err := retry(ctx, func() error { return c.Set(ctx, "/expired", []byte("mine"), zk.AnyVersion) }); err != nil {
		t.Errorf("the digest was not shown in the new session: %v", err)
	}
}

func testClosed(t *testing.T, server *zktest.Server) {
	ctx, c := within(t), client(t, zk.Config{Servers: []string{server.Address}})
	watch := c.Watch("/")
	_, err := watch.Next(ctx)
	must(t, err)
	failed := make(chan error, 1)
	go func() {
		_, err := watch.Next(ctx)
		failed <- err
	}()
	c.Close()
	if err := <-failed; !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("a watch after Close: %v", err)
	}
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
