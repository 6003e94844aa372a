package balancer_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/mammoth-os/mammoth/companions/balancer"
	"github.com/mammoth-os/mammoth/companions/registry"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// proxy routes nothing and remembers everything.
type proxy struct {
	mu      sync.Mutex
	starts  int
	dead    bool
	fails   int
	applied []string
	times   []time.Duration
	began   time.Time
	// How long it rests after it was given routes, unless they are none.
	rest time.Duration
}

func (p *proxy) Start(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starts++
	p.dead = false
	return nil
}

func (p *proxy) Apply(_ context.Context, routes map[string]balancer.Route) ([]*companionv1.Refusal, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.times = append(p.times, time.Since(p.began))
	if p.fails > 0 {
		p.fails--
		return nil, errors.New("no room")
	}
	var words []string
	for name, route := range routes {
		for _, endpoint := range route.Service.GetEndpoints() {
			words = append(words, name+"/"+endpoint.GetId())
		}
	}
	slices.Sort(words)
	p.applied = append(p.applied, strings.Join(words, " "))
	return nil, nil
}

func (p *proxy) ReloadDelay(routes map[string]balancer.Route) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.times) == 0 || len(routes) == 0 {
		return 0
	}
	return p.times[len(p.times)-1] + p.rest - time.Since(p.began)
}

func (p *proxy) Alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.dead
}

func (p *proxy) Traffic() []*companionv1.Traffic { return nil }

func (p *proxy) last() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.applied) == 0 {
		return "nothing"
	}
	return p.applied[len(p.applied)-1]
}

// zone is a registry behind a server that can be cut off.
type zone struct {
	registry *registry.Registry
	server   *grpc.Server
	listener *bufconn.Listener
	done     chan struct{}
}

func (z *zone) serve(r *registry.Registry) {
	z.registry, z.listener, z.server, z.done = r, bufconn.Listen(1<<20), grpc.NewServer(), make(chan struct{})
	companionv1.RegisterCompanionsServer(z.server, r)
	go func(server *grpc.Server, listener net.Listener, done chan struct{}) {
		defer close(done)
		_ = server.Serve(listener)
	}(z.server, z.listener, z.done)
}

func (z *zone) stop() {
	z.server.Stop()
	<-z.done
}

// with runs a companion of a proxy in a bubble of its own time.
func with(t *testing.T, config balancer.Config, test func(t *testing.T, z *zone, p *proxy, end func())) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{}
		z.serve(registry.New(1 << 32))
		conn, err := grpc.NewClient("passthrough:zone",
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return z.listener.DialContext(ctx) }),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		p := &proxy{began: time.Now()}
		config.Name, config.Log = "proxy", slog.New(slog.DiscardHandler)
		companion, err := balancer.New(config, conn, p)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- companion.Run(ctx) }()
		synctest.Wait()
		end := sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("the companion ended with %v", err)
			}
		})
		test(t, z, p, end)
		end()
		_ = conn.Close()
		z.stop()
	})
}

func list(ids ...string) []*apiv1.Endpoint {
	endpoints := []*apiv1.Endpoint{}
	for _, id := range ids {
		endpoints = append(endpoints, &apiv1.Endpoint{Id: id, Address: "127.0.0.1", Port: 1, Weight: 100})
	}
	return endpoints
}

func web() *apiv1.Expose {
	return &apiv1.Expose{Http: &apiv1.Expose_Http{Host: "web.example.test"}}
}

