package balancertest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// HTTP/1.0 clients may send no Host header, but an instance that speaks HTTP/1.1 needs one.
func testNoHost(r *rig) {
	web, rest := NewInstance(r.t, "web-1"), NewInstance(r.t, "rest-1")
	if r.subject.NoAnyHost {
		r.apply(Route("web", "web.example.test", "/", web))
	} else {
		r.apply(Route("web", "web.example.test", "/", web), Route("rest", "*", "/", rest))
		answer, body := r.ask("GET", "GET /a HTTP/1.0\r\n\r\n")
		if answer.StatusCode != 200 || !strings.HasPrefix(body, "rest-1") {
			r.t.Errorf("without a host: %d %q", answer.StatusCode, body)
		}
		if last := rest.Last.Load(); last == nil || last.Host != r.front.HTTP {
			r.t.Errorf("without a host the instance receives %v, want %s", last, r.front.HTTP)
		} else if host, there := last.Header["X-Forwarded-Host"]; there {
			r.t.Errorf("without a host X-Forwarded-Host is %q", host)
		}
	}
	// The line itself may name the host.
	for _, text := range []string{
		"GET http://web.example.test/a HTTP/1.0\r\n\r\n",
		"GET http://web.example.test/a HTTP/1.1\r\nHost: web.example.test\r\nConnection: close\r\n\r\n",
	} {
		if answer, body := r.ask("GET", text); answer.StatusCode != 200 || body != "web-1 web.example.test /a" {
			r.t.Errorf("%q: %d %q", text, answer.StatusCode, body)
		}
	}
}

func testLargeHeaders(r *rig) {
	web := NewInstance(r.t, "web-1")
	r.apply(Route("web", "web.example.test", "/", web))
	for _, header := range []http.Header{
		{"Cookie": {"a=" + strings.Repeat("c", 10<<10)}},
		{"Cookie": {"a=" + strings.Repeat("c", 16<<10)}},
		{"Authorization": {strings.Repeat("c", 8<<10)}, "Cookie": {"a=" + strings.Repeat("c", 8<<10)}},
	} {
		status, body, _, err := r.do("web.example.test", "/", header, nil)
		if err != nil || status != 200 {
			r.t.Errorf("a cookie of %d bytes: %d %.80q, %v", len(header.Get("Cookie")), status, body, err)
			continue
		}
		if got := web.Last.Load().Header.Get("Cookie"); got != header.Get("Cookie") {
			r.t.Errorf("of a cookie of %d bytes %d arrive", len(header.Get("Cookie")), len(got))
		}
	}
	// The request line comes before the host, so an attached nginx reads it with the settings of its own default server.
	if status, body := r.get("web.example.test", "/?"+strings.Repeat("q", 12<<10)); status != 200 && !r.subject.NoAnyHost {
		r.t.Errorf("a query of 12 KiB: %d %.80q", status, body)
	}
	for _, size := range []int{12 << 10, 16 << 10} {
		status, body, header, err := r.do("web.example.test", fmt.Sprint("/headers?bytes=", size), nil, nil)
		if err != nil || status != 200 || len(header.Get("X-Part-2")) != 4096 {
			r.t.Errorf("headers of %d bytes come back as %d %.80q, %v", size, status, body, err)
		}
	}
	// Larger headers are refused, and other requests still succeed.
	if status, _, _, err := r.do("web.example.test", "/", http.Header{"Cookie": {strings.Repeat("c", 64<<10)}}, nil); err == nil && status/100 != 4 {
		r.t.Errorf("a cookie of 64 KiB: %d", status)
	}
	r.expect("web.example.test", "/", 200, "web-1")
}

// patience is how long a test waits for something that normally happens at once. It is long enough for a busy machine.
const patience = time.Minute

