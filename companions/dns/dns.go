// Package dns answers DNS queries about the zone's services: web.service.mammoth has the addresses of web's healthy
// instances, and as SRV also their ports.
//
// It owns its two sockets, UDP and TCP, and the last known services in memory, from which every query is answered. It follows the
// registry, and asks it nothing to answer a query.
package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/miekg/dns"
	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/companions/mirror"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// Config is the configuration of a Companion.
type Config struct {
	// host:port, for UDP and TCP. Port 0 is any free port.
	Listen string `yaml:"listen"`
	// The domain of the zone's names; default "mammoth".
	Domain string `yaml:"domain"`
	// How long an answer may be cached; default 2s.
	TTL time.Duration `yaml:"ttl"`
	Log *slog.Logger  `yaml:"-"`
}

// Validate sets defaults and returns what is wrong.
func (c *Config) Validate() error {
	if c.Domain == "" {
		c.Domain = "mammoth"
	}
	if c.TTL == 0 {
		c.TTL = 2 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("the address for DNS %q must be host:port: %w", c.Listen, errdefs.ErrInvalidArgument)
	}
	if _, ok := dns.IsDomainName(c.Domain); !ok || strings.Trim(c.Domain, ".") == "" {
		return fmt.Errorf("the domain %q is not a DNS name: %w", c.Domain, errdefs.ErrInvalidArgument)
	}
	if c.TTL < time.Second || c.TTL > time.Hour {
		return fmt.Errorf("the ttl must be between 1s and 1h, but is %s: %w", c.TTL, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Companion answers queries.
type Companion struct {
	config Config
	conn   grpc.ClientConnInterface
	packet net.PacketConn
	stream net.Listener
	// Services by lower-case name; nil before the first update. Replaced, never changed.
	services atomic.Pointer[map[string]*apiv1.Service]
}

// New returns a companion that listens already and answers while it runs; the connection leads to the ResourceManager.
func New(config Config, conn grpc.ClientConnInterface) (*Companion, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	c := &Companion{config: config, conn: conn}
	// UDP and TCP share a port. A random port that is free for UDP may not be free for TCP.
	var err error
	for range 16 {
		if c.packet, err = net.ListenPacket("udp", config.Listen); err != nil {
			break
		}
		if c.stream, err = net.Listen("tcp", c.packet.LocalAddr().String()); err == nil {
			return c, nil
		}
		_ = c.packet.Close()
	}
	return nil, fmt.Errorf("listen for DNS on %s: %w: %w", config.Listen, err, errdefs.ErrUnavailable)
}

// Addr is the host:port of the server.
func (c *Companion) Addr() string { return c.packet.LocalAddr().String() }

// Run answers queries until ctx ends.
func (c *Companion) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	defer group.Wait()
	failed := make(chan error, 2)
	for _, server := range []*dns.Server{
		{PacketConn: c.packet, Handler: c, Net: "udp"},
		{Listener: c.stream, Handler: c, Net: "tcp", ReadTimeout: 5 * time.Second},
	} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		group.Go(func() {
			if err := server.ActivateAndServe(); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("answer DNS over %s: %w", server.Net, err)
			}
		})
		<-started
		defer func() { _ = server.Shutdown() }()
	}
	group.Go(func() { mirror.Follow(ctx, c.conn, c.config.Log, c.take) })
	defer cancel()
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// take applies an update.
func (c *Companion) take(update *companionv1.MirrorUpdate) {
	services := map[string]*apiv1.Service{}
	if known := c.services.Load(); known != nil && !update.GetSnapshot() {
		for name, service := range *known {
			services[name] = service
		}
	}
	for _, name := range update.GetRemoved() {
		delete(services, strings.ToLower(name))
	}
	for _, service := range update.GetServices() {
		services[strings.ToLower(service.GetName())] = service
	}
	c.services.Store(&services)
}
