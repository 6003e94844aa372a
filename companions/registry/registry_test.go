package registry_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/companions/registry"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

const epoch = 7 << 32

func endpoints(ids ...string) []*apiv1.Endpoint {
	list := []*apiv1.Endpoint{}
	for _, id := range ids {
		list = append(list, &apiv1.Endpoint{
			Id: id, Address: "127.0.0.1", Port: 30001, Weight: 100,
			State: apiv1.Endpoint_HEALTHY, Ports: map[string]int32{"http": 30001},
		})
	}
	return list
}

func ids(service *apiv1.Service) string {
	var list []string
	for _, endpoint := range service.GetEndpoints() {
		list = append(list, endpoint.GetId())
	}
	return strings.Join(list, " ")
}

// newest is the zone's generation.
func newest(r *registry.Registry) int64 {
	_, generation := r.Services()
	return generation
}

func TestGenerationsRiseOnlyOnRealChange(t *testing.T) {
	r := registry.New(epoch)
	first := r.Publish("web", endpoints("web-2", "web-1"))
	if first <= epoch {
		t.Fatalf("the first generation is %d, want above %d", first, int64(epoch))
	}
	if again := r.Publish("web", endpoints("web-1", "web-2")); again != first {
		t.Errorf("publishing the same in another order gave generation %d, want %d", again, first)
	}
	other := r.Publish("db", endpoints("db-1"))
	if other <= first {
		t.Errorf("another service's change has generation %d, want above %d", other, first)
	}
	if again := r.Publish("web", endpoints("web-1", "web-2")); again != first {
		t.Errorf("web's generation became %d though only db changed, want %d", again, first)
	}
	if empty := r.Publish("web", endpoints()); empty <= other {
		t.Errorf("taking out the last instance has generation %d, want above %d", empty, other)
	}
	services, generation := r.Services()
	if len(services) != 2 || services[0].GetName() != "db" || services[1].GetName() != "web" {
		t.Errorf("services are %v, want db and the empty web", services)
	}
	removed := r.Publish("web", nil)
	if removed <= generation {
		t.Errorf("the removal has generation %d, want above %d", removed, generation)
	}
	if again := r.Publish("web", nil); again != removed {
		t.Errorf("removing twice gave generation %d, want %d", again, removed)
	}
}

// Whatever is published, in whatever order: a watcher ends with what was published last, its indexes only rise,
// and the zone's generation is never behind.
func TestWatcherEndsWithTheLastPublished(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := registry.New(0)
		watch := r.Watch("web", -1)
		defer watch.Close()
		all := r.WatchAll()
		mirror := map[string]string{}
		var seen int64
		last := map[string][]*apiv1.Endpoint{}
		for range rapid.IntRange(1, 30).Draw(t, "changes") {
			name := rapid.SampledFrom([]string{"web", "db"}).Draw(t, "service")
			var list []*apiv1.Endpoint
			if !rapid.Bool().Draw(t, "removed") {
				list = endpoints(rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), rapid.ID[string]).Draw(t, "ids")...)
			}
			generation := r.Publish(name, list)
			if newest := newest(r); generation > newest {
				t.Fatalf("Publish returned %d, above the zone's %d", generation, newest)
			}
			last[name] = list
			if rapid.Bool().Draw(t, "look") {
				current, _, err := watch.Next(ended())
				if err == nil && current.GetIndex() < seen {
					t.Fatalf("the index fell from %d to %d", seen, current.GetIndex())
				}
				seen = current.GetIndex()
				follow(all, mirror)
			}
		}
		current, exists, _ := watch.Next(ended())
		if exists != (last["web"] != nil) || ids(current) != want(last["web"]) {
			t.Fatalf("the watcher sees %v (exists %v), published was %v", current, exists, last["web"])
		}
		follow(all, mirror)
		for name, list := range last {
			got, exists := mirror[name]
			if exists != (list != nil) || got != want(list) {
				t.Fatalf("the follower of all sees %q as %q (exists %v), published was %v", name, got, exists, list)
			}
		}
	})
}

func want(list []*apiv1.Endpoint) string {
	service := &apiv1.Service{Endpoints: slices.Clone(list)}
	slices.SortFunc(service.Endpoints, func(a, b *apiv1.Endpoint) int { return strings.Compare(a.GetId(), b.GetId()) })
	return ids(service)
}

// ended lets a watch return what is there without waiting.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func follow(all *registry.WatchAll, mirror map[string]string) {
	changes, err := all.Next(ended())
	if err != nil {
		return
	}
	for _, service := range changes.Changed {
		mirror[service.GetName()] = ids(service)
	}
	for _, name := range changes.Removed {
		delete(mirror, name)
	}
}

func TestBlockingLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registry.New(epoch)
		ctx := t.Context()
		_, err := r.GetService(ctx, &apiv1.GetServiceRequest{Name: "web"})
		if status.Code(err) != codes.NotFound || !strings.HasPrefix(status.Convert(err).Message(), `no service is named "web"; `) {
			t.Fatalf("looking up what does not exist: %v", err)
		}

		// A client that knows an index from before the ResourceManager's restart waits for the service.
		go func() {
			time.Sleep(20 * time.Second)
			r.Publish("web", endpoints("web-1"))
		}()
		start := time.Now()
		service, err := r.GetService(ctx, &apiv1.GetServiceRequest{Name: "web", Index: 5})
		if err != nil || ids(service) != "web-1" || time.Since(start) != 20*time.Second {
			t.Fatalf("after %s: %v, %v", time.Since(start), service, err)
		}

		start = time.Now()
		same, err := r.GetService(ctx, &apiv1.GetServiceRequest{Name: "web", Index: service.GetIndex()})
		if err != nil || same.GetIndex() != service.GetIndex() || time.Since(start) != 30*time.Second {
			t.Fatalf("without a change the answer came after %s: %v, %v", time.Since(start), same, err)
		}

		start = time.Now()
		_, err = r.GetService(ctx, &apiv1.GetServiceRequest{Name: "db", Index: 5, Wait: durationpb.New(time.Hour)})
		if status.Code(err) != codes.NotFound || time.Since(start) != 10*time.Minute {
			t.Fatalf("waiting for what never came ended after %s: %v", time.Since(start), err)
		}
		_, err = r.GetService(ctx, &apiv1.GetServiceRequest{Name: "web", Wait: durationpb.New(-time.Second)})
		if status.Code(err) != codes.InvalidArgument {
			t.Fatalf("a negative wait: %v", err)
		}

		// A watcher gets a removal even if it was not waiting at that moment.
		r.Publish("web", nil)
		gone, err := r.GetService(ctx, &apiv1.GetServiceRequest{Name: "web", Index: service.GetIndex()})
		if err != nil || gone.GetIndex() <= service.GetIndex() || len(gone.GetEndpoints()) != 0 {
			t.Fatalf("after the removal: %v, %v", gone, err)
		}
	})
}

func TestWatchServiceOverGRPC(t *testing.T) {
	r := registry.New(0)
	client := apiv1.NewRegistryClient(serve(t, r))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	none, err := client.WatchService(ctx, &apiv1.GetServiceRequest{Name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := none.Recv(); status.Code(err) != codes.NotFound {
		t.Fatalf("watching what does not exist: %v", err)
	}

	r.Publish("web", endpoints("web-1"))
	stream, err := client.WatchService(ctx, &apiv1.GetServiceRequest{Name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		publish []*apiv1.Endpoint
		want    string
	}{
		{nil, "web-1"},
		{endpoints("web-1", "web-2"), "web-1 web-2"},
		{endpoints(), ""},
		{endpoints("web-3"), "web-3"},
	} {
		if step.publish != nil {
			r.Publish("web", step.publish)
		}
		service, err := stream.Recv()
		if err != nil || ids(service) != step.want {
			t.Fatalf("the stream says %q, %v; want %q", ids(service), err, step.want)
		}
	}
	list, err := client.ListServices(ctx, &apiv1.ListServicesRequest{})
	if err != nil || len(list.GetServices()) != 1 || list.GetGeneration() != newest(r) {
		t.Fatalf("ListServices: %v, %v", list, err)
	}
}

func serve(t *testing.T, r *registry.Registry) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	apiv1.RegisterRegistryServer(server, r)
	companionv1.RegisterCompanionsServer(server, r)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	conn, err := grpc.NewClient("passthrough:registry",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		<-done
	})
	return conn
}

// A thousand watchers of one service all get a change, and one that does not read does not affect the others.
func TestThousandWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registry.New(0)
		r.Publish("web", endpoints("web-1"))
		told := make(chan string)
		for range 1000 {
			go func() {
				watch := r.Watch("web", -1)
				defer watch.Close()
				_, _, _ = watch.Next(t.Context())
				current, _, _ := watch.Next(t.Context())
				told <- ids(current)
			}()
		}
		slow := r.Watch("web", -1)
		defer slow.Close()
		synctest.Wait()
		r.Publish("web", endpoints("web-2"))
		for range 1000 {
			if got := <-told; got != "web-2" {
				t.Fatalf("a watcher was told %q", got)
			}
		}
		for n := range 50 {
			r.Publish("web", endpoints(fmt.Sprintf("web-%d", n)))
		}
		if current, _, err := slow.Next(ended()); err != nil || ids(current) != "web-49" {
			t.Fatalf("the slow watcher was told %q, %v; want the newest", ids(current), err)
		}
	})
}

func BenchmarkPublish(b *testing.B) {
	for _, watchers := range []int{0, 1, 1000} {
		b.Run(fmt.Sprintf("watchers=%d", watchers), func(b *testing.B) {
			r := registry.New(0)
			r.Publish("web", endpoints("a"))
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			for range watchers {
				go func() {
					watch := r.Watch("web", -1)
					defer watch.Close()
					for ctx.Err() == nil {
						_, _, _ = watch.Next(ctx)
					}
				}()
			}
			states := [][]*apiv1.Endpoint{
				endpoints("a", "b", "c", "d", "e", "f", "g", "h", "i", "j"),
				endpoints("a", "b", "c", "d", "e", "f", "g", "h", "i"),
			}
			for i := 0; b.Loop(); i++ {
				r.Publish("web", states[i%2])
			}
		})
	}
}
