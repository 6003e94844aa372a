package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

const (
	defaultWait = 30 * time.Second
	maxWait     = 10 * time.Minute
)

// errWaitOver ends a blocking look-up after its time to wait.
var errWaitOver = errors.New("the time to wait is up")

// ListServices returns every service.
func (r *Registry) ListServices(context.Context, *apiv1.ListServicesRequest) (*apiv1.ListServicesResponse, error) {
	services, generation := r.Services()
	return &apiv1.ListServicesResponse{Services: services, Generation: generation}, nil
}

// GetService returns a service; with an index, once the service is newer. After the time to wait it returns the present
// state.
func (r *Registry) GetService(ctx context.Context, request *apiv1.GetServiceRequest) (*apiv1.Service, error) {
	wait, err := waitOf(request.GetWait())
	if err != nil {
		return nil, wire.Status(err)
	}
	after := request.GetIndex()
	if after <= 0 {
		after = -1
	}
	watch := r.Watch(request.GetName(), after)
	defer watch.Close()
	waiting, cancel := context.WithTimeoutCause(ctx, wait, errWaitOver)
	defer cancel()
	current, exists, err := watch.Next(waiting)
	switch {
	case err != nil && !errors.Is(err, errWaitOver):
		return nil, wire.Status(err)
	case !exists && (err != nil || after < 0):
		return nil, wire.Status(unknown(request.GetName()))
	}
	return current, nil
}

// WatchService sends a service now and after each change. A service that does not exist has no endpoints; only at the
// beginning it is an error, unless an index is given.
func (r *Registry) WatchService(request *apiv1.GetServiceRequest, stream grpc.ServerStreamingServer[apiv1.Service]) error {
	after := request.GetIndex()
	if after <= 0 {
		after = -1
	}
	watch := r.Watch(request.GetName(), after)
	defer watch.Close()
	for first := true; ; first = false {
		current, exists, err := watch.Next(stream.Context())
		if err != nil {
			return wire.Status(err)
		}
		if first && !exists && after < 0 {
			return wire.Status(unknown(request.GetName()))
		}
		if err := stream.Send(current); err != nil {
			return err
		}
	}
}

func waitOf(asked *durationpb.Duration) (time.Duration, error) {
	if asked == nil {
		return defaultWait, nil
	}
	wait := asked.AsDuration()
	if err := asked.CheckValid(); err != nil || wait < 0 {
		return 0, fmt.Errorf("wait must be between 0s and %s: %w", maxWait, errdefs.ErrInvalidArgument)
	}
	return min(wait, maxWait), nil
}

func unknown(name string) error {
	return fmt.Errorf("no service is named %q; \"mammoth registry ls\" lists those that there are: %w", name, errdefs.ErrNotFound)
}
