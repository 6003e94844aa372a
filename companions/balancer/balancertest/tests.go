package balancertest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mammoth-os/mammoth/companions/balancer"
	"github.com/mammoth-os/mammoth/internal/testenv"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func testRoutes(r *rig) {
	web, api, shop, rest := NewInstance(r.t, "web-1"), NewInstance(r.t, "api-1"), NewInstance(r.t, "shop-1"), NewInstance(r.t, "rest-1")
	routes := []balancer.Route{
		Route("web", "web.example.test", "/", web), Route("api", "web.example.test", "/api/", api), Route("shop", "*.shop.test", "/", shop),
	}
	if !r.subject.NoAnyHost {
		routes = append(routes, Route("rest", "*", "/", rest))
	}
	r.apply(routes...)
	r.expect("web.example.test", "/", 200, "web-1 web.example.test /")
	r.expect("web.example.test", "/a/b?c=d", 200, "web-1 web.example.test /a/b")
	r.expect("web.example.test", "/api", 200, "api-1 web.example.test /api")
	r.expect("web.example.test", "/api/x", 200, "api-1 web.example.test /api/x")
	r.expect("web.example.test", "/apix", 200, "web-1")
	r.expect("a.shop.test", "/", 200, "shop-1 a.shop.test")
	if !r.subject.NoAnyHost {
		r.expect("unknown.test", "/", 200, "rest-1")
	}
}

func testEmpty(r *rig) {
	web := NewInstance(r.t, "web-1")
	r.expect("web.example.test", "/", 404, "Nothing is here")
	r.apply(Route("web", "web.example.test", "/api"))
	r.expect("web.example.test", "/api/x", 503, "none of its instances is ready")
	r.expect("web.example.test", "/", 404, "Nothing is here")
	r.expect("other.example.test", "/", 404, "Nothing is here")
	r.apply(Route("web", "web.example.test", "/api", web))
	r.expect("web.example.test", "/api/x", 200, "web-1")
	// An unhealthy instance is better than none, and worse than a healthy one.
	sick := Route("web", "web.example.test", "/", web)
	sick.Service.Endpoints[0].State = apiv1.Endpoint_UNHEALTHY
	r.apply(sick)
	r.expect("web.example.test", "/", 200, "web-1")
	well := NewInstance(r.t, "web-2")
	sick.Service.Endpoints = append(sick.Service.Endpoints, well.Endpoint())
	r.apply(sick)
	for range 10 {
		r.expect("web.example.test", "/", 200, "web-2")
	}
	r.apply()
	r.expect("web.example.test", "/", 404, "Nothing is here")
}

func testWeights(r *rig) {
	old, canary, none := NewInstance(r.t, "web-1"), NewInstance(r.t, "web-2"), NewInstance(r.t, "web-3")
	route := Route("web", "web.example.test", "/", old, canary, none)
	route.Service.Endpoints[2].Weight = 0
	for _, share := range []int32{10, 50, 90} {
		route.Service.Endpoints[0].Weight, route.Service.Endpoints[1].Weight = 100-share, share
		r.apply(route)
		old.Requests.Store(0)
		canary.Requests.Store(0)
		const total = 1000
		for range total {
			r.expect("web.example.test", "/", 200, "web-")
		}
		got := float64(canary.Requests.Load()) / total * 100
		if got < float64(share)-3 || got > float64(share)+3 {
			r.t.Errorf("the canary got %.1f %% of the requests, want %d ± 3", got, share)
		}
	}
	if none.Requests.Load() != 0 {
		r.t.Error("an instance of weight 0 got requests")
	}
}

func testRemoval(r *rig) {
	stays, goes := NewInstance(r.t, "web-1"), NewInstance(r.t, "web-2")
	for range 5 {
		r.apply(Route("web", "web.example.test", "/", stays, goes))
		load := r.load(8, "web.example.test")
		for start := goes.Requests.Load(); goes.Requests.Load() < start+20; {
			time.Sleep(time.Millisecond)
		}
		r.apply(Route("web", "web.example.test", "/", stays))
		// Requests that were sent before the change may still arrive.
		load.await(1)
		after := goes.Requests.Load()
		load.await(20)
		if got := goes.Requests.Load(); got != after {
			r.t.Errorf("the instance got %d requests after it was taken out", got-after)
		}
		if failed := load.stop(); len(failed) > 0 {
			r.t.Errorf("requests failed: %v", failed)
		}
	}
}

func testInFlight(r *rig) {
	goes, stays := NewInstance(r.t, "web-1"), NewInstance(r.t, "web-2")
	r.apply(Route("web", "web.example.test", "/", goes))
	answer := make(chan string, 1)
	go func() {
		_, text, _, err := r.do("web.example.test", "/slow", nil, nil)
		answer <- fmt.Sprint(text, err)
	}()
	for goes.Requests.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	r.apply(Route("web", "web.example.test", "/", stays))
	r.expect("web.example.test", "/", 200, "web-2")
	close(goes.Release)
	if got := <-answer; !strings.HasPrefix(got, "web-1") {
		r.t.Errorf("the request in flight ended with %s", got)
	}
}

