// Package docker runs containers through a Docker engine, 20.10 or newer. No other package knows the engine. A Runtime has
// no state that the engine does not have too, so that a restarted NodeManager finds what the one before left.
//
// A container has no init process: its program is process 1 of its namespace, for which SIGTERM without a handler has no
// effect, so that a stop waits for the whole grace. It has no new privileges, and of the capabilities only those in
// Capabilities.
//
// It owns the containers that carry its zone's and node's labels. Other containers of the engine are left alone.
package docker

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/containerd/errdefs"

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

// Runtime implements runtime.Runtime. It wires its parts: each owns its state, and no part selects a field of another.
type Runtime struct {
	engine    *engine
	ids       *identities
	images    *images
	ports     *hostPorts
	starts    *starts
	discarded *discards
	quotas    *diskQuotas
	ooms      *oomKills
	signals   *signals
	restorer  *restorer
	output    *output

	allowHostNetwork bool
	logger           *slog.Logger
}

var _ runtime.Runtime = (*Runtime)(nil)

// New does not need a running engine. Close ends the runtime, not its containers.
func New(config Config) (*Runtime, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	e, err := newEngine(config)
	if err != nil {
		return nil, err
	}
	hierarchy, err := cgroup.Detect()
	if err != nil {
		config.Logger.Warn("deleted files that containers have open are not measured", "error", err)
		hierarchy = nil
	}
	ids := &identities{zone: config.Zone, node: config.Node, dir: config.LogDir, logger: config.Logger, ids: make(map[id.Container]string)}
	return &Runtime{
		engine: e, ids: ids,
		images:    newImages(e, config.Zone, config.Registry),
		ports:     &hostPorts{address: config.BindAddress, leases: config.Leases},
		starts:    newStarts(config.ConcurrentStarts),
		discarded: &discards{engine: e, ids: make(map[string]bool)},
		quotas: &diskQuotas{
			engine: e, watcher: disk.NewWatcher(config.Logger), hierarchy: hierarchy, dir: config.LogDir, logger: config.Logger,
			watched: make(map[string]func()),
		},
		ooms: &oomKills{
			engine: e, hierarchy: hierarchy, logger: config.Logger, watches: make(map[string]*oomWatch), known: make(map[string]bool),
		},
		signals:          &signals{engine: e, logger: config.Logger, last: make(map[string]sentSignal)},
		restorer:         newRestorer(e, config.Logger),
		output:           &output{engine: e, ids: ids, dir: config.LogDir},
		allowHostNetwork: config.AllowHostNetwork, logger: config.Logger,
	}, nil
}

// Close closes the connection to the engine.
func (r *Runtime) Close() error {
	r.restorer.close()
	r.quotas.close()
	r.images.close()
	r.ooms.close()
	return r.engine.Close()
}

// Gateway is this host's address on the bridge of the containers. It fails with ErrUnavailable while the engine does not
// answer.
func (r *Runtime) Gateway(ctx context.Context) (string, error) { return r.engine.gateway(ctx) }

// Info implements runtime.Runtime.
func (r *Runtime) Info(ctx context.Context) (runtime.Info, error) {
	if _, err := r.engine.Ping(ctx); err != nil {
		return runtime.Info{}, r.engine.failure(ctx, err)
	}
	known, err := r.engine.examine(ctx)
	if err != nil {
		return runtime.Info{}, err
	}
	info := runtime.Info{Name: "docker", Version: known.version, DiskQuota: "watcher", CgroupVersion: known.cgroupVersion}
	if known.quota {
		info.DiskQuota = "driver"
	}
	return info, nil
}

// Prepare implements runtime.Runtime.
func (r *Runtime) Prepare(ctx context.Context, spec runtime.Spec, progress func(runtime.Progress)) error {
	return r.images.prepare(ctx, spec.Image, progress)
}

// RemoveImages removes the images that the zone has brought to the engine, and returns how many. An image that a container
// needs stays. It is used at the end of a zone and not part of runtime.Runtime: nodes that share an engine share its images.
func (r *Runtime) RemoveImages(ctx context.Context) (int, error) { return r.images.remove(ctx) }

// Logs implements runtime.Runtime.
func (r *Runtime) Logs(ctx context.Context, key id.Container, options runtime.LogOptions, line func(runtime.LogLine) error) error {
	return r.output.read(ctx, key, options, line)
}

// Purge implements runtime.Runtime.
func (r *Runtime) Purge(_ context.Context, key id.Container) error { return r.output.purge(key) }
