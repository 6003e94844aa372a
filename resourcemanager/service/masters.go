package service

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/wire"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

type masters struct {
	masterv1.UnimplementedApplicationMasterServer
	loop Masters
}

func (s *masters) Register(ctx context.Context, request *masterv1.RegisterRequest) (*masterv1.RegisterResponse, error) {
	bearer, err := bearerOf(ctx)
	if err != nil {
		return nil, wire.Status(err)
	}
	response, err := s.loop.RegisterMaster(ctx, bearer, request)
	return response, wire.Status(err)
}

func (s *masters) Allocate(stream grpc.BidiStreamingServer[masterv1.AllocateRequest, masterv1.AllocateResponse]) error {
	bearer, err := bearerOf(stream.Context())
	if err != nil {
		return wire.Status(err)
	}
	answers, err := s.loop.OpenAllocate(stream.Context(), bearer)
	if err != nil {
		return endMaster(stream, err)
	}
	defer answers.Close()
	err = runBoth(stream.Context(),
		func(ctx context.Context) error {
			for {
				request, err := stream.Recv()
				if err != nil {
					return err
				}
				if err := checkAllocate(request); err != nil {
					return err
				}
				if err := answers.Allocate(ctx, request); err != nil {
					return err
				}
			}
		},
		func(ctx context.Context) error { return send(ctx, answers, stream.Send) },
	)
	return endMaster(stream, err)
}

// endMaster also sends a superseded attempt the protocol's own message.
func endMaster(stream grpc.BidiStreamingServer[masterv1.AllocateRequest, masterv1.AllocateResponse], err error) error {
	if errors.Is(err, zone.ErrSuperseded) || err != nil && wire.Sentence(err) == wire.Sentence(zone.ErrSuperseded) {
		if err := stream.Send(&masterv1.AllocateResponse{Superseded: true}); err != nil {
			return err
		}
		return nil
	}
	return wire.Status(err)
}

func (s *masters) Plan(ctx context.Context, request *masterv1.PlanRequest) (*masterv1.PlanResponse, error) {
	bearer, err := bearerOf(ctx)
	if err != nil {
		return nil, wire.Status(err)
	}
	if len(request.GetAsks()) > mostPlanned {
		return nil, wire.Status(invalid("a request has %d asks to plan, but the limit is %d", len(request.GetAsks()), mostPlanned))
	}
	count := 0
	for _, ask := range request.GetAsks() {
		if err := checkAsk(ask); err != nil {
			return nil, wire.Status(err)
		}
		count += int(ask.GetCount())
	}
	if count > spec.MaxInstances {
		return nil, wire.Status(invalid("a request has asks for %d containers to plan, but the limit is %d together", count, spec.MaxInstances))
	}
	response, err := s.loop.PlanAsks(ctx, bearer, request)
	return response, wire.Status(err)
}

func (s *masters) Leave(ctx context.Context, request *masterv1.LeaveRequest) (*masterv1.LeaveResponse, error) {
	bearer, err := bearerOf(ctx)
	if err != nil {
		return nil, wire.Status(err)
	}
	if length := len(request.GetReason()); length > maxReason {
		return nil, wire.Status(invalid("the reason has %d bytes, but the limit is %d", length, maxReason))
	}
	return &masterv1.LeaveResponse{}, wire.Status(s.loop.LeaveMaster(ctx, bearer, request.GetReason()))
}

func (s *masters) Finish(ctx context.Context, request *masterv1.FinishRequest) (*masterv1.FinishResponse, error) {
	bearer, err := bearerOf(ctx)
	if err != nil {
		return nil, wire.Status(err)
	}
	return &masterv1.FinishResponse{}, wire.Status(s.loop.Finish(ctx, bearer, request))
}

func bearerOf(ctx context.Context) (string, error) {
	for _, value := range metadata.ValueFromIncomingContext(ctx, "authorization") {
		if bearer, ok := strings.CutPrefix(value, "Bearer "); ok {
			return bearer, nil
		}
	}
	return "", fmt.Errorf("application masters authenticate with \"authorization: Bearer …\": %w", errdefs.ErrUnauthenticated)
}