func testChurn(r *rig) {
	var all []*Instance
	for i := range 4 {
		all = append(all, NewInstance(r.t, fmt.Sprintf("web-%d", i)))
	}
	r.apply(Route("web", "web.example.test", "/", all...))
	load := r.load(4, "web.example.test")
	for i := range 12 {
		route := Route("web", "web.example.test", "/", all[i%4], all[(i+1)%4])
		route.Expose.Retry = apiv1.Expose_Retry(i % 2)
		r.apply(route)
	}
	if failed := load.stop(); len(failed) > 0 {
		r.t.Errorf("%d requests failed: %v", len(failed), failed[0])
	}
}

// load is a number of clients that send requests without a pause until they are stopped.
type load struct {
	cancel  context.CancelFunc
	clients sync.WaitGroup
	// How many requests of each client have ended.
	ended []atomic.Int64

	mu     sync.Mutex
	failed []string
}

func (r *rig) load(clients int, host string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, ended: make([]atomic.Int64, clients)}
	for client := range clients {
		l.clients.Go(func() {
			for ctx.Err() == nil {
				status, text, _, err := r.do(host, "/", nil, nil)
				if err != nil || status != 200 {
					l.mu.Lock()
					l.failed = append(l.failed, fmt.Sprint(status, " ", text, " ", err))
					l.mu.Unlock()
				}
				l.ended[client].Add(1)
			}
		})
	}
	return l
}

// await returns when each client has ended that many further requests. The first of them may have begun before the call.
func (l *load) await(requests int64) {
	for client := range l.ended {
		for until := l.ended[client].Load() + requests; l.ended[client].Load() < until; {
			time.Sleep(time.Millisecond)
		}
	}
}

// stop stops the clients and returns the requests that failed.
func (l *load) stop() []string {
	l.cancel()
	l.clients.Wait()
	return l.failed
}

func testSticky(r *rig) {
	var all []*Instance
	for i := range 4 {
		all = append(all, NewInstance(r.t, fmt.Sprintf("web-%d", i)))
	}
	route := Route("web", "web.example.test", "/", all...)
	route.Expose.Http.StickyCookie = "seat"
	r.apply(route)
	met := map[string]bool{}
	for range 20 {
		_, first, header, err := r.do("web.example.test", "/", nil, nil)
		cookie, _, _ := strings.Cut(header.Get("Set-Cookie"), ";")
		if err != nil || !strings.HasPrefix(cookie, "seat=") {
			r.t.Fatalf("the first answer sets the cookie %q, %v", header.Get("Set-Cookie"), err)
		}
		met[first] = true
		for range 5 {
			if _, again, _, _ := r.do("web.example.test", "/", http.Header{"Cookie": {cookie}}, nil); again != first {
				r.t.Fatalf("a client of %q was given to %q", first, again)
			}
		}
	}
	if len(met) < 2 {
		r.t.Errorf("20 clients all met the same instance: %v", met)
	}
}

func testBody(r *rig) {
	web := NewInstance(r.t, "web-1")
	small := Route("web", "web.example.test", "/", web)
	small.Expose.Http.MaxBodyBytes = 1000
	r.apply(small)
	for size, want := range map[int]int{1000: 200, 1001: 413} {
		if status, text, _, err := r.do("web.example.test", "/", nil, make([]byte, size)); status != want {
			r.t.Errorf("a body of %d bytes: %d %q, %v; want %d", size, status, text, err, want)
		}
	}
	large := Route("web", "web.example.test", "/", web)
	large.Expose.Http.MaxBodyBytes = -1
	r.apply(large)
	if status, text, _, err := r.do("web.example.test", "/", nil, make([]byte, 3<<20)); status != 200 {
		r.t.Errorf("a body of 3 MiB without a limit: %d %q, %v", status, text, err)
	}
}

func testRetry(r *rig) {
	dead, alive := NewInstance(r.t, "web-1"), NewInstance(r.t, "web-2")
	r.apply(Route("web", "web.example.test", "/", dead, alive))
	dead.Kill()
	for range 20 {
		r.expect("web.example.test", "/", 200, "web-2")
	}
}

func testNoRetry(r *rig) {
	dead, alive := NewInstance(r.t, "web-1"), NewInstance(r.t, "web-2")
	route := Route("web", "web.example.test", "/", dead, alive)
	route.Expose.Retry = apiv1.Expose_OFF
	r.apply(route)
	dead.Kill()
	failed := 0
	for range 20 {
		if status, _ := r.get("web.example.test", "/"); status >= 500 {
			failed++
		}
	}
	if failed == 0 {
		r.t.Error("no request met the dead instance: they were retried")
	}
}

