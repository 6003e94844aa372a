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
		dial := func() *grpc.ClientConn {
			conn, err := credentials.Dial(mastertest.Address, grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				return zone.Dial(ctx, address)
			}))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			return conn
		}
		restart := func() *grpc.ClientConn {
			zone.Stop()
			zone.Start()
			return dial()
		}
		return mastertest.Subject{Conn: dial(), Restart: restart, Command: zone.Command, Deploy: zone.DeployRoles, Status: zone.Status, Next: func() mastertest.Attempt {
			config := zone.Master()
			return mastertest.Attempt{App: config.AppID, Number: config.Attempt, Token: config.Token}
		}}
	})
}
