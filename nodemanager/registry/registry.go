// Package registry is a proxy that gives the containers on a node's bridge access to the zone's registry, and to nothing
// else of the zone. It listens on the bridge's gateway and forwards look-ups, watches and registrations to the
// ResourceManager, which may listen where no container can reach it. To the ResourceManager the requests are the
// NodeManager's own; so each one is built anew from the few parts that such a request may have.
//
// A Proxy owns its listener on the bridge and its connections. It stores nothing.
package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/credentials"
)

// Config is the configuration of a Proxy.
type Config struct {
	// Upstream is the ResourceManager's host:port, or a list of them.
	Upstream string
	// Gateway is the node's address on the bridge. It fails with ErrUnavailable while the engine does not answer.
	Gateway func(ctx context.Context) (string, error)
	// Keep returns the port to listen on, which is the given one the first time, and stores it: containers receive it once.
	// Nil stores nothing.
	Keep   func(port int) (int, error)
	Logger *slog.Logger
}

const (
	// maxBody is the largest registration: its values have at most 4 KiB.
	maxBody = 64 << 10
	// bodyTimeout is how long a registration may take to arrive.
	bodyTimeout = 10 * time.Second
	// maxConns is how many connections there may be, and maxConnsPerAddress how many from one container's address: each
	// needs a file descriptor. Each watch is one.
	maxConns, maxConnsPerAddress = 2048, 256
	// maxHeader is the largest header.
	maxHeader = 16 << 10
)

// Proxy is the registry for the containers of one node.
type Proxy struct {
	config    Config
	server    *http.Server
	transport *http.Transport
	conns     *connLimiter
	serving   sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil until the bridge is known
	gateway  string       // where it listens
	closed   bool
}

// New returns a Proxy that does not listen yet.
func New(config Config) *Proxy {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Proxy{
		config: config, conns: &connLimiter{count: map[string]int{}},
		transport: credentials.Transport(config.Upstream),
	}
	f.server = credentials.NewHTTPServer(f.handler())
	f.server.MaxHeaderBytes, f.server.IdleTimeout = maxHeader, time.Minute
	f.server.ErrorLog = slog.NewLogLogger(config.Logger.Handler(), slog.LevelDebug)
	return f
}

// Run listens as soon as the bridge is known, for containers that already have the address, and serves until ctx ends.
func (f *Proxy) Run(ctx context.Context) {
	pace := backoff.Policy{Min: 100 * time.Millisecond, Max: 10 * time.Second}
	for failures := 1; ctx.Err() == nil; failures++ {
		if _, err := f.Address(ctx); err == nil {
			<-ctx.Done()
			break
		} else if failures == 5 {
			f.config.Logger.Warn("containers on the bridge cannot reach the registry", "error", err)
		}
		_ = backoff.Sleep(ctx, pace.After(failures))
	}
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	_ = f.server.Close()
	f.serving.Wait()
	f.transport.CloseIdleConnections()
}

// Address is the host:port of the proxy. It listens first if the bridge was not known before, or has another address now.
func (f *Proxy) Address(ctx context.Context) (string, error) {
	gateway, err := f.config.Gateway(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return "", fmt.Errorf("the NodeManager is stopping: %w", errdefs.ErrUnavailable)
	case f.listener != nil && (err != nil || gateway == f.gateway):
		return f.listener.Addr().String(), nil
	case err != nil:
		return "", fmt.Errorf("find the containers' bridge: %w", err)
	}
	listener, err := f.listen(gateway)
	if err != nil {
		return "", fmt.Errorf("listen on the containers' bridge: %w", err)
	}
	if f.listener != nil {
		_ = f.listener.Close() // nobody can reach it now
	}
	f.listener, f.gateway = listener, gateway
	f.config.Logger.Info("containers reach the registry", "address", listener.Addr().String())
	f.serving.Go(func() { _ = f.server.Serve(&limitedListener{listener, f.conns}) })
	return listener.Addr().String(), nil
}

