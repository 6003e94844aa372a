// Package mirror follows every service of the zone, for companions that publish the registry elsewhere.
// It has no state: Follow opens the watch again when it ends, and the registry then sends everything anew.
package mirror

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/wire"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// largestUpdate is a snapshot of some hundred thousand instances.
const largestUpdate = 64 << 20

var retry = backoff.Policy{Min: 50 * time.Millisecond, Max: 2 * time.Second}

// Follow calls take with every update of the zone, one at a time, until ctx ends. After a lost connection the first update
// is a snapshot; until then the last state applies.
func Follow(ctx context.Context, conn grpc.ClientConnInterface, log *slog.Logger, take func(*companionv1.MirrorUpdate)) {
	client := companionv1.NewCompanionsClient(conn)
	for failures := 1; ctx.Err() == nil; failures++ {
		stream, err := client.Mirror(ctx, &companionv1.MirrorRequest{}, grpc.MaxCallRecvMsgSize(largestUpdate))
		for err == nil {
			var update *companionv1.MirrorUpdate
			if update, err = stream.Recv(); err == nil {
				failures = 0
				take(update)
			}
		}
		if ctx.Err() != nil {
			return
		}
		log.Warn("the zone cannot be reached; the last known state is used", "reason", wire.Sentence(err))
		_ = backoff.Sleep(ctx, retry.After(max(failures, 1)))
		// The connection has a back-off of its own, which grows to minutes.
		if dialer, ok := conn.(interface{ ResetConnectBackoff() }); ok {
			dialer.ResetConnectBackoff()
		}
	}
}
