package zookeeper_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/mammoth-os/mammoth/companions/registry"
	"github.com/mammoth-os/mammoth/companions/zookeeper"
	"github.com/mammoth-os/mammoth/internal/zk"
	"github.com/mammoth-os/mammoth/internal/zk/zktest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// rig is a zone's registry, a ZooKeeper, and a client of its own that looks at it.
type rig struct {
	t        *testing.T
	server   *zktest.Server
	registry *registry.Registry
	conn     *grpc.ClientConn
	look     *zk.Client
	// Where the companion writes, a folder for each test.
	path string
}

func newRig(t *testing.T, server *zktest.Server) *rig {
	t.Helper()
	r := &rig{t: t, server: server, registry: registry.New(0), path: "/" + strings.ReplaceAll(t.Name(), "/", "-") + "/services"}
	listener := bufconn.Listen(1 << 20)
	rpc := grpc.NewServer()
	companionv1.RegisterCompanionsServer(rpc, r.registry)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = rpc.Serve(listener)
	}()
	var err error
	r.conn, err = grpc.NewClient("passthrough:zone",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	r.look, err = zk.New(r.client())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.look.Close()
		_ = r.conn.Close()
		rpc.Stop()
		<-done
	})
	return r
}

// client is the configuration of a client. Its session is long enough for a busy machine: a change that is in progress when the
// connection is lost fails.
func (r *rig) client() zk.Config {
	return zk.Config{Servers: []string{r.server.Address}, SessionTimeout: time.Minute}
}

// owner is a client of somebody else, whose nodes nobody else changes. It ends with the test.
func (r *rig) owner() *zk.Client {
	r.t.Helper()
	config := r.client()
	config.Digest = "owner:secret"
	owner, err := zk.New(config)
	must(r.t, err)
	r.t.Cleanup(owner.Close)
	return owner
}

func (r *rig) config() zookeeper.Config {
	return zookeeper.Config{ZooKeeper: r.client(), Path: r.path, Zone: "east"}
}

// run starts a companion; the answer ends it.
func (r *rig) run(config zookeeper.Config) (end func()) {
	r.t.Helper()
	companion, err := zookeeper.New(config, r.conn)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- companion.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("the companion ended with %v", err)
		}
	})
	r.t.Cleanup(end)
	return end
}

func (r *rig) within() context.Context {
	ctx, cancel := context.WithTimeout(r.t.Context(), 3*time.Minute)
	r.t.Cleanup(cancel)
	return ctx
}

// await waits until a service has these entries, and no others; "-" is a service without a node.
func (r *rig) await(service string, want ...string) {
	r.t.Helper()
	watch := r.server.WatchChildren(r.path + "/" + service)
	var names []string
	for strings.Join(names, " ") != strings.Join(want, " ") || names == nil {
		var err error
		if names, err = watch.Next(r.within()); err != nil {
			r.t.Fatalf("%q has %v, want %v: %v", service, names, want, err)
		}
		if names == nil {
			names = []string{}
		}
	}
}

func endpoints(ids ...string) []*apiv1.Endpoint {
	list := []*apiv1.Endpoint{}
	for _, id := range ids {
		list = append(list, &apiv1.Endpoint{Id: id, Address: "127.0.0.1", Port: 30001, Weight: 100, State: apiv1.Endpoint_HEALTHY})
	}
	return list
}

func TestZooKeeper(t *testing.T) {
	server := zktest.Start(t)
	for _, test := range []struct {
		name string
		test func(r *rig)
	}{
		{"entries follow the registry", testFollow},
		{"takeover removes orphans and leaves others alone", testTakeover},
		{"zkCli reads the entries", testCommandLine},
		{"what changed while ZooKeeper was away is made good", testAway},
		{"a foreign entry in the way stays", testInTheWay},
		{"a node under an entry holds up nothing", testNodeUnderAnEntry},
		{"an entry that is not the zone's to change holds up nothing", testClosedEntry},
		{"without permission it says so and tries again", testPermission},
		{"a folder of somebody else's holds up no other", testClosedFolder},
		{"a registry that is being rebuilt removes nothing", testHeld},
		{"a thousand services", testMany},
	} {
		t.Run(test.name, func(t *testing.T) { test.test(newRig(t, server)) })
	}
}

