package term

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mammoth-os/mammoth/internal/credentials"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// One caller has so many watches and no more, over however many connections; what it closes it may open again.
func TestWatchesOfACallerAreBounded(t *testing.T) {
	inZone(t, func(z *testZone) {
		var ends []context.CancelFunc
		watch := func(client apiv1.EventsClient) error {
			ctx, end := context.WithCancel(context.Background())
			ends = append(ends, end)
			stream, err := client.WatchEvents(ctx, &apiv1.WatchEventsRequest{Follow: true})
			if err != nil {
				return err
			}
			synctest.Wait()
			said := make(chan error, 1)
			go func() {
				_, err := stream.Recv()
				said <- err
			}()
			synctest.Wait()
			select {
			case err := <-said:
				return err
			default:
				return nil // it waits for events
			}
		}
		for connection := range 2 {
			conn := z.dial()
			defer conn.Close()
			client := apiv1.NewEventsClient(conn)
			for n := range credentials.StreamsPerConnection / 2 {
				if err := watch(client); err != nil {
					t.Fatalf("watch %d of connection %d: %v", n, connection, err)
				}
			}
		}
		conn := z.dial()
		defer conn.Close()
		const want = "you have 1024 watches open, and one caller may not have more; close some of them first"
		if err := watch(apiv1.NewEventsClient(conn)); status.Code(err) != codes.ResourceExhausted || status.Convert(err).Message() != want {
			t.Errorf("one more: %v", err)
		}
		// Other calls go on.
		if _, err := z.apps().ListApps(context.Background(), &apiv1.ListAppsRequest{}); err != nil {
			t.Error(err)
		}
		ends[0]()
		synctest.Wait()
		if err := watch(apiv1.NewEventsClient(conn)); err != nil {
			t.Errorf("after one was closed: %v", err)
		}
		for _, end := range ends {
			end()
		}
	})
}

func (z *testZone) web() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return z.listener.DialContext(ctx) },
	}}
}

// endless is a body without a length that goes on until somebody stops reading.
type endless struct{ read atomic.Int64 }

func (e *endless) Read(into []byte) (int, error) {
	e.read.Add(int64(len(into)))
	return copy(into, strings.Repeat(" ", len(into))), nil
}

func TestBodiesAreBounded(t *testing.T) {
	inZone(t, func(z *testZone) {
		const want = `{"code":8,"message":"the body of POST /v1/apps has more than 1024 KiB, which is the limit"}`
		long := &endless{}
		for name, body := range map[string]io.Reader{
			"announced": strings.NewReader(strings.Repeat(" ", credentials.LargestRequest+1)),
			"chunked":   long,
		} {
			request, _ := http.NewRequest(http.MethodPost, "http://zone/v1/apps", body)
			response, err := z.web().Do(request)
			if err != nil {
				t.Fatal(err)
			}
			said, _ := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if response.StatusCode != http.StatusRequestEntityTooLarge || strings.TrimSpace(string(said)) != want {
				t.Errorf("%s: %s %s", name, response.Status, said)
			}
		}
		if long.read.Load() > 4*credentials.LargestRequest {
			t.Errorf("%d bytes were read of an endless body", long.read.Load())
		}
		// One that just fits is looked at.
		request, _ := http.NewRequest(http.MethodPost, "http://zone/v1/apps", strings.NewReader(fmt.Sprintf("%*s", credentials.LargestRequest, "nonsense")))
		response, err := z.web().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusBadRequest {
			t.Errorf("the largest body: %s", response.Status)
		}
	})
}

func TestLargeMessagesAreTakenOfTrustedCallersOnly(t *testing.T) {
	for trusted, limit := range map[bool]int{true: 16 << 20, false: credentials.LargestRequest} {
		inZone(t, func(z *testZone) {
			z.local = !trusted // whom the kernel does not know is trusted by an open zone
			z.restart()
			for _, test := range []struct {
				size int
				want codes.Code
			}{{limit + 1024, codes.ResourceExhausted}, {limit - 1024, codes.NotFound}} {
				_, err := z.apps().GetApp(context.Background(), &apiv1.GetAppRequest{Name: strings.Repeat("a", test.size)})
				if status.Code(err) != test.want {
					t.Errorf("trusted %v, %d bytes: %v", trusted, test.size, status.Code(err))
				}
			}
		})
	}
}
