package term

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/mammoth-os/mammoth/appmaster/mastertest"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// The ResourceManager that masters and nodes are tested against does as this one does.
func TestTheResourceManagerPassesTheSuiteOfItsFake(t *testing.T) {
	mastertest.Run(t, func(t *testing.T) mastertest.Subject {
		disk := &store.Disk{}
		z := newTestZone(t, func() store.Store {
			return store.OpenMemory(disk, store.Options{Now: time.Now(), EventRetention: 1000})
		})
		t.Cleanup(z.stop)
		// Masters run on a node of their own.
		home, master := z.addNode("home"), ""
		restart := func() *grpc.ClientConn {
			z.restart()
			home.register()
			return z.conn
		}
		command := func(ctx context.Context, command *anypb.Any) (*anypb.Any, error) {
			response, err := z.apps().CommandApp(ctx, &apiv1.CommandAppRequest{Name: "web", Command: command})
			return response.GetAnswer(), wire.Error(err)
		}
		deploy := func(roles ...*apiv1.RoleSpec) {
			z.deploy(&apiv1.AppSpec{Name: "web", Roles: roles})
		}
		status := func() *apiv1.MasterStatus { return z.app("web").GetStatus() }
		return mastertest.Subject{Conn: z.conn, Restart: restart, Command: command, Deploy: deploy, Status: status, Avoid: []string{"home"}, Next: func() mastertest.Attempt {
			if master == "" {
				z.deploy(webSpec(1))
			} else {
				home.done(master, &corev1.Exit{Reason: corev1.Exit_KILLED_FROM_OUTSIDE, Code: 137})
			}
			synctest.Wait()
			launch := home.lastLaunch()
			claims := &corev1.TokenClaims{}
			if err := proto.Unmarshal(launch.GetToken().GetClaims(), claims); err != nil {
				t.Fatal(err)
			}
			if claims.GetLease().GetContainerId() == master {
				t.Fatal("no attempt was started")
			}
			master = claims.GetLease().GetContainerId()
			home.run(master, map[string]string{"mammoth.role": "master"})
			synctest.Wait()
			env := launch.GetSpec().GetEnv()
			attempt := mastertest.Attempt{App: env["MAMMOTH_APP_ID"], Token: env["MAMMOTH_TOKEN"]}
			_, _ = fmt.Sscan(env["MAMMOTH_ATTEMPT"], &attempt.Number)
			return attempt
		}}
	})
}
