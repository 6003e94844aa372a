// Package docker runs containers through a Docker engine, 20.10 or newer. No other package knows the engine. A Runtime has
// no state that the engine does not have too, so that a restarted NodeManager finds what the one before left.
//
// A container has no init process: its program is process 1 of its namespace, for which SIGTERM without a handler has no
// effect, so that a stop waits for the whole grace. It has no new privileges, and of the capabilities only those in
// Capabilities.
package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	dockernetwork "github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/nodemanager/cgroup"
	"github.com/mammoth-os/mammoth/nodemanager/disk"
	"github.com/mammoth-os/mammoth/nodemanager/network"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// Config of the runtime of one node.
type Config struct {
	// Socket is the engine's socket; empty is /var/run/docker.sock.
	Socket string
	// Zone and Node are labels of the containers of this node.
	Zone, Node string
	// Registry is the host:port to pull images from: the node's registry on loopback.
	Registry string
	// BindAddress is the address of published ports; empty is 127.0.0.1.
	BindAddress string
	// Ports is the range of published ports. Leases, shared with the node's other runtimes, replaces it if set.
	Ports  network.Range
	Leases *network.Leases
	// AllowHostNetwork permits network: host.
	AllowHostNetwork bool
	// LogDir has the output of removed containers.
	LogDir string
	// ConcurrentStarts is how many starts there are at a time; zero is 8, above which an engine only gets slower.
	ConcurrentStarts int
	Logger           *slog.Logger
}

