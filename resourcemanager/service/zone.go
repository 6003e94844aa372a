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

func (s *nodes) ListNodes(_ context.Context, request *apiv1.ListNodesRequest) (*apiv1.ListNodesResponse, error) {
	page, err := s.loop.Nodes(request)
	return page, wire.Status(err)
}

func (s *nodes) GetNode(_ context.Context, request *apiv1.GetNodeRequest) (*apiv1.Node, error) {
	node, err := s.loop.Node(request.GetName())
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

type containers struct {
	apiv1.UnimplementedContainersServer
	loop Zone
}

func (s *containers) ListContainers(_ context.Context, request *apiv1.ListContainersRequest) (*apiv1.ListContainersResponse, error) {
	page, err := s.loop.Containers(request)
	return page, wire.Status(err)
}

func (s *containers) GetContainer(_ context.Context, request *apiv1.GetContainerRequest) (*apiv1.Container, error) {
	container, err := s.loop.Container(request.GetId())
	return container, wire.Status(err)
}

type queues struct {
	apiv1.UnimplementedQueuesServer
	loop Zone
}

func (s *queues) ListQueues(context.Context, *apiv1.ListQueuesRequest) (*apiv1.ListQueuesResponse, error) {
	return &apiv1.ListQueuesResponse{Queues: s.loop.Queues()}, nil
}

func (s *queues) GetQueue(_ context.Context, request *apiv1.GetQueueRequest) (*apiv1.Queue, error) {
	queue, err := s.loop.Queue(request.GetName())
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

func (s *zones) GetZone(context.Context, *apiv1.GetZoneRequest) (*apiv1.Zone, error) {
	return s.loop.Zone(), nil
}

func (s *zones) Watch(request *apiv1.WatchRequest, stream grpc.ServerStreamingServer[apiv1.WatchResponse]) error {
	changes, err := s.loop.Watch(request)
	if err != nil {
		return wire.Status(err)
	}
	defer changes.Close()
	return send(stream.Context(), changes, stream.Send)
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