func confirmed(z *zone, generation int64) func() bool {
	done := make(chan struct{})
	z.registry.AwaitBalancers("web", generation, func() { close(done) })
	return func() bool {
		synctest.Wait()
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
}

func TestFirstChangeAtOnceThenBurstsTogether(t *testing.T) {
	with(t, balancer.Config{}, func(t *testing.T, z *zone, p *proxy, _ func()) {
		p.mu.Lock()
		p.rest = time.Second
		p.mu.Unlock()
		time.Sleep(10 * time.Second)
		z.registry.Expose("web", web())
		if done := confirmed(z, z.registry.Publish("web", list("web-1"))); !done() && p.last() != "" {
			t.Fatalf("the first change was not applied at once: %q", p.last())
		}
		before := len(p.times)
		for i := range 100 {
			z.registry.Publish("web", list("web-1", "x"+string(rune('a'+i%26))))
			time.Sleep(50 * time.Millisecond)
		}
		done := confirmed(z, z.registry.Publish("web", list("web-9")))
		time.Sleep(time.Second)
		if !done() || p.last() != "web/web-9" {
			t.Fatalf("after the burst %q is applied", p.last())
		}
		if applied := len(p.times) - before; applied > 7 {
			t.Errorf("%d applications in 6 s, want at most one a second", applied)
		}
		for i := 1; i < len(p.times); i++ {
			if gap := p.times[i] - p.times[i-1]; gap < time.Second {
				t.Errorf("two applications were %s apart", gap)
			}
		}
	})
}

// A proxy that rests is given at once what needs no rest, and the rest of it later.
func TestWhatNeedsNoRestIsAppliedAtOnce(t *testing.T) {
	with(t, balancer.Config{}, func(t *testing.T, z *zone, p *proxy, _ func()) {
		p.mu.Lock()
		p.rest = 20 * time.Second
		p.mu.Unlock()
		z.registry.Expose("web", web())
		z.registry.Publish("web", list("web-1"))
		time.Sleep(time.Minute)
		z.registry.Publish("web", list("web-2"))
		time.Sleep(time.Second)
		done := confirmed(z, z.registry.Publish("web", list("web-3")))
		if done() || p.last() != "web/web-2" {
			t.Fatalf("it was not let rest: %q is applied", p.last())
		}
		z.registry.Expose("web", nil)
		if synctest.Wait(); p.last() != "" {
			t.Fatalf("what needs no rest has to wait: %q is applied", p.last())
		}
		z.registry.Expose("web", web())
		done = confirmed(z, z.registry.Publish("web", list("web-4")))
		time.Sleep(21 * time.Second)
		if !done() || p.last() != "web/web-4" {
			t.Errorf("after its rest %q is applied", p.last())
		}
	})
}

func TestFailureKeepsTheOldAndTriesAgain(t *testing.T) {
	with(t, balancer.Config{}, func(t *testing.T, z *zone, p *proxy, _ func()) {
		z.registry.Expose("web", web())
		z.registry.Publish("web", list("web-1"))
		synctest.Wait()
		p.mu.Lock()
		p.fails = 2
		p.mu.Unlock()
		done := confirmed(z, z.registry.Publish("web", list("web-2")))
		if done() || p.last() != "web/web-1" {
			t.Fatalf("confirmed what failed; %q is applied", p.last())
		}
		time.Sleep(4 * time.Second)
		if !done() || p.last() != "web/web-2" {
			t.Fatalf("not tried again: %q is applied", p.last())
		}
	})
}

// A certificate may have been renewed.
func TestUnchangedRoutesAreAppliedOnceAMinute(t *testing.T) {
	with(t, balancer.Config{}, func(t *testing.T, z *zone, p *proxy, _ func()) {
		z.registry.Expose("web", web())
		z.registry.Publish("web", list("web-1"))
		synctest.Wait()
		p.mu.Lock()
		before := len(p.times)
		p.mu.Unlock()
		time.Sleep(10*time.Minute + time.Second)
		p.mu.Lock()
		defer p.mu.Unlock()
		if again := len(p.times) - before; again != 10 {
			t.Errorf("they were applied %d times in 10 minutes", again)
		}
	})
}

func TestWithoutTheZoneEverythingStays(t *testing.T) {
	with(t, balancer.Config{LostAfter: time.Minute}, func(t *testing.T, z *zone, p *proxy, _ func()) {
		z.registry.Expose("web", web())
		z.registry.Publish("web", list("web-1"))
		synctest.Wait()
		z.stop()
		time.Sleep(5 * time.Minute)
		if p.last() != "web/web-1" {
			t.Fatalf("without the zone %q is applied", p.last())
		}
		// The zone comes back with an empty registry, and sends it only once its nodes have reported.
		r := registry.New(2 << 32)
		r.Hold()
		z.serve(r)
		time.Sleep(10 * time.Second)
		if p.last() != "web/web-1" {
			t.Fatalf("a zone that knows nothing yet emptied the proxy: %q", p.last())
		}
		r.Expose("web", web())
		generation := r.Publish("web", list("web-1", "web-2"))
		r.Release()
		if done := confirmed(z, generation); !done() || p.last() != "web/web-1 web/web-2" {
			t.Fatalf("after the zone's return %q is applied", p.last())
		}
		r.Expose("web", nil)
		synctest.Wait()
		if p.last() != "" {
			t.Errorf("after the app is no longer exposed %q is applied", p.last())
		}
	})
}

func TestDeadProxyIsStarted(t *testing.T) {
	with(t, balancer.Config{}, func(t *testing.T, z *zone, p *proxy, _ func()) {
		z.registry.Expose("web", web())
		z.registry.Publish("web", list("web-1"))
		synctest.Wait()
		before := len(p.times)
		for range 3 {
			p.mu.Lock()
			p.dead = true
			p.mu.Unlock()
			time.Sleep(200 * time.Millisecond)
			if !p.Alive() {
				t.Fatal("the proxy stays dead")
			}
		}
		if applied := len(p.times) - before; p.starts != 4 || applied != 3 {
			t.Errorf("the proxy was started %d times, and given its routes again %d times; want 4 and 3", p.starts, applied)
		}
	})
}

func TestLeavingBalancerIsNotWaitedFor(t *testing.T) {
	for _, leave := range []bool{true, false} {
		with(t, balancer.Config{LeaveOnExit: leave, LostAfter: time.Minute}, func(t *testing.T, z *zone, _ *proxy, end func()) {
			z.registry.Expose("web", web())
			z.registry.Publish("web", list("web-1"))
			synctest.Wait()
			end()
			done := confirmed(z, z.registry.Publish("web", list()))
			if done() != leave {
				t.Errorf("with leave %v: waited for %v", leave, !leave)
			}
			time.Sleep(time.Minute)
			if !done() {
				t.Errorf("with leave %v: waited for longer than it asked", leave)
			}
		})
	}
}

// Routes that the proxy refuses are retried with a growing pause; other routes are tried soon.
func TestOtherRoutesAreTriedSoon(t *testing.T) {
	with(t, balancer.Config{}, func(t *testing.T, z *zone, p *proxy, _ func()) {
		p.mu.Lock()
		p.fails = 20
		p.mu.Unlock()
		z.registry.Expose("web", web())
		z.registry.Publish("web", list("web-1"))
		time.Sleep(5 * time.Minute)
		p.mu.Lock()
		tries := len(p.times)
		p.fails = 0
		p.mu.Unlock()
		if tries > 15 {
			t.Errorf("in five minutes the same was tried %d times", tries)
		}
		z.registry.Publish("web", list("web-2"))
		time.Sleep(1100 * time.Millisecond)
		if p.last() != "web/web-2" {
			t.Errorf("a second later it routes %q", p.last())
		}
	})
}

// Two companions of one name replace each other, with a growing pause.
func TestTwoOfOneName(t *testing.T) {
	with(t, balancer.Config{}, func(t *testing.T, z *zone, p *proxy, end func()) {
		defer end()
		seen := &arrivals{}
		z.registry.Observe(seen)
		conn, err := grpc.NewClient("passthrough:zone",
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return z.listener.DialContext(ctx) }),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		other, err := balancer.New(balancer.Config{Name: "proxy", Log: slog.New(slog.DiscardHandler)}, conn, &proxy{began: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- other.Run(ctx) }()
		time.Sleep(10 * time.Minute)
		if n := seen.connected.Load(); n < 4 || n > 60 {
			t.Errorf("in ten minutes they connected %d times", n)
		}
		cancel()
		<-ended
		// The one that is left has its place again.
		time.Sleep(2 * time.Minute)
		z.registry.Expose("web", &apiv1.Expose{})
		z.registry.Publish("web", []*apiv1.Endpoint{{Id: "web-1"}})
		synctest.Wait()
		if p.last() != "web/web-1" {
			t.Errorf("the one that is left routes %q", p.last())
		}
	})
}

// arrivals counts balancers that connect.
type arrivals struct{ connected atomic.Int64 }

func (a *arrivals) BalancerConnected(string)               { a.connected.Add(1) }
func (a *arrivals) BalancerLost(string, string)            {}
func (a *arrivals) Refused(string, []*companionv1.Refusal) {}
func (a *arrivals) Counted(string, []*companionv1.Traffic) {}
