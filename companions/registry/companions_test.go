package registry_test

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/companions/registry"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// heard records the calls of an observer.
type heard struct {
	mu    sync.Mutex
	words []string
	lost  chan struct{}
}

func (h *heard) say(words ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.words = append(h.words, words...)
}

func (h *heard) BalancerConnected(balancer string) { h.say(balancer + " connected") }

func (h *heard) BalancerLost(balancer, why string) {
	h.say(balancer + " lost: " + why)
	close(h.lost)
}

func (h *heard) Refused(_ string, refusals []*companionv1.Refusal) {
	for _, refusal := range refusals {
		h.say(refusal.GetService() + " refused: " + refusal.GetReason())
	}
}

func (h *heard) Counted(_ string, traffic []*companionv1.Traffic) {
	for _, count := range traffic {
		h.say("counted " + count.GetEndpoint())
	}
}

func TestRouteKeepsABalancer(t *testing.T) {
	r := registry.New(epoch)
	observer := &heard{lost: make(chan struct{})}
	r.Observe(observer)
	r.Hold()
	r.Expose("web", exposed())
	r.Publish("db", endpoints("db-1"))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := companionv1.NewCompanionsClient(serve(t, r)).Route(ctx)
	if err != nil {
		t.Fatal(err)
	}
	report := func(report *companionv1.RouteReport) {
		t.Helper()
		if err := stream.Send(report); err != nil {
			t.Fatal(err)
		}
	}
	report(&companionv1.RouteReport{Balancer: "nginx", LostAfter: durationpb.New(time.Hour)})
	generation := r.Publish("web", endpoints("web-1"))
	waiting := make(chan struct{})
	r.AwaitBalancers("web", generation, func() { close(waiting) })
	select {
	case <-waiting:
		t.Fatal("nobody has confirmed, and the registry is held")
	default:
	}
	r.Release()

	first, err := stream.Recv()
	if err != nil || !first.GetSnapshot() || len(first.GetRoutes()) != 1 || ids(first.GetRoutes()[0].GetService()) != "web-1" || first.GetGeneration() != generation {
		t.Fatalf("the first update is %v, %v", first, err)
	}
	report(&companionv1.RouteReport{
		Applied: first.GetGeneration(), Refusals: []*companionv1.Refusal{{Service: "web", Reason: "no certificate"}},
		Traffic: []*companionv1.Traffic{{Service: "web", Endpoint: "web-1", Requests: 3}},
	})
	<-waiting

	r.Publish("db", endpoints("db-1", "db-2"))
	removed := r.Publish("web", endpoints())
	gone := make(chan struct{})
	r.AwaitBalancers("web", removed, func() { close(gone) })
	second, err := stream.Recv()
	if err != nil || second.GetSnapshot() || len(second.GetRoutes()) != 1 || ids(second.GetRoutes()[0].GetService()) != "" || second.GetGeneration() != removed {
		t.Fatalf("the second update is %v, %v; db is not exposed", second, err)
	}
	report(&companionv1.RouteReport{Applied: second.GetGeneration()})
	<-gone

	r.Expose("web", nil)
	third, err := stream.Recv()
	if err != nil || !slices.Equal(third.GetRemoved(), []string{"web"}) {
		t.Fatalf("the third update is %v, %v", third, err)
	}
	report(&companionv1.RouteReport{Leaving: true})
	if _, err := stream.Recv(); err != io.EOF {
		t.Fatalf("after leaving: %v", err)
	}
	<-observer.lost
	want := []string{"nginx connected", "web refused: no certificate", "counted web-1", "nginx lost: it has left"}
	if !slices.Equal(observer.words, want) {
		t.Errorf("the observer heard %q, want %q", observer.words, want)
	}
}

func TestRouteRefusesNamelessBalancers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := companionv1.NewCompanionsClient(serve(t, registry.New(0))).Route(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&companionv1.RouteReport{Balancer: "a b"})
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Fatalf("a balancer named %q: %v", "a b", err)
	}
}

func TestMirror(t *testing.T) {
	r := registry.New(0)
	r.Publish("web", endpoints("web-1"))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := companionv1.NewCompanionsClient(serve(t, r)).Mirror(ctx, &companionv1.MirrorRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || !first.GetSnapshot() || len(first.GetServices()) != 1 {
		t.Fatalf("the first update is %v, %v", first, err)
	}
	r.Publish("web", nil)
	second, err := stream.Recv()
	if err != nil || second.GetSnapshot() || !slices.Equal(second.GetRemoved(), []string{"web"}) {
		t.Fatalf("the second update is %v, %v", second, err)
	}
}

func TestRouteEndsWhenAnotherOfTheNameConnects(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r := registry.New(0)
	observer := &heard{lost: make(chan struct{})}
	r.Observe(observer)
	client := companionv1.NewCompanionsClient(serve(t, r))
	var streams [2]grpc.BidiStreamingClient[companionv1.RouteReport, companionv1.RouteUpdate]
	for i := range streams {
		var err error
		if streams[i], err = client.Route(ctx); err != nil {
			t.Fatal(err)
		}
		_ = streams[i].Send(&companionv1.RouteReport{Balancer: "nginx"})
		if _, err := streams[i].Recv(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := streams[0].Recv(); status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "give each a name of its own") {
		t.Errorf("the first connection ended with %v", err)
	}
	// The balancer is connected: the end of the connection before is no loss of it.
	_ = streams[1].Send(&companionv1.RouteReport{Leaving: true})
	<-observer.lost
	observer.mu.Lock()
	defer observer.mu.Unlock()
	if lost := strings.Count(strings.Join(observer.words, "\n"), "lost"); lost != 1 {
		t.Errorf("the observer heard of %d losses: %q", lost, observer.words)
	}
}
