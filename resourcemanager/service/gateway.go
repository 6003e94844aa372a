package service

import (
	"context"
	"fmt"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Gateway serves the services of a connection over REST: as protobuf JSON with zero values, and streams as one JSON object a
// line.
func Gateway(ctx context.Context, connection *grpc.ClientConn) (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &marshaler{runtime.JSONPb{
			MarshalOptions:   wire.JSON,
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: false},
		}}),
		runtime.SetQueryParameterParser(&queryParser{}),
		runtime.WithRoutingErrorHandler(routingError),
	)
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		apiv1.RegisterAppsHandler, apiv1.RegisterNodesHandler, apiv1.RegisterContainersHandler, apiv1.RegisterQueuesHandler, apiv1.RegisterEventsHandler,
		apiv1.RegisterRegistryHandler, apiv1.RegisterImagesHandler, apiv1.RegisterZonesHandler, apiv1.RegisterLendingHandler,
		apiv1.RegisterFrameworksHandler,
	} {
		if err := register(ctx, mux, connection); err != nil {
			return nil, fmt.Errorf("serve REST: %w", err)
		}
	}
	return manifests(mux), nil
}

// marshaler removes the envelope that the gateway puts around each message of a stream.
type marshaler struct{ runtime.JSONPb }

func (m *marshaler) Marshal(value any) ([]byte, error) {
	if envelope, ok := value.(map[string]any); ok && len(envelope) == 1 {
		if message, ok := envelope["result"]; ok {
			value = message
		}
	}
	return m.JSONPb.Marshal(value)
}

// routingError answers a request that no service handles.
func routingError(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	err := status.Errorf(codes.NotFound, "there is no %s; /v1/openapi.json describes the API", r.URL.Path)
	switch code {
	case http.StatusMethodNotAllowed:
		err = status.Errorf(codes.Unimplemented, "%s does not take %s; /v1/openapi.json describes the API", r.URL.Path, r.Method)
	case http.StatusBadRequest:
		err = status.Errorf(codes.InvalidArgument, "the path %s is malformed", r.URL.Path)
	}
	runtime.HTTPError(ctx, mux, m, w, r, &runtime.HTTPStatusError{HTTPStatus: code, Err: err})
}
