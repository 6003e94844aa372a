package registry

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

const (
	defaultLostAfter = 30 * time.Second
	maxLostAfter     = 10 * time.Minute
)

// WatchRoutes follows what balancers have to route. One goroutine uses it at a time.
type WatchRoutes struct {
	registry *Registry
	known    map[string]known
	started  bool
}

// known is what a balancer was last sent of a service.
type known struct {
	index  int64
	expose *apiv1.Expose
}

// WatchRoutes starts to follow what balancers have to route.
func (r *Registry) WatchRoutes() *WatchRoutes {
	return &WatchRoutes{registry: r, known: map[string]known{}}
}

// Poll returns what is new since the last call, by name, or else a channel that is closed when something may be. The first time
// everything is new. The answer must not be changed.
func (w *WatchRoutes) Poll() (*companionv1.RouteUpdate, <-chan struct{}) {
	r := w.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held {
		return nil, r.change()
	}
	update := &companionv1.RouteUpdate{Generation: r.balancers.routed, Snapshot: !w.started}
	for _, name := range slices.Sorted(maps.Keys(r.balancers.exposed)) {
		expose := r.balancers.exposed[name]
		// An exposed service that does not exist yet has no servers.
		service := &apiv1.Service{Name: name}
		if entry := r.services[name]; entry != nil && entry.current != nil {
			service = entry.current
		}
		if now := (known{service.GetIndex(), expose}); !w.started || w.known[name] != now {
			w.known[name] = now
			update.Routes = append(update.Routes, &companionv1.Route{Service: service, Expose: expose})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.known)) {
		if r.balancers.exposed[name] == nil {
			delete(w.known, name)
			update.Removed = append(update.Removed, name)
		}
	}
	if w.started && len(update.Routes)+len(update.Removed) == 0 {
		return nil, r.change()
	}
	w.started = true
	return update, nil
}

// Route serves one connection of a balancer.
func (r *Registry) Route(stream grpc.BidiStreamingServer[companionv1.RouteReport, companionv1.RouteUpdate]) error {
	hello, err := stream.Recv()
	if err != nil {
		return err
	}
	name := hello.GetBalancer()
	if !isName(name) {
		return wire.Status(fmt.Errorf("the balancer's name %.64q must be of letters, digits, \"-\", \"_\" and \".\": %w", name, errdefs.ErrInvalidArgument))
	}
	lostAfter := defaultLostAfter
	if asked := hello.GetLostAfter(); asked != nil {
		lostAfter = min(max(asked.AsDuration(), 0), maxLostAfter)
	}
	connection := r.connect(name, lostAfter)
	ended := make(chan error, 1)
	go func() { ended <- r.receiveReports(stream, name, connection) }()
	err = r.sendRoutes(stream, connection, ended)
	r.disconnect(name, connection, err)
	if errors.Is(err, errLeft) {
		return nil
	}
	return wire.Status(err)
}

var (
	errLeft     = errors.New("it has left")
	errReplaced = fmt.Errorf("another balancer of the same name has connected; give each a name of its own: %w", errdefs.ErrAborted)
)

// connect begins a connection, and reports it.
func (r *Registry) connect(name string, lostAfter time.Duration) *Connection {
	r.observing.Lock()
	defer r.observing.Unlock()
	connection := r.ConnectBalancer(name, lostAfter)
	if r.observer != nil {
		r.observer.BalancerConnected(name)
	}
	return connection
}

// disconnect ends a connection. The end of one that was replaced is not reported: the balancer is connected.
func (r *Registry) disconnect(name string, connection *Connection, why error) {
	r.observing.Lock()
	defer r.observing.Unlock()
	gone := errors.Is(why, errLeft) || connection.Lost()
	if gone && r.observer != nil {
		r.observer.BalancerLost(name, wire.Sentence(why))
	}
}

// sendRoutes sends routes until the connection ends.
func (r *Registry) sendRoutes(stream grpc.BidiStreamingServer[companionv1.RouteReport, companionv1.RouteUpdate], connection *Connection, ended <-chan error) error {
	watch := r.WatchRoutes()
	for {
		update, changed := watch.Poll()
		if update != nil {
			if err := stream.Send(update); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case err := <-ended:
			return err
		case <-connection.Replaced():
			return errReplaced
		}
	}
}

// receiveReports handles the balancer's reports until the connection ends.
func (r *Registry) receiveReports(stream grpc.BidiStreamingServer[companionv1.RouteReport, companionv1.RouteUpdate], name string, connection *Connection) error {
	for {
		report, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the balancer closed its connection: %w", errdefs.ErrUnavailable)
		}
		if err != nil {
			return err
		}
		if r.observer != nil {
			if report.GetApplied() > 0 {
				r.observer.Refused(name, report.GetRefusals())
			}
			if len(report.GetTraffic()) > 0 {
				r.observer.Counted(name, report.GetTraffic())
			}
		}
		if report.GetApplied() > 0 {
			connection.Confirm(report.GetApplied())
		}
		if report.GetLeaving() {
			connection.Leave()
			return errLeft
		}
	}
}

// Mirror sends every service, then each change.
func (r *Registry) Mirror(_ *companionv1.MirrorRequest, stream grpc.ServerStreamingServer[companionv1.MirrorUpdate]) error {
	watch := r.WatchAll()
	for snapshot := true; ; snapshot = false {
		changes, err := watch.Next(stream.Context())
		if err != nil {
			return wire.Status(err)
		}
		update := &companionv1.MirrorUpdate{Snapshot: snapshot, Services: changes.Changed, Removed: changes.Removed}
		if err := stream.Send(update); err != nil {
			return err
		}
	}
}
