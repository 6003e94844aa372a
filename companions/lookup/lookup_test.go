package lookup_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/mammoth-os/mammoth/companions/lookup"
	"github.com/mammoth-os/mammoth/companions/registry"
	"github.com/mammoth-os/mammoth/internal/testenv"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// zone serves a registry over HTTP, as a ResourceManager does.
type zone struct {
	registry *registry.Registry
	http     *httptest.Server
	rpc      *grpc.Server
	conn     *grpc.ClientConn
	served   chan struct{}
}

// newZone serves a registry on a port of 127.0.0.1.
func newZone(t *testing.T, r *registry.Registry, port int) *zone {
	t.Helper()
	r.AllowRegistration([]byte("secret"))
	z := &zone{registry: r, rpc: grpc.NewServer(), served: make(chan struct{})}
	apiv1.RegisterRegistryServer(z.rpc, r)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(z.served)
		_ = z.rpc.Serve(listener)
	}()
	z.conn, err = grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	mux := runtime.NewServeMux()
	if err := apiv1.RegisterRegistryHandler(context.Background(), mux, z.conn); err != nil {
		t.Fatal(err)
	}
	z.http = httptest.NewUnstartedServer(mux)
	_ = z.http.Listener.Close()
	if z.http.Listener, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
		t.Fatal(err)
	}
	z.http.Start()
	t.Cleanup(z.stop)
	return z
}

func (z *zone) stop() {
	z.http.CloseClientConnections()
	z.rpc.Stop()
	<-z.served
	_ = z.conn.Close()
	z.http.Close()
}

func (z *zone) address() string { return z.http.Listener.Addr().String() }

