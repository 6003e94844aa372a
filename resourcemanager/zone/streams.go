package zone

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// StreamID names a stream that a node or a master has open, as the zone knows it. Zero is none.
type StreamID int64

// errLeft ends a stream whose reader has left.
var errLeft = fmt.Errorf("the stream is over: %w", errdefs.ErrAborted)

// Beat says when a node was last heard of, by its session.
type Beat struct {
	Session string
	At      time.Time
}

type (
	StreamEnd struct {
		Stream StreamID
		Why    error
	}
	CommandSend struct {
		Stream   StreamID
		Commands []*trackerv1.NodeCommand
	}
	ResponseSend struct {
		Stream   StreamID
		Response *masterv1.AllocateResponse
	}
)
