package term

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
)

// largeSpec is nearly as large as a spec may be.
func largeSpec(n int) *apiv1.AppSpec {
	app := webSpec(1)
	app.Roles[0].Env = map[string]string{"N": fmt.Sprint(n)}
	for i := range 25 {
		app.Roles[0].Env[fmt.Sprintf("TEXT_%d", i)] = strings.Repeat("x", 10_000)
	}
	return app
}

// The largest specs, deployed again and again: the master that takes over registers, the history is read with the limits that
// clients have by themselves, and what is stored grows by each version once.
func TestTheLargestVersionsAreStoredOnceAndRead(t *testing.T) {
	inBoltZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(largeSpec(0))
		m := n.launchMaster()
		m.say(cameUp(1, 1))
		for i := range 30 {
			z.deploy(largeSpec(i + 1))
			for range 5 {
				// Whatever else changes of the app writes no version again.
				m.say(&masterv1.AllocateRequest{Memo: []byte("remember"), Status: &apiv1.MasterStatus{Version: int32(i + 2), Reason: fmt.Sprint(z.app("web").GetGeneration())}})
			}
		}
		before, err := z.apps().GetAppHistory(context.Background(), &apiv1.GetAppRequest{Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		first, last := before.GetVersions()[0], before.GetVersions()[len(before.GetVersions())-1]
		if size := proto.Size(before); size > 3<<20 || first.GetVersion() != 1 || !first.GetCameUp() || last.GetVersion() != 31 || !last.GetCurrent() {
			t.Errorf("%d versions with %d bytes, from %d to %d", len(before.GetVersions()), size, first.GetVersion(), last.GetVersion())
		}
		z.restart()
		after, err := z.apps().GetAppHistory(context.Background(), &apiv1.GetAppRequest{Name: "web"})
		if err != nil || !proto.Equal(before, after) {
			t.Errorf("after a restart: %v with %d versions", err, len(after.GetVersions()))
		}
		n.register()
		m.connect()
		if size := proto.Size(m.register); size > 4<<20 || m.register.GetDesired().GetVersion() != 31 {
			t.Errorf("a master is told %d bytes when it registers, and version %d", size, m.register.GetDesired().GetVersion())
		}
		n.deaf.Store(true) // it says that the master has ended when it is told to, below
		if _, err := z.apps().RemoveApp(context.Background(), &apiv1.RemoveAppRequest{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		n.done(masterContainer(z, "web"), &corev1.Exit{Reason: corev1.Exit_STOPPED})
		synctest.Wait()
		z.restart()
		left := 0
		if err := z.rm.store.Load("version", func(string, []byte) error { left++; return nil }); err != nil || left != 0 {
			t.Errorf("%d versions of an app that was removed, %v", left, err)
		}
	})
}

// A spec that is too large leaves nothing behind.
func TestASpecThatIsTooLargeIsRefusedBeforeItIsStored(t *testing.T) {
	inZone(t, func(z *testZone) {
		app := largeSpec(0)
		app.Roles[0].Env["MORE"] = strings.Repeat("x", 20_000)
		_, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Spec: app})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "the limit is 256KiB") {
			t.Errorf("deployed with %d bytes: %v", proto.Size(app), err)
		}
		if _, err := z.apps().GetApp(context.Background(), &apiv1.GetAppRequest{Name: "web"}); status.Code(err) != codes.NotFound {
			t.Errorf("it is there: %v", err)
		}
	})
}

// A master that says more than any app can have is refused with a sentence, and goes on once it says less.
func TestWhatAMasterSaysIsBounded(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		refused := func(what, sentence string, requests ...*masterv1.AllocateRequest) {
			t.Helper()
			stream, err := m.client.Allocate(metadataOf(m))
			if err != nil {
				t.Fatal(err)
			}
			for _, request := range requests {
				_ = stream.Send(request) // the answer says why it ended
			}
			for err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), sentence) {
				t.Errorf("%s: %v", what, err)
			}
		}
		instances := func(from, count int) *masterv1.AllocateRequest {
			request := &masterv1.AllocateRequest{}
			for i := range count {
				request.Instances = append(request.Instances, &masterv1.InstanceReport{Id: fmt.Sprintf("web-%d", from+i)})
			}
			return request
		}
		var flood []*masterv1.AllocateRequest
		for i := range 200 {
			flood = append(flood, instances(i*service.MostItems, service.MostItems))
		}
		refused("a hundred thousand instances", "the most is 21000", flood...)
		refused("too many at once", "the limit is 500", instances(0, service.MostItems+1))
		refused("a long name", "the limit is 200", &masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: strings.Repeat("x", 1000)}}})
		refused("a long report", "the limit is 16384", &masterv1.AllocateRequest{Instances: []*masterv1.InstanceReport{{Id: "a", Reason: strings.Repeat("x", 1<<15)}}})
		refused("a long reason", "the limit is 1024", &masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: "a", Reason: strings.Repeat("x", 1<<11)}}})
		refused("a weight", "between 0 and 10000", &masterv1.AllocateRequest{Instances: []*masterv1.InstanceReport{{Id: "a", Weight: -1}}})
		refused("a negative duration", "no duration from 0 on", &masterv1.AllocateRequest{Instances: []*masterv1.InstanceReport{{Id: "a", CountsAfter: durationpb.New(-1)}}})
		refused("a long answer", "the limit is 262144", &masterv1.AllocateRequest{Answers: []*masterv1.CommandAnswer{{Id: "a", Refusal: strings.Repeat("x", 1<<20)}}})
		refused("a long status", "the limit is 65536", &masterv1.AllocateRequest{Status: &apiv1.MasterStatus{Text: strings.Repeat("x", 1<<17)}})
		refused("too many answers", "501 answers", &masterv1.AllocateRequest{Answers: make([]*masterv1.CommandAnswer, service.MostItems+1)})
		many := ask1("many")
		many.Count = 1 << 30
		refused("an ask", "it must be for 0 to 10000", &masterv1.AllocateRequest{Asks: []*masterv1.Ask{many}})
		var asks []*masterv1.Ask
		for i := range 3 {
			some := ask1(fmt.Sprintf("some-%d", i))
			some.Count = 9000
			asks = append(asks, some)
		}
		refused("asks together", "are for 27000 containers together", &masterv1.AllocateRequest{Asks: asks})
		if z.app("web").GetState() != apiv1.App_RUNNING {
			t.Errorf("the app is %v", z.app("web").GetState())
		}
	})
}