func testTCP(r *rig) {
	one, two := NewInstance(r.t, "db-1"), NewInstance(r.t, "db-2")
	port := testenv.Port(r.t)
	route := Route("db", "", "", one)
	route.Expose = &apiv1.Expose{Tcp: []*apiv1.Expose_Tcp{{Listen: int32(port), Port: "http"}}}
	r.apply(route)
	ask := func() string {
		client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
		answer, err := client.Get("http://" + address(port) + "/")
		if err != nil {
			return err.Error()
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return string(text)
	}
	if got := ask(); !strings.HasPrefix(got, "db-1") {
		r.t.Fatalf("port %d answers %q", port, got)
	}
	route.Service.Endpoints = []*apiv1.Endpoint{two.Endpoint()}
	r.apply(route)
	if got := ask(); !strings.HasPrefix(got, "db-2") {
		r.t.Errorf("after the change port %d answers %q", port, got)
	}
	r.apply()
	deadline := time.Now().Add(patience)
	for strings.HasPrefix(ask(), "db-") && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if got := ask(); strings.HasPrefix(got, "db-") {
		r.t.Errorf("after the removal port %d answers %q", port, got)
	}
}

func testTakenPort(r *rig) {
	web, db := NewInstance(r.t, "web-1"), NewInstance(r.t, "db-1")
	taken := []*apiv1.Expose_Tcp{{Listen: int32(web.Port), Port: "http"}}
	route := Route("db", "", "", db)
	route.Expose = &apiv1.Expose{Tcp: taken}
	why := r.applyRefusing("db", route, Route("web", "web.example.test", "/", web))
	if !strings.Contains(why, "is in use by another program") || strings.HasSuffix(why, "is routed") {
		r.t.Errorf("refused because %q", why)
	}
	r.expect("web.example.test", "/", 200, "web-1")

	// The host of an app is not left to the one that has claimed all hosts.
	route = Route("db", "db.example.test", "/", db)
	route.Expose.Tcp = taken
	why = r.applyRefusing("db", route, Route("web", "*", "/", web))
	if !strings.Contains(why, "is in use by another program") || !strings.HasSuffix(why, "; what else it exposes is routed") {
		r.t.Errorf("a part is refused because %q", why)
	}
	r.expect("db.example.test", "/", 200, "db-1")
	r.expect("other.example.test", "/", 200, "web-1")
}

func testTLS(r *rig) {
	web := NewInstance(r.t, "web-1")
	secure := Route("web", "web.example.test", "/", web)
	secure.Expose.Http.Certificate = "web.example.test"
	r.apply(secure)
	r.expectTLS("web.example.test", "web-1")
	r.expect("web.example.test", "/", 200, "web-1")

	for name, want := range map[string]struct {
		why    string
		status int
		body   string
	}{
		"mismatch":  {"does not fit its key", 200, "web-1"},
		"missing":   {"the balancer has no certificate", 200, "web-1"},
		"../secret": {"must be a name", 404, ""},
	} {
		broken := Route("broken", "broken.example.test", "/", web)
		broken.Expose.Http.Certificate = name
		if why := r.applyRefusing("broken", secure, broken); !strings.Contains(why, want.why) {
			r.t.Errorf("the certificate %q is refused because %q, want %q", name, why, want.why)
		}
		r.expectTLS("web.example.test", "web-1")
		r.expect("broken.example.test", "/", want.status, want.body)
	}
}

func testConflict(r *rig) {
	first, second := NewInstance(r.t, "first-1"), NewInstance(r.t, "second-1")
	why := r.applyRefusing("b", Route("a", "web.example.test", "/", first), Route("b", "web.example.test", "/", second))
	if !strings.Contains(why, `is already routed to app "a"`) {
		r.t.Errorf("refused because %q", why)
	}
	r.expect("web.example.test", "/", 200, "first-1")
}

func testHostile(r *rig) {
	web := NewInstance(r.t, "web-1")
	good := Route("web", "web.example.test", "/", web)
	// What an app has registered itself may name any address.
	own := Route("own", "own.test", "/", web)
	for _, endpoint := range own.Service.GetEndpoints() {
		endpoint.AppOwned = true
	}
	r.apply(own)
	r.expect("own.test", "/", 503, "")
	hostile := map[string]balancer.Route{
		"newline in the host":  Route("x", "x.test;\n} server { listen 1;", "/", web),
		"brace in the path":    Route("x", "x.test", "/}{", web),
		"pattern bomb":         Route("x", "x.test", "/((a+)+)+$", web),
		"semicolon in a name":  Route("x;reboot", "x.test", "/", web),
		"variable in the host": Route("x", "$host", "/", web),
	}
	for what, route := range hostile {
		refusals, err := r.proxy.Apply(r.t.Context(), Routes(good, route))
		if err != nil || len(refusals) != 1 {
			r.t.Errorf("%s: refused %v, %v", what, refusals, err)
		}
		r.expect("web.example.test", "/", 200, "web-1")
	}
	// An endpoint that is not an address is left out.
	odd := Route("web", "web.example.test", "/", web, NewInstance(r.t, "web-2"))
	odd.Service.Endpoints[1].Address = "127.0.0.1:1 backup; #"
	r.apply(odd)
	for range 5 {
		r.expect("web.example.test", "/", 200, "web-1")
	}
}

func testKilledProxy(r *rig) {
	web := NewInstance(r.t, "web-1")
	r.apply(Route("web", "web.example.test", "/", web))
	for range 3 {
		processes := r.subject.Processes(r.front)
		if len(processes) == 0 {
			r.t.Fatal("the proxy has no process")
		}
		_ = syscall.Kill(processes[0], syscall.SIGKILL)
		deadline := time.Now().Add(patience)
		for r.proxy.Alive() && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if r.proxy.Alive() {
			r.t.Fatal("the proxy counts as alive though it was killed")
		}
		if err := r.proxy.Start(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		r.expect("web.example.test", "/", 200, "web-1")
	}
	next := NewInstance(r.t, "web-2")
	r.apply(Route("web", "web.example.test", "/", next))
	r.expect("web.example.test", "/", 200, "web-2")
}

func testCompanionGone(r *rig) {
	one, two := NewInstance(r.t, "web-1"), NewInstance(r.t, "web-2")
	r.apply(Route("web", "web.example.test", "/", one))
	before := r.subject.Serving(r.front)
	load := r.load(4, "web.example.test")
	r.subject.Close(r.proxy)
	time.Sleep(50 * time.Millisecond)
	r.start()
	r.apply(Route("web", "web.example.test", "/", one))
	if failed := load.stop(); len(failed) > 0 {
		r.t.Errorf("requests failed while there was no companion: %v", failed)
	}
	// An old worker may have ended meanwhile.
	after := r.subject.Serving(r.front)
	isNew := func(process int) bool { return !slices.Contains(before, process) }
	if len(after) == 0 || after[0] != before[0] || slices.ContainsFunc(after, isNew) {
		r.t.Errorf("the proxy was touched though nothing had changed: processes were %v, are %v", before, after)
	}
	r.apply(Route("web", "web.example.test", "/", two))
	r.expect("web.example.test", "/", 200, "web-2")
}

func testUpgrade(r *rig) {
	r.apply(Route("web", "web.example.test", "/", NewInstance(r.t, "web-1")))
	conn, err := net.Dial("tcp", r.front.HTTP)
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "GET /socket HTTP/1.1\r\nHost: web.example.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		r.t.Fatalf("the upgrade is answered %v, %v", answer, err)
	}
	fmt.Fprint(conn, "hello\n")
	if line, err := reader.ReadString('\n'); line != "hello\n" {
		r.t.Errorf("the echo is %q, %v", line, err)
	}
}

func testTraffic(r *rig) {
	one, two := NewInstance(r.t, "web-1"), NewInstance(r.t, "web-2")
	r.apply(Route("web", "web.example.test", "/", one, two))
	_ = r.proxy.Traffic()
	var sent atomic.Int64
	for range 30 {
		sent.Add(1)
		r.expect("web.example.test", "/", 200, "web-")
	}
	for range 10 {
		sent.Add(1)
		r.expect("web.example.test", "/broken", 500, "web-")
	}
	var requests, failures int64
	perInstance := map[string]int64{}
	deadline := time.Now().Add(patience)
	for requests < sent.Load() && time.Now().Before(deadline) {
		for _, count := range r.proxy.Traffic() {
			if count.GetService() != "web" {
				r.t.Fatalf("counted %v", count)
			}
			requests += count.GetRequests()
			failures += count.GetErrors()
			perInstance[count.GetEndpoint()] += count.GetRequests()
		}
		time.Sleep(10 * time.Millisecond)
	}
	if requests != sent.Load() || failures != 10 {
		r.t.Errorf("counted %d requests with %d errors, want %d with 10", requests, failures, sent.Load())
	}
	if perInstance["web-1"] != one.Requests.Load() || perInstance["web-2"] != two.Requests.Load() {
		r.t.Errorf("counted %v, the instances counted %d and %d", perInstance, one.Requests.Load(), two.Requests.Load())
	}
}

func testTwoCompanions(r *rig) {
	second := r.subject.New(r.t, r.front)
	if err := second.Start(r.t.Context()); err == nil || !strings.Contains(err.Error(), "another companion") {
		r.t.Errorf("a second companion on the same proxy: %v", err)
	}
}
