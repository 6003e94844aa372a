// Package server is the part of a ResourceManager that lives as long as its process: the listener, the limits on callers, uploads
// of images, and HTTP. It has no state of the zone. That belongs to a term (package term), which may end and be followed by another
// one in the same process.
//
// Lead serves a term. Between two terms callers get the answer to try again. A gRPC connection ends with the term in which it was
// made, and its caller connects again.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mammoth-os/mammoth/internal/admission"
	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
)

// stopWithin is how long calls in flight may take when a term or the process ends.
const stopWithin = 3 * time.Second

// Config is the configuration of a Server. All fields are required.
type Config struct {
	// Version is the version of the program.
	Version string
	// AllowInsecure trusts callers that cannot be identified, and accepts changes from web pages that reach the zone by a host
	// name.
	AllowInsecure bool
	// Uploads serves uploads of images under /v1/uploads and the OCI distribution API under /v2/. It has limits of its own.
	Uploads http.Handler
	// Metrics serves /metrics.
	Metrics http.Handler
	Logger  *slog.Logger
}

// trusts reports whether a caller may be a node or run application masters, which open many connections and send large messages.
func (c *Config) trusts(who peer.User) bool { return who.Operator || who.Name == "" && c.AllowInsecure }

// Server serves one term at a time.
type Server struct {
	config   Config
	listener *admission.Listener
	bounds   *bounds
	web      *http.Server

	mu sync.Mutex
	// backend answers callers. over is true once the server has ended.
	backend *backend
	over    bool
}

// New returns a server that owns the listener. Run must be called.
func New(config Config, listener net.Listener) *Server {
	s := &Server{config: config, bounds: newBounds(config.trusts)}
	described := credentials.NewServer(credentials.LargestRequest) // only to list the methods; it serves nothing
	service.Register(described, service.Config{})
	s.bounds.learn(described)
	s.listener = admission.Listen(listener, admission.Config{
		Limits: admission.LimitsFor(mostConnections), Trusted: config.trusts, Logger: config.Logger,
	})
	s.backend = s.unavailable()
	s.web = credentials.NewHTTPServer(s.handler())
	return s
}

// Address is the address of the listener.
func (s *Server) Address() net.Addr { return s.listener.Addr() }

// Refused is how many connections were closed because there were too many.
func (s *Server) Refused() int64 { return s.listener.Refused() }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	web := newHandedListener(s.listener.Addr())
	group.Go(func() error { return ended(running, s.web.Serve(web)) })
	group.Go(func() error {
		defer web.Close() //nolint:errcheck // it only closes a channel
		return s.split(running, web)
	})
	group.Go(func() error {
		<-running.Done()
		closed := s.listener.Close()
		ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
		defer cancel()
		if err := s.web.Shutdown(ctx); err != nil {
			_ = s.web.Close()
		}
		s.end()
		return closed
	})
	return group.Wait()
}

// Close closes the listener of a server for which Run is not called.
func (s *Server) Close() error { return s.listener.Close() }

// ended returns the error with which a server has ended; nil once ctx has ended.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// split passes each connection to the server of its protocol until the listener is closed. That is no error once ctx has ended.
func (s *Server) split(ctx context.Context, web *handedListener) error {
	var readers sync.WaitGroup
	defer readers.Wait()
	for {
		connection, err := s.listener.Accept()
		if err != nil {
			return ended(ctx, fmt.Errorf("accept connections: %w", err))
		}
		readers.Go(func() {
			hangUp := context.AfterFunc(ctx, func() { _ = connection.Close() })
			defer hangUp()
			begun, http2 := identify(connection)
			switch {
			case begun == nil:
			case http2:
				s.current().listener(s.config.trusts(peer.Of(begun).User())).hand(begun)
			default:
				web.hand(begun)
			}
		})
	}
}
