// Package credentials is how the processes of a zone connect to each other. It owns what all their connections have in
// common: who may be at the other end, and how large messages may be. Connections are not encrypted yet, so there is no
// authentication; a server asks the kernel for the user of a connection from its own machine (package peer).
//
// Dial opens the client's end of a gRPC connection and Transport that of HTTP. NewServer creates the server's end of gRPC,
// NewHTTPServer that of HTTP. Pipe creates both ends of a connection inside one process.
package credentials

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/errdefs"
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

// SplitAddresses splits a list of addresses: HOST:PORT, or several with commas between, as of a zone's ResourceManagers. It fails with
// errdefs.ErrInvalidArgument.
func SplitAddresses(list string) ([]string, error) {
	addresses := strings.Split(list, ",")
	for _, address := range addresses {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return nil, fmt.Errorf("%q is not HOST:PORT: %w", address, errdefs.ErrInvalidArgument)
		}
	}
	return addresses, nil
}

// FirstAddress is the first address of a list.
func FirstAddress(list string) string {
	first, _, _ := strings.Cut(list, ",")
	return first
}

// Connect opens a connection to HOST:PORT, or to the first of a list of addresses that answers. The error is that of the first one.
func Connect(ctx context.Context, list string) (net.Conn, error) {
	addresses := strings.Split(list, ",")
	var failed error
	for _, address := range addresses {
		within, cancel := context.WithTimeout(ctx, connectTimeout/time.Duration(len(addresses)))
		conn, err := dialer.DialContext(within, "tcp", address)
		cancel()
		if err == nil {
			return conn, nil
		}
		failed = cmp.Or(failed, err)
	}
	return nil, failed
}

// Dial prepares a gRPC connection to HOST:PORT, or to the first of a list of addresses that answers. It connects at the first call, and
// reconnects soon after a server is back. Options are added to the common ones, or replace them.
func Dial(list string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	all := append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// The dialer resolves names at each attempt, and proxies of the environment are not used inside a zone.
		grpc.WithContextDialer(Connect),
		grpc.WithAuthority(FirstAddress(list)),
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
	connection, err := grpc.NewClient("passthrough:///"+list, all...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", list, err)
	}
	return connection, nil
}

// Transport returns a transport for HTTP requests to HOST:PORT, or to the first of a list of addresses that answers, whatever host a
// request names.
func Transport(list string) *http.Transport {
	return &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return Connect(ctx, list) },
		MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
	}
}
