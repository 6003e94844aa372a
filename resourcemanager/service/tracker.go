package service

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/wire"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

type tracker struct {
	trackerv1.UnimplementedResourceTrackerServer
	loop Tracker
}

func (s *tracker) Register(ctx context.Context, request *trackerv1.RegisterRequest) (*trackerv1.RegisterResponse, error) {
	if err := spec.CheckNodeName(request.GetNodeId()); err != nil {
		return nil, wire.Status(fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument))
	}
	response, err := s.loop.RegisterNode(ctx, request)
	return response, wire.Status(err)
}

func (s *tracker) Session(stream grpc.BidiStreamingServer[trackerv1.NodeReport, trackerv1.NodeCommand]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	session, err := s.loop.OpenSession(stream.Context(), first.GetSession(), nodeStream{stream})
	if err != nil {
		return wire.Status(err)
	}
	defer session.Close()
	for report := first; ; {
		if isBeat(report) {
			err = session.Beat() // it keeps no reference, so that the message can be reused
		} else {
			err = session.Report(stream.Context(), report)
			report = &trackerv1.NodeReport{}
		}
		if err != nil {
			return wire.Status(err)
		}
		if err := stream.RecvMsg(report); err != nil {
			return endOfStream(err)
		}
	}
}

// isBeat reports whether a report only shows that the node is alive.
func isBeat(report *trackerv1.NodeReport) bool {
	return len(report.GetContainers()) == 0 && len(report.GetAttributes()) == 0 && report.GetHealth() == nil
}

// nodeStream is the node's end of a stream.
type nodeStream struct {
	grpc.BidiStreamingServer[trackerv1.NodeReport, trackerv1.NodeCommand]
}

// End implements NodeStream. gRPC ends a stream when its handler returns, but the handler waits for the node's next report.
// A second goroutine for each stream would cost more memory than everything else about a node. The transport stream's
// WriteStatus can be called from any goroutine and makes the handler return. If gRPC ever hides it, streams end with the
// node's next report.
func (s nodeStream) End(why error) {
	transport := grpc.ServerTransportStreamFromContext(s.Context())
	if carrier, ok := transport.(interface{ WriteStatus(*status.Status) error }); ok {
		_ = carrier.WriteStatus(status.Convert(wire.Status(why))) // it fails if the connection is closed, and the stream with it
	}
}

// endOfStream is the handler's result after the last message.
func endOfStream(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// runBoth runs the two directions of a stream until one of them ends, which ends the stream. The receiving one ends with the
// stream, so only the sending one is waited for.
func runBoth(ctx context.Context, receive, write func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { cancel(receive(ctx)) }()
	err := write(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return wire.Status(endOfStream(err))
}
