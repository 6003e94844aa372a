package registry_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/mammoth-os/mammoth/companions/registry"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// await reports whether every balancer has confirmed.
func await(r *registry.Registry, service string, generation int64) (done func() bool) {
	ended := make(chan struct{})
	r.AwaitBalancers(service, generation, func() { close(ended) })
	return func() bool {
		synctest.Wait()
		select {
		case <-ended:
			return true
		default:
			return false
		}
	}
}

func exposed() *apiv1.Expose {
	return &apiv1.Expose{Http: &apiv1.Expose_Http{Host: "web.example.test", Path: "/"}}
}

func TestNobodyToWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registry.New(epoch)
		r.Expose("web", exposed())
		generation := r.Publish("web", endpoints("web-1"))
		if done := await(r, "web", generation); !done() {
			t.Error("waits though there is no balancer")
		}
		balancer := r.ConnectBalancer("nginx", time.Minute)
		other := r.Publish("db", endpoints("db-1"))
		if done := await(r, "db", other); !done() {
			t.Error("waits though no balancer serves db")
		}
		balancer.Confirm(generation)
		if done := await(r, "web", other); !done() {
			t.Error("waits for a generation that changed nothing a balancer is told of")
		}
	})
}

func TestEveryBalancerConfirms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registry.New(epoch)
		r.Expose("web", exposed())
		nginx := r.ConnectBalancer("nginx", time.Minute)
		haproxy := r.ConnectBalancer("haproxy", time.Minute)
		first := r.Publish("web", endpoints("web-1", "web-2"))
		second := r.Publish("web", endpoints("web-1"))
		added, removed := await(r, "web", first), await(r, "web", second)
		nginx.Confirm(second)
		if added() || removed() {
			t.Error("done though haproxy has confirmed nothing")
		}
		haproxy.Confirm(first)
		if !added() || removed() {
			t.Error("want the first generation confirmed and the second waited for")
		}
		haproxy.Confirm(second)
		if !removed() {
			t.Error("waits though both have confirmed")
		}
	})
}

func TestLostBalancerIsWaitedForUntilItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registry.New(epoch)
		r.Expose("web", exposed())
		nginx := r.ConnectBalancer("nginx", 10*time.Second)
		generation := r.Publish("web", endpoints("web-1"))
		done := await(r, "web", generation)
		nginx.Lost()
		time.Sleep(9 * time.Second)
		again := r.ConnectBalancer("nginx", 10*time.Second)
		time.Sleep(9 * time.Second)
		if done() {
			t.Fatal("the balancer was given up though it is connected again")
		}
		again.Lost()
		time.Sleep(9 * time.Second)
		if late := await(r, "web", generation); done() || late() {
			t.Fatal("the balancer was given up before its deadline")
		}
		time.Sleep(time.Second)
		if !done() {
			t.Fatal("the balancer is waited for after its deadline")
		}
		if late := await(r, "web", generation); !late() {
			t.Fatal("a balancer that was given up is waited for")
		}
	})
}

func TestBalancerThatLeavesOrKeepsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registry.New(epoch)
		r.Expose("web", exposed())
		nginx := r.ConnectBalancer("nginx", time.Hour)
		_ = r.ConnectBalancer("silent", time.Hour)
		generation := r.Publish("web", endpoints("web-1"))
		done := await(r, "web", generation)
		nginx.Leave()
		nginx.Lost()
		time.Sleep(registry.ConfirmTimeout - time.Second)
		if done() {
			t.Fatal("a silent balancer was given up too early")
		}
		time.Sleep(time.Second)
		if !done() {
			t.Fatal("a silent balancer is waited for without end")
		}
	})
}

// Balancers may route to a service that is not exposed any more until they have confirmed its removal.
func TestWhatIsNoLongerExposedIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registry.New(epoch)
		r.Expose("web", exposed())
		r.Publish("web", endpoints("web-1"))
		balancer := r.ConnectBalancer("nginx", time.Minute)
		balancer.Confirm(newest(r))
		hidden := r.Expose("web", nil)
		generation := r.Publish("web", endpoints())
		done := await(r, "web", generation)
		if done() {
			t.Error("done though the balancer has not let the service go")
		}
		balancer.Confirm(hidden)
		if late := await(r, "web", generation); !done() || !late() {
			t.Error("waits though the balancer has let the service go")
		}
	})
}

func TestExpectedBalancer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registry.New(epoch)
		r.ExpectBalancer("nginx", 10*time.Second)
		r.ExpectBalancer("haproxy", 10*time.Second)
		r.Expose("web", exposed())
		generation := r.Publish("web", endpoints("web-1"))
		done := await(r, "web", generation)
		balancer := r.ConnectBalancer("nginx", time.Minute)
		time.Sleep(10 * time.Second)
		if done() {
			t.Error("done though nginx is back and has not confirmed")
		}
		balancer.Confirm(generation)
		if !done() {
			t.Error("waits for a balancer that never came back")
		}
	})
}

// Reports of an earlier connection are ignored: it may be that of another proxy.
func TestReplacedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registry.New(epoch)
		r.Expose("web", exposed())
		first := r.ConnectBalancer("nginx", time.Minute)
		second := r.ConnectBalancer("nginx", time.Minute)
		<-first.Replaced()
		generation := r.Publish("web", endpoints("web-1"))
		done := await(r, "web", generation)
		first.Confirm(generation)
		first.Leave()
		first.Lost()
		if done() {
			t.Error("done though only the earlier connection has confirmed")
		}
		second.Confirm(generation)
		if !done() {
			t.Error("waits though the balancer has confirmed")
		}
	})
}
