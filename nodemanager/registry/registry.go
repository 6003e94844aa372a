// Package registry is the way from the containers on a node's bridge to the zone's registry, and to nothing else of the
// zone: it listens at the bridge's gateway and passes look-ups, watches and registrations to the ResourceManager, which may
// listen where no container can reach it. The ResourceManager takes what it passes for the NodeManager's own; so what is
// passed is made anew, from the few things that such a request may have, and never forwarded as it came.
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

// Config is what a Face has to be told.
type Config struct {
	// Upstream is the ResourceManager's host:port.
	Upstream string
	// Gateway is the node's address on the bridge of its containers. ErrUnavailable while the engine does not answer.
	Gateway func(ctx context.Context) (string, error)
	// Keep gives the port to listen on, the given one if none is known yet, and remembers it: containers are told
	// once. Nil remembers none.
	Keep   func(port int) (int, error)
	Logger *slog.Logger
}

const (
	// largestBody is more than a registration may have: its values have at most 4 KiB.
	largestBody = 64 << 10
	// bodyWithin is how long a registration may take to arrive.
	bodyWithin = 10 * time.Second
	// most is how many connections there are at a time, and mostOfOne how many of one container's address: each takes a
	// file of the NodeManager's. Each watch is one.
	most, mostOfOne = 2048, 256
	// largestHeader has a key and a few words.
	largestHeader = 16 << 10
)

// Face is the registry as containers of one node see it.
type Face struct {
	config    Config
	server    *http.Server
	transport *http.Transport
	guests    *guests
	serving   sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil until the bridge is known
	gateway  string       // where it listens
	closed   bool
}

// New returns a face that has yet to listen.
func New(config Config) *Face {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Face{
		config: config, guests: &guests{count: map[string]int{}},
		transport: credentials.Transport(),
	}
	f.server = credentials.NewHTTPServer(f.handler())
	f.server.MaxHeaderBytes, f.server.IdleTimeout = largestHeader, time.Minute
	f.server.ErrorLog = slog.NewLogLogger(config.Logger.Handler(), slog.LevelDebug)
	return f
}

// Run listens as soon as the bridge is known, for those who were told of it before, and serves until ctx ends.
func (f *Face) Run(ctx context.Context) {
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

// Address is where the registry is reached, host:port. It listens first if that was not possible yet, or if the bridge has
// another address now.
func (f *Face) Address(ctx context.Context) (string, error) {
	gateway, err := f.config.Gateway(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return "", fmt.Errorf("the NodeManager is stopping: %w", errdefs.ErrUnavailable)
	case f.listener != nil && (err != nil || gateway == f.gateway):
		return f.listener.Addr().String(), nil
	case err != nil:
		return "", fmt.Errorf("find the bridge of containers that look services up: %w", err)
	}
	listener, err := f.listen(gateway)
	if err != nil {
		return "", fmt.Errorf("listen for containers that look services up: %w", err)
	}
	if f.listener != nil {
		_ = f.listener.Close() // nobody can reach it any more
	}
	f.listener, f.gateway = listener, gateway
	f.config.Logger.Info("containers reach the registry", "address", listener.Addr().String())
	f.serving.Go(func() { _ = f.server.Serve(&limited{listener, f.guests}) })
	return listener.Addr().String(), nil
}

func (f *Face) listen(gateway string) (net.Listener, error) {
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
		f.config.Logger.Warn("containers that run already cannot reach the registry any more", "error", err)
		return listener, nil
	}
	_ = listener.Close()
	return before, nil
}

// handler knows the registry's requests by their patterns; there are no others.
func (f *Face) handler() http.Handler {
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
			target := url.URL{Scheme: "http", Host: f.config.Upstream, Path: services}
			for _, part := range path(r) {
				if !plain.MatchString(part) {
					refuse(w, http.StatusBadRequest, "a name has letters, digits, \"-\", \"_\" and \".\"")
					return
				}
				target.Path += "/" + part
			}
			body, err := registration(w, r)
			if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
				refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("a registration has at most %d bytes", largestBody))
				return
			} else if err != nil {
				refuse(w, http.StatusRequestTimeout, fmt.Sprintf("the registration did not arrive within %s", bodyWithin))
				return
			}
			f.pass(target, body).ServeHTTP(w, r)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusForbidden, "containers reach the registry here, and nothing else of the zone")
	})
	return mux
}

func endpoint(r *http.Request) []string {
	return []string{r.PathValue("service"), "endpoints", r.PathValue("id")}
}

// registration is the body of a request that may have one, whole: how it came is not passed on. What any other has is read
// too, since the server notices only behind it that a container has hung up, and dropped.
func registration(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Body == http.NoBody {
		return nil, nil
	}
	arriving := http.NewResponseController(w)
	if err := arriving.SetReadDeadline(time.Now().Add(bodyWithin)); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, largestBody))
	if err != nil {
		return nil, err // the deadline stays: nobody waits for the rest
	}
	if r.Method != http.MethodPut {
		body = nil
	}
	return body, arriving.SetReadDeadline(time.Time{})
}

// plain is a name that means nothing but itself in a path.
var plain = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}$`)

// pass makes a request of what the container's has that the registry knows.
func (f *Face) pass(target url.URL, body []byte) http.Handler {
	return &httputil.ReverseProxy{
		Transport:     f.transport,
		FlushInterval: -1, // a watch tells at once
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
				refuse(w, http.StatusServiceUnavailable, "the zone's registry does not answer; try again")
			}
		},
	}
}

// refuse answers as the ResourceManager does.
func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": why})
}
