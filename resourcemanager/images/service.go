package images

import (
	"context"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Service answers the Images service of the zone's API from a store.
type Service struct {
	apiv1.UnimplementedImagesServer
	Store *Store
}

// ListImages implements apiv1.ImagesServer.
func (s Service) ListImages(ctx context.Context, _ *apiv1.ListImagesRequest) (*apiv1.ListImagesResponse, error) {
	list, err := s.Store.List(ctx)
	if err != nil {
		return nil, wire.Status(err)
	}
	stored, err := s.Store.StoredBytes()
	if err != nil {
		return nil, wire.Status(err)
	}
	return &apiv1.ListImagesResponse{Images: list, StoredBytes: stored}, nil
}

// RemoveImage implements apiv1.ImagesServer.
func (s Service) RemoveImage(ctx context.Context, request *apiv1.RemoveImageRequest) (*apiv1.RemoveImageResponse, error) {
	freed, err := s.Store.Remove(ctx, request.GetName())
	if err != nil {
		return nil, wire.Status(err)
	}
	return &apiv1.RemoveImageResponse{FreedBytes: freed}, nil
}
