package mastertest

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// Start starts the ResourceManager again after Stop, with what it had stored.
func (z *Zone) Start() {
	z.serve(Address, z.Services)
	z.mu.Lock()
	defer z.mu.Unlock()
	z.down = false // only now: a stop in between would leave the server behind
}

// Services registers the ResourceManager's services with a server, for NodeManagers that cannot use Dial.
func (z *Zone) Services(s *grpc.Server) {
	masterv1.RegisterApplicationMasterServer(s, z)
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
	z.closeSession()
	for _, m := range z.managers {
		m.session, m.link = "", nil
	}
	z.mu.Unlock()
	z.stop(Address)
	return true
}

// token is the bearer token of an attempt.
func (z *Zone) token(attempt int32) string { return fmt.Sprintf("secret of attempt %d", attempt) }

// authenticate refuses calls without the token of the newest attempt.
func (z *Zone) authenticate(ctx context.Context) error {
	shown := strings.TrimPrefix(strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), ","), "Bearer ")
	for attempt := int32(1); attempt <= z.attempt; attempt++ {
		switch {
		case shown != z.token(attempt):
		case attempt < z.attempt || z.finished:
			return errSuperseded
		default:
			return nil
		}
	}
	return status.Error(codes.Unauthenticated, "the bearer token is not that of an application master")
}

var errSuperseded = status.Error(codes.FailedPrecondition, "this attempt was replaced by a newer one")

// repeated is the lease's allocation as it is sent to a new stream: with the node's present address and a token of the present key.
func (l *lease) repeated(key int32) *masterv1.Allocation {
	allocation := proto.CloneOf(l.allocation)
	allocation.Labels = l.status.GetLabels()
	allocation.WatchToken.KeyId, allocation.ContainerManager = key, l.node.address
	return allocation
}
