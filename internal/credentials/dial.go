// Package credentials is how the processes of a zone connect to each other. It owns what all their connections have in common: who
// may be at the other end, and how much one may be sent. Connections are not encrypted yet, so nobody proves who it is; a
// server asks the kernel whose a connection from its own machine is (package peer).
//
// Dial makes the client's end of a gRPC connection and Transport that of HTTP. NewServer makes the server's end of gRPC,
// NewHTTPServer that of HTTP. Pipe makes both ends of a connection inside one process.
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
	// connectWithin is how long one attempt to connect may take.
	connectWithin = 5 * time.Second
	// largestAnswer is the largest message that a client takes: all containers of the largest app, with the specs of its versions.
	largestAnswer = 64 << 20
)

// dialer notices a dead host within 20 s: by TCP's own probes while nothing is sent, and by what is not acknowledged otherwise.
var dialer = net.Dialer{
	Timeout:         connectWithin,
	KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3},
}

// Connect opens a connection to HOST:PORT.
func Connect(ctx context.Context, address string) (net.Conn, error) {
	return dialer.DialContext(ctx, "tcp", address)
}

// Dial prepares a gRPC connection to HOST:PORT. It is made with the first call, and again, soon after a server is back, whenever it
// breaks. Options add to those of all connections, or take their place.
func Dial(address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	all := append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// The dialer looks names up, each time anew, and no proxy of the environment stands between the processes of a zone.
		grpc.WithContextDialer(Connect),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largestAnswer)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: connectWithin,
		}),
		// These pings are too rare to matter. What counts is that with them the kernel gives up a connection on which what was sent is
		// not acknowledged for so long.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 6 * time.Minute, Timeout: 20 * time.Second}),
	}, options...)
	connection, err := grpc.NewClient("passthrough:///"+address, all...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return connection, nil
}

// Transport makes HTTP requests to the processes of a zone.
func Transport() *http.Transport {
	return &http.Transport{
		DialContext:         func(ctx context.Context, _, address string) (net.Conn, error) { return Connect(ctx, address) },
		MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
	}
}
