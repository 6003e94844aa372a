// Package endpoints tests how instances are found and routed to, on real servers: nginx, HAProxy, ZooKeeper, dig, curl,
// Python and Java. What a ResourceManager does with the registry, the tests do themselves.
package endpoints_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/mammoth-os/mammoth/companions/registry"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// zone is a registry that is served as a ResourceManager serves it.
type zone struct {
	t        testing.TB
	registry *registry.Registry
	// Of the HTTP interface, host:port.
	address string
	conn    *grpc.ClientConn
	log     *slog.Logger
	// Names of balancers that have connected.
	connected chan string
}

func (z *zone) BalancerConnected(balancer string)      { z.connected <- balancer }
func (z *zone) BalancerLost(string, string)            {}
func (z *zone) Refused(string, []*companionv1.Refusal) {}
func (z *zone) Counted(string, []*companionv1.Traffic) {}

// runBalancer runs a balancer's companion, and returns once the zone waits for it.
func (z *zone) runBalancer(c companion, err error) (end func()) {
	z.t.Helper()
	end = z.run(c, err)
	select {
	case <-z.connected:
	case <-within(z.t).Done():
		z.t.Fatal("the balancer has not connected")
	}
	return end
}

func newZone(t testing.TB) *zone {
	t.Helper()
	z := &zone{t: t, registry: registry.New(1 << 32), log: slog.New(slog.NewTextHandler(testWriter{t}, nil)), connected: make(chan string, 100)}
	z.registry.Observe(z)
	z.registry.AllowRegistration([]byte("secret"))
	rpc := grpc.NewServer()
	apiv1.RegisterRegistryServer(rpc, z.registry)
	companionv1.RegisterCompanionsServer(rpc, z.registry)
	listener := listen(t)
	var served sync.WaitGroup
	served.Go(func() { _ = rpc.Serve(listener) })
	var err error
	z.conn, err = grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	mux := runtime.NewServeMux()
	if err := apiv1.RegisterRegistryHandler(context.Background(), mux, z.conn); err != nil {
		t.Fatal(err)
	}
	front := listen(t)
	z.address = front.Addr().String()
	server := &http.Server{Handler: mux}
	served.Go(func() { _ = server.Serve(front) })
	t.Cleanup(func() {
		_ = server.Close()
		rpc.Stop()
		_ = z.conn.Close()
		served.Wait()
	})
	return z
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// freeAddress is an address that nobody listened on a moment ago.
func freeAddress(t testing.TB) string {
	t.Helper()
	listener := listen(t)
	defer listener.Close()
	return listener.Addr().String()
}

// folder is a folder that a server which runs as another user can reach too.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mammoth-endpoints-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// testWriter passes what is logged on to the test.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(text []byte) (int, error) {
	w.t.Log(string(text))
	return len(text), nil
}

// companion is whatever runs beside the zone.
type companion interface {
	Run(ctx context.Context) error
}

// run runs a companion until the answer is called, or the test ends.
func (z *zone) run(c companion, err error) (end func()) {
	z.t.Helper()
	if err != nil {
		z.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			z.t.Errorf("a companion ended with %v", err)
		}
	})
	z.t.Cleanup(end)
	return end
}

// app does with the registry what a ResourceManager and a driver do for one app.
type app struct {
	zone      *zone
	name      string
	instances []*instance
	started   int
	version   int32
}

// instance is one HTTP server that says its version.
type instance struct {
	id       string
	version  int32
	weight   int32
	listener net.Listener
	server   *http.Server
	done     chan struct{}
}

func (z *zone) newApp(name string, expose *apiv1.Expose) *app {
	z.registry.Expose(name, expose)
	a := &app{zone: z, name: name, version: 1}
	z.t.Cleanup(func() {
		for _, i := range a.instances {
			i.kill()
		}
	})
	return a
}

func onHost(host string) *apiv1.Expose {
	return &apiv1.Expose{Http: &apiv1.Expose_Http{Host: host, Path: "/"}}
}

// start starts one instance of the app's version; it is healthy at once, and not yet published.
func (a *app) start() *instance {
	a.zone.t.Helper()
	a.started++
	i := &instance{id: fmt.Sprintf("%s-%d", a.name, a.started), version: a.version, weight: 100, listener: listen(a.zone.t), done: make(chan struct{})}
	i.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		fmt.Fprintf(w, "%s version %d\n", i.id, i.version)
	})}
	go func() {
		defer close(i.done)
		_ = i.server.Serve(i.listener)
	}()
	a.instances = append(a.instances, i)
	return i
}

// publish tells the registry of the app's instances.
func (a *app) publish() int64 {
	list := []*apiv1.Endpoint{}
	for _, i := range a.instances {
		list = append(list, &apiv1.Endpoint{
			Id: i.id, Address: "127.0.0.1", Port: int32(i.listener.Addr().(*net.TCPAddr).Port), Weight: i.weight,
			State: apiv1.Endpoint_HEALTHY, Version: i.version,
		})
	}
	return a.zone.registry.Publish(a.name, list)
}

// confirmed publishes, and waits until every balancer has confirmed.
func (a *app) confirmed(ctx context.Context) {
	a.zone.t.Helper()
	done := make(chan struct{})
	a.zone.registry.AwaitBalancers(a.name, a.publish(), func() { close(done) })
	select {
	case <-done:
	case <-ctx.Done():
		a.zone.t.Fatalf("no balancer has confirmed: %v", context.Cause(ctx))
	}
}

// take takes an instance away as it has to be done: registry, balancers, requests in flight, stop.
func (a *app) take(ctx context.Context, gone *instance) {
	a.zone.t.Helper()
	var rest []*instance
	for _, i := range a.instances {
		if i != gone {
			rest = append(rest, i)
		}
	}
	a.instances = rest
	a.confirmed(ctx)
	gone.drain()
}

// roll replaces every instance by one of the next version, a few at a time.
func (a *app) roll(ctx context.Context, surge int) {
	a.zone.t.Helper()
	a.version++
	old := append([]*instance(nil), a.instances...)
	for at := 0; at < len(old); at += surge {
		batch := old[at:min(at+surge, len(old))]
		for range batch {
			a.start()
		}
		a.confirmed(ctx)
		leaving := map[*instance]bool{}
		for _, i := range batch {
			leaving[i] = true
		}
		var rest []*instance
		for _, i := range a.instances {
			if !leaving[i] {
				rest = append(rest, i)
			}
		}
		a.instances = rest
		a.confirmed(ctx)
		for i := range leaving {
			i.drain()
		}
	}
}

// drain lets requests end that a balancer had accepted before it let go of the instance, and then ends it, as an app
// does that heeds SIGTERM.
func (i *instance) drain() {
	time.Sleep(500 * time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = i.server.Shutdown(ctx)
	<-i.done
}

// kill ends an instance with everything under way.
func (i *instance) kill() {
	_ = i.server.Close()
	<-i.done
}