func testStream(r *rig) {
	for i, request := range []string{
		"GET /lines HTTP/1.1\r\nHost: web.example.test\r\n\r\n",
		"GET /lines HTTP/1.0\r\nHost: web.example.test\r\n\r\n",
		"GET /old-lines HTTP/1.1\r\nHost: web.example.test\r\n\r\n",
	} {
		// Each request has its own instance, so that the handler of an earlier one cannot take its lines.
		web := NewInstance(r.t, fmt.Sprint("web-", i))
		r.apply(Route("web", "web.example.test", "/", web))
		conn, reader := r.raw(r.front.HTTP, request)
		answer, err := http.ReadResponse(reader, nil)
		if err != nil {
			r.t.Fatalf("%q: %v", request, err)
		}
		body := bufio.NewReader(answer.Body)
		for n := range 3 {
			web.Lines <- fmt.Sprint("line ", n)
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			if line, err := body.ReadString('\n'); line != fmt.Sprintf("line %d\n", n) {
				r.t.Errorf("%q: the line %d is %q, %v", request, n, line, err)
			}
		}
		_ = conn.Close()
		close(web.Lines)
	}
}

func testStreamUp(r *rig) {
	web := NewInstance(r.t, "web-1")
	r.apply(Route("web", "web.example.test", "/", web))
	conn, reader := r.raw(r.front.HTTP, "POST /upload HTTP/1.1\r\nHost: web.example.test\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, piece := range []string{"first", "other"} {
		_, _ = fmt.Fprintf(conn, "%x\r\n%s\r\n", len(piece), piece)
		select {
		case got := <-web.Pieces:
			if got != piece {
				r.t.Errorf("the instance got %q, want %q", got, piece)
			}
		case <-time.After(patience):
			r.t.Fatalf("%q was sent, and did not arrive", piece)
		}
	}
	_, _ = io.WriteString(conn, "0\r\n\r\n")
	answer, err := http.ReadResponse(reader, nil)
	if err != nil || answer.StatusCode != 200 {
		r.t.Fatalf("the upload ends with %v, %v", answer, err)
	}
}

// A slow request is answered 504 and runs once, and its instance keeps serving.
func testSlow(r *rig) {
	one, two := NewInstance(r.t, "web-1"), NewInstance(r.t, "web-2")
	defer close(one.Release)
	defer close(two.Release)
	route := Route("web", "web.example.test", "/", one, two)
	// Long enough that quick requests are answered in time on a busy machine.
	route.Expose.Timeouts = &apiv1.Expose_Timeouts{Idle: durationpb.New(5 * time.Second)}
	r.apply(route)
	const slow = 6
	answers := make(chan int, slow)
	var asking sync.WaitGroup
	for range slow {
		asking.Go(func() {
			status, _, _, err := r.do("web.example.test", "/slow", nil, nil)
			if err != nil {
				status = 0
			}
			answers <- status
		})
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		asking.Wait()
	}()
	var quick, failed int64
	for late := 0; late < 100; quick++ {
		if status, _ := r.get("web.example.test", "/"); status != 200 {
			failed++
		}
		select {
		case <-ended: // the instances have failed to answer by now
			late++
		case <-time.After(10 * time.Millisecond):
		}
	}
	if failed > 0 {
		r.t.Errorf("beside slow requests %d of %d quick ones failed", failed, quick)
	}
	for range slow {
		if status := <-answers; status != http.StatusGatewayTimeout {
			r.t.Errorf("a slow request is answered %d, want 504", status)
		}
	}
	if got := one.Requests.Load() + two.Requests.Load() - quick; got != slow {
		r.t.Errorf("%d slow requests ran %d times", slow, got)
	}
}

// If an instance goes away with a request, an idempotent request is tried on another instance, any other is not.
func testUnanswered(r *rig) {
	var all []*Instance
	for i := range 3 {
		all = append(all, NewInstance(r.t, fmt.Sprintf("web-%d", i)))
	}
	r.apply(Route("web", "web.example.test", "/", all...))
	ran := func(method string) int64 {
		var before, after int64
		for _, instance := range all {
			before += instance.Requests.Load()
		}
		answer, _ := r.ask(method, method+" /hang-up HTTP/1.1\r\nHost: web.example.test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		if answer.StatusCode != http.StatusBadGateway {
			r.t.Errorf("a %s that nobody answers ends with %d, want 502", method, answer.StatusCode)
		}
		for _, instance := range all {
			after += instance.Requests.Load()
		}
		return after - before
	}
	if got := ran("GET"); got != 3 {
		r.t.Errorf("a GET that nobody answers ran %d times, want 3", got)
	}
	if got := ran("POST"); got != 1 {
		r.t.Errorf("a POST that nobody answers ran %d times, want once", got)
	}
	for range 10 {
		r.expect("web.example.test", "/", 200, "web-")
	}
}