func testFollow(r *rig) {
	r.registry.Publish("web", endpoints("web-1", "web-2"))
	r.run(r.config())
	r.await("web", "web-1", "web-2")
	r.registry.Publish("web", endpoints("web-2", "web-3"))
	r.await("web", "web-2", "web-3")

	changed := endpoints("web-2", "web-3")
	changed[0].Weight = 10
	watch := r.server.Watch(r.path + "/web/web-2")
	_, err := watch.Next(r.within())
	must(r.t, err)
	r.registry.Publish("web", changed)
	node, err := watch.Next(r.within())
	must(r.t, err)
	var entry struct {
		Name, ID, Address string
		Port              int
		Payload           struct{ Weight int }
	}
	must(r.t, json.Unmarshal(node.Data, &entry))
	if entry.Name != "web" || entry.ID != "web-2" || entry.Port != 30001 || entry.Payload.Weight != 10 {
		r.t.Errorf("the entry is %s", node.Data)
	}

	r.registry.Publish("web", endpoints())
	r.await("web")
	folder := r.server.Watch(r.path + "/web")
	if node, err := folder.Next(r.within()); err != nil || !node.Exists {
		r.t.Fatalf("a service without instances has no node: %v", err)
	}
	r.registry.Publish("web", nil)
	if node, err := folder.Next(r.within()); err != nil || node.Exists {
		r.t.Fatalf("a service that was removed has a node: %v", err)
	}
}

func testTakeover(r *rig) {
	ctx := r.within()
	end := r.run(r.config())
	r.registry.Publish("web", endpoints("web-1", "web-2"))
	r.registry.Publish("old", endpoints("old-1"))
	r.await("web", "web-1", "web-2")
	r.await("old", "old-1")
	end()
	// Somebody else registers beside the zone's instances, and under names of their own.
	for path, text := range map[string]string{
		"/web/theirs": `{"name":"web","id":"theirs","payload":null}`, "/legacy": "", "/legacy/one": "not even JSON", "/empty": "",
	} {
		err := r.look.Create(ctx, r.path+path, []byte(text))
		if path == "/legacy/one" && err != nil {
			must(r.t, r.look.Ensure(ctx, r.path+"/legacy"))
			err = r.look.Create(ctx, r.path+path, []byte(text))
		}
		if path != "/legacy" {
			must(r.t, err)
		}
	}
	// Somebody tampers with one of the zone's.
	must(r.t, r.look.Delete(ctx, r.path+"/web/web-1", zk.AnyVersion))
	r.registry.Publish("web", endpoints("web-1", "web-3"))
	r.registry.Publish("old", nil)
	r.run(r.config())
	r.await("web", "theirs", "web-1", "web-3")
	r.await("legacy", "one")
	gone := r.server.Watch(r.path + "/old")
	for node, err := gone.Next(ctx); node.Exists; node, err = gone.Next(ctx) {
		must(r.t, err)
	}
	if node, err := r.look.Get(ctx, r.path+"/empty"); err != nil || len(node.Data) > 0 {
		r.t.Errorf("the empty service of somebody else: %v", err)
	}
}

func testCommandLine(r *rig) {
	r.run(r.config())
	r.registry.Publish("web", endpoints("web-1"))
	r.await("web", "web-1")
	if out := r.server.Command("ls", r.path+"/web"); !strings.Contains(out, "[web-1]") {
		r.t.Errorf("zkCli.sh ls prints %s", out)
	}
	if out := r.server.Command("get", r.path+"/web/web-1"); !strings.Contains(out, `"name":"web","id":"web-1","address":"127.0.0.1","port":30001`) {
		r.t.Errorf("zkCli.sh get prints %s", out)
	}
}

func testAway(r *rig) {
	r.run(r.config())
	r.registry.Publish("web", endpoints("web-1"))
	r.await("web", "web-1")
	for n := range 2 {
		r.server.Stop()
		id := fmt.Sprintf("web-%d", n+2)
		r.registry.Publish("web", endpoints(id))
		r.server.Restart()
		r.await("web", id)
	}
}

