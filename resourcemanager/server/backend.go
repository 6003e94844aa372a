package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
)

// largestAnswer is the largest message that REST accepts from the gRPC services of this process.
const largestAnswer = 1 << 30

// ErrNoTerm is the error while no term is served.
var ErrNoTerm = fmt.Errorf("the ResourceManager leads its zone again in a moment; try again then: %w", errdefs.ErrUnavailable)

// errNoTerm is the answer to callers then.
func errNoTerm() error { return wire.Status(ErrNoTerm) }

// Term has the services of a term.
type Term struct {
	Services service.Config
	// Ready returns why the term cannot be used at present; nil if it can.
	Ready func(context.Context) error
}

// backend answers callers: the services of a term or, between two terms, the error that they should try again. A gRPC connection
// belongs to one backend and ends with it, so that its caller connects to the next one.
type backend struct {
	// trusted and others accept gRPC connections, by who is at the other end. Between two terms they are the same.
	trusted, others *handedListener
	servers         []*grpc.Server
	rest            http.Handler
	ready           func(context.Context) error
	serving         sync.WaitGroup
}

func (b *backend) listener(trusted bool) *handedListener {
	if trusted {
		return b.trusted
	}
	return b.others
}

// serve makes a server of the backend accept connections.
func (b *backend) serve(server *grpc.Server, listener *handedListener) {
	b.servers = append(b.servers, server)
	b.serving.Go(func() { _ = server.Serve(listener) }) // it ends when the server is stopped
}

// drain stops the backend. Calls in flight have stopWithin to end. It may be repeated.
func (b *backend) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	var ending sync.WaitGroup
	for _, server := range b.servers {
		ending.Go(func() {
			cut := context.AfterFunc(ctx, server.Stop)
			defer cut()
			server.GracefulStop()
		})
	}
	ending.Wait()
	b.serving.Wait()
}

// unavailable is the backend between two terms.
func (s *Server) unavailable() *backend {
	listener := newHandedListener(s.listener.Addr())
	none := &backend{
		trusted: listener, others: listener,
		rest:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { service.Refuse(w, errNoTerm()) }),
		ready: func(context.Context) error { return errNoTerm() },
	}
	none.serve(credentials.NewServer(credentials.LargestRequest, grpc.InTapHandle(s.bounds.admit), grpc.UnknownServiceHandler(
		func(any, grpc.ServerStream) error { return errNoTerm() },
	)), listener)
	return none
}

// Lead serves a term until stepDown is called, which waits up to stopWithin for calls in flight. It must not be called while
// another term is served.
func (s *Server) Lead(ctx context.Context, term Term) (stepDown func(), err error) {
	// Requests over REST are counted by admitRequests, so the inner server does not count them again.
	insideListener := newHandedListener(s.listener.Addr())
	insideServer, inside, err := credentials.Pipe(insideListener.dial, largestAnswer)
	if err != nil {
		return nil, err
	}
	rest, err := rest(ctx, inside, term.Services.Apps)
	if err != nil {
		return nil, errors.Join(err, inside.Close())
	}
	led := &backend{trusted: newHandedListener(s.listener.Addr()), others: newHandedListener(s.listener.Addr()), rest: rest, ready: term.Ready}
	counted := grpc.InTapHandle(s.bounds.admit)
	trusted, others := credentials.NewServer(largestTrusted, counted), credentials.NewServer(credentials.LargestRequest, counted)
	for _, server := range []*grpc.Server{trusted, others, insideServer} {
		service.Register(server, term.Services)
	}
	led.serve(insideServer, insideListener)
	led.serve(trusted, led.trusted)
	led.serve(others, led.others)
	s.replace(led)
	return func() {
		s.replace(s.unavailable())
		_ = inside.Close()
	}, nil
}

// replace replaces the backend and drains the one before.
func (s *Server) replace(next *backend) {
	s.mu.Lock()
	before := s.backend
	s.backend = next
	over := s.over
	s.mu.Unlock()
	before.drain()
	if over {
		next.drain()
	}
}

// current is the present backend.
func (s *Server) current() *backend {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.backend
}

// end drains the present backend and all later ones.
func (s *Server) end() {
	s.mu.Lock()
	s.over = true
	last := s.backend
	s.mu.Unlock()
	last.drain()
}

// rest returns the HTTP handler of a term.
func rest(ctx context.Context, inside *grpc.ClientConn, apps service.Apps) (http.Handler, error) {
	gateway, err := service.Gateway(ctx, inside)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", gateway)
	reads := service.AppReads(apps)
	for _, pattern := range []string{"GET /v1/apps", "GET /v1/apps/{name}", "GET /v1/apps/{name}/watch"} {
		mux.Handle(pattern, reads)
	}
	return mux, nil
}
