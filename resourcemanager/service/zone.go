package service

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/eventlog"
)

type nodes struct {
	apiv1.UnimplementedNodesServer
	loop Zone
}

func (s *nodes) ListNodes(ctx context.Context, _ *apiv1.ListNodesRequest) (*apiv1.ListNodesResponse, error) {
	list, err := s.loop.Nodes(ctx)
	return &apiv1.ListNodesResponse{Nodes: list}, wire.Status(err)
}

func (s *nodes) GetNode(ctx context.Context, request *apiv1.GetNodeRequest) (*apiv1.Node, error) {
	node, err := s.loop.Node(ctx, request.GetName())
	return node, wire.Status(err)
}

func (s *nodes) DrainNode(ctx context.Context, request *apiv1.DrainNodeRequest) (*apiv1.Node, error) {
	node, err := s.loop.Drain(ctx, request.GetName(), request.GetReason())
	return node, wire.Status(err)
}

func (s *nodes) UndrainNode(ctx context.Context, request *apiv1.GetNodeRequest) (*apiv1.Node, error) {
	node, err := s.loop.Undrain(ctx, request.GetName())
	return node, wire.Status(err)
}

func (s *nodes) RemoveNode(ctx context.Context, request *apiv1.GetNodeRequest) (*apiv1.Node, error) {
	node, err := s.loop.RemoveNode(ctx, request.GetName())
	return node, wire.Status(err)
}

type queues struct {
	apiv1.UnimplementedQueuesServer
	loop Zone
}

func (s *queues) ListQueues(ctx context.Context, _ *apiv1.ListQueuesRequest) (*apiv1.ListQueuesResponse, error) {
	list, err := s.loop.Queues(ctx)
	return &apiv1.ListQueuesResponse{Queues: list}, wire.Status(err)
}

func (s *queues) GetQueue(ctx context.Context, request *apiv1.GetQueueRequest) (*apiv1.Queue, error) {
	queue, err := s.loop.Queue(ctx, request.GetName())
	return queue, wire.Status(err)
}

func (s *queues) SetQueues(ctx context.Context, request *apiv1.SetQueuesRequest) (*apiv1.ListQueuesResponse, error) {
	response, err := s.loop.SetQueues(ctx, request)
	return response, wire.Status(err)
}

type zones struct {
	apiv1.UnimplementedZonesServer
	loop Zone
}

func (s *zones) GetZone(ctx context.Context, _ *apiv1.GetZoneRequest) (*apiv1.Zone, error) {
	zone, err := s.loop.Zone(ctx)
	return zone, wire.Status(err)
}

func (s *zones) AcceptLoss(ctx context.Context, _ *apiv1.AcceptLossRequest) (*apiv1.AcceptLossResponse, error) {
	answer, err := s.loop.AcceptLoss(ctx)
	return answer, wire.Status(err)
}

type events struct {
	apiv1.UnimplementedEventsServer
	loop Zone
}

func (s *events) WatchEvents(request *apiv1.WatchEventsRequest, stream grpc.ServerStreamingServer[apiv1.Event]) error {
	if err := eventlog.CheckKind(request.GetKind()); err != nil {
		return wire.Status(err)
	}
	if request.GetTail() < 0 {
		return wire.Status(invalid("%d is not a number of events; leave the tail out for all of them", request.GetTail()))
	}
	reader := s.loop.Events(request)
	defer reader.Close()
	return send(stream.Context(), reader, stream.Send)
}

// send copies a stream until either side ends it.
func send[T any](ctx context.Context, from Stream[T], to func(T) error) error {
	for {
		values, err := from.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return wire.Status(err)
		}
		for _, value := range values {
			if err := to(value); err != nil {
				return err
			}
		}
	}
}

type imageList struct {
	apiv1.UnimplementedImagesServer
	loop  Zone
	store Images
}

func (s *imageList) ListImages(ctx context.Context, _ *apiv1.ListImagesRequest) (*apiv1.ListImagesResponse, error) {
	list, err := s.store.List(ctx)
	if err != nil {
		return nil, wire.Status(err)
	}
	stored, err := s.store.StoredBytes()
	return &apiv1.ListImagesResponse{Images: list, StoredBytes: stored}, wire.Status(err)
}

func (s *imageList) RemoveImage(ctx context.Context, request *apiv1.RemoveImageRequest) (*apiv1.RemoveImageResponse, error) {
	// The store refuses a name that cannot be resolved.
	if digest, _, err := s.store.Resolve(ctx, request.GetName()); err == nil {
		if err := s.loop.ImageUnused(ctx, request.GetName(), digest); err != nil {
			return nil, wire.Status(err)
		}
	}
	freed, err := s.store.Remove(ctx, request.GetName())
	return &apiv1.RemoveImageResponse{FreedBytes: freed}, wire.Status(err)
}
