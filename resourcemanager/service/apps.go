package service

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// maxCommand is how many bytes a command for an application master may have.
const maxCommand = 16 << 10

type apps struct {
	apiv1.UnimplementedAppsServer
	loop        Apps
	frameworks  Frameworks
	images      Images
	hostNetwork bool
	dial        func(address string) (*grpc.ClientConn, error)
	// reading limits how many manifests are parsed at a time.
	reading chan struct{}
}

func (s *apps) ListApps(_ context.Context, request *apiv1.ListAppsRequest) (*apiv1.ListAppsResponse, error) {
	page, err := s.loop.ListApps(request)
	response := &apiv1.ListAppsResponse{Apps: make([]*apiv1.App, 0, len(page.Apps)), NextPageToken: page.Next, Summary: page.Summary}
	for _, view := range page.Apps {
		response.Apps = append(response.Apps, view.App)
	}
	return response, wire.Status(err)
}

func (s *apps) GetApp(_ context.Context, request *apiv1.GetAppRequest) (*apiv1.App, error) {
	view, err := s.loop.App(request.GetName())
	if err != nil {
		return nil, wire.Status(err)
	}
	return view.App, nil
}

func (s *apps) GetAppManifest(_ context.Context, request *apiv1.GetAppRequest) (*apiv1.AppManifest, error) {
	view, err := s.loop.App(request.GetName())
	if err != nil {
		return nil, wire.Status(err)
	}
	if view.App.GetSpec().GetKind() == apiv1.AppSpec_EXTERNAL {
		return nil, wire.Status(fmt.Errorf("%s has no manifest: its application master is a program outside of the zone, which \"mammoth app run\" starts: %w",
			request.GetName(), errdefs.ErrFailedPrecondition))
	}
	text, err := manifest.FormatApp(view.App.GetSpec())
	if err != nil {
		return nil, wire.Status(err)
	}
	return &apiv1.AppManifest{Manifest: string(text), Generation: view.App.GetGeneration()}, nil
}

func (s *apps) WatchApp(request *apiv1.GetAppRequest, stream grpc.ServerStreamingServer[apiv1.App]) error {
	changes, err := s.loop.WatchApp(request.GetName())
	if err != nil {
		return wire.Status(err)
	}
	defer changes.Close()
	return send(stream.Context(), changes, func(view *AppView) error { return view.Send(stream) })
}

func (s *apps) ScaleApp(ctx context.Context, request *apiv1.ScaleAppRequest) (*apiv1.App, error) {
	if err := checkCount(request.GetInstances()); err != nil {
		return nil, wire.Status(err)
	}
	app, err := s.loop.Scale(ctx, request)
	return app, wire.Status(err)
}

func (s *apps) RestartApp(ctx context.Context, request *apiv1.RestartAppRequest) (*apiv1.App, error) {
	app, err := s.loop.Restart(ctx, request.GetName())
	return app, wire.Status(err)
}

func (s *apps) StopApp(ctx context.Context, request *apiv1.StopAppRequest) (*apiv1.App, error) {
	app, err := s.loop.Stop(ctx, request.GetName())
	return app, wire.Status(err)
}

func (s *apps) RemoveApp(ctx context.Context, request *apiv1.RemoveAppRequest) (*apiv1.App, error) {
	app, err := s.loop.Remove(ctx, request.GetName())
	return app, wire.Status(err)
}

func (s *apps) RollbackApp(ctx context.Context, request *apiv1.RollbackAppRequest) (*apiv1.App, error) {
	if request.GetVersion() < 0 {
		return nil, wire.Status(fmt.Errorf("%d is not a version; leave it out to go back to the one before: %w", request.GetVersion(), errdefs.ErrInvalidArgument))
	}
	app, err := s.loop.Rollback(ctx, request.GetName(), request.GetVersion(), request.GetRole())
	return app, wire.Status(err)
}

func (s *apps) StartMaster(ctx context.Context, request *apiv1.StartMasterRequest) (*apiv1.StartMasterResponse, error) {
	app := &apiv1.AppSpec{Name: request.GetName(), Kind: apiv1.AppSpec_EXTERNAL, Queue: request.GetQueue(), Priority: request.GetPriority()}
	if err := s.complete(ctx, app); err != nil {
		return nil, wire.Status(err)
	}
	response, err := s.loop.StartMaster(ctx, app)
	return response, wire.Status(err)
}

func (s *apps) CommandApp(ctx context.Context, request *apiv1.CommandAppRequest) (*apiv1.CommandAppResponse, error) {
	switch size := proto.Size(request.GetCommand()); {
	case request.GetCommand() == nil:
		return nil, wire.Status(invalid("the request has no command; it is a message of the application master's, such as mammoth.dynamicdeploy.v1.Pause"))
	case size > maxCommand:
		return nil, wire.Status(invalid("the command has %d bytes, but the limit is %d", size, maxCommand))
	}
	response, err := s.loop.Command(ctx, request)
	return response, wire.Status(err)
}

func (s *apps) GetAppHistory(ctx context.Context, request *apiv1.GetAppRequest) (*apiv1.AppHistory, error) {
	history, err := s.loop.History(ctx, request.GetName())
	return history, wire.Status(err)
}

func (s *apps) ExplainApp(ctx context.Context, request *apiv1.GetAppRequest) (*apiv1.Explanation, error) {
	explanation, err := s.loop.Explain(ctx, request.GetName())
	return explanation, wire.Status(err)
}
