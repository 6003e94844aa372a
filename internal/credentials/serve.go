package credentials

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/wire"
)

// These are the limits of every server; docs/design/limits.md lists them.
const (
	// LargestRequest is the largest message or body: four times the largest spec of an app.
	LargestRequest = 1 << 20
	// BeginWithin is how long a new connection may take until its first byte, and a request until the end of its header.
	BeginWithin = 10 * time.Second
	// maxHeader is the largest header of a request.
	maxHeader = 64 << 10
	// StreamsPerConnection is more than the nodes, masters or watches that share a connection.
	StreamsPerConnection = 1024
	// idleTimeout is how long a connection may be open without a request in progress.
	idleTimeout = 2 * time.Minute
	// readBuffer is each connection's buffer. Thousands of connections are idle most of the time, and reports are short.
	readBuffer = 4 << 10
)

// NewServer returns a gRPC server with a limit on messages. peer.From returns the user of a call.
func NewServer(largest int, options ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(peer.Credentials()),
		grpc.ForceServerCodecV2(wire.Codec()),
		grpc.ReadBufferSize(readBuffer),
		grpc.MaxRecvMsgSize(largest),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.MaxConcurrentStreams(StreamsPerConnection),
		grpc.ConnectionTimeout(BeginWithin),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionIdle: idleTimeout}),
	}, options...)...)
}

// NewHTTPServer returns an HTTP/1 server. peer.From returns the user of a request.
func NewHTTPServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ConnContext: peer.Connected,
		ReadHeaderTimeout: BeginWithin, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
}

// Pipe returns a gRPC server and a client of it in the same process. The client's calls are made on behalf of the user of
// their context. It does not limit the calls, which the caller has counted.
func Pipe(dial func(ctx context.Context, address string) (net.Conn, error), largestAnswer int) (*grpc.Server, *grpc.ClientConn, error) {
	server := grpc.NewServer(grpc.Creds(peer.Credentials()), grpc.ForceServerCodecV2(wire.Codec()), grpc.MaxRecvMsgSize(LargestRequest))
	client, err := grpc.NewClient("passthrough:///inside", append(peer.PassOn(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(dial),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largestAnswer)),
	)...)
	if err != nil {
		return nil, nil, fmt.Errorf("connect inside the process: %w", err)
	}
	return server, client, nil
}
