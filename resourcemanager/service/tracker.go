package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/internal/wire"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

type tracker struct {
	trackerv1.UnimplementedResourceTrackerServer
	loop Tracker
}

var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

func (s *tracker) Register(ctx context.Context, request *trackerv1.RegisterRequest) (*trackerv1.RegisterResponse, error) {
	if !nodeName.MatchString(request.GetNodeId()) {
		return nil, wire.Status(fmt.Errorf("the node id %q must be letters, digits, \"-\", \"_\" and \".\", at most 128: %w", request.GetNodeId(), errdefs.ErrInvalidArgument))
	}
	response, err := s.loop.RegisterNode(ctx, request)
	return response, wire.Status(err)
}

func (s *tracker) Session(stream grpc.BidiStreamingServer[trackerv1.NodeReport, trackerv1.NodeCommand]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	commands, err := s.loop.OpenSession(stream.Context(), first.GetSession())
	if err != nil {
		return wire.Status(err)
	}
	defer commands.Close()
	return bothWays(stream.Context(),
		func(ctx context.Context) error {
			for report := first; ; {
				report.Session = first.GetSession()
				if err := s.loop.Report(ctx, report); err != nil {
					return err
				}
				if report, err = stream.Recv(); err != nil {
					return err
				}
			}
		},
		func(ctx context.Context) error { return send(ctx, commands, stream.Send) },
	)
}

// bothWays runs the two directions of a stream until one of them ends, which ends the stream. The receiving one ends
// by itself when the stream does, so only the sending one is waited for.
func bothWays(ctx context.Context, receive, write func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { cancel(receive(ctx)) }()
	err := write(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return wire.Status(err)
}