func testNoConnection(r *rig) {
	full, alive := r.full("web-1"), NewInstance(r.t, "web-2")
	route := Route("web", "web.example.test", "/", full, alive)
	route.Expose.Timeouts = &apiv1.Expose_Timeouts{Connect: durationpb.New(100 * time.Millisecond), Idle: durationpb.New(patience)}
	r.apply(route)
	for range 6 {
		r.expect("web.example.test", "/", 200, "web-2")
		if status, body, _, err := r.do("web.example.test", "/", nil, []byte("a body")); err != nil || status != 200 {
			r.t.Errorf("a POST: %d %q, %v", status, body, err)
		}
	}
}

func testHostSpelling(r *rig) {
	web, shop, rest := NewInstance(r.t, "web-1"), NewInstance(r.t, "shop-1"), NewInstance(r.t, "rest-1")
	routes := Routes(Route("web", "web.example.test", "/", web), Route("shop", "*.shop.test", "/", shop))
	if !r.subject.NoAnyHost {
		routes["rest"] = Route("rest", "*", "/", rest)
	}
	sticky := routes["web"]
	sticky.Expose.Http.StickyCookie = "seat"
	if refusals, err := r.proxy.Apply(r.t.Context(), routes); err != nil || len(refusals) > 0 {
		r.t.Fatal(refusals, err)
	}
	for host, want := range map[string]string{
		"web.example.test": "web-1", "web.example.test.": "web-1", "web.example.test:8080": "web-1", "web.example.test.:80": "web-1",
		"WEB.Example.TEST": "web-1", "Web.Example.Test.:81": "web-1",
		"a.shop.test": "shop-1", "a.shop.test.": "shop-1", "A.SHOP.test.:8080": "shop-1", "b.a.shop.test": "shop-1",
		"shop.test": "rest-1", "example.test.": "rest-1", "xshop.test": "rest-1", "127.0.0.1:80": "rest-1", "[::1]:80": "rest-1", "[::1]": "rest-1",
	} {
		if want == "rest-1" && r.subject.NoAnyHost {
			continue
		}
		answer, body := r.ask("GET", "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if answer.StatusCode != 200 || !strings.HasPrefix(body, want+" "+host+" ") {
			r.t.Errorf("the host %q: %d %q, want %s", host, answer.StatusCode, body, want)
		}
	}
}

func testPathSpelling(r *rig) {
	web, api := NewInstance(r.t, "web-1"), NewInstance(r.t, "api-1")
	r.apply(Route("web", "web.example.test", "/", web), Route("api", "web.example.test", "/api", api))
	for path, want := range map[string]*Instance{
		"/a%20b": web, "/a%2Fb": web, "/%E4%BD%A0": web, "/a+b?q=%26&r=a+b": web, "/a;b=c,d": web, "/a:b@c!$&'()*": web, "/~me/": web, "/?": web, "/a?b=/api/": web,
		"/api": api, "/api/": api, "/api?x": api, "/api/a%2Fb%3F": api, "/%61pi/x": api, "//api/x": api, "/a/../api/x": api, "/./api/x": api,
		"/api/../x": web, "/api/%2e%2E/x": web, "/apix": web, "/API/x": web, "/api%20/x": web,
	} {
		answer, body := r.ask("GET", "GET "+path+" HTTP/1.1\r\nHost: web.example.test\r\nConnection: close\r\n\r\n")
		if answer.StatusCode != 200 || !strings.HasPrefix(body, want.ID) {
			r.t.Errorf("the path %q: %d %q, want %s", path, answer.StatusCode, body, want.ID)
			continue
		}
		if got := want.Last.Load().RequestURI; got != path {
			r.t.Errorf("the path %q arrives as %q", path, got)
		}
	}
}

func testForwarded(r *rig) {
	web := NewInstance(r.t, "web-1")
	r.apply(Route("web", "web.example.test", "/", web))
	r.ask("GET", "GET /a HTTP/1.1\r\nhOST: web.example.test:81\r\nx-Mine: 1\r\nX-MINE: 2\r\nX_Real_IP: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n"+
		"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-Host: bad.test\r\nConnection: close\r\n\r\n")
	got := web.Last.Load()
	if got == nil {
		r.t.Fatal("no request arrived")
	}
	for name, want := range map[string]string{
		"X-Mine": "1, 2", "X-Real-Ip": "127.0.0.1", "X-Forwarded-For": "6.6.6.6, 127.0.0.1", "X-Forwarded-Proto": "http",
		"X-Forwarded-Host": "web.example.test:81", "X_Real_IP": "", "X_real_ip": "",
	} {
		if value := strings.Join(got.Header[name], ", "); value != want {
			r.t.Errorf("the instance receives %s: %q, want %q", name, value, want)
		}
	}
	if got.Host != "web.example.test:81" {
		r.t.Errorf("the instance receives the host %q", got.Host)
	}
}

