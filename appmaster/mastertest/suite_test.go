package mastertest_test

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/appmaster/mastertest"
	"github.com/mammoth-os/mammoth/internal/credentials"
)

func TestTheZonePassesTheSuite(t *testing.T) {
	mastertest.Run(t, func(t *testing.T) mastertest.Subject {
		zone := mastertest.NewZone(t, "web")
		conn, err := credentials.Dial(mastertest.Address, grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return zone.Dial(ctx, address)
		}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return mastertest.Subject{Conn: conn, Next: func() mastertest.Attempt {
			config := zone.Master()
			return mastertest.Attempt{App: config.AppID, Number: config.Attempt, Token: config.Token}
		}}
	})
}
