package resourcemanager

import (
	"fmt"
	"net"
	"time"

	"github.com/containerd/errdefs"

	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// settings are what a zone goes by and what does not change while the ResourceManager runs.
type settings struct {
	// name and version are the zone's name and the program's version.
	name, version string
	// listen is the address that was configured, address the one that is listened on. advertise is what others are to be told
	// instead; empty is nothing.
	listen, address, advertise string
	// queueFile is the path of the file that declares the queue tree; empty is none.
	queueFile string
	// nodeTimeout is how long a silent node is waited for, reportInterval how often it reports when nothing changes.
	nodeTimeout, reportInterval time.Duration
	// allowInsecure lets whoever cannot be identified do what an operator may.
	allowInsecure bool
}

func (c *Config) settings() settings {
	return settings{
		name: c.Zone, version: c.Version, listen: c.Listen, address: c.address, advertise: c.Advertise, queueFile: c.Queues,
		nodeTimeout: c.NodeTimeout, reportInterval: c.ReportInterval, allowInsecure: c.AllowInsecure,
	}
}

// reachable refuses a node whose addresses would lead others nowhere: masters are told where its NodeManager is, and balancers
// where its instances are. Such a node would look ready.
func (s *settings) reachable(request *trackerv1.RegisterRequest) error {
	listen, _, _ := net.SplitHostPort(s.listen)
	manager, _, _ := net.SplitHostPort(request.GetContainerManager())
	for _, host := range []string{request.GetAddress(), manager} {
		if ip := net.ParseIP(host); ip != nil && (ip.IsUnspecified() || ip.IsLoopback() && !loopback(listen)) {
			return fmt.Errorf("node %q says that it is reached at %s, which leads nobody on another machine to it, and this zone is open to them at %s; "+
				"start it with its own --address, or with --resourcemanager by an address of this machine: %w",
				request.GetNodeId(), host, s.listen, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// advertised is where masters and instances are told that it is reached; empty if it is for each node to say.
func (s *settings) advertised() string {
	if s.advertise != "" {
		return s.advertise
	}
	if host, _, err := net.SplitHostPort(s.address); err == nil && everywhere(host) {
		return ""
	}
	return s.address
}
