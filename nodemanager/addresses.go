package nodemanager

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/containerd/errdefs"
)

// route is how this machine reaches another one: from which of its addresses, at which of the other's.
type route struct{ from, to netip.Addr }

// here reports whether the other end is this machine: then an address that leads nowhere else does, too.
func (r route) here() bool { return r.to.IsLoopback() || r.from == r.to }

// findRoute asks the kernel. Nothing is sent, and nobody has to answer.
func findRoute(address string) (route, error) {
	conn, err := net.Dial("udp", address)
	if err != nil {
		return route{}, err
	}
	defer conn.Close()
	from, to := conn.LocalAddr().(*net.UDPAddr).AddrPort(), conn.RemoteAddr().(*net.UDPAddr).AddrPort()
	return route{from.Addr().Unmap(), to.Addr().Unmap()}, nil
}

// Reached is a configuration with the addresses that it leaves out, as New fills them in: for what else needs to know them.
func Reached(config Config) (Config, error) { return config.reached(findRoute) }

// reached fills in where instances and the NodeManager are reached, if nobody has said: at the address from which this machine reaches
// the ResourceManager. What would lead others nowhere is refused: an address that stands for all, and of a zone on several
// machines one that each machine has for itself.
func (c Config) reached(find func(address string) (route, error)) (Config, error) {
	way, err := find(c.ResourceManager)
	switch {
	case err == nil:
	case c.Address == "":
		return c, fmt.Errorf("find the address at which this node is reached, by its way to the ResourceManager at %s; say it with --address: %w: %w",
			c.ResourceManager, err, errdefs.ErrFailedPrecondition)
	default:
		// How far away the ResourceManager is cannot be said.
		way.from = way.to
	}
	if c.Address == "" {
		c.Address = way.from.WithZone("").String()
	}
	if c.Listen == "" {
		c.Listen = net.JoinHostPort(c.Address, "0")
	}
	address, _ := netip.ParseAddr(c.Address)
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return c, fmt.Errorf("%q is not the host:port to listen on: %w", c.Listen, errdefs.ErrInvalidArgument)
	}
	listen, _ := netip.ParseAddr(host)
	switch {
	case address.IsUnspecified():
		return c, fmt.Errorf("nobody reaches an instance at %s, which stands for every address of a machine; "+
			"give this node's own with --address, or leave it out: %w", c.Address, errdefs.ErrInvalidArgument)
	case way.here():
		return c, nil
	case address.IsLoopback():
		return c, fmt.Errorf("the ResourceManager at %s is another machine, and nobody there reaches an instance at %s; "+
			"give this node's address with --address, or leave it out: %w", c.ResourceManager, c.Address, errdefs.ErrInvalidArgument)
	case listen.IsLoopback() || host == "localhost":
		return c, fmt.Errorf("the ResourceManager at %s is another machine, and no application master there reaches this node at %s; "+
			"give an address of this node with --listen, or leave it out: %w", c.ResourceManager, c.Listen, errdefs.ErrInvalidArgument)
	}
	return c, nil
}
