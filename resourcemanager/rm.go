// Package resourcemanager owns the CPU, memory and disk of a zone's nodes and gives them to apps. It is the shell of the
// package zone, which decides. One goroutine, the loop, owns the zone: it drains its inbox, steps the zone through what is in
// it, commits what the turn has decided at once to the store, and only then tells anybody. Persist, then tell.
package resourcemanager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/internal/admission"
	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/records"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/eventlog"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/shares"
)

const (
	// stopWithin is how long calls in flight may take when the ResourceManager stops.
	stopWithin = 3 * time.Second
	// largestAnswer is what REST takes from the services of its own process.
	largestAnswer = 1 << 30
)

// ResourceManager is one zone's.
type ResourceManager struct {
	config   Config
	store    store.Store
	listener net.Listener
	zone     *zone.Core
	settings zone.Settings
	// publisher and streams perform what turns of the zone decide. past is what everybody reads the zone's events from.
	publisher *publisher
	streams   *streams
	past      *eventlog.Log
	// record is nil if the zone is not recorded.
	record *record
	// replies are those of the present turn.
	replies []reply
	// unstored is the turn that the disk has no room for yet, retryAt when it is tried again; nil if the last one is stored.
	unstored *zone.Ready
	retryAt  time.Time
	// inbox is for what may change something; looks is for what does not.
	inbox, looks *mailbox[task]
	// noRoom is why nothing that grows is taken; nil while there is room.
	noRoom  atomic.Pointer[error]
	started time.Time
	// stopped is closed when the loop has ended.
	stopped chan struct{}
	metrics *metrics
	// queueFile is what the queue file was found to say at the start. reread has it looked at again at once.
	queueFile shares.FileText
	reread    chan struct{}
}

// New reads what is stored and listens. Run has to be called after it: it serves, and lets go of both at its end.
func New(config Config) (*ResourceManager, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the ResourceManager's directory: %w", err)
	}
	memory, err := store.OpenFile(filepath.Join(config.Dir, store.FolderName), store.Options{
		Now: time.Now(), EventRetention: config.EventRetention, Known: config.Store,
	})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", config.Listen, err), memory.Close())
	}
	rm, err := newOn(config, memory, listener)
	if err != nil {
		return nil, errors.Join(err, listener.Close(), memory.Close())
	}
	return rm, nil
}

// newOn makes a ResourceManager of its parts, which are its own if there is no error.
func newOn(config Config, memory store.Store, listener net.Listener) (*ResourceManager, error) {
	config.address = listener.Addr().String()
	rm := &ResourceManager{
		config: config, store: memory, listener: listener,
		inbox: newMailbox[task](), looks: newMailbox[task](), started: time.Now(), stopped: make(chan struct{}), metrics: newMetrics(),
		reread: make(chan struct{}, 1), streams: newStreams(), settings: config.settings(),
	}
	past, err := readEvents(memory, int(config.EventRetention))
	if err != nil {
		return nil, err
	}
	if config.Queues != "" {
		rm.queueFile = readQueueFile(config.Queues)
	}
	core, out, err := rm.load(memory)
	if err != nil {
		return nil, err
	}
	rm.past = past
	rm.zone, rm.publisher = core, newPublisher(config.Registry(memory.Identity().Epoch), rm.post)
	if err := rm.commit(out); err != nil {
		return nil, err
	}
	if rm.unstored == nil {
		rm.publish(out)
	} else {
		rm.publisher.open(out)
		out.Secret, out.Balancers, out.Named = nil, nil, nil // done
	}
	return rm, nil
}

// load makes the zone, and records it from here on if it is to be recorded.
func (rm *ResourceManager) load(memory store.Store) (*zone.Core, *zone.Ready, error) {
	start := zone.Start{Settings: rm.settings, Now: rm.started, Seed: newSeed(), QueueFile: rm.queueFile}
	if rm.config.Record == "" {
		return zone.Load(memory, start)
	}
	var err error
	if rm.record, err = newRecord(rm.config.Record); err != nil {
		return nil, nil, err
	}
	core, out, err := rm.record.Load(memory, start)
	if err == nil {
		err = rm.record.Err()
	}
	if err != nil {
		return nil, nil, errors.Join(err, rm.record.file.Close(), os.Remove(rm.config.Record))
	}
	return core, out, nil
}

// post gives the loop something to do.
func (rm *ResourceManager) post(in zone.Input) { rm.inbox.put(task{in: in}) }

// StoreID tells its store from others.
func (rm *ResourceManager) StoreID() records.ID { return rm.store.Identity().ID }

// Address is where it listens, as HOST:PORT.
func (rm *ResourceManager) Address() string { return rm.listener.Addr().String() }