func newClient(t *testing.T, address string) *lookup.Client {
	t.Helper()
	client, err := lookup.New(lookup.Config{Registry: address, Transport: &http.Transport{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func endpoints(ids ...string) []*apiv1.Endpoint {
	list := []*apiv1.Endpoint{}
	for i, id := range ids {
		list = append(list, &apiv1.Endpoint{
			Id: id, Address: "127.0.0.1", Port: int32(30000 + i), Weight: 100, State: apiv1.Endpoint_HEALTHY, Version: 2,
		})
	}
	return list
}

func ids(service lookup.Service) string {
	var list []string
	for _, endpoint := range service.Endpoints {
		list = append(list, endpoint.ID)
	}
	return strings.Join(list, " ")
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// await waits until the client knows a service to have these endpoints.
func await(t *testing.T, client *lookup.Client, name, want string) {
	t.Helper()
	last := ""
	err := client.Watch(within(t), name, func(service lookup.Service) bool {
		last = ids(service)
		return last != want
	})
	if err != nil {
		t.Fatalf("%q has %q, want %q: %v", name, last, want, err)
	}
}

func TestLookup(t *testing.T) {
	z := newZone(t, registry.New(1<<32), testenv.Port(t))
	client := newClient(t, "http://"+z.address())
	if _, err := client.Lookup(within(t), "web"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Fatalf("looking up what does not exist: %v", err)
	}
	z.registry.Publish("web", endpoints("web-1"))
	await(t, client, "web", "web-1")
	service, err := client.Lookup(within(t), "web")
	if err != nil || service.Endpoints[0].HostPort() != "127.0.0.1:30000" || service.Endpoints[0].Version != 2 || !service.StaleSince.IsZero() {
		t.Fatalf("the service is %+v, %v", service, err)
	}
	z.registry.Publish("web", endpoints("web-1", "web-2"))
	await(t, client, "web", "web-1 web-2")
	z.registry.Publish("web", nil)
	await(t, client, "web", "")
	z.registry.Publish("web", endpoints("web-3"))
	await(t, client, "web", "web-3")
}

func TestLastAnswerWhileTheRegistryIsAway(t *testing.T) {
	port := testenv.Port(t)
	z := newZone(t, registry.New(1<<32), port)
	client := newClient(t, "http://"+z.address())
	z.registry.Publish("web", endpoints("web-1"))
	await(t, client, "web", "web-1")
	z.stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx := within(t); ; {
		service, err := client.Lookup(ctx, "web")
		if err != nil || ids(service) != "web-1" {
			t.Fatalf("while the registry is away: %+v, %v", service, err)
		}
		if !service.StaleSince.IsZero() {
			break
		}
		<-tick.C
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.Lookup(short, "db"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("what was never known: %v", err)
	}
	// A later ResourceManager has a higher epoch.
	z = newZone(t, registry.New(2<<32), port)
	z.registry.Publish("web", endpoints("web-1", "web-2"))
	await(t, client, "web", "web-1 web-2")
	if service, err := client.Lookup(within(t), "web"); err != nil || !service.StaleSince.IsZero() {
		t.Errorf("after the registry's return: %+v, %v", service, err)
	}
}

func TestPickByWeight(t *testing.T) {
	z := newZone(t, registry.New(1<<32), testenv.Port(t))
	client := newClient(t, "http://"+z.address())
	list := endpoints("a", "b", "c", "sick")
	list[0].Weight, list[1].Weight, list[2].Weight = 90, 10, 0
	list[3].State = apiv1.Endpoint_UNHEALTHY
	z.registry.Publish("web", list)
	met := map[string]int{}
	const picks = 10000
	for range picks {
		endpoint, err := client.Pick(within(t), "web")
		if err != nil {
			t.Fatal(err)
		}
		met[endpoint.ID]++
	}
	if share := float64(met["b"]) / picks; met["a"]+met["b"] != picks || share < 0.07 || share > 0.13 {
		t.Errorf("picked %v, want 90 to 10", met)
	}
	z.registry.Publish("web", list[3:])
	await(t, client, "web", "sick")
	if endpoint, err := client.Pick(within(t), "web"); err != nil || endpoint.ID != "sick" {
		t.Errorf("with nothing else there: %+v, %v", endpoint, err)
	}
	z.registry.Publish("web", endpoints())
	await(t, client, "web", "")
	if _, err := client.Pick(within(t), "web"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("without instances: %v", err)
	}
}

func TestRegister(t *testing.T) {
	z := newZone(t, registry.New(1<<32), testenv.Port(t))
	client := newClient(t, fmt.Sprintf("http://web:%s@%s", z.registry.AppKey("web"), z.address()))
	other := newClient(t, "http://"+z.address())
	ctx, cancel := context.WithCancel(within(t))
	// The lease outlasts what a busy machine keeps its renewal waiting, and the wait for its end outlasts it.
	mine := lookup.Registration{
		Service: "admin.web", ID: "mine", Address: "127.0.0.1", Port: 9000, Values: map[string]string{"role": "leader"}, Lease: 20 * time.Second,
	}
	if err := client.Register(ctx, mine); err != nil {
		t.Fatal(err)
	}
	await(t, other, "admin.web", "mine")
	service, err := other.Lookup(ctx, "admin.web")
	if err != nil || service.Endpoints[0].Values["role"] != "leader" || !service.Endpoints[0].AppOwned || service.Endpoints[0].Weight != 100 {
		t.Fatalf("the service is %+v, %v", service, err)
	}
	cancel()
	await(t, other, "admin.web", "")

	theirs := mine
	theirs.Service = "db"
	if err := client.Register(within(t), theirs); !errors.Is(err, errdefs.ErrPermissionDenied) || !strings.Contains(err.Error(), `does not belong to app "db"`) {
		t.Errorf("under another app's name: %v", err)
	}
	if err := other.Register(within(t), mine); !errors.Is(err, errdefs.ErrUnauthenticated) {
		t.Errorf("without a key: %v", err)
	}
}

func TestWhereTheRegistryIs(t *testing.T) {
	t.Setenv(lookup.Variable, "")
	if _, err := lookup.New(lookup.Config{}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("without a registry: %v", err)
	}
	if _, err := lookup.New(lookup.Config{Registry: "web:secret@host"}); !errors.Is(err, errdefs.ErrInvalidArgument) || strings.Contains(err.Error(), "secret") {
		t.Errorf("an address that is none: %v", err)
	}
	t.Setenv(lookup.Variable, "http://127.0.0.1:7070")
	client, err := lookup.New(lookup.Config{})
	if err != nil {
		t.Fatalf("with %s=%s: %v", lookup.Variable, os.Getenv(lookup.Variable), err)
	}
	client.Close()
	if _, err := client.Lookup(within(t), "web"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("after Close: %v", err)
	}
}
