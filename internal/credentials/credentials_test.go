package credentials_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/testenv"
)

// serve serves gRPC's health service on a pipe, with messages of at most 1 KiB, until the test ends.
func serve(t *testing.T) *bufconn.Listener {
	t.Helper()
	server := credentials.NewServer(1 << 10)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	listener := bufconn.Listen(1 << 16)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener
}

func TestAServerTakesMessagesUpToItsSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := serve(t)
		connection, err := credentials.Dial("server:1", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		for size, want := range map[int]codes.Code{100: codes.NotFound, 2 << 10: codes.ResourceExhausted} {
			_, err := grpc_health_v1.NewHealthClient(connection).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: strings.Repeat("x", size)})
			if status.Code(err) != want {
				t.Errorf("a message of %d bytes: %v, want %v", size, err, want)
			}
		}
	})
}

func TestASilentConnectionToAServerIsHungUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		connection, err := serve(t).Dial()
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		began := time.Now()
		_, _ = io.Copy(io.Discard, connection)
		if waited := time.Since(began); waited != credentials.BeginWithin {
			t.Errorf("it was hung up after %v, want %v", waited, credentials.BeginWithin)
		}
	})
}

// A client that waits for a server is there within a second of the server, however long that was away.
func TestAClientIsBackSoonAfterItsServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := serve(t)
		var away atomic.Bool
		away.Store(true)
		connection, err := credentials.Dial("server:1", grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			if address != "server:1" {
				t.Errorf("it connects to %q", address)
			}
			if away.Load() {
				return nil, errors.New("nobody listens")
			}
			return listener.DialContext(ctx)
		}))
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		answered := make(chan error, 1)
		go func() {
			_, err := grpc_health_v1.NewHealthClient(connection).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
			answered <- err
		}()
		time.Sleep(10 * time.Minute)
		away.Store(false)
		back := time.Now()
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(back); waited > time.Second {
			t.Errorf("it was back after %v", waited)
		}
	})
}

// Of several addresses the first one that answers is used, by gRPC and by HTTP, and another one once that is gone.
func TestOfSeveralAddressesTheFirstThatAnswersIsUsed(t *testing.T) {
	var servers []*http.Server
	var addresses []string
	for name := range 3 {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", testenv.Port(t)))
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%d at %s", name, r.Host)
		})}
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(func() { _ = server.Close() })
		servers, addresses = append(servers, server), append(addresses, listener.Addr().String())
	}
	list := strings.Join(addresses, ",")
	client := &http.Client{Transport: credentials.Transport(list)}
	for gone := range 3 {
		answer, err := client.Get("http://" + credentials.FirstAddress(list) + "/")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if want := fmt.Sprintf("%d at %s", gone, addresses[0]); err != nil || string(text) != want {
			t.Errorf("without %d servers %q answers, %v; want %q", gone, text, err, want)
		}
		conn, err := credentials.Connect(t.Context(), list)
		if err != nil || conn.RemoteAddr().String() != addresses[gone] {
			t.Fatalf("without %d servers it connects to %v, %v", gone, conn, err)
		}
		_ = conn.Close()
		_ = servers[gone].Close()
		client.CloseIdleConnections()
	}
	if _, err := credentials.Connect(t.Context(), list); err == nil || !strings.Contains(err.Error(), addresses[0]) {
		t.Errorf("without any server: %v", err)
	}
}

func TestAListOfAddressesIsSplit(t *testing.T) {
	if list, err := credentials.SplitAddresses("a:1,[::1]:2"); err != nil || !slices.Equal(list, []string{"a:1", "[::1]:2"}) {
		t.Errorf("%v, %v", list, err)
	}
	for _, list := range []string{"", "a", "a:1,", ",a:1", "a:1,b"} {
		if _, err := credentials.SplitAddresses(list); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", list, err)
		}
	}
}
