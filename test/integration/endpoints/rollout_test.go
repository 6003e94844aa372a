package endpoints_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/companions/haproxy"
	"github.com/mammoth-os/mammoth/companions/nginx"
	"github.com/mammoth-os/mammoth/internal/testenv"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

const host = "web.example.test"

// load asks at a constant rate through a balancer, over connections that are kept, as browsers and programs do.
type load struct {
	front  string
	client *http.Client
	cancel context.CancelFunc
	ticker sync.WaitGroup
	asked  sync.WaitGroup

	mu     sync.Mutex
	total  int
	failed []string
	seen   map[string]int
}

func newLoad(front string, rate int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{front: front, cancel: cancel, seen: map[string]int{}}
	l.client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: 64, MaxConnsPerHost: 64, IdleConnTimeout: 30 * time.Second,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", front)
		},
	}}
	l.ticker.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				l.asked.Go(l.ask)
			case <-ctx.Done():
				return
			}
		}
	})
	return l
}

func (l *load) ask() {
	word, err := get(l.client, "http://"+host+"/")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	if err != nil {
		l.failed = append(l.failed, err.Error())
		return
	}
	_, version, _ := strings.Cut(strings.TrimSpace(word), " ")
	l.seen[version]++
}

func get(client *http.Client, url string) (string, error) {
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.80s", answer.Status, text)
	}
	return string(text), err
}

// count is what was asked and answered so far, by version; it begins anew.
func (l *load) count() (total int, seen map[string]int, failed []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	total, seen, failed = l.total, l.seen, l.failed
	l.total, l.seen, l.failed = 0, map[string]int{}, nil
	return total, seen, failed
}

// stop ends the load and waits for what is under way.
func (l *load) stop() {
	l.cancel()
	l.ticker.Wait()
	l.asked.Wait()
	l.client.CloseIdleConnections()
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// balancers start one of each kind beside a zone; start begins with a companion, and again after its end.
var balancers = map[string]func(z *zone, dir, front string) (start func() (end func())){
	"nginx": func(z *zone, dir, front string) func() func() {
		return func() func() {
			c, err := nginx.New(nginx.Config{Dir: dir, Listen: front, Log: z.log, Interval: 200 * time.Millisecond, StopOnExit: true}, z.conn)
			return z.runBalancer(c, err)
		}
	},
	"haproxy": func(z *zone, dir, front string) func() func() {
		return func() func() {
			c, err := haproxy.New(haproxy.Config{Dir: dir, Listen: front, Log: z.log, StopOnExit: true}, z.conn)
			return z.runBalancer(c, err)
		}
	},
}

// Under a steady load not one request fails while instances come and go in the order registry, balancer, drain, stop.
func TestNoRequestFails(t *testing.T) {
	for name, balancer := range balancers {
		for _, retry := range []apiv1.Expose_Retry{apiv1.Expose_IDEMPOTENT, apiv1.Expose_OFF} {
			t.Run(name+"/"+strings.ToLower(retry.String()), func(t *testing.T) {
				testenv.Need(t, "program:"+name)
				z, ctx := newZone(t), within(t)
				front := freeAddress(t)
				balancer(z, filepath.Join(folder(t), name), front)()
				expose := onHost(host)
				expose.Retry = retry
				web := z.newApp("web", expose)
				for range 10 {
					web.start()
				}
				web.confirmed(ctx)
				load := newLoad(front, 200)
				defer load.stop()

				// HAProxy takes a change in milliseconds: one update is over before there is any load to speak of.
				for start := time.Now(); web.version == 1 || time.Since(start) < 2*time.Second; {
					web.roll(ctx, 2)
				}
				check(t, load, fmt.Sprintf("%d rolling updates of 10 instances", web.version-1))
				for len(web.instances) > 3 {
					web.take(ctx, web.instances[0])
				}
				for len(web.instances) < 10 {
					web.start()
				}
				web.confirmed(ctx)
				check(t, load, "scaling 10 → 3 → 10")
				load.stop()
				check(t, load, "the end")
			})
		}
	}
}

func check(t *testing.T, l *load, during string) {
	t.Helper()
	total, seen, failed := l.count()
	if len(failed) > 0 {
		t.Errorf("during %s %d of %d requests failed, the first: %s", during, len(failed), total, failed[0])
	}
	t.Logf("during %s: %d requests, %v", during, total, seen)
}

// The companion's death stops nothing: its proxy serves on, and a removal waits for the companion's return.
func TestCompanionsDeath(t *testing.T) {
	testenv.Need(t, "program:nginx")
	z, ctx := newZone(t), within(t)
	front, dir := freeAddress(t), folder(t)
	config := nginx.Config{Dir: filepath.Join(dir, "nginx"), Listen: front, Log: z.log, Interval: 100 * time.Millisecond}
	c, err := nginx.New(config, z.conn)
	end := z.runBalancer(c, err)
	web := z.newApp("web", onHost(host))
	for range 3 {
		web.start()
	}
	web.confirmed(ctx)
	load := newLoad(front, 200)
	defer load.stop()
	end()
	removed := make(chan struct{})
	go func() {
		defer close(removed)
		web.take(ctx, web.instances[0])
	}()
	select {
	case <-removed:
		t.Error("an instance was stopped while nobody could tell nginx")
	case <-time.After(300 * time.Millisecond):
	}
	config.StopOnExit = true
	c, err = nginx.New(config, z.conn)
	z.runBalancer(c, err)
	<-removed
	load.stop()
	check(t, load, "the companion's death")
}

// Canary: the measured share is the asked one, within three points.
func TestCanary(t *testing.T) {
	for name, balancer := range balancers {
		t.Run(name, func(t *testing.T) {
			testenv.Need(t, "program:"+name)
			z, ctx := newZone(t), within(t)
			front := freeAddress(t)
			balancer(z, filepath.Join(folder(t), name), front)()
			web := z.newApp("web", onHost(host))
			for range 3 {
				web.start()
			}
			web.version++
			canary := web.start()
			client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, "tcp", front)
				},
			}}
			defer client.CloseIdleConnections()
			for _, share := range []int{10, 50, 100} {
				// The canary's weight w against three of 100 each: w / (300 + w) = share.
				canary.weight = 100
				for _, i := range web.instances[:3] {
					i.weight = 100
				}
				if share == 100 {
					for _, i := range web.instances[:3] {
						i.weight = 0
					}
				} else {
					canary.weight = int32((300*share + (100-share)/2) / (100 - share))
				}
				web.confirmed(ctx)
				const asked = 1000
				got := 0
				for range asked {
					word, err := get(client, "http://"+host+"/")
					if err != nil {
						t.Fatal(err)
					}
					if strings.Contains(word, "version "+strconv.Itoa(int(canary.version))) {
						got++
					}
				}
				measured := float64(got) / asked * 100
				t.Logf("asked for %d %%, measured %.1f %%", share, measured)
				if measured < float64(share)-3 || measured > float64(share)+3 {
					t.Errorf("the canary got %.1f %%, want %d ± 3", measured, share)
				}
			}
		})
	}
}

