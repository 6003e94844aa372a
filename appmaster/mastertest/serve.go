package mastertest

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// Start starts the ResourceManager again after Stop, with what it had stored.
func (z *Zone) Start() {
	z.network.serve(Address, z.Services)
	z.mu.Lock()
	defer z.mu.Unlock()
	z.down = false // only now: a stop in between would leave the server behind
}

// Services registers the ResourceManager's services with a server, for NodeManagers that cannot use Dial.
func (z *Zone) Services(s *grpc.Server) {
	masterv1.RegisterApplicationMasterServer(s, masters{zone: z})
	trackerv1.RegisterResourceTrackerServer(s, tracker{zone: z})
}

// Stop ends the ResourceManager, unless it is stopped already, and reports whether it did.
func (z *Zone) Stop() bool {
	z.mu.Lock()
	if z.down {
		z.mu.Unlock()
		return false
	}
	z.registered, z.down = false, true
	z.closeMasterStream()
	for _, m := range z.managers {
		m.session, m.link = "", nil
	}
	z.mu.Unlock()
	z.network.stop(Address)
	return true
}

// repeated is the lease's allocation as it is sent to a new stream: with the node's present address and a token of the present key.
func (l *lease) repeated(key int32) *masterv1.Allocation {
	allocation := proto.CloneOf(l.allocation)
	allocation.Labels = l.status.GetLabels()
	allocation.WatchToken.KeyId, allocation.ContainerManager = key, l.node.address
	return allocation
}
