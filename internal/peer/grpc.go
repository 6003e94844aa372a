package peer

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	grpcpeer "google.golang.org/grpc/peer"
)

// These are metadata keys of calls that this process makes to itself. They are ignored on other connections.
const (
	userKey     = "mammoth-user-bin"
	operatorKey = "mammoth-operator"
)

// From is the user that made a call; a context without a connection has no user.
func From(ctx context.Context) User {
	if from, ok := ctx.Value(contextKey{}).(Program); ok {
		return from.User()
	}
	remote, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return User{}
	}
	info, ok := remote.AuthInfo.(authInfo)
	switch {
	case !ok:
		return User{}
	case info.inside:
		return passedOn(ctx)
	}
	return info.program.User()
}

func passedOn(ctx context.Context) User {
	names, operator := metadata.ValueFromIncomingContext(ctx, userKey), metadata.ValueFromIncomingContext(ctx, operatorKey)
	if len(names) != 1 {
		return User{}
	}
	return User{Name: names[0], Operator: len(operator) == 1}
}

// PassOn lets a client inside this process make calls on behalf of the user of their context, which Connected or With has
// set. User metadata in the context is dropped.
func PassOn() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			return invoke(outgoing(ctx), method, request, reply, cc, options...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(outgoing(ctx), desc, cc, method, options...)
		}),
	}
}

func outgoing(ctx context.Context) context.Context {
	meta, ok := metadata.FromOutgoingContext(ctx) // a copy
	if !ok {
		meta = metadata.MD{}
	}
	meta.Delete(userKey)
	meta.Delete(operatorKey)
	if from, ok := ctx.Value(contextKey{}).(Program); ok {
		who := from.User()
		meta.Set(userKey, who.Name)
		if who.Operator {
			meta.Set(operatorKey, "true")
		}
	}
	return metadata.NewOutgoingContext(ctx, meta)
}

// inside is a connection with both ends in this process.
type inside struct{ net.Conn }

// Inside marks the server's end of a connection whose client uses PassOn.
func Inside(connection net.Conn) net.Conn { return inside{connection} }

// Credentials accept every client without a secret and record its connection.
func Credentials() credentials.TransportCredentials { return transport{} }

type transport struct{}

type authInfo struct {
	credentials.CommonAuthInfo
	program Program
	inside  bool
}

// AuthType implements credentials.AuthInfo.
func (authInfo) AuthType() string { return "loopback" }

// ServerHandshake implements credentials.TransportCredentials.
func (transport) ServerHandshake(connection net.Conn) (net.Conn, credentials.AuthInfo, error) {
	_, within := connection.(inside)
	return connection, authInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity},
		program:        Of(connection), inside: within,
	}, nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (transport) ClientHandshake(_ context.Context, _ string, connection net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return connection, authInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, program: Of(connection)}, nil
}

// Info implements credentials.TransportCredentials.
func (transport) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "insecure"}
}

// Clone implements credentials.TransportCredentials.
func (transport) Clone() credentials.TransportCredentials { return transport{} }

// OverrideServerName implements credentials.TransportCredentials.
func (transport) OverrideServerName(string) error { return nil }
