package zone

import (
	"fmt"
	"net"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/peer"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// Settings are what a zone goes by and what does not change while the ResourceManager runs.
type Settings struct {
	// Name is the zone's name, Version the program's.
	Name, Version string
	// Listen is the address that was configured, Address the one that is listened on, Advertise the one that others are given
	// instead; empty if there is none.
	Listen, Address, Advertise string
	// QueueFile is the path of the file that declares the queue tree; empty is none.
	QueueFile string
	// NodeTimeout is how long a silent node is waited for, ReportInterval how often a node reports when nothing changes.
	NodeTimeout, ReportInterval time.Duration
	// KeyRotation is how long one key signs container tokens.
	KeyRotation time.Duration
	// AllowInsecure lets whoever cannot be identified do what an operator may.
	AllowInsecure bool
}

// config is what does not change while the ResourceManager runs.
type config struct {
	Settings
	// identity is who the zone is, and how often its store was opened; started is when that was last.
	identity store.Identity
	started  time.Time
}

// reachable refuses a node whose addresses would lead others nowhere: masters are sent where its NodeManager is, and balancers
// where its instances are. Such a node would look ready.
func (s *Settings) reachable(request *trackerv1.RegisterRequest) error {
	listen, _, _ := net.SplitHostPort(s.Listen)
	manager, _, _ := net.SplitHostPort(request.GetContainerManager())
	for _, host := range []string{request.GetAddress(), manager} {
		if ip := net.ParseIP(host); ip != nil && (ip.IsUnspecified() || ip.IsLoopback() && !peer.Loopback(listen)) {
			return fmt.Errorf("node %q says that it is reached at %s, which leads nobody on another machine to it, and this zone is open to them at %s; "+
				"start it with its own --address, or with --resourcemanager by an address of this machine: %w",
				request.GetNodeId(), host, s.Listen, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// Advertised is the address at which masters and instances reach the ResourceManager; empty if each node knows it by itself.
func (s *Settings) Advertised() string {
	if s.Advertise != "" {
		return s.Advertise
	}
	if host, _, err := net.SplitHostPort(s.Address); err == nil && peer.Everywhere(host) {
		return ""
	}
	return s.Address
}
