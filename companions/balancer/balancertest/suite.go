// Package balancertest is the conformance suite for balancers: Run tests what every balancer.Proxy must do.
package balancertest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/companions/balancer"
	"github.com/mammoth-os/mammoth/internal/testenv"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Front has the addresses and folders of a proxy under test.
type Front struct {
	Dir string
	// How many old processes may run; zero is the proxy's default.
	MaxOld       int
	Log          *slog.Logger
	HTTP, TLS    string
	Certificates string
}

// Subject is one kind of proxy.
type Subject struct {
	// New returns a proxy for a front that has not been started. A second one for the same front, made after Close
	// of the first, finds the program that the first left running.
	New func(t *testing.T, front Front) balancer.Proxy
	// Close ends the companion's part of the proxy, and leaves the program running.
	Close func(balancer.Proxy)
	// Processes lists all processes of the front, the main process first.
	Processes func(front Front) []int
	// Serving lists the processes that accept requests. Every reload changes them.
	Serving func(front Front) []int
	// Old lists the processes that only finish connections from before a reload.
	Old func(balancer.Proxy) []int
	// KeepsIdle says whether old processes keep idle connections of clients for a while.
	KeepsIdle func(balancer.Proxy) bool
	// NoAnyHost is true if requests to hosts that no app has go to another server.
	NoAnyHost bool
	// NoTCP is true if the proxy cannot forward TCP ports.
	NoTCP bool
}

// rig is a running proxy and its instances.
type rig struct {
	t       *testing.T
	subject Subject
	front   Front
	proxy   balancer.Proxy
	client  *http.Client
	log     *bytes.Buffer
}

// Run runs the whole suite.
func Run(t *testing.T, subject Subject) {
	tests := []struct {
		name string
		test func(*rig)
	}{
		{"routes by host and path", testRoutes},
		{"no instance is 503, no app is 404", testEmpty},
		{"weights split traffic", testWeights},
		{"an instance that is taken out gets no request", testRemoval},
		{"requests in flight end", testInFlight},
		{"no request fails while routes change", testChurn},
		{"a client stays with its instance", testSticky},
		{"bodies have a limit", testBody},
		{"a dead instance is passed over", testRetry},
		{"without retry a dead instance is not passed over", testNoRetry},
		{"connections are passed on", testTCP},
		{"a port that is taken is refused, the rest is routed", testTakenPort},
		{"certificates", testTLS},
		{"of two with the same claim one is refused", testConflict},
		{"hostile routes are refused", testHostile},
		{"the proxy killed is started again", testKilledProxy},
		{"the companion gone, the proxy serves on", testCompanionGone},
		{"long connections are switched over", testUpgrade},
		{"a request without a host is answered", testNoHost},
		{"headers of 16 KiB pass both ways", testLargeHeaders},
		{"what an instance sends arrives when it is sent", testStream},
		{"what a client sends arrives when it is sent", testStreamUp},
		{"a slow request runs once and shuts nobody out", testSlow},
		{"a request that ended without an answer is tried again if it may be", testUnanswered},
		{"a connection that does not come about is tried elsewhere", testNoConnection},
		{"however a host is written it is the same app", testHostSpelling},
		{"however a path is written it is the same app", testPathSpelling},
		{"an instance receives the address of the client", testForwarded},
		{"answers without a body", testNoContent},
		{"a body that is refused early", testEarlyAnswer},
		{"bodies in chunks, and those that wait for a word", testChunks},
		{"long connections outlive the changes of others", testOutlive},
		{"idle connections outlive a change", testIdle},
		{"old processes are limited in number, and the oldest end first", testOldestEnd},
		{"traffic is counted", testTraffic},
		{"two companions on one proxy", testTwoCompanions},
	}
	tcp := []string{"connections are passed on", "a port that is taken is refused, the rest is routed"}
	for _, test := range tests {
		if subject.NoTCP && slices.Contains(tcp, test.name) {
			continue
		}
		t.Run(test.name, func(t *testing.T) { test.test(newRig(t, subject)) })
	}
}

