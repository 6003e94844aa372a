package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/nodemanager/registry"
)

// manager is a ResourceManager that echoes the request, and fails the test for requests to anything but the registry.
func manager(t *testing.T) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/v1/registry/services") || strings.Contains(r.URL.Path, "..") {
			t.Errorf("the ResourceManager was asked for %s", r.URL)
		}
		body, _ := io.ReadAll(r.Body)
		var header []string
		for _, name := range []string{"Authorization", "Cookie", "Grpc-Metadata-Mammoth-User-Bin", "Upgrade", "X-Forwarded-For"} {
			if r.Header.Get(name) != "" {
				header = append(header, name)
			}
		}
		fmt.Fprintf(w, "%s %s %s %q", r.Method, r.URL.RequestURI(), header, body)
	}))
	t.Cleanup(server.Close)
	return server
}

// proxy runs one on loopback.
func proxy(t *testing.T, config registry.Config) string {
	t.Helper()
	if config.Gateway == nil {
		config.Gateway = func(context.Context) (string, error) { return "127.0.0.1", nil }
	}
	f := registry.New(config)
	address, err := f.Address(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { f.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return address
}

func TestOnlyTheRegistryIsReached(t *testing.T) {
	address := proxy(t, registry.Config{Upstream: manager(t).Listener.Addr().String()})
	for _, test := range []struct {
		method, path, body string
		status             int
		answer             string
	}{
		{"GET", "/v1/registry/services", "", 200, `GET /v1/registry/services [Authorization] ""`},
		{"GET", "/v1/registry/services/front.web?index=7&wait=30s&other=1", "", 200, `GET /v1/registry/services/front.web?index=7&wait=30s [Authorization] ""`},
		{"GET", "/v1/registry/services/web/watch?index=7", "", 200, `GET /v1/registry/services/web/watch?index=7 [Authorization] ""`},
		{"PUT", "/v1/registry/services/admin.web/endpoints/mine?x=1", `{"port": 9000}`, 200, `PUT /v1/registry/services/admin.web/endpoints/mine [Authorization] "{\"port\": 9000}"`},
		{"DELETE", "/v1/registry/services/web/endpoints/mine", "", 200, `DELETE /v1/registry/services/web/endpoints/mine [Authorization] ""`},
		{"GET", "/v1/apps", "", 403, "nothing else of the zone"},
		{"POST", "/v1/apps", "{}", 403, "nothing else"},
		{"GET", "/v1/registry", "", 403, "nothing else"},
		{"POST", "/v1/registry/services/web/endpoints/mine", "{}", 403, "nothing else"},
		{"PUT", "/v1/registry/services/web", "{}", 403, "nothing else"},
		{"GET", "/v2/_catalog", "", 403, "nothing else"},
		{"GET", "/metrics", "", 403, "nothing else"},
		{"POST", "/mammoth.api.v1.Apps/Deploy", "", 403, "nothing else"},
		{"GET", "/v1/registry/services/..%2f..%2fapps", "", 400, "a name has letters"},
		{"GET", "/v1/registry/services/%2e%2e/watch", "", 400, "a name has letters"},
		{"GET", "/v1/registry/services/a%2fb", "", 400, "a name has letters"},
		{"PUT", "/v1/registry/services/web/endpoints/a%3fb", "{}", 400, "a name has letters"},
		{"GET", "/v1/registry/services/web%00", "", 400, "a name has letters"},
		{"PUT", "/v1/registry/services/web/endpoints/big", strings.Repeat("x", 70_000), 413, "at most 65536 bytes"},
	} {
		request, err := http.NewRequest(test.method, "http://"+address+test.path, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		request.SetBasicAuth("web", "key")
		for _, name := range []string{"Cookie", "Grpc-Metadata-Mammoth-User-Bin", "X-Forwarded-For"} {
			request.Header.Set(name, "cm9vdA==")
		}
		request.Header.Set("Connection", "Upgrade")
		request.Header.Set("Upgrade", "h2c")
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			t.Errorf("%s %s: %v", test.method, test.path, err)
			continue
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if response.StatusCode != test.status || !strings.Contains(string(body), test.answer) {
			t.Errorf("%s %s is answered %d %s, want %d %s", test.method, test.path, response.StatusCode, body, test.status, test.answer)
		}
	}
}

func TestAWatchIsToldAtOnce(t *testing.T) {
	more := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "one")
		w.(http.Flusher).Flush()
		<-more
		fmt.Fprintln(w, "two")
	}))
	defer server.Close()
	address := proxy(t, registry.Config{Upstream: server.Listener.Addr().String()})
	response, err := http.Get("http://" + address + "/v1/registry/services/web/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	line := make([]byte, 4)
	if _, err := io.ReadFull(response.Body, line); err != nil || string(line) != "one\n" {
		t.Errorf("heard %q, %v before there was more", line, err)
	}
	close(more)
	if _, err := io.ReadFull(response.Body, line); err != nil || string(line) != "two\n" {
		t.Errorf("heard %q, %v", line, err)
	}
}

func TestWithoutAResourceManagerOneTriesAgain(t *testing.T) {
	// A port of an address that nobody else uses.
	address := proxy(t, registry.Config{Upstream: "127.70.0.2:7070"})
	response, err := http.Get("http://" + address + "/v1/registry/services")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "try again") {
		t.Errorf("answered %d %s", response.StatusCode, body)
	}
}

