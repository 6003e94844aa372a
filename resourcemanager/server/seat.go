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

// largestAnswer is what REST takes from the services of its own process.
const largestAnswer = 1 << 30

// ErrVacant is the error while no term is served.
var ErrVacant = fmt.Errorf("the ResourceManager leads its zone again in a moment; try again then: %w", errdefs.ErrUnavailable)

// errVacant is what callers are told then.
func errVacant() error { return wire.Status(ErrVacant) }

// Term is what a term serves.
type Term struct {
	Services service.Config
	// Ready says why the term cannot be used just now, if so.
	Ready func(context.Context) error
}

// seat is what callers meet: the services of a term, or, while there is none, the answer that they should try again. A gRPC
// connection ends with the seat that it was handed to, so that its caller finds the next one.
type seat struct {
	// trusted and others are where gRPC connections are handed to, by who is at the other end. A vacancy has one for both.
	trusted, others *handedListener
	servers         []*grpc.Server
	rest            http.Handler
	ready           func(context.Context) error
	serving         sync.WaitGroup
}

func (s *seat) listener(trusted bool) *handedListener {
	if trusted {
		return s.trusted
	}
	return s.others
}

// serve has a server of the seat take connections.
func (s *seat) serve(server *grpc.Server, listener *handedListener) {
	s.servers = append(s.servers, server)
	s.serving.Go(func() { _ = server.Serve(listener) }) // which ends when it is stopped, and not before
}

// leave lets calls in flight end, but not for long. It may be called twice.
func (s *seat) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	var ending sync.WaitGroup
	for _, server := range s.servers {
		ending.Go(func() {
			cut := context.AfterFunc(ctx, server.Stop)
			defer cut()
			server.GracefulStop()
		})
	}
	ending.Wait()
	s.serving.Wait()
}

// vacancy is the seat while no term is served.
func (s *Server) vacancy() *seat {
	listener := newHandedListener(s.listener.Addr())
	vacant := &seat{
		trusted: listener, others: listener,
		rest:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { service.Refuse(w, errVacant()) }),
		ready: func(context.Context) error { return errVacant() },
	}
	vacant.serve(credentials.NewServer(credentials.LargestRequest, grpc.InTapHandle(s.bounds.admit), grpc.UnknownServiceHandler(
		func(any, grpc.ServerStream) error { return errVacant() },
	)), listener)
	return vacant
}

// Lead serves a term until the function that it returns is called, which waits until calls in flight have ended, but not for long.
// It must not be called while another term is served.
func (s *Server) Lead(ctx context.Context, term Term) (stepDown func(), err error) {
	// REST counts its own requests, so the server inside counts none.
	insideListener := newHandedListener(s.listener.Addr())
	insideServer, inside, err := credentials.Pipe(insideListener.dial, largestAnswer)
	if err != nil {
		return nil, err
	}
	rest, err := rest(ctx, inside, term.Services.Apps)
	if err != nil {
		return nil, errors.Join(err, inside.Close())
	}
	led := &seat{trusted: newHandedListener(s.listener.Addr()), others: newHandedListener(s.listener.Addr()), rest: rest, ready: term.Ready}
	counted := grpc.InTapHandle(s.bounds.admit)
	trusted, others := credentials.NewServer(largestTrusted, counted), credentials.NewServer(credentials.LargestRequest, counted)
	for _, server := range []*grpc.Server{trusted, others, insideServer} {
		service.Register(server, term.Services)
	}
	led.serve(insideServer, insideListener)
	led.serve(trusted, led.trusted)
	led.serve(others, led.others)
	s.follow(led)
	return func() {
		s.follow(s.vacancy())
		_ = inside.Close()
	}, nil
}

// follow puts a seat in the place of the one before, whose calls end.
func (s *Server) follow(next *seat) {
	s.mu.Lock()
	before := s.seat
	s.seat = next
	over := s.over
	s.mu.Unlock()
	before.leave()
	if over {
		next.leave()
	}
}

// present is the seat that callers meet.
func (s *Server) present() *seat {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seat
}

// end has the present seat, and each that follows, left.
func (s *Server) end() {
	s.mu.Lock()
	s.over = true
	last := s.seat
	s.mu.Unlock()
	last.leave()
}

// rest is what a term serves over HTTP.
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
