package peer

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/user"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// connect gives both ends of a connection over a listener's address.
func connect(t *testing.T, network, address string) (client, server net.Conn) {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if client, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	for {
		accepted, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = accepted.Close() })
		// Somebody may look for whoever had the port before.
		if accepted.RemoteAddr().String() == client.LocalAddr().String() {
			return client, accepted
		}
	}
}

func me(t *testing.T) User {
	t.Helper()
	entry, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return User{Name: entry.Username, Operator: true}
}

func TestTheKernelSaysWhoIsAtTheOtherEnd(t *testing.T) {
	addresses := []string{"127.0.0.1:0", "127.8.9.10:0"}
	if probe, err := net.Listen("tcp", "[::1]:0"); err == nil { // a machine may have no IPv6
		_ = probe.Close()
		addresses = append(addresses, "[::1]:0")
	}
	for _, address := range addresses {
		_, server := connect(t, "tcp", address)
		if got := Of(server).User(); got != me(t) {
			t.Errorf("over %s: %+v, want %+v", address, got, me(t))
		}
	}
}

// For a socket without a process the kernel reports root.
func TestWhoHasHungUpIsNobody(t *testing.T) {
	client, server := connect(t, "tcp", "127.0.0.1:0")
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the server read %v, want the end", err)
	}
	if got := Of(server).User(); got != (User{}) {
		t.Errorf("who has hung up is %+v", got)
	}
}

func TestOtherMachinesAndOtherKindsOfConnectionsAreNobodys(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	far := &distant{Conn: ours}
	for name, connection := range map[string]net.Conn{"a pipe": ours, "another machine": far} {
		if got := Of(connection).User(); got != (User{}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := From(context.Background()); got != (User{}) {
		t.Errorf("a call from nowhere: %+v", got)
	}
}

type distant struct{ net.Conn }

func (*distant) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7070} }

func (*distant) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 50000} }

// asked is a service that answers with the caller.
type asked struct{ apiv1.UnimplementedZonesServer }

func (asked) GetZone(ctx context.Context, _ *apiv1.GetZoneRequest) (*apiv1.Zone, error) {
	who := From(ctx)
	return &apiv1.Zone{Name: fmt.Sprintf("%s,%t", who.Name, who.Operator)}, nil
}

func (a asked) name(t *testing.T, ctx context.Context, conn *grpc.ClientConn) string {
	t.Helper()
	zone, err := apiv1.NewZonesClient(conn).GetZone(ctx, &apiv1.GetZoneRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return zone.GetName()
}

func TestACallIsMadeByWhomTheKernelNamesAndNotByWhomMetadataNames(t *testing.T) {
	server := grpc.NewServer(grpc.Creds(Credentials()))
	apiv1.RegisterZonesServer(server, asked{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	want := me(t).Name + ",true"
	forged := metadata.AppendToOutgoingContext(context.Background(), userKey, "somebody", operatorKey, "true")
	if got := (asked{}).name(t, forged, conn); got != want {
		t.Errorf("the call was made by %s, want %s", got, want)
	}
}

// pipes accepts one connection inside this process.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	connection, open := <-p
	if !open {
		return nil, net.ErrClosed
	}
	return Inside(connection), nil
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "inside"} }

func TestWhatComesInOverHTTPIsPassedOnInTheNameOfItsSender(t *testing.T) {
	server := grpc.NewServer(grpc.Creds(Credentials()))
	apiv1.RegisterZonesServer(server, asked{})
	listener := make(pipes, 1)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	conn, err := grpc.NewClient("passthrough:///inside", append(PassOn(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			listener <- theirs
			return ours, nil
		}))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := metadata.AppendToOutgoingContext(r.Context(), userKey, r.Header.Get("Forged"), operatorKey, "true")
		_, _ = io.WriteString(w, (asked{}).name(t, ctx, conn))
	}))
	web.Config.ConnContext = Connected
	web.Start()
	defer web.Close()
	request, _ := http.NewRequest(http.MethodGet, web.URL, http.NoBody)
	request.Header.Set("Forged", "somebody")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	if want := me(t).Name + ",true"; string(body) != want {
		t.Errorf("the call was made by %s, want %s", body, want)
	}

	analyst := metadata.AppendToOutgoingContext(With(context.Background(), program{func() User { return User{Name: "analyst"} }}), operatorKey, "true")
	if got := (asked{}).name(t, analyst, conn); got != "analyst,false" {
		t.Errorf("a program of the analyst's in this process is %s", got)
	}
	nobody := metadata.AppendToOutgoingContext(context.Background(), userKey, "somebody", operatorKey, "true")
	if got := (asked{}).name(t, nobody, conn); got != ",false" {
		t.Errorf("a call in nobody's name is %s", got)
	}
}
