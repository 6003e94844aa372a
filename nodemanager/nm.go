// Package nodemanager runs the containers that the ResourceManager grants on one host, and reports what happens to them.
//
// It owns the containers of the node, their records and their logs. One goroutine, the owner, has the state and lets the
// pure package node decide; edges are the goroutines that call an engine or the disk; the tracker is the client of the
// ResourceManager; the service serves application masters.
package nodemanager

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"

	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	"github.com/mammoth-os/mammoth/nodemanager/health"
	"github.com/mammoth-os/mammoth/nodemanager/recovery"
	"github.com/mammoth-os/mammoth/nodemanager/registry"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// NodeManager is one node of a zone.
type NodeManager struct {
	config   Config
	log      *slog.Logger
	records  *recovery.File
	owner    *owner
	inbox    *inbox
	prober   *health.Prober
	counters *counters
	pulls    *pulls

	// registryProxy gives containers access to the registry; nil without a bridge.
	registryProxy *registry.Proxy

	// folder and process identify this NodeManager and its process to the ResourceManager, which may see another one of the
	// same name.
	folder, process string

	listener net.Listener
	metrics  net.Listener // nil if not served
	conn     *grpc.ClientConn

	ready         chan struct{} // closed once the whole state of the node is known
	registerAgain chan struct{} // requests a new registration
	stopped       chan struct{} // closed when the owner has stopped

	// edges is the context of everything that blocks; Run waits for goroutines.
	edges      context.Context
	goroutines sync.WaitGroup
}

