package nodemanager

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// Config is the configuration of a NodeManager.
type Config struct {
	// Dir is the folder of what outlives the process. One NodeManager uses it at a time.
	Dir string
	// NodeID is stable over restarts: letters, digits, "-", "_" and ".".
	NodeID string
	// ResourceManager is the addresses of the ResourceManagers, each host:port, with commas between.
	ResourceManager string
	// Listen is the host:port of the ContainerManager service; default any port of Address.
	Listen string
	// Address is where instances on this node are reached; default the address from which this machine reaches the
	// ResourceManager.
	Address string
	// Capacity is what the node offers to containers. Zero elements are measured (measured says how).
	Capacity resource.Vector
	// Schema names the extended resources of Capacity.
	Schema resource.Schema
	// Attributes are added to those that the node detects, and override them.
	Attributes map[string]*corev1.Attribute
	// Runtimes run the containers; at least one.
	Runtimes map[corev1.ContainerSpec_Runtime]runtime.Runtime
	// StateDirs are the state directories of companion apps; may be nil.
	StateDirs StateDirs
	// Layers is the node's registry, which runs with the NodeManager; may be nil.
	Layers Layers
	// HostNetwork allows containers to use the host's network.
	HostNetwork bool
	// PortCount is how many host ports the node's range has; default 10000.
	PortCount int64
	// LogRetention is how long the logs of an ended container are kept; default 24h.
	LogRetention time.Duration
	// Version of the program.
	Version string
	// MetricsListen is the address of /metrics, /healthz and /readyz; empty serves none.
	MetricsListen string
	Logger        *slog.Logger

	// DialOptions and Listener replace the network in tests; Listen is only a name then.
	DialOptions []grpc.DialOption
	Listener    net.Listener
}

// Layers is the node's own registry that its engines pull from. Run blocks until ctx ends; the other methods may be called
// at any time.
type Layers interface {
	Run(ctx context.Context) error
	// Address is its host:port.
	Address() string
	// Fetched is how many bytes were fetched for an image, NAME@sha256:…, since the start.
	Fetched(image string) int64
	// TotalFetched is how many bytes were fetched for all images since the start.
	TotalFetched() int64
}

const (
	defaultPortCount    = 10000
	defaultLogRetention = 24 * time.Hour
)

// Validate returns what is wrong with the configuration, as errdefs.ErrInvalidArgument.
func (c Config) Validate() error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("nodemanager: "+format+": %w", append(args, errdefs.ErrInvalidArgument)...)
	}
	if err := spec.CheckNodeName(c.NodeID); err != nil {
		return wrong("%w", err)
	}
	switch {
	case c.Dir == "":
		return wrong("a folder for its state is needed")
	case len(c.Runtimes) == 0:
		return wrong("at least one runtime is needed")
	case c.PortCount < 0 || c.PortCount > 65535:
		return wrong("a node cannot have %d ports", c.PortCount)
	case c.LogRetention < 0:
		return wrong("logs cannot be kept for %v", c.LogRetention)
	}
	if _, err := credentials.SplitAddresses(c.ResourceManager); err != nil {
		return wrong("the address of the ResourceManager: %s", wire.Sentence(err))
	}
	for kind, rt := range c.Runtimes {
		if kind == corev1.ContainerSpec_RUNTIME_UNSPECIFIED || rt == nil {
			return wrong("the runtime %v cannot be used", kind)
		}
	}
	for i, amount := range c.Capacity {
		if amount < 0 {
			return wrong("a capacity of %d %s is below zero", amount, c.Schema.Name(i))
		}
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.PortCount == 0 {
		c.PortCount = defaultPortCount
	}
	if c.LogRetention == 0 {
		c.LogRetention = defaultLogRetention
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Attributes = maps.Clone(c.Attributes)
	return c
}