func testNoContent(r *rig) {
	web := NewInstance(r.t, "web-1")
	r.apply(Route("web", "web.example.test", "/", web))
	// All requests share a connection: a body that is wrongly expected would swallow the next answer.
	conn, reader := r.raw(r.front.HTTP, "")
	for _, one := range []struct {
		method, path string
		status       int
	}{
		{"HEAD", "/", 200},
		{"HEAD", "/large?bytes=100000", 200},
		{"GET", "/nothing", 204},
		{"GET", "/same", 304},
		{"HEAD", "/lines", 200},
		{"OPTIONS", "/", 200},
		{"DELETE", "/nothing", 204},
		{"GET", "/", 200},
	} {
		if one.path == "/lines" {
			close(web.Lines)
		}
		_, _ = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: web.example.test\r\n\r\n", one.method, one.path)
		answer, err := http.ReadResponse(reader, &http.Request{Method: one.method})
		if err != nil || answer.StatusCode != one.status {
			r.t.Fatalf("%s %s: %v, %v; want %d", one.method, one.path, answer, err, one.status)
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			r.t.Fatalf("%s %s: %v", one.method, one.path, err)
		}
	}
}

// An instance may answer before it has read a body, and read no more of it.
func testEarlyAnswer(r *rig) {
	web := NewInstance(r.t, "web-1")
	route := Route("web", "web.example.test", "/", web)
	route.Expose.Http.MaxBodyBytes = -1
	r.apply(route)
	answer, body := r.ask("POST", "POST /early HTTP/1.1\r\nHost: web.example.test\r\nContent-Length: 100000\r\nConnection: close\r\n\r\nbegin"+strings.Repeat("b", 99995))
	if answer.StatusCode != http.StatusUnauthorized || body != "who are you" {
		r.t.Errorf("answered %d %q", answer.StatusCode, body)
	}
}

func testChunks(r *rig) {
	web := NewInstance(r.t, "web-1")
	small := Route("web", "web.example.test", "/", web)
	small.Expose.Http.MaxBodyBytes = 1000
	large := Route("large", "large.example.test", "/", web)
	large.Expose.Http.MaxBodyBytes = -1
	r.apply(small, large)
	answer, body := r.ask("POST", "POST /upload HTTP/1.1\r\nHost: web.example.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nfirst\r\n5\r\nother\r\n0\r\n\r\n")
	if answer.StatusCode != 200 || body != "web-1 got 10" {
		r.t.Errorf("a body in chunks: %d %q", answer.StatusCode, body)
	}
	conn, reader := r.raw(r.front.HTTP, "PUT /upload HTTP/1.1\r\nHost: web.example.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
	answer, err := http.ReadResponse(reader, nil)
	if err != nil || answer.StatusCode != http.StatusContinue {
		r.t.Fatalf("a client that waits for 100 Continue receives %v, %v", answer, err)
	}
	_, _ = io.WriteString(conn, "hello")
	answer, err = http.ReadResponse(reader, nil)
	if err != nil || answer.StatusCode != 200 {
		r.t.Fatalf("after the word: %v, %v", answer, err)
	}
	// The proxy stores no part of a large body.
	status, body, _, err := r.do("large.example.test", "/upload", nil, make([]byte, 8<<20))
	if err != nil || status != 200 || body != fmt.Sprint("web-1 got ", 8<<20) {
		r.t.Errorf("a body of 8 MiB: %d %q, %v", status, body, err)
	}
	status, body, _, err = r.do("web.example.test", fmt.Sprint("/large?bytes=", 32<<20), nil, nil)
	if err != nil || status != 200 || len(body) != 32<<20 {
		r.t.Errorf("an answer of 32 MiB: %d with %d bytes, %v", status, len(body), err)
	}
}
