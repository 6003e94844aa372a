package nodemanager

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
)

// service serves ContainerManager: it translates requests and hands them to the owner.
type service struct {
	nodev1.UnimplementedContainerManagerServer
	nm *NodeManager
}

// Start answers once the container's record is durable, so that an accepted start survives a restart.
func (s *service) Start(ctx context.Context, request *nodev1.StartRequest) (*nodev1.StartResponse, error) {
	accepted := make(chan *corev1.ContainerStatus, 1)
	_, err := ask(ctx, s.nm, func(o *owner) (struct{}, error) {
		h, err := o.node.Admit(request.GetToken(), request.GetSpec())
		if err == nil {
			o.whenRecorded(h, func() { accepted <- o.node.Status(h) })
		}
		return struct{}{}, err
	})
	if err != nil {
		return nil, wire.Status(err)
	}
	select {
	case status := <-accepted:
		return &nodev1.StartResponse{Status: status}, nil
	case <-ctx.Done():
		return nil, wire.Status(ctx.Err())
	case <-s.nm.stopped:
		return nil, wire.Status(errStopped)
	}
}

func (s *service) Watch(request *nodev1.WatchRequest, stream grpc.ServerStreamingServer[nodev1.WatchResponse]) error {
	ctx := stream.Context()
	changes := newFeed(nil)
	// The feed exists before the question, which may be answered after its caller has disconnected.
	defer s.nm.inbox.put(func(o *owner) { delete(o.feeds, changes) })
	snapshot, err := ask(ctx, s.nm, func(o *owner) ([]*corev1.ContainerStatus, error) {
		app, err := o.watchedApp(request)
		if err != nil {
			return nil, err
		}
		changes.matches = func(status *corev1.ContainerStatus) bool { return app == "" || status.GetLease().GetAppId() == app }
		return o.watch(changes), nil
	})
	if err != nil {
		return wire.Status(err)
	}
	if err := stream.Send(&nodev1.WatchResponse{Containers: snapshot, Snapshot: true}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return wire.Status(ctx.Err())
		case <-s.nm.stopped:
			return wire.Status(errStopped)
		case <-changes.wake:
		}
		if statuses, _ := changes.take(); len(statuses) > 0 {
			if err := stream.Send(&nodev1.WatchResponse{Containers: statuses}); err != nil {
				return err
			}
		}
	}
}

// watchedApp is the app whose containers a request may watch; empty is all.
func (o *owner) watchedApp(request *nodev1.WatchRequest) (string, error) {
	claims, err := o.node.Verify(request.GetToken())
	if err != nil {
		return "", err
	}
	switch claims.GetScope() {
	case corev1.TokenClaims_NODE:
		return request.GetAppId(), nil
	case corev1.TokenClaims_APP:
		if app := request.GetAppId(); claims.GetAppId() != "" && (app == "" || app == claims.GetAppId()) {
			return claims.GetAppId(), nil
		}
	}
	return "", fmt.Errorf("the token does not allow to watch app %q: %w", request.GetAppId(), errdefs.ErrPermissionDenied)
}

const (
	// logChunkLines and logChunkBytes limit one message of Logs.
	logChunkLines = 256
	logChunkBytes = 64 << 10
)

func (s *service) Logs(request *nodev1.LogsRequest, stream grpc.ServerStreamingServer[corev1.LogChunk]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	h, err := ask(ctx, s.nm, func(o *owner) (accessible, error) {
		return o.entryForAccess(request.GetToken(), request.GetContainerId(), false)
	})
	if err != nil {
		return wire.Status(err)
	}
	options := runtime.LogOptions{Follow: request.GetOptions().GetFollow(), Tail: int(request.GetOptions().GetTail())}
	if since := request.GetOptions().GetSince(); since != nil {
		options.Since = since.AsTime()
	}
	lines := make(chan runtime.LogLine, logChunkLines)
	finished := make(chan error, 1)
	go func() {
		defer close(lines)
		finished <- h.runtime.Logs(ctx, h.id, options, func(line runtime.LogLine) error {
			select {
			case lines <- line:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	defer func() {
		cancel()
		for range lines { // the reader ends before the call does
		}
	}()
	for {
		select {
		case <-s.nm.stopped:
			return wire.Status(errStopped)
		case line, ok := <-lines:
			if !ok {
				return wire.Status(<-finished)
			}
			chunk := &corev1.LogChunk{ContainerId: request.GetContainerId(), Instance: h.instance}
			gather(chunk, line, lines)
			if err := stream.Send(chunk); err != nil {
				return err
			}
		}
	}
}

// gather adds lines to a chunk that have already been read.
func gather(chunk *corev1.LogChunk, line runtime.LogLine, lines <-chan runtime.LogLine) {
	for size := 0; ; {
		message := &corev1.LogChunk_Line{Text: wire.Text(line.Text)}
		if !line.Time.IsZero() {
			message.Time = timestamppb.New(line.Time)
		}
		if line.Stderr {
			message.Stream = corev1.LogChunk_STDERR
		}
		chunk.Lines = append(chunk.Lines, message)
		if size += len(line.Text); size >= logChunkBytes || len(chunk.Lines) >= logChunkLines {
			return
		}
		var ok bool
		select {
		case line, ok = <-lines:
			if !ok {
				return
			}
		default:
			return
		}
	}
}