// Of five instances one is killed: requests that can be repeated are, and hardly any fails.
func TestKilledInstance(t *testing.T) {
	testenv.Need(t, "program:nginx")
	z, ctx := newZone(t), within(t)
	front := freeAddress(t)
	balancers["nginx"](z, filepath.Join(folder(t), "nginx"), front)()
	web := z.newApp("web", onHost(host))
	for range 5 {
		web.start()
	}
	web.confirmed(ctx)
	load := newLoad(front, 200)
	defer load.stop()
	web.instances[0].kill()
	web.instances = web.instances[1:]
	web.confirmed(ctx)
	load.stop()
	total, _, failed := load.count()
	t.Logf("%d of %d requests failed: %v", len(failed), total, failed)
	if len(failed) > 2 {
		t.Errorf("%d requests failed, want at most 1 %% of a second's: %v", len(failed), failed[0])
	}
}

// Blue/green, together: the new version is added, then the old one taken out, and nothing fails. Exclusive: the new
// version is routed to only once the old one is closed, so that the two never answer at the same time; what comes in
// between is told to try again.
func TestBlueGreen(t *testing.T) {
	for name, balancer := range balancers {
		t.Run(name, func(t *testing.T) {
			testenv.Need(t, "program:"+name)
			z, ctx := newZone(t), within(t)
			front := freeAddress(t)
			balancer(z, filepath.Join(folder(t), name), front)()
			web := z.newApp("web", onHost(host))
			for range 3 {
				web.start()
			}
			web.confirmed(ctx)

			load := newLoad(front, 200)
			green := web.replacement(3)
			blue := web.instances
			web.instances = append(append([]*instance(nil), blue...), green...)
			web.confirmed(ctx)
			web.instances = green
			web.confirmed(ctx)
			drainAll(blue)
			load.stop()
			check(t, load, "blue/green together")

			order := watchOrder(front)
			blue, green = web.instances, web.replacement(3)
			web.instances = nil
			web.confirmed(ctx)
			drainAll(blue)
			web.instances = green
			web.confirmed(ctx)
			met := order()
			first := slices.IndexFunc(met, func(answer string) bool { return strings.Contains(answer, "version 3") })
			for _, answer := range met[max(first, 0):] {
				if strings.Contains(answer, "version 2") {
					t.Fatalf("the old version answered after the new one had: %v", met)
				}
			}
			if last := met[len(met)-1]; !strings.Contains(last, "version 3") {
				t.Errorf("in the end %q answers", last)
			}
		})
	}
}

// replacement starts instances of the next version; nothing routes to them yet.
func (a *app) replacement(count int) []*instance {
	a.zone.t.Helper()
	kept := a.instances
	a.version++
	var list []*instance
	for range count {
		list = append(list, a.start())
	}
	a.instances = kept
	return list
}

func drainAll(instances []*instance) {
	for _, i := range instances {
		i.drain()
	}
}

// watchOrder asks again and again, one request after the other, and tells what was answered once it is told to stop.
func watchOrder(front string) (stop func() []string) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	var met []string
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", front)
		},
	}}
	group.Go(func() {
		for last := false; !last; {
			last = ctx.Err() != nil
			word, err := get(client, "http://"+host+"/")
			met = append(met, fmt.Sprint(strings.TrimSpace(word), err))
		}
	})
	return func() []string {
		cancel()
		group.Wait()
		return met
	}
}