func newRig(t *testing.T, subject Subject) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "mammoth-balancer-")
	if err != nil {
		t.Fatal(err)
	}
	// The proxy's workers are another user when the test is root.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, subject: subject, front: Front{
		Dir: dir + "/proxy", Certificates: dir + "/certificates",
	}}
	r.front.HTTP, r.front.TLS = address(testenv.Port(t)), address(testenv.Port(t))
	r.log = &bytes.Buffer{}
	r.front.Log = slog.New(slog.NewTextHandler(r.log, nil))
	WriteCertificates(t, r.front.Certificates)
	r.client = &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", r.front.HTTP)
		},
	}}
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		if r.proxy != nil {
			subject.Close(r.proxy)
		}
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			left := subject.Processes(r.front)
			for _, pid := range left {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			if len(left) == 0 || time.Now().After(deadline) {
				break
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	r.start()
	return r
}

// start starts a companion, which finds what an earlier one has left.
func (r *rig) start() {
	r.t.Helper()
	r.proxy = r.subject.New(r.t, r.front)
	if err := r.proxy.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Instance is a small HTTP server that answers with its id.
type Instance struct {
	ID       string
	Port     int
	Requests atomic.Int64
	server   *http.Server
	done     chan struct{}
	// Requests to /slow are answered once it is closed.
	Release chan struct{}
	// Each line that is sent here goes out at once to a client that asks for /lines; closed, the answer ends.
	Lines chan string
	// Each piece of a body that comes in at /upload.
	Pieces chan string
	// The last request.
	Last atomic.Pointer[http.Request]
}

// NewInstance starts an instance; it ends with the test. Once it is killed nobody answers on its port.
func NewInstance(t *testing.T, id string) *Instance {
	t.Helper()
	listener, err := net.Listen("tcp", address(testenv.Port(t)))
	if err != nil {
		t.Fatal(err)
	}
	i := &Instance{
		ID: id, Port: listener.Addr().(*net.TCPAddr).Port, done: make(chan struct{}),
		Release: make(chan struct{}), Lines: make(chan string), Pieces: make(chan string, 100),
	}
	i.server = &http.Server{Handler: http.HandlerFunc(i.serve)}
	go func() {
		defer close(i.done)
		_ = i.server.Serve(listener)
	}()
	t.Cleanup(i.Kill)
	return i
}

func (i *Instance) serve(w http.ResponseWriter, request *http.Request) {
	i.Requests.Add(1)
	i.Last.Store(request)
	if special := i.special(request.URL.Path); special != nil {
		special(w, request)
		return
	}
	switch {
	case request.URL.Path == "/slow":
		<-i.Release
	case request.URL.Path == "/broken":
		w.WriteHeader(http.StatusInternalServerError)
	case request.Header.Get("Upgrade") != "":
		w.Header().Set("Upgrade", "echo")
		w.Header().Set("Connection", "Upgrade")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err == nil {
			defer conn.Close()
			_, _ = io.Copy(conn, buffered)
		}
		return
	}
	_, _ = io.Copy(io.Discard, request.Body)
	fmt.Fprintf(w, "%s %s %s", i.ID, request.Host, request.URL.Path)
}

// Kill ends the instance with all its connections.
func (i *Instance) Kill() {
	_ = i.server.Close()
	<-i.done
}

// Endpoint is the instance's endpoint in the registry.
func (i *Instance) Endpoint() *apiv1.Endpoint {
	return &apiv1.Endpoint{
		Id: i.ID, Address: "127.0.0.1", Port: int32(i.Port), Weight: 100, State: apiv1.Endpoint_HEALTHY,
		Ports: map[string]int32{"http": int32(i.Port)},
	}
}

// Routes makes a set of routes.
func Routes(routes ...balancer.Route) map[string]balancer.Route {
	set := map[string]balancer.Route{}
	for _, route := range routes {
		set[route.Service.GetName()] = route
	}
	return set
}

// Route is one app on a host and path.
func Route(name, host, path string, instances ...*Instance) balancer.Route {
	service := &apiv1.Service{Name: name}
	for _, instance := range instances {
		service.Endpoints = append(service.Endpoints, instance.Endpoint())
	}
	return balancer.Route{Service: service, Expose: &apiv1.Expose{Http: &apiv1.Expose_Http{Host: host, Path: path}}}
}

func (r *rig) apply(routes ...balancer.Route) {
	r.t.Helper()
	refusals, err := r.proxy.Apply(r.t.Context(), Routes(routes...))
	if err != nil {
		r.t.Fatal(err)
	}
	if len(refusals) > 0 {
		r.t.Fatalf("refused: %v", refusals)
	}
}

// applyRefusing applies routes of which one must be refused, and returns why.
func (r *rig) applyRefusing(name string, routes ...balancer.Route) string {
	r.t.Helper()
	refusals, err := r.proxy.Apply(r.t.Context(), Routes(routes...))
	if err != nil {
		r.t.Fatal(err)
	}
	if len(refusals) != 1 || refusals[0].GetService() != name {
		r.t.Fatalf("refused %v, want only %q", refusals, name)
	}
	return refusals[0].GetReason()
}

// get asks through the proxy; the answer's body is text.
func (r *rig) get(host, path string) (status int, body string) {
	r.t.Helper()
	status, body, _, err := r.do(host, path, nil, nil)
	if err != nil {
		r.t.Fatalf("GET %s%s: %v", host, path, err)
	}
	return status, body
}

func (r *rig) do(host, path string, header http.Header, body []byte) (int, string, http.Header, error) {
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(context.Background(), method, "http://"+host+path, bytes.NewReader(body))
	if err != nil {
		return 0, "", nil, err
	}
	for key, values := range header {
		request.Header[key] = values
	}
	answer, err := r.client.Do(request)
	if err != nil {
		return 0, "", nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text), answer.Header, err
}

func (r *rig) expect(host, path string, status int, body string) {
	r.t.Helper()
	got, text := r.get(host, path)
	if got != status || !strings.Contains(text, body) {
		r.t.Errorf("GET %s%s is %d %q, want %d %q", host, path, got, text, status, body)
	}
}

func (r *rig) expectTLS(host string, body string) {
	r.t.Helper()
	pool := x509.NewCertPool()
	chain, err := os.ReadFile(r.front.Certificates + "/" + host + ".crt")
	if err != nil {
		r.t.Fatal(err)
	}
	pool.AppendCertsFromPEM(chain)
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", r.front.TLS)
		},
	}}
	answer, err := client.Get("https://" + host + "/")
	if err != nil {
		r.t.Errorf("over TLS: %v", err)
		return
	}
	defer answer.Body.Close()
	if text, _ := io.ReadAll(answer.Body); !strings.Contains(string(text), body) {
		r.t.Errorf("over TLS %s says %q, want %q", host, text, body)
	}
}
