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

// What every server takes. docs/design/limits.md lists these figures.
const (
	// LargestRequest is the size of a message, or of a body: four times the largest spec of an app.
	LargestRequest = 1 << 20
	// BeginWithin is how long a new connection may take to say what it wants, and a request to send its header.
	BeginWithin = 10 * time.Second
	// largestHeader is the size of a request's header.
	largestHeader = 64 << 10
	// StreamsPerConnection is more than the nodes, masters or watches that share a connection.
	StreamsPerConnection = 1024
	// idleFor is how long a connection may be open without a request in progress.
	idleFor = 2 * time.Minute
	// readBuffer is what each connection holds for what it reads. Thousands of them are quiet most of the time, and reports are short.
	readBuffer = 4 << 10
)

// NewServer makes a gRPC server that takes messages up to a size. Its calls know by peer.From who made them.
func NewServer(largest int, options ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(peer.Credentials()),
		grpc.ForceServerCodecV2(wire.Codec()),
		grpc.ReadBufferSize(readBuffer),
		grpc.MaxRecvMsgSize(largest),
		grpc.MaxHeaderListSize(largestHeader),
		grpc.MaxConcurrentStreams(StreamsPerConnection),
		grpc.ConnectionTimeout(BeginWithin),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionIdle: idleFor}),
	}, options...)...)
}

// NewHTTPServer makes a server of HTTP/1. Its requests know by peer.From who made them.
func NewHTTPServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ConnContext: peer.Connected,
		ReadHeaderTimeout: BeginWithin, IdleTimeout: idleFor, MaxHeaderBytes: largestHeader,
	}
}

// Pipe makes a gRPC server and a client of it that are in one process. The client's calls are made in the name of whoever asked for
// them. It bounds no number of calls, which whoever makes them has counted.
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
