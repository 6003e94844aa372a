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

// Start has the ResourceManager answer, after Stop. What it has stored it still knows.
func (z *Zone) Start() {
	z.serve(Address, z.Services)
	z.mu.Lock()
	defer z.mu.Unlock()
	z.down = false // only now: a stop in between would leave the server behind
}

// Services adds the ResourceManager's to a server: for NodeManagers that reach none of the zone's addresses.
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

// token is what an attempt shows with each call.
func (z *Zone) token(attempt int32) string { return fmt.Sprintf("secret of attempt %d", attempt) }

// authenticate refuses who is not the newest attempt.
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

// repeated is what is told again of a lease: with the node's present address, and a token that the present key has signed.
func (l *lease) repeated(key int32) *masterv1.Allocation {
	allocation := proto.CloneOf(l.allocation)
	allocation.Labels = l.status.GetLabels()
	allocation.WatchToken.KeyId, allocation.ContainerManager = key, l.node.address
	return allocation
}