func (f *Proxy) listen(gateway string) (net.Listener, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(gateway, "0"))
	if err != nil || f.config.Keep == nil {
		return listener, err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	kept, err := f.config.Keep(port)
	if err != nil || kept == port {
		return listener, nil
	}
	before, err := net.Listen("tcp", net.JoinHostPort(gateway, strconv.Itoa(kept)))
	if err != nil {
		f.config.Logger.Warn("containers that are already running cannot reach the registry any more", "error", err)
		return listener, nil
	}
	_ = listener.Close()
	return before, nil
}

// handler accepts the registry's requests by their patterns, and no others.
func (f *Proxy) handler() http.Handler {
	const services = "/v1/registry/services"
	mux := http.NewServeMux()
	for pattern, path := range map[string]func(r *http.Request) []string{
		"GET " + services:                                  func(*http.Request) []string { return nil },
		"GET " + services + "/{name}":                      func(r *http.Request) []string { return []string{r.PathValue("name")} },
		"GET " + services + "/{name}/watch":                func(r *http.Request) []string { return []string{r.PathValue("name"), "watch"} },
		"PUT " + services + "/{service}/endpoints/{id}":    endpoint,
		"DELETE " + services + "/{service}/endpoints/{id}": endpoint,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			target := url.URL{Scheme: "http", Host: credentials.FirstAddress(f.config.Upstream), Path: services}
			for _, part := range path(r) {
				if !validName.MatchString(part) {
					writeError(w, http.StatusBadRequest, "a name has letters, digits, \"-\", \"_\" and \".\"")
					return
				}
				target.Path += "/" + part
			}
			body, err := registration(w, r)
			if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
				writeError(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("a registration has at most %d bytes", maxBody))
				return
			} else if err != nil {
				writeError(w, http.StatusRequestTimeout, fmt.Sprintf("the registration did not arrive within %s", bodyTimeout))
				return
			}
			f.forward(target, body).ServeHTTP(w, r)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusForbidden, "only the registry can be reached here, and nothing else of the zone")
	})
	return mux
}

func endpoint(r *http.Request) []string {
	return []string{r.PathValue("service"), "endpoints", r.PathValue("id")}
}

// registration reads the body of a registration. The body of any other request is read and dropped, since the server only
// notices after it that a container has disconnected.
func registration(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Body == http.NoBody {
		return nil, nil
	}
	arriving := http.NewResponseController(w)
	if err := arriving.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, err // the deadline stays, so that the rest is not waited for
	}
	if r.Method != http.MethodPut {
		body = nil
	}
	return body, arriving.SetReadDeadline(time.Time{})
}

// validName matches names without a special meaning in a path.
var validName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}$`)

// forward builds a new request from the permitted parts of a container's request.
func (f *Proxy) forward(target url.URL, body []byte) http.Handler {
	return &httputil.ReverseProxy{
		Transport:     f.transport,
		FlushInterval: -1, // a watch sends at once
		ErrorLog:      f.server.ErrorLog,
		Rewrite: func(r *httputil.ProxyRequest) {
			query := url.Values{}
			for _, name := range []string{"index", "wait"} {
				if r.In.Method == http.MethodGet && r.In.URL.Query().Has(name) {
					query.Set(name, r.In.URL.Query().Get(name))
				}
			}
			target.RawQuery = query.Encode()
			r.Out.URL, r.Out.Host = &target, target.Host
			r.Out.Header = http.Header{}
			for _, name := range []string{"Accept", "Authorization", "Content-Type"} {
				if value := r.In.Header.Get(name); value != "" {
					r.Out.Header.Set(name, value)
				}
			}
			r.Out.Body, r.Out.ContentLength, r.Out.TransferEncoding, r.Out.Trailer = http.NoBody, 0, nil, nil
			if len(body) > 0 {
				r.Out.Body, r.Out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			}
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, _ error) {
			if r.Context().Err() == nil {
				writeError(w, http.StatusServiceUnavailable, "the zone's registry does not answer; try again")
			}
		},
	}
}

// writeError answers in the ResourceManager's form.
func writeError(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": why})
}
