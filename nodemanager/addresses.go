package nodemanager

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/credentials"
)

// route is how this machine reaches another one: from is an address of this machine, to is one of the other.
type route struct{ from, to netip.Addr }

// isLocal reports whether the other end is this machine.
func (r route) isLocal() bool { return r.to.IsLoopback() || r.from == r.to }

// findRoute asks the kernel for the route. Nothing is sent.
func findRoute(address string) (route, error) {
	conn, err := net.Dial("udp", address)
	if err != nil {
		return route{}, err
	}
	defer conn.Close()
	from, to := conn.LocalAddr().(*net.UDPAddr).AddrPort(), conn.RemoteAddr().(*net.UDPAddr).AddrPort()
	return route{from.Addr().Unmap(), to.Addr().Unmap()}, nil
}

// findFirst finds a route to the first address of a list that has one. If none has, the error is that of the first address.
func findFirst(list string, find func(address string) (route, error)) (route, error) {
	addresses, err := credentials.SplitAddresses(list)
	if err != nil {
		return route{}, err
	}
	var first error
	for _, address := range addresses {
		way, err := find(address)
		if err == nil {
			return way, nil
		}
		if first == nil {
			first = err
		}
	}
	return route{}, first
}

// ResolveAddresses sets the addresses that a configuration leaves out, as New does.
func ResolveAddresses(config Config) (Config, error) { return config.resolveAddresses(findRoute) }

// resolveAddresses sets the addresses of instances and of the NodeManager, if they are not given, to the one from which this
// machine reaches the ResourceManager. It refuses addresses that others cannot use: a wildcard address, and in a zone on
// several machines a loopback address.
func (c Config) resolveAddresses(find func(address string) (route, error)) (Config, error) {
	way, err := findFirst(c.ResourceManager, find)
	switch {
	case err == nil:
	case c.Address == "":
		return c, fmt.Errorf("find this node's address by its route to the ResourceManager at %s; set it with --address: %w: %w",
			c.ResourceManager, err, errdefs.ErrFailedPrecondition)
	default:
		// Whether the ResourceManager is on another machine is unknown.
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
		return c, fmt.Errorf("instances cannot be reached at %s, a wildcard address; "+
			"give this node's own with --address, or leave it out: %w", c.Address, errdefs.ErrInvalidArgument)
	case way.isLocal():
		return c, nil
	case address.IsLoopback():
		return c, fmt.Errorf("the ResourceManager at %s is on another machine, from which instances cannot be reached at %s; "+
			"give this node's address with --address, or leave it out: %w", c.ResourceManager, c.Address, errdefs.ErrInvalidArgument)
	case listen.IsLoopback() || host == "localhost":
		return c, fmt.Errorf("the ResourceManager at %s is on another machine, from which application masters cannot reach this node at %s; "+
			"give an address of this node with --listen, or leave it out: %w", c.ResourceManager, c.Listen, errdefs.ErrInvalidArgument)
	}
	return c, nil
}