func testInTheWay(r *rig) {
	ctx := r.within()
	must(r.t, r.look.Ensure(ctx, r.path+"/web"))
	err := r.look.Create(ctx, r.path+"/web/web-1", []byte("theirs"))
	must(r.t, err)
	r.run(r.config())
	r.registry.Publish("web", endpoints("web-1", "web-2"))
	r.await("web", "web-1", "web-2")
	if node, err := r.look.Get(ctx, r.path+"/web/web-1"); err != nil || string(node.Data) != "theirs" {
		r.t.Errorf("the foreign entry is %q, %v", node.Data, err)
	}
	r.registry.Publish("web", nil)
	r.await("web", "web-1")
}

// Another program has created a node below an instance's entry. So the entry cannot be deleted: it is marked as disabled, and that
// is logged once.
func testNodeUnderAnEntry(r *rig) {
	ctx := r.within()
	log := &text{}
	config := r.config()
	config.Log, config.Compare = slog.New(slog.NewTextHandler(log, nil)), 100*time.Millisecond
	r.run(config)
	r.registry.Publish("web", endpoints("web-1", "web-2"))
	r.await("web", "web-1", "web-2")
	err := r.look.Create(ctx, r.path+"/web/web-1/lock", nil)
	must(r.t, err)
	entry := r.server.Watch(r.path + "/web/web-1")
	_, err = entry.Next(ctx)
	must(r.t, err)
	r.registry.Publish("web", endpoints("web-3"))
	for began, n := time.Now(), 0; n < 30; n++ {
		name := fmt.Sprintf("db-%d", n)
		r.registry.Publish("db", endpoints(name))
		r.await("db", name)
		if took := time.Since(began); took > time.Minute {
			r.t.Fatalf("%d changes of another service took %s", n+1, took)
		}
	}
	r.await("web", "web-1", "web-3")
	enabled := func() bool {
		node, err := entry.Next(ctx)
		must(r.t, err)
		var read struct {
			ID      string
			Enabled bool
			Payload struct{ ManagedBy string }
		}
		must(r.t, json.Unmarshal(node.Data, &read))
		if read.ID != "web-1" || read.Payload.ManagedBy != "mammoth/east" {
			r.t.Errorf("the entry is %s", node.Data)
		}
		return read.Enabled
	}
	if enabled() {
		r.t.Error("the entry of an instance that is gone is enabled")
	}
	if told := log.String(); strings.Count(told, "path=") != 1 || !strings.Contains(told, "/web/web-1") {
		r.t.Errorf("it is told of %d times: %s", strings.Count(told, "path="), told)
	}
	// An instance of that name comes back, and goes.
	r.registry.Publish("web", endpoints("web-1", "web-3"))
	if !enabled() {
		r.t.Error("the entry of an instance that is back is not enabled")
	}
	must(r.t, r.look.Delete(ctx, r.path+"/web/web-1/lock", zk.AnyVersion))
	r.registry.Publish("web", nil)
	folder := r.server.Watch(r.path + "/web")
	for node, err := folder.Next(ctx); node.Exists; node, err = folder.Next(ctx) {
		must(r.t, err)
	}
}

// The folder is the zone's, one of its entries is closed to it: the other entries are copied, and other services at once.
func testClosedEntry(r *rig) {
	ctx := r.within()
	owner := r.owner()
	must(r.t, r.look.Ensure(ctx, r.path+"/web"))
	err := owner.Create(ctx, r.path+"/web/web-1", []byte(`{"payload":{"managedBy":"mammoth/east"}}`))
	must(r.t, err)
	log := &text{}
	config := r.config()
	config.Log, config.Compare = slog.New(slog.NewTextHandler(log, nil)), 100*time.Millisecond
	r.run(config)
	for n := range 20 {
		name := fmt.Sprintf("web-%d", n+2)
		r.registry.Publish("web", endpoints("web-1", name))
		r.await("web", "web-1", name)
	}
	if told := log.String(); strings.Count(told, "path=") != 1 || !strings.Contains(told, "belongs to somebody else") {
		r.t.Errorf("it is told of %d times: %s", strings.Count(told, "path="), told)
	}
}