// Run serves until ctx ends. It returns an error if it cannot go on: its memory and its store may then differ, so it
// must be made anew from the store.
func (rm *ResourceManager) Run(ctx context.Context) error {
	defer rm.store.Close() //nolint:errcheck // every commit is on the disk already
	bounds := newBounds(&rm.config)
	faces := newFaces(rm.listener.Addr(), bounds.trusted)
	// REST counts its own requests, so the server inside counts none.
	insideListener := newHandedListener(rm.listener.Addr())
	insideServer, inside, err := credentials.Pipe(insideListener.dial, largestAnswer)
	if err != nil {
		return errors.Join(err, rm.listener.Close())
	}
	defer inside.Close() //nolint:errcheck // nothing is left to be said
	counted := grpc.InTapHandle(bounds.admit)
	trusted, others := credentials.NewServer(largestTrusted, counted), credentials.NewServer(credentials.LargestRequest, counted)
	for _, server := range []*grpc.Server{insideServer, trusted, others} {
		service.Register(server, service.Config{
			Apps: rm, Zone: rm, Lending: rm, Tracker: rm, Masters: rm, Images: rm.config.Images, Registry: rm.publisher.registry, Companions: rm.publisher.registry,
			AllowHostNetwork: rm.config.AllowHostNetwork,
		})
	}
	bounds.learn(trusted)
	handler, err := rm.handler(ctx, inside, bounds)
	if err != nil {
		return errors.Join(err, rm.listener.Close())
	}
	web := credentials.NewHTTPServer(handler)
	listener := admission.Listen(rm.listener, admission.Config{
		Limits: admission.LimitsFor(mostConnections), Trusted: bounds.trusted, Logger: rm.config.Logger,
	})
	rm.metrics.countRefused(listener.Refused)

	group, running := errgroup.WithContext(ctx)
	loop, endLoop := context.WithCancel(context.Background())
	defer endLoop()
	group.Go(func() error { return rm.loop(loop) })
	group.Go(func() error { rm.followQueueFile(running); return nil })
	group.Go(func() error { rm.followRoom(running); return nil })
	group.Go(func() error { return split(running, listener, faces) })
	for _, served := range []struct {
		server   interface{ Serve(net.Listener) error }
		listener net.Listener
	}{{insideServer, insideListener}, {trusted, faces.trusted}, {others, faces.grpc}, {web, faces.http}} {
		group.Go(func() error { return ended(running, served.server.Serve(served.listener)) })
	}
	group.Go(func() error {
		<-running.Done()
		endLoop() // streams end with it
		return shutDown(listener, web, trusted, others, insideServer)
	})
	return group.Wait()
}

// ended is a server's end, which is no error once it was asked for.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// shutDown lets calls in flight end, but not for long.
func shutDown(listener net.Listener, web *http.Server, servers ...*grpc.Server) error {
	closed := listener.Close()
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	if err := web.Shutdown(ctx); err != nil {
		_ = web.Close()
	}
	var ending sync.WaitGroup
	for _, server := range servers {
		ending.Go(func() {
			cut := context.AfterFunc(ctx, server.Stop)
			defer cut()
			server.GracefulStop()
		})
	}
	ending.Wait()
	return closed
}

// handler is everything that is served over HTTP/1.
func (rm *ResourceManager) handler(ctx context.Context, inside *grpc.ClientConn, bounds *bounds) (http.Handler, error) {
	gateway, err := service.Gateway(ctx, inside)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", bounds.smallBodies(gateway))
	reads := service.AppReads(rm)
	for _, pattern := range []string{"GET /v1/apps", "GET /v1/apps/{name}", "GET /v1/apps/{name}/watch"} {
		mux.Handle(pattern, reads)
	}
	mux.Handle("GET /metrics", rm.metrics.handler())
	mux.HandleFunc("GET /v1/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		version := fmt.Sprintf(`"version": %q`, rm.config.Version)
		_, _ = io.WriteString(w, strings.Replace(apiv1.OpenAPI, fmt.Sprintf(`"version": %q`, apiv1.OpenAPIVersion), version, 1))
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		// The loop answers, so it goes round.
		if _, err := rm.Zone(r.Context()); err != nil {
			http.Error(w, wire.Sentence(err), http.StatusServiceUnavailable)
			return
		}
		if err := rm.full(); err != nil {
			http.Error(w, wire.Sentence(err), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	uploads := rm.config.Images.Handler()
	for _, pattern := range []string{"/v1/uploads", "/v1/uploads/", "/v2/"} {
		mux.Handle(pattern, uploads) // which bounds what it takes itself
	}
	return bounds.admitRequests(fromOwnPages(rm.config.AllowInsecure, service.KnownParameters(mux))), nil
}
