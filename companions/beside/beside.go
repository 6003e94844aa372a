// Package beside puts together the companions that `mammoth up` runs beside a zone: an nginx of its own, the copy of
// the registry in ZooKeeper, and DNS.
package beside

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/companions/dns"
	"github.com/mammoth-os/mammoth/companions/nginx"
	"github.com/mammoth-os/mammoth/companions/zookeeper"
	"github.com/mammoth-os/mammoth/internal/zk"
)

// Config says which companions run.
type Config struct {
	// Folder of what they keep.
	Dir string
	// The zone's name.
	Zone string
	// host:port,host:port of ZooKeeper's servers; empty is none.
	ZooKeeper string
	// Run an nginx.
	Nginx bool
	// Where nginx is reached, IP:PORT. Empty, or with port 0, it is any free port, the same one after a restart.
	Front string
	// Where DNS queries are taken, IP:PORT; empty is none.
	DNS string
	Log *slog.Logger
}

// Companions are those of one zone.
type Companions struct {
	list  []companion
	front string
	names string
}

type companion interface {
	Run(ctx context.Context) error
}

// New puts the companions together; the connection leads to the ResourceManager. nginx goes on serving after Run has
// ended, as instances do.
func New(config Config, conn grpc.ClientConnInterface) (*Companions, error) {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	c := &Companions{}
	if config.Nginx {
		dir, err := filepath.Abs(filepath.Join(config.Dir, "nginx"))
		if err != nil {
			return nil, fmt.Errorf("finding nginx's folder: %w", err)
		}
		if c.front, err = frontOf(dir, config.Front); err != nil {
			return nil, err
		}
		if err := c.add(nginx.New(nginx.Config{Dir: dir, Listen: c.front, Log: config.Log}, conn)); err != nil {
			return nil, err
		}
	}
	if config.ZooKeeper != "" {
		err := c.add(zookeeper.New(zookeeper.Config{
			ZooKeeper: zk.Config{Servers: strings.Split(config.ZooKeeper, ","), Log: config.Log}, Zone: config.Zone, Log: config.Log,
		}, conn))
		if err != nil {
			return nil, err
		}
	}
	// DNS comes last: it listens from now on, and only Run ends that.
	if config.DNS != "" {
		server, err := dns.New(dns.Config{Listen: config.DNS, Log: config.Log}, conn)
		if err != nil {
			return nil, err
		}
		c.list, c.names = append(c.list, server), server.Addr()
	}
	return c, nil
}

func (c *Companions) add(one companion, err error) error {
	if err == nil {
		c.list = append(c.list, one)
	}
	return err
}

// Front is where nginx is reached, IP:PORT; empty without one.
func (c *Companions) Front() string { return c.front }

// DNS is where queries are taken, IP:PORT; empty if they are not.
func (c *Companions) DNS() string { return c.names }

// Run runs all of them until ctx ends, or until one of them cannot go on.
func (c *Companions) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, one := range c.list {
		group.Go(func() error { return one.Run(ctx) })
	}
	return group.Wait()
}

// frontOf is nginx's front address. One that was chosen is written down, so that it is the same after a restart, when
// nginx may be serving on it still.
func frontOf(dir, asked string) (string, error) {
	host, port := "127.0.0.1", "0"
	if asked != "" {
		var err error
		if host, port, err = net.SplitHostPort(asked); err != nil || net.ParseIP(host) == nil {
			return "", fmt.Errorf("the front address %q must be IP:PORT: %w", asked, errdefs.ErrInvalidArgument)
		}
	}
	if port != "0" {
		return asked, nil
	}
	file := filepath.Join(dir, "front")
	if text, err := os.ReadFile(file); err == nil {
		return strings.TrimSpace(string(text)), nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading nginx's front address: %w", err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return "", fmt.Errorf("finding a front port: %w", err)
	}
	front := listener.Addr().String()
	if err := errors.Join(listener.Close(), os.MkdirAll(dir, 0o755), os.WriteFile(file, []byte(front+"\n"), 0o644)); err != nil {
		return "", fmt.Errorf("keeping nginx's front address: %w", err)
	}
	return front, nil
}