// New opens the node's records and its ports. Nothing runs before Run. It fails with errdefs.ErrInvalidArgument for an
// invalid configuration, and with errdefs.ErrFailedPrecondition while another NodeManager uses the same folder.
func New(config Config) (*NodeManager, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config, err := config.withDefaults().resolveAddresses(findRoute)
	if err != nil {
		return nil, err
	}
	records, err := recovery.Open(filepath.Join(config.Dir, recovery.FolderName))
	if err != nil {
		return nil, err
	}
	if config.Capacity, err = capacity(config, records); err != nil {
		return nil, errors.Join(err, records.Close())
	}
	nm := &NodeManager{
		config: config, log: config.Logger, records: records, inbox: newInbox(), counters: newCounters(),
		pulls:   newPulls(config.Layers),
		process: rand.Text(),
		ready:   make(chan struct{}), registerAgain: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	if nm.folder, err = records.FolderID(); err != nil {
		return nil, errors.Join(err, records.Close())
	}
	nm.prober = health.NewProber(probeLimits(), func(verdict health.Verdict) {
		fact := container.Fact{Event: container.ProbeFailed, Detail: verdict.Detail}
		switch {
		case verdict.Unknown:
			fact.Event = container.ProbeInconclusive
		case verdict.Healthy:
			fact.Event = container.ProbePassed
		}
		nm.inbox.put(func(o *owner) { o.node.Fact(verdict.ID, fact) })
	})
	nm.owner = newOwner(nm)
	nm.registryProxy = nm.newRegistryProxy()
	if err := nm.open(); err != nil {
		return nil, errors.Join(err, nm.close())
	}
	return nm, nil
}

func (nm *NodeManager) open() (err error) {
	if nm.listener = nm.config.Listener; nm.listener == nil {
		if nm.listener, err = net.Listen("tcp", nm.config.Listen); err != nil {
			return fmt.Errorf("listen for application masters: %w", err)
		}
	}
	if nm.config.MetricsListen != "" {
		if nm.metrics, err = net.Listen("tcp", nm.config.MetricsListen); err != nil {
			return fmt.Errorf("listen for metrics: %w", err)
		}
	}
	nm.listener, nm.metrics = nm.limitConnections(nm.listener), nm.limitConnections(nm.metrics)
	nm.conn, err = dialTracker(nm.config)
	return err
}

func (nm *NodeManager) close() error {
	var failures []error
	if nm.listener != nil {
		_ = nm.listener.Close() // the server may have closed it
	}
	if nm.metrics != nil {
		_ = nm.metrics.Close()
	}
	if nm.conn != nil {
		failures = append(failures, nm.conn.Close())
	}
	return errors.Join(append(failures, nm.records.Close())...)
}

// capacity fills in the elements that were not given: by what is measured now, and the disk by what was measured at the node's first start,
// since its own containers must not reduce that after a restart.
func capacity(config Config, records *recovery.File) (resource.Vector, error) {
	v, found := config.Capacity, measured(config.Dir, config.PortCount)
	disk, err := records.Fact("disk", found[resource.Disk])
	if err != nil {
		return v, err
	}
	found[resource.Disk] = disk
	for i := range resource.Extended {
		if v[i] == 0 {
			v[i] = found[i]
		}
	}
	return v, nil
}

// Address is the host:port of the node's ContainerManager.
func (nm *NodeManager) Address() string {
	address := nm.listener.Addr().String()
	if nm.config.Listener != nil {
		address = nm.config.Listen
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if peer.Everywhere(host) {
		return net.JoinHostPort(nm.config.Address, port)
	}
	return address
}

// Run runs the node until ctx ends, and returns after its goroutines have ended. The containers keep running; a NodeManager
// with the same folder takes them over. It may be called once.
func (nm *NodeManager) Run(ctx context.Context) error {
	records, err := nm.records.Load()
	if err != nil {
		return errors.Join(err, nm.close())
	}
	edges, cancelEdges := context.WithCancelCause(context.WithoutCancel(ctx))
	nm.edges = edges

	// The writer outlives the owner, so that its last records are written.
	writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx))
	var writer sync.WaitGroup
	writer.Go(func() {
		nm.records.Run(writing, func(err error) {
			nm.log.Error("cannot store the node's records", "node", nm.config.NodeID, "error", err)
		})
	})

	nm.owner.recover(records)
	nm.goroutines.Go(func() { nm.prober.Run(edges) })
	nm.goroutines.Go(func() {
		health.WatchNode(edges, healthInterval, nm.nodeChecks(), func(reason string) {
			nm.inbox.put(func(o *owner) { o.setHealth(reason) })
		})
	})
	for kind, rt := range nm.config.Runtimes {
		nm.goroutines.Go(func() { nm.followEngine(edges, kind, rt) })
	}
	nm.goroutines.Go(func() { nm.track(edges, trackerv1.NewResourceTrackerClient(nm.conn)) })
	if nm.registryProxy != nil {
		nm.goroutines.Go(func() { nm.registryProxy.Run(edges) })
	}
	if nm.config.Layers != nil {
		nm.goroutines.Go(func() {
			if err := nm.config.Layers.Run(edges); err != nil && edges.Err() == nil {
				nm.log.Error("the node's registry ended", "node", nm.config.NodeID, "error", err)
			}
		})
	}
	server := credentials.NewServer(credentials.LargestRequest, grpc.WaitForHandlers(true))
	nodev1.RegisterContainerManagerServer(server, &service{nm: nm})
	nm.goroutines.Go(func() { _ = server.Serve(nm.listener) })
	pages := nm.servePages()
	nm.log.Info("node is up", "node", nm.config.NodeID, "address", nm.Address(), "containers", len(records))

	nm.owner.run(ctx)
	close(nm.stopped)
	cancelEdges(errStopped)
	server.Stop()
	if pages != nil {
		_ = pages.Close()
	}
	nm.goroutines.Wait()
	stopWriting()
	writer.Wait()
	return nm.close()
}

func (nm *NodeManager) servePages() *http.Server {
	if nm.metrics == nil {
		return nil
	}
	pages := credentials.NewHTTPServer(nm.pages())
	nm.goroutines.Go(func() { _ = pages.Serve(nm.metrics) })
	return pages
}

// reregister requests a new registration, which reports the whole state.
func (nm *NodeManager) reregister() {
	select {
	case nm.registerAgain <- struct{}{}:
	default:
	}
}