// text is a log that is read while it is written.
type text struct {
	mu   sync.Mutex
	said strings.Builder
}

func (t *text) Write(line []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.said.Write(line)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.said.String()
}

func testPermission(r *rig) {
	ctx := r.within()
	owner := r.owner()
	must(r.t, owner.Ensure(ctx, r.path))
	said := make(chan string, 100)
	config := r.config()
	config.ZooKeeper.Digest = "mammoth:secret"
	config.Log = slog.New(slog.NewTextHandler(words(said), nil))
	r.run(config)
	r.registry.Publish("web", endpoints("web-1"))
	r.hear(said, func(word string) bool {
		return strings.Contains(word, "not authenticated") || strings.Contains(word, "permission denied")
	})
	must(r.t, owner.Delete(ctx, r.path, zk.AnyVersion))
	must(r.t, owner.Delete(ctx, strings.TrimSuffix(r.path, "/services"), zk.AnyVersion))
	r.await("web", "web-1")
	if err := r.look.Set(ctx, r.path+"/web/web-1", nil, zk.AnyVersion); err == nil {
		r.t.Error("anybody can change an entry that the digest protects")
	}
}

func testClosedFolder(r *rig) {
	ctx := r.within()
	owner := r.owner()
	must(r.t, r.look.Ensure(ctx, r.path))
	must(r.t, owner.Ensure(ctx, r.path+"/web"))
	said := make(chan string, 100)
	config := r.config()
	config.Log = slog.New(slog.NewTextHandler(words(said), nil))
	r.registry.Publish("web", endpoints("web-1"))
	r.registry.Publish("db", endpoints("db-1"))
	r.run(config)
	r.await("db", "db-1")
	r.hear(said, func(word string) bool {
		return strings.Contains(word, "belongs to somebody else") && strings.Contains(word, r.path+"/web")
	})
	// It does not delay them either.
	for i := range 20 {
		name := fmt.Sprintf("db-%d", i+2)
		r.registry.Publish("db", endpoints(name))
		r.await("db", name)
	}
	r.await("web")
}

// hear waits for a log line. On a busy machine other lines may come before it, for example about an unreachable server.
func (r *rig) hear(said <-chan string, right func(string) bool) {
	r.t.Helper()
	var words []string
	for ctx := r.within(); len(words) == 0 || !right(words[len(words)-1]); {
		select {
		case word := <-said:
			words = append(words, word)
		case <-ctx.Done():
			r.t.Fatalf("it says %q", words)
		}
	}
}

// words passes on what is logged.
func words(said chan<- string) io.Writer { return writer(said) }

type writer chan<- string

func (w writer) Write(text []byte) (int, error) {
	select {
	case w <- string(text):
	default:
	}
	return len(text), nil
}

func testHeld(r *rig) {
	end := r.run(r.config())
	r.registry.Publish("web", endpoints("web-1"))
	r.await("web", "web-1")
	end()
	r.registry.Hold()
	r.registry.Publish("web", nil)
	r.run(r.config())
	r.registry.Publish("web", endpoints("web-1"))
	r.registry.Publish("db", endpoints("db-1"))
	r.registry.Release()
	r.await("db", "db-1")
	node, err := r.look.Get(r.within(), r.path+"/web/web-1")
	if err != nil || node.Version != 0 {
		r.t.Errorf("the entry was touched while the registry was rebuilt: version %d, %v", node.Version, err)
	}
}

func testMany(r *rig) {
	const services = 1000
	for i := range services {
		r.registry.Publish(fmt.Sprintf("app-%d", i), endpoints("a", "b", "c", "d", "e", "f", "g", "h", "i", "j"))
	}
	start := time.Now()
	r.run(r.config())
	for i := range services {
		r.await(fmt.Sprintf("app-%d", i), "a", "b", "c", "d", "e", "f", "g", "h", "i", "j")
	}
	r.t.Logf("%d services of 10 instances were copied in %s", services, time.Since(start))
	start = time.Now()
	r.registry.Publish("app-7", endpoints("z"))
	r.await("app-7", "z")
	r.t.Logf("one change among them took %s", time.Since(start))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