// Containers get the address once, so a restarted NodeManager listens on the same address as before.
func TestTheAddressIsKept(t *testing.T) {
	kept := 0
	config := registry.Config{
		// Nobody else takes a port of this address, also not for a moment.
		Upstream: "127.0.0.1:1", Gateway: func(context.Context) (string, error) { return "127.70.0.1", nil },
		Keep: func(port int) (int, error) {
			if kept == 0 {
				kept = port
			}
			return kept, nil
		},
	}
	var addresses []string
	for range 2 {
		f := registry.New(config)
		address, err := f.Address(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, address)
		ended, end := context.WithCancel(context.Background())
		end()
		f.Run(ended)
		if _, err := f.Address(t.Context()); err == nil {
			t.Error("it listens after its end")
		}
	}
	if addresses[0] != addresses[1] {
		t.Errorf("it listened at %s, then at %s", addresses[0], addresses[1])
	}
}

// An engine that does not answer at first is asked again.
func TestTheBridgeMayComeLater(t *testing.T) {
	away := true
	var mu sync.Mutex
	asked := make(chan struct{}, 100)
	f := registry.New(registry.Config{Upstream: "127.0.0.1:1", Gateway: func(context.Context) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		asked <- struct{}{}
		if away {
			return "", errors.New("the engine does not answer")
		}
		return "127.0.0.1", nil
	}})
	if _, err := f.Address(t.Context()); err == nil {
		t.Error("it has an address without a bridge")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { f.Run(ctx) })
	<-asked
	<-asked
	mu.Lock()
	away = false
	mu.Unlock()
	<-asked
	if _, err := f.Address(t.Context()); err != nil {
		t.Error(err)
	}
	cancel()
	running.Wait()
}

// Containers that are started after the bridge has got another address get the new one.
func TestTheBridgeMayChangeItsAddress(t *testing.T) {
	gateway, away := "127.0.0.1", false
	f := registry.New(registry.Config{Upstream: manager(t).Listener.Addr().String(), Gateway: func(context.Context) (string, error) {
		if away {
			return "", errors.New("the engine does not answer")
		}
		return gateway, nil
	}})
	defer func() {
		ended, end := context.WithCancel(context.Background())
		end()
		f.Run(ended)
	}()
	address := func() string {
		t.Helper()
		address, err := f.Address(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return address
	}
	first := address()
	away = true
	if got := address(); got != first {
		t.Errorf("without a word from the engine it is %s, and was %s", got, first)
	}
	gateway, away = "127.0.0.2", false
	second := address()
	if !strings.HasPrefix(second, "127.0.0.2:") {
		t.Fatalf("it is still %s", second)
	}
	response, err := http.Get("http://" + second + "/v1/registry/services")
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	// Somebody else may listen there by now.
	if response, err := http.Get("http://" + first + "/v1/registry/services"); err == nil {
		said, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if strings.HasPrefix(string(said), "GET /v1/registry/services") {
			t.Error("it listens where the bridge was, too")
		}
	}
}

// The connections of one container are limited, so that other containers and the NodeManager can still open some.
func TestOneContainerHasItsShareOfConnections(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		if strings.HasSuffix(r.URL.Path, "/watch") {
			<-r.Context().Done()
		}
	}))
	t.Cleanup(server.Close)
	address := proxy(t, registry.Config{Upstream: server.Listener.Addr().String()})
	dial := func(from string) net.Conn {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	asks := func(conn net.Conn, path string) bool {
		_, _ = io.WriteString(conn, "GET /v1/registry/services"+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		answer := make([]byte, 12)
		_, err := io.ReadFull(conn, answer)
		return err == nil && string(answer) == "HTTP/1.1 200"
	}
	served := func(conn net.Conn) bool { return asks(conn, "") }
	var conns []net.Conn
	for range 256 { // each a watch: one that says nothing is closed after a while
		conns = append(conns, dial("127.0.0.1"))
		if !asks(conns[len(conns)-1], "/web/watch") {
			t.Fatalf("of the connections that it may have, number %d is not served", len(conns))
		}
	}
	if served(dial("127.0.0.1")) {
		t.Error("a connection more than it may have is served")
	}
	if !served(dial("127.0.0.2")) {
		t.Error("its neighbour is not served")
	}
	_ = conns[0].Close()
	for !served(dial("127.0.0.1")) {
		if t.Context().Err() != nil {
			t.Fatal("a connection that was closed still counts")
		}
	}
}

// Only the parts of a registration are forwarded, so that no other part can be read as another request.
func TestABodyIsPassedOnWholeOrNotAtAll(t *testing.T) {
	seen := make(chan *http.Request, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Header.Set("Body", string(body))
		seen <- r
	}))
	defer server.Close()
	address := proxy(t, registry.Config{Upstream: server.Listener.Addr().String()})
	for _, test := range []struct{ request, body string }{
		{"GET /v1/registry/services HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nGET ", ""},
		{"PUT /v1/registry/services/web/endpoints/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-User\r\n\r\n2\r\n{}\r\n0\r\nX-User: root\r\n\r\n", "{}"},
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, test.request)
		r := <-seen
		if r.Header.Get("Body") != test.body || r.ContentLength != int64(len(test.body)) || len(r.TransferEncoding)+len(r.Trailer) > 0 {
			t.Errorf("of %q the ResourceManager is told %q, %d bytes, %v, %v", test.request, r.Header.Get("Body"), r.ContentLength, r.TransferEncoding, r.Trailer)
		}
		_ = conn.Close()
	}
}

// A watch ends with its container's connection, also if a body came with it.
func TestAWatchEndsWithItsConnection(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(ended)
	}))
	defer server.Close()
	address := proxy(t, registry.Config{Upstream: server.Listener.Addr().String()})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "GET /v1/registry/services/web/watch HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
	<-began
	_ = conn.Close()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("nobody listens any more, and the watch goes on")
	}
}
