// Package credentials is how the processes of a zone connect to each other. It owns what all their connections have in
// common: who may be at the other end, and how large messages may be. Connections are not encrypted yet, so there is no
// authentication; a server asks the kernel for the user of a connection from its own machine (package peer).
//
// Dial opens the client's end of a gRPC connection and Transport that of HTTP. NewServer creates the server's end of gRPC,
// NewHTTPServer that of HTTP. Pipe creates both ends of a connection inside one process.
package credentials

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// connectTimeout is how long one attempt to connect may take.
	connectTimeout = 5 * time.Second
	// maxAnswer is the largest message that a client accepts: all containers of the largest app, with the specs of its
	// versions.
	maxAnswer = 64 << 20
)

// dialer notices a dead host within 20 s: by TCP keep-alive while nothing is sent, and by missing acknowledgements
// otherwise.
var dialer = net.Dialer{
	Timeout:         connectTimeout,
	KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3},
}

// Connect opens a connection to HOST:PORT.
func Connect(ctx context.Context, address string) (net.Conn, error) {
	return dialer.DialContext(ctx, "tcp", address)
}

// Dial prepares a gRPC connection to HOST:PORT. It connects at the first call, and reconnects soon after a server is back.
// Options are added to the common ones, or replace them.
func Dial(address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	all := append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// The dialer resolves names at each attempt, and proxies of the environment are not used inside a zone.
		grpc.WithContextDialer(Connect),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: connectTimeout,
		}),
		// These pings are rare. They make the kernel close a connection on which sent data is not acknowledged for this
		// time.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 6 * time.Minute, Timeout: 20 * time.Second}),
	}, options...)
	connection, err := grpc.NewClient("passthrough:///"+address, all...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return connection, nil
}

// Transport returns a transport for HTTP requests to the processes of a zone.
func Transport() *http.Transport {
	return &http.Transport{
		DialContext:         func(ctx context.Context, _, address string) (net.Conn, error) { return Connect(ctx, address) },
		MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
	}
}
