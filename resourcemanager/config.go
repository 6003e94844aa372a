package resourcemanager

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/records"
	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/term"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/keys"
)

// Config is the configuration of a ResourceManager. A zero value means the default.
type Config struct {
	// Dir is the folder of the store. It is created if it does not exist.
	Dir string
	// Store is the id of the expected store; zero if the store may be new.
	Store records.ID
	// Listen is the one address for gRPC and HTTP. Default 127.0.0.1:7070; port 0 takes any.
	Listen string
	// Advertise is where application masters and instances reach this ResourceManager: HOST:PORT, or a list of them with commas
	// between. Default: Listen. If Listen is a wildcard address, each node uses the address by which it reaches the
	// ResourceManager.
	Advertise string
	// Zone is the zone's name. Default "local".
	Zone string
	// Version of the program.
	Version string
	// NodeTimeout is how long a node may be silent before it is LOST. Default 10s.
	NodeTimeout time.Duration
	// ReportInterval is how often nodes report when nothing changes. Default 1s.
	ReportInterval time.Duration
	// KeyRotation is how long one key signs container tokens. Default 24h, at least 1h.
	KeyRotation time.Duration
	// EventRetention is how many events are kept, about 1 KiB each in memory. Default 10,000, at most 1,000,000.
	EventRetention int64
	// Queues is a file that declares the queue tree and lending contracts. Changes of the file are applied. Default none: the tree
	// is set over the API.
	Queues string
	// Record is a new file for a recording of all inputs of the zone. It contains the zone's keys. Each term after the first is
	// recorded to another file: FILE.2, and so on. Default none.
	Record string
	// AllowHostNetwork lets apps use their node's network.
	AllowHostNetwork bool
	// AllowInsecure permits to listen without TLS on an address that other machines can reach.
	AllowInsecure bool
	// Images is the image store. Required.
	Images service.Images
	// Registry creates the registry of a term. Its generations rise with the epoch, and the observer receives the reports of
	// balancers. Required.
	Registry func(epoch int64, observer term.Observer) term.Registry
	Logger   *slog.Logger

	// address is the address of the listener.
	address string
}

// mostEvents is the largest EventRetention. Events are kept in memory.
const mostEvents = 1_000_000

// Validate sets defaults and returns what is wrong, one sentence each.
func (c *Config) Validate() error {
	setDefault(&c.Listen, "127.0.0.1:7070")
	setDefault(&c.Zone, "local")
	setDefault(&c.Version, "unknown")
	setDefault(&c.NodeTimeout, 10*time.Second)
	setDefault(&c.ReportInterval, time.Second)
	setDefault(&c.KeyRotation, 24*time.Hour)
	setDefault(&c.EventRetention, 10_000)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	var problems []error
	refuse := func(format string, arguments ...any) {
		problems = append(problems, fmt.Errorf(format+": %w", append(arguments, errdefs.ErrInvalidArgument)...))
	}
	if c.Dir == "" {
		refuse("a ResourceManager needs a directory for its store")
	}
	if err := spec.CheckName("a zone", c.Zone); err != nil {
		refuse("%w", err)
	}
	if c.Images == nil {
		refuse("a ResourceManager needs an image store")
	}
	if c.Registry == nil {
		refuse("a ResourceManager needs a registry")
	}
	if c.ReportInterval < 0 || c.NodeTimeout < 2*c.ReportInterval {
		refuse("the node timeout (%s) must be at least twice the report interval (%s)", c.NodeTimeout, c.ReportInterval)
	}
	if c.KeyRotation < keys.LeastRotation {
		refuse("a key must sign for an hour at least, not %s", c.KeyRotation)
	}
	if c.EventRetention < 1 || c.EventRetention > mostEvents {
		refuse("the number of events to keep must be 1 to %d, not %d", mostEvents, c.EventRetention)
	}
	host, _, err := net.SplitHostPort(c.Listen)
	switch {
	case err != nil:
		refuse("the listen address %q is not HOST:PORT", c.Listen)
	case !peer.Loopback(host) && !c.AllowInsecure:
		refuse("%s can be reached from other machines, and without TLS anybody there could run programs here; listen on 127.0.0.1, or allow it with --insecure", c.Listen)
	}
	if c.Advertise != "" {
		advertised, err := credentials.SplitAddresses(c.Advertise)
		if err != nil {
			refuse("the advertised address: %s", wire.Sentence(err))
		}
		for _, address := range advertised {
			switch at, _, _ := net.SplitHostPort(address); {
			case peer.Everywhere(at):
				refuse("nobody can connect to %s, which stands for every address of a machine; advertise one that masters reach, or leave --advertise out, and each node tells its own", address)
			case peer.Loopback(at) && !peer.Loopback(host):
				refuse("nobody on another machine reaches %s, though this one listens for others at %s; advertise an address that they reach, or leave --advertise out", address, c.Listen)
			}
		}
	}
	return errors.Join(problems...)
}

func (c *Config) settings() zone.Settings {
	return zone.Settings{
		Name: c.Zone, Version: c.Version, Listen: c.Listen, Address: c.address, Advertise: c.Advertise, QueueFile: c.Queues,
		NodeTimeout: c.NodeTimeout, ReportInterval: c.ReportInterval, KeyRotation: c.KeyRotation, AllowInsecure: c.AllowInsecure,
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