func (c *Config) validate() error {
	if c.Node == "" || c.LogDir == "" {
		return fmt.Errorf("the Docker runtime needs a node and a log directory: %w", errdefs.ErrInvalidArgument)
	}
	// It is a part of the names of images, between slashes.
	if err := spec.CheckName("a zone", c.Zone); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if c.Socket == "" {
		c.Socket = "/var/run/docker.sock"
	}
	if c.BindAddress == "" {
		c.BindAddress = "127.0.0.1"
	}
	if c.Leases == nil {
		c.Leases = network.NewLeases(c.Ports, nil)
	}
	if c.ConcurrentStarts <= 0 {
		c.ConcurrentStarts = 8
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Runtime implements runtime.Runtime.
type Runtime struct {
	config Config
	client *client.Client
	// slots limits the starts.
	slots   chan struct{}
	watcher *disk.Watcher
	// hierarchy is nil if the host's control groups cannot be read.
	hierarchy    *cgroup.Hierarchy
	pulls        pulls
	measurements sync.WaitGroup
	// lifetime ends with Close.
	lifetime context.Context
	end      context.CancelFunc

	// probing is held while the engine is examined.
	probing sync.Mutex

	mu     sync.Mutex
	engine *engine
	// starting has the containers with a Start in progress; the channel is closed at its end.
	starting map[id.Container]chan struct{}
	// watched has, by the engine's id, the running containers whose disk quota the watcher enforces, and the function that
	// measures each at its end.
	watched map[string]func()
	// oomWatches observe, by the engine's id, what the kernel does at the memory quota of running containers; the result is in ooms once
	// a container has ended. There is none for a container that ended at once: then only the engine reports it, and perhaps late.
	oomWatches map[string]*oomWatch
	// ooms is, by the engine's id, whether the kernel killed a process of the container at its memory quota, if known.
	ooms map[string]bool
	// lastSignals has, by the engine's id, the last signal that each container was sent through the engine. An ended
	// container without one has the zero value once the engine was asked.
	lastSignals map[string]sentSignal
	// discarded are containers that a failed Start removed again; their end is not reported.
	discarded map[string]bool
	// ids are the engine's ids of this node's containers; see identity.go.
	ids map[id.Container]string
	// restoring has, by the engine's id, the containers that restoreLater is working on.
	restoring map[string]bool
	// portsKnown is true once the host ports of earlier containers are known.
	portsKnown bool
}

var _ runtime.Runtime = (*Runtime)(nil)

// New does not need a running engine. Close ends the runtime, not its containers.
func New(config Config) (*Runtime, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	c, err := connect(config.Socket)
	if err != nil {
		return nil, fmt.Errorf("engine at %s: %w", config.Socket, err)
	}
	hierarchy, err := cgroup.Detect()
	if err != nil {
		config.Logger.Warn("deleted files that containers have open are not measured", "error", err)
		hierarchy = nil
	}
	life, end := context.WithCancel(context.Background())
	return &Runtime{
		config: config, client: c, slots: make(chan struct{}, config.ConcurrentStarts),
		watcher: disk.NewWatcher(config.Logger), hierarchy: hierarchy,
		pulls:    pulls{running: make(map[string]*pull), present: make(map[string]bool)},
		starting: make(map[id.Container]chan struct{}), watched: make(map[string]func()),
		oomWatches: make(map[string]*oomWatch), ooms: make(map[string]bool), lastSignals: make(map[string]sentSignal),
		discarded: make(map[string]bool), ids: make(map[id.Container]string),
		restoring: make(map[string]bool), lifetime: life, end: end,
	}, nil
}

// connect makes a client with a connection of its own for each request. An engine that goes down takes no new connections, yet goes on
// to answer on those that it has, and what it starts then has a file system that no later engine can remove.
func connect(socket string) (*client.Client, error) {
	return client.NewClientWithOpts(
		client.WithHTTPClient(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: client.CheckRedirect}),
		client.WithHost("unix://"+socket), client.WithAPIVersionNegotiation(),
	)
}

// defaultBridge is the network of containers.
const defaultBridge = "bridge"

// Gateway is this host's address on the bridge of the containers. It fails with ErrUnavailable while the engine does not
// answer.
func (r *Runtime) Gateway(ctx context.Context) (string, error) {
	found, err := r.client.NetworkInspect(ctx, defaultBridge, dockernetwork.InspectOptions{})
	if err != nil {
		return "", r.failure(ctx, err)
	}
	return gatewayOf(found, func(name string) ([]net.Addr, error) {
		bridge, err := net.InterfaceByName(name)
		if err != nil {
			return nil, err
		}
		return bridge.Addrs()
	})
}

// gatewayOf is the gateway of a network. An engine that has just created its default network does not report it before its
// next start: then it is the address of the network's bridge.
func gatewayOf(found dockernetwork.Inspect, addresses func(bridge string) ([]net.Addr, error)) (string, error) {
	for _, pool := range found.IPAM.Config {
		if pool.Gateway != "" {
			return pool.Gateway, nil
		}
	}
	bridge := found.Options["com.docker.network.bridge.name"]
	has, err := addresses(bridge)
	if err != nil {
		return "", fmt.Errorf("look at the bridge %q of the engine's network %s: %w", bridge, found.Name, err)
	}
	for _, address := range has {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil && prefix.Addr().Is4() {
			return prefix.Addr().String(), nil
		}
	}
	return "", fmt.Errorf("the engine's network %s has no gateway, and its bridge %q no address: %w", found.Name, bridge, errdefs.ErrFailedPrecondition)
}

// Close closes the connection to the engine.
func (r *Runtime) Close() error {
	r.end()
	r.watcher.Close()
	r.pulls.close()
	r.mu.Lock()
	for _, w := range r.oomWatches {
		w.close()
	}
	clear(r.oomWatches)
	r.mu.Unlock()
	r.measurements.Wait()
	return r.client.Close()
}

// engine is what does not change while the engine runs.
type engine struct {
	version, dataRoot string
	cgroupVersion     int
	cpus              int
	// quota is true if the storage driver enforces disk quotas; pool is the file system that does so, if it may stop doing
	// so.
	quota bool
	pool  *disk.Btrfs
}

// Info implements runtime.Runtime.
func (r *Runtime) Info(ctx context.Context) (runtime.Info, error) {
	if _, err := r.client.Ping(ctx); err != nil {
		return runtime.Info{}, r.failure(ctx, err)
	}
	e, err := r.engineInfo(ctx)
	if err != nil {
		return runtime.Info{}, err
	}
	info := runtime.Info{
		Name: "docker", Version: e.version, DiskQuota: "watcher",
		CgroupVersion: e.cgroupVersion,
	}
	if e.quota {
		info.DiskQuota = "driver"
	}
	return info, nil
}

// engineInfo examines the engine once, and again after it was away.
func (r *Runtime) engineInfo(ctx context.Context) (*engine, error) {
	// One at a time: two would remove each other's probe and conclude that the driver has no quotas.
	r.probing.Lock()
	defer r.probing.Unlock()
	r.mu.Lock()
	known := r.engine
	r.mu.Unlock()
	if known != nil {
		return known, nil
	}
	info, err := r.client.Info(ctx)
	if err != nil {
		return nil, r.failure(ctx, err)
	}
	e := &engine{version: info.ServerVersion, dataRoot: info.DockerRootDir, cgroupVersion: 1, cpus: info.NCPU}
	if info.CgroupVersion == "2" {
		e.cgroupVersion = 2
	}
	if disk.DriverMayQuota(info.Driver, info.DriverStatus) {
		if e.quota, err = r.tryQuota(ctx); err != nil {
			return nil, err
		}
	}
	if e.quota && info.Driver == "btrfs" {
		if e.pool, err = disk.OpenBtrfs(e.dataRoot); err != nil {
			r.config.Logger.Warn("cannot examine whether the storage driver enforces disk quotas", "error", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.engine = e
	return e, nil
}

// tryQuota examines whether the storage driver accepts a size, with an empty container that is never started.
func (r *Runtime) tryQuota(ctx context.Context) (bool, error) {
	const nothing = "\x00" // an archive's end is two blocks of zeros
	name := localPrefix + "quota-probe:" + strings.ToLower(r.config.Node)
	source := image.ImportSource{Source: strings.NewReader(strings.Repeat(nothing, 1024)), SourceName: "-"}
	stream, err := r.client.ImageImport(ctx, source, name, image.ImportOptions{})
	if err != nil {
		return false, r.failure(ctx, err)
	}
	err = readProgress(stream, func(string, int64) {})
	if err = errors.Join(err, stream.Close()); err != nil {
		return false, r.failure(ctx, err)
	}
	defer func() {
		_, _ = r.client.ImageRemove(context.WithoutCancel(ctx), name, image.RemoveOptions{})
	}()
	created, err := r.client.ContainerCreate(ctx,
		&container.Config{Image: name, Cmd: []string{"/none"}, Labels: map[string]string{labelZone: r.config.Zone}},
		&container.HostConfig{StorageOpt: map[string]string{"size": "16777216"}}, nil, nil, "")
	if err != nil {
		err = r.failure(ctx, err)
		if errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, errdefs.ErrNotFound) || ctx.Err() != nil {
			return false, err
		}
		r.config.Logger.Info("the storage driver does not enforce disk quotas; disk usage is measured", "error", err)
		return false, nil
	}
	return true, r.discard(ctx, created.ID)
}

// discard removes a container that was never reported, also when ctx has ended.
func (r *Runtime) discard(ctx context.Context, runtimeID string) error {
	r.mu.Lock()
	if len(r.discarded) > 1000 { // their events were missed
		clear(r.discarded)
	}
	r.discarded[runtimeID] = true
	r.mu.Unlock()
	ctx, cancel := cleanup(ctx)
	defer cancel()
	err := r.client.ContainerRemove(ctx, runtimeID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !errdefs.IsNotFound(err) {
		// It may continue and be adopted; then its end is reported.
		r.mu.Lock()
		delete(r.discarded, runtimeID)
		r.mu.Unlock()
		return r.failure(ctx, err)
	}
	return nil
}
