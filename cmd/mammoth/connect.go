package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// callTimeout is how long a request without a stream may take.
const callTimeout = 30 * time.Second

// zone is a connection to a ResourceManager, with a client for each of its services.
type zone struct {
	connection *grpc.ClientConn
	apps       apiv1.AppsClient
	nodes      apiv1.NodesClient
	containers apiv1.ContainersClient
	queues     apiv1.QueuesClient
	lending    apiv1.LendingClient
	frameworks apiv1.FrameworksClient
	events     apiv1.EventsClient
	registry   apiv1.RegistryClient
	images     apiv1.ImagesClient
	zones      apiv1.ZonesClient
	// dialed is why the last attempt to connect failed, nil once one succeeded.
	dialed *atomic.Pointer[error]
	// heard is true once the server has sent something.
	heard *atomic.Bool
}

// heardConn notes that something was received.
type heardConn struct {
	net.Conn
	heard *atomic.Bool
}

func (c heardConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard.Store(true)
	}
	return n, err
}

func (z *zone) close() { _ = z.connection.Close() }

// dialer connects to the zone at --server, and owns the sentences about a zone that does not answer.
type dialer struct{ *globalFlags }

// connect prepares a connection, which opens with the first call.
func (d *dialer) connect() (*zone, error) {
	dialed, heard := &atomic.Pointer[error]{}, &atomic.Bool{}
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := credentials.Connect(ctx, address)
		if err != nil {
			dialed.Store(&err)
			return nil, err
		}
		dialed.Store(nil)
		return heardConn{conn, heard}, nil
	}
	connection, err := credentials.Dial(d.server,
		grpc.WithContextDialer(dial),
		grpc.WithUserAgent("mammoth/"+version),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, request, answer any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			ctx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			return d.shown(ctx, invoke(ctx, method, request, answer, cc, options...), answer)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
			opened, err := stream(ctx, desc, cc, method, options...)
			return shownStream{opened, d, ctx}, err
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to the zone at %s: %w", d.server, err)
	}
	return &zone{
		connection: connection,
		apps:       apiv1.NewAppsClient(connection),
		nodes:      apiv1.NewNodesClient(connection),
		containers: apiv1.NewContainersClient(connection),
		queues:     apiv1.NewQueuesClient(connection),
		lending:    apiv1.NewLendingClient(connection),
		frameworks: apiv1.NewFrameworksClient(connection),
		events:     apiv1.NewEventsClient(connection),
		registry:   apiv1.NewRegistryClient(connection),
		images:     apiv1.NewImagesClient(connection),
		zones:      apiv1.NewZonesClient(connection),
		dialed:     dialed,
		heard:      heard,
	}, nil
}

// shown escapes the control characters in answers of the zone, except for JSON and YAML, whose encoders do that, and for
// logs, which logLines prints.
func (d *dialer) shown(ctx context.Context, err error, answer any) error {
	message, ok := answer.(proto.Message)
	if _, log := answer.(*corev1.LogChunk); err == nil && ok && !log && d.output == "table" && ctx.Value(asSentKey{}) == nil {
		visibleMessage(message)
	}
	return err
}

type shownStream struct {
	grpc.ClientStream
	dialer *dialer
	ctx    context.Context
}

// RecvMsg implements grpc.ClientStream.
func (s shownStream) RecvMsg(message any) error {
	return s.dialer.shown(s.ctx, s.ClientStream.RecvMsg(message), message)
}

type asSentKey struct{}

// asSent returns answers without escaping, for callers that send them back or write them to a file.
func asSent(ctx context.Context) context.Context { return context.WithValue(ctx, asSentKey{}, true) }

// nobodyAnswers is the error for a zone that cannot be reached.
func (d *dialer) nobodyAnswers(err error) error {
	reason := err.Error()
	var number syscall.Errno
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return d.closesAtOnce()
	case errors.As(err, &number):
		reason = number.Error()
	case errors.As(err, &dns):
		reason = "no such host"
	case errors.As(err, &timeout) && timeout.Timeout():
		reason = "timed out"
	}
	return fmt.Errorf("no zone answers at %s (%s); start one with `mammoth up`, or name another with --server", d.server, reason)
}

// with calls do with a connection and converts errors to a sentence.
func (d *dialer) with(ctx context.Context, do func(*zone) error) error {
	z, err := d.connect()
	if err != nil {
		return err
	}
	defer z.close()
	return d.remote(ctx, z, do(z))
}

// remote converts a call's error to one sentence for a person, and keeps its class.
func (d *dialer) remote(ctx context.Context, z *zone, err error) error {
	s, ok := status.FromError(err)
	switch {
	case err == nil:
		return nil
	case !ok:
		return err
	case ctx.Err() != nil && s.Code() == codes.Canceled:
		return context.Cause(ctx)
	}
	switch s.Code() {
	case codes.DeadlineExceeded:
		return fmt.Errorf("the zone at %s did not answer in time; is it busy, or is something between?", d.server)
	case codes.Unavailable:
		if dialed := z.dialed.Load(); dialed != nil {
			return d.nobodyAnswers(*dialed)
		}
		if !z.heard.Load() && closed(s.Message()) {
			return d.closesAtOnce()
		}
		if strings.Contains(s.Message(), "error reading server preface") || strings.Contains(s.Message(), "client preface") {
			return fmt.Errorf("what answers at %s is not a zone; name another with --server", d.server)
		}
		return fmt.Errorf("the zone at %s went away (%s); is it being restarted?", d.server, s.Message())
	}
	return wire.Error(err)
}

// closed reports whether gRPC's reason for a failed call is that the connection was closed. It puts some of its reasons into quotes.
func closed(why string) bool {
	return strings.HasSuffix(strings.TrimSuffix(why, `"`), io.EOF.Error()) ||
		strings.Contains(why, syscall.ECONNRESET.Error()) || strings.Contains(why, syscall.EPIPE.Error())
}

// closesAtOnce is the error for a zone that closes the connection before it says anything: it does so to a caller that has too many.
func (d *dialer) closesAtOnce() error {
	return fmt.Errorf("the zone at %s closes the connection, as it does when too many are open; close some, or try again in a moment", d.server)
}
