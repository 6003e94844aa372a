package term

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

func spec2(instances int32) *apiv1.AppSpec {
	spec := webSpec(instances)
	spec.Roles[0].Image = "web:2"
	return spec
}

func done(version, total int32) *apiv1.MasterStatus {
	return &apiv1.MasterStatus{Version: version, State: apiv1.MasterStatus_DONE, Done: total, Total: total}
}

func newestDesired(answers []*masterv1.AllocateResponse) *masterv1.DesiredState {
	var desired *masterv1.DesiredState
	for _, answer := range answers {
		if answer.GetDesired() != nil {
			desired = answer.GetDesired()
		}
	}
	return desired
}

func TestVersionsRiseOnlyWhenInstancesMustChange(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		first := z.deploy(webSpec(2))
		if first.GetVersion() != 1 || first.GetGeneration() != 1 {
			t.Errorf("at first: version %d, generation %d", first.GetVersion(), first.GetGeneration())
		}
		m := n.launchMaster()
		m.say(cameUp(1, 2))
		scaled, err := z.apps().ScaleApp(context.Background(), &apiv1.ScaleAppRequest{Name: "web", Instances: 5})
		if err != nil || scaled.GetVersion() != 1 || scaled.GetGeneration() != 2 || scaled.GetWanted() != 5 {
			t.Errorf("scaled: %v, %v", scaled, err)
		}
		if desired := newestDesired(m.heard()); desired.GetSpec().GetRoles()[0].GetInstances() != 5 {
			t.Errorf("the master is told %v", desired)
		}
		silent := spec2(0) // says no count
		changed := z.deploy(silent)
		if changed.GetVersion() != 2 || changed.GetGeneration() != 3 || changed.GetWanted() != 5 {
			t.Errorf("a new image: version %d, generation %d, wanted %d", changed.GetVersion(), changed.GetGeneration(), changed.GetWanted())
		}
		if changed.GetStatus().GetState() != apiv1.MasterStatus_WORKING || changed.GetStatus().GetVersion() != 2 {
			t.Errorf("its rollout is %v", changed.GetStatus())
		}
		m.say(&masterv1.AllocateRequest{ObservedGeneration: 3})
		if got := z.app("web").GetObservedGeneration(); got != 3 {
			t.Errorf("observed generation %d", got)
		}
	})
}

func TestRollbackAndRevertKeepTheCount(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(2))
		m := n.launchMaster()
		m.say(cameUp(1, 2))
		z.deploy(spec2(3))
		answers := m.say(revised(2, 1, "web-3 never became healthy"))
		app := z.app("web")
		if app.GetVersion() != 3 || app.GetSpec().GetRoles()[0].GetImage() != "web:1" || app.GetWanted() != 3 {
			t.Fatalf("after the revert: version %d of image %s, %d wanted", app.GetVersion(), app.GetSpec().GetRoles()[0].GetImage(), app.GetWanted())
		}
		if desired := newestDesired(answers); !desired.GetRevised() {
			t.Error("the master does not learn that it made this version")
		}
		m.say(revised(2, 1, "said twice"))
		if got := z.app("web").GetVersion(); got != 3 {
			t.Errorf("another version than the desired one was revised: version %d", got)
		}
		m.say(cameUp(3, 3))
		_, err := z.apps().RollbackApp(context.Background(), &apiv1.RollbackAppRequest{Name: "web"})
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "no earlier version of web that came up and held differs from the present one") {
			t.Errorf("rolled back from 3 to 1, which is the same, or to 2, which never came up: %v", err)
		}
		back, err := z.apps().RollbackApp(context.Background(), &apiv1.RollbackAppRequest{Name: "web", Version: 2})
		if err != nil || back.GetVersion() != 4 || back.GetSpec().GetRoles()[0].GetImage() != "web:2" {
			t.Errorf("rolled back to 2: %v, %v", back, err)
		}
		history, err := z.apps().GetAppHistory(context.Background(), &apiv1.GetAppRequest{Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		var causes []string
		for _, version := range history.GetVersions() {
			causes = append(causes, version.GetCause())
		}
		if got := strings.Join(causes, " | "); got != "deploy | deploy | revert of 2: web-3 never became healthy | rollback to 2" {
			t.Errorf("history: %s", got)
		}
		if back, err = z.apps().RollbackApp(context.Background(), &apiv1.RollbackAppRequest{Name: "web"}); err != nil || back.GetSpec().GetRoles()[0].GetImage() != "web:1" {
			t.Errorf("rolled back from 4, which did not come up: %v, %v", back, err)
		}
		if history, err = z.apps().GetAppHistory(context.Background(), &apiv1.GetAppRequest{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		var came []bool
		for _, version := range history.GetVersions() {
			came = append(came, version.GetCameUp())
		}
		if want := []bool{true, false, true, false, false}; !slices.Equal(came, want) {
			t.Errorf("versions that came up: %v, want %v", came, want)
		}
		if _, err := z.apps().RollbackApp(context.Background(), &apiv1.RollbackAppRequest{Name: "web", Version: 9}); status.Code(err) != codes.NotFound {
			t.Errorf("rolled back to nowhere: %v", err)
		}
	})
}

func TestAVersionThatCameUpAndDidNotHoldIsTakenBack(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(2))
		m := n.launchMaster()
		m.say(cameUp(1, 2))
		z.deploy(spec2(2))
		m.say(cameUp(2, 2))
		m.say(&masterv1.AllocateRequest{Status: &apiv1.MasterStatus{Version: 2, State: apiv1.MasterStatus_WORKING, Total: 2}})
		m.say(revised(2, 1, "web-3 exited with code 7"))
		if app := z.app("web"); app.GetVersion() != 3 || app.GetSpec().GetRoles()[0].GetImage() != "web:1" {
			t.Fatalf("after the revert: version %d of image %s", app.GetVersion(), app.GetSpec().GetRoles()[0].GetImage())
		}
		restored := cameUp(3, 2)
		m.say(restored)
		history, err := z.apps().GetAppHistory(context.Background(), &apiv1.GetAppRequest{Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []struct {
			cameUp  bool
			failure string
		}{{true, ""}, {true, "web-3 exited with code 7"}, {true, ""}} {
			if v := history.GetVersions()[i]; v.GetCameUp() != want.cameUp || v.GetFailure() != want.failure {
				t.Errorf("version %d: came up %v, failure %q; want %v, %q", v.GetVersion(), v.GetCameUp(), v.GetFailure(), want.cameUp, want.failure)
			}
		}
		z.deploy(spec2(2)) // once more, and it does not come up at all
		m.say(&masterv1.AllocateRequest{Status: &apiv1.MasterStatus{Version: 4, State: apiv1.MasterStatus_FAILED, Total: 2, Reason: "it exits"}})
		back, err := z.apps().RollbackApp(context.Background(), &apiv1.RollbackAppRequest{Name: "web"})
		if err != nil || back.GetSpec().GetRoles()[0].GetImage() != "web:1" {
			t.Errorf("rolled back from 4: %v, %v; want the program of version 3", back, err)
		}
	})
}

func TestTwentyOldVersionsAreKept(t *testing.T) {
	inZone(t, func(z *testZone) {
		for i := range 30 {
			spec := webSpec(1)
			spec.Roles[0].Env = map[string]string{"N": strings.Repeat("x", i)}
			z.deploy(spec)
		}
		history, err := z.apps().GetAppHistory(context.Background(), &apiv1.GetAppRequest{Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		versions := history.GetVersions()
		if len(versions) != 20+1 || versions[0].GetVersion() != 10 || !versions[20].GetCurrent() || versions[19].GetCurrent() {
			t.Errorf("%d versions, from %d", len(versions), versions[0].GetVersion())
		}
	})
}

func TestGenerationsGuardDeployments(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.deploy(webSpec(1))
		for _, test := range []struct {
			name         string
			ifGeneration int64
			code         codes.Code
		}{
			{"web", 0, codes.AlreadyExists},
			{"web", 7, codes.Aborted},
			{"web", 1, codes.OK},
			{"web", 1, codes.Aborted},
			{"other", 3, codes.Aborted},
			{"other", 0, codes.OK},
		} {
			spec := webSpec(2)
			spec.Name = test.name
			_, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Spec: spec, IfGeneration: test.ifGeneration})
			if status.Code(err) != test.code {
				t.Errorf("%s if generation %d: %v, want %v", test.name, test.ifGeneration, err, test.code)
			}
		}
	})
}

func TestAnAppIsStoppedAndStartedAgain(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		container := m.startInstance(n, "web-1")
		if _, err := z.apps().StopApp(context.Background(), &apiv1.StopAppRequest{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		if desired := newestDesired(m.heard()); !desired.GetStopped() {
			t.Errorf("the master is told %v", desired)
		}
		m.say(&masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: container}}, GoneInstances: []string{"web-1"}})
		app := z.app("web")
		if app.GetState() != apiv1.App_STOPPED || app.GetMaster().GetState() != apiv1.Master_FINISHED || app.GetWanted() != 0 {
			t.Errorf("it is %v, its master %v, %d wanted", app.GetState(), app.GetMaster().GetState(), app.GetWanted())
		}
		if ids, there := z.board.Serving("web"); !there || len(ids) != 0 {
			t.Errorf("a stopped app in the registry: %v, %v", ids, there)
		}
		z.pass(time.Minute)
		if got := z.node("node-1").GetUsed().GetCpuMillis(); got != 0 {
			t.Errorf("a stopped app holds %d", got)
		}
		if _, err := z.apps().RestartApp(context.Background(), &apiv1.RestartAppRequest{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		m = n.launchMaster()
		if m.register.GetDesired().GetStopped() || z.app("web").GetState() != apiv1.App_RUNNING {
			t.Errorf("restarted it is %v, and its master is told %v", z.app("web").GetState(), m.register.GetDesired())
		}
		m.startInstance(n, "web-1")
	})
}

func TestAnAppWithoutAMasterIsEndedByTheResourceManager(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		container := m.startInstance(n, "web-1")
		if _, err := z.apps().RemoveApp(context.Background(), &apiv1.RemoveAppRequest{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		z.board.HoldBack()
		n.done(masterContainer(z, "web"), &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 1})
		if n.stopped(container) {
			t.Error("the instance was stopped before the balancers knew")
		}
		if ids, _ := z.board.Serving("web"); len(ids) != 0 {
			t.Errorf("still in the registry: %v", ids)
		}
		z.board.Confirm()
		synctest.Wait()
		if !n.stopped(container) {
			t.Error("the instance was not stopped")
		}
		if _, err := z.apps().GetApp(context.Background(), &apiv1.GetAppRequest{Name: "web"}); status.Code(err) != codes.NotFound {
			t.Errorf("the app: %v", err)
		}
	})
}

func TestAMasterThatFinishesEndsItsApp(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		container := m.startInstance(n, "web-1")
		if _, err := m.client.Finish(m.ctx, &masterv1.FinishRequest{Reason: "all is computed"}); err != nil {
			t.Fatal(err)
		}
		if !n.stopped(container) {
			t.Error("what it still held was not stopped")
		}
		if app := z.app("web"); app.GetState() != apiv1.App_STOPPED {
			t.Errorf("the app is %v", app.GetState())
		}
	})
}

func TestADryRunSaysWhereInstancesWouldGo(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		z.addNode("node-2")
		spec := webSpec(9)
		spec.Roles[0].Resources.CpuMillis = 1000
		response, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Spec: spec, DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := len(response.GetPlacements()); got != 8 {
			t.Errorf("%d would be placed: %v", got, response.GetPlacements())
		}
		if first := response.GetPlacements()[0]; first.GetInstance() != "web-1" || !strings.HasPrefix(first.GetNode(), "node-") {
			t.Errorf("the first placement is %v", first)
		}
		explanation := response.GetExplanation()
		if explanation.GetSummary() != "8 of 9 instances of web would be started at once; the rest would wait" || len(explanation.GetObstacles()) != 1 {
			t.Errorf("explanation: %v", explanation)
		}
		if _, err := z.apps().GetApp(context.Background(), &apiv1.GetAppRequest{Name: "web"}); status.Code(err) != codes.NotFound {
			t.Errorf("a dry run left an app: %v", err)
		}
	})
}

func TestQuotasThatNoNodeCouldSatisfyAreRefusedAtOnce(t *testing.T) {
	inZone(t, func(z *testZone) {
		spec := webSpec(1)
		spec.Roles[0].Resources.MemoryBytes = 1 << 40
		z.deploy(proto.CloneOf(spec)) // nobody knows yet what nodes there will be
		z.addNode("node-1")
		spec.Name = "other"
		_, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Spec: spec})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(status.Convert(err).Message(), "4GiB") {
			t.Errorf("refused with %v, which should name the largest node", err)
		}
	})
}

func TestExplainSaysWhatAnAppWaitsFor(t *testing.T) {
	inZone(t, func(z *testZone) {
		explain := func() *apiv1.Explanation {
			t.Helper()
			synctest.Wait()
			e, err := z.apps().ExplainApp(context.Background(), &apiv1.GetAppRequest{Name: "web"})
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
		z.deploy(webSpec(2))
		if got := explain().GetSummary(); got != "web waits for a container for its application master: no node has registered" {
			t.Errorf("without a node: %s", got)
		}
		n := z.addNode("node-1")
		m := n.launchMaster()
		m.startInstance(n, "web-1")
		big := ask1("web-2")
		big.Resources.MemoryBytes = 5 << 30
		m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{big}})
		e := explain()
		if len(e.GetObstacles()) != 1 || e.GetObstacles()[0].GetSubject() != "web-2" || !strings.Contains(e.GetObstacles()[0].GetReason(), "memory") {
			t.Errorf("an instance that is too large: %v", e)
		}
		m.say(&masterv1.AllocateRequest{
			Asks: []*masterv1.Ask{{Id: "web-2/1", Resources: big.GetResources()}},
			Instances: []*masterv1.InstanceReport{{
				Id: "web-2", State: apiv1.Instance_BACKOFF, Reason: "exited with code 1", Restarts: 3,
			}},
		})
		if e := explain(); len(e.GetObstacles()) != 1 || !strings.Contains(e.GetObstacles()[0].GetReason(), "in back-off") {
			t.Errorf("an instance in back-off: %v", e)
		}
		m.say(&masterv1.AllocateRequest{GoneInstances: []string{"web-2"}})
		m.startInstance(n, "web-3")
		if got := explain(); got.GetSummary() != "web is running: 2 of 2 instances healthy" || len(got.GetObstacles()) != 0 {
			t.Errorf("when all is well: %v", got)
		}
	})
}

func TestAWatchOfAnAppShowsItsWholeLife(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.deploy(webSpec(1))
		stream, err := z.apps().WatchApp(context.Background(), &apiv1.GetAppRequest{Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		first, err := stream.Recv()
		if err != nil || first.GetState() != apiv1.App_ACCEPTED {
			t.Fatalf("first: %v, %v", first.GetState(), err)
		}
		if _, err := z.apps().RemoveApp(context.Background(), &apiv1.RemoveAppRequest{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		last := apiv1.App_STATE_UNSPECIFIED
		for {
			app, err := stream.Recv()
			if err != nil {
				if status.Code(err) != codes.NotFound {
					t.Errorf("the watch ended with %v", err)
				}
				break
			}
			last = app.GetState()
		}
		if last != apiv1.App_REMOVED {
			t.Errorf("the last state seen is %v", last)
		}
	})
}

func TestEventsCanBeFilteredTailedAndFollowed(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.deploy(webSpec(1))
		other := webSpec(1)
		other.Name = "other"
		z.deploy(other)
		client := apiv1.NewEventsClient(z.conn)
		tail, err := client.WatchEvents(context.Background(), &apiv1.WatchEventsRequest{Tail: proto.Int32(1), Kind: "app"})
		if err != nil {
			t.Fatal(err)
		}
		if event, err := tail.Recv(); err != nil || event.GetApp() != "other" {
			t.Errorf("the last event of an app: %v, %v", event, err)
		}
		if event, err := tail.Recv(); err == nil {
			t.Errorf("and then %v", event)
		}
		follow, err := client.WatchEvents(context.Background(), &apiv1.WatchEventsRequest{Follow: true, App: "web", Kind: "app"})
		if err != nil {
			t.Fatal(err)
		}
		if event, err := follow.Recv(); err != nil || event.GetTo() != "ACCEPTED" {
			t.Fatalf("the first: %v, %v", event, err)
		}
		for _, name := range []string{"other", "web"} {
			if _, err := z.apps().StopApp(context.Background(), &apiv1.StopAppRequest{Name: name}); err != nil {
				t.Fatal(err)
			}
		}
		if event, err := follow.Recv(); err != nil || event.GetApp() != "web" || event.GetTo() != "STOPPING" {
			t.Errorf("the next: %v, %v", event, err)
		}
	})
}

func TestQueuesAreReplacedAsAWhole(t *testing.T) {
	inZone(t, func(z *testZone) {
		client := apiv1.NewQueuesClient(z.conn)
		half := &apiv1.Capacity{Percent: proto.Float64(50)}
		tree := []*apiv1.QueueSpec{{Name: "root"}, {Name: "apps", Parent: "root", Guaranteed: half}, {Name: "batch", Parent: "root", Guaranteed: half}}
		if _, err := client.SetQueues(context.Background(), &apiv1.SetQueuesRequest{Queues: tree}); err != nil {
			t.Fatal(err)
		}
		if _, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Spec: webSpec(1)}); status.Code(err) != codes.NotFound {
			t.Errorf("an app in a queue that is gone: %v", err)
		}
		spec := webSpec(1)
		spec.Queue = "apps"
		z.deploy(spec)
		if _, err := client.SetQueues(context.Background(), &apiv1.SetQueuesRequest{Queues: tree[:1]}); status.Code(err) == codes.OK {
			t.Error("a queue that has an app was taken away")
		}
		z.restart()
		queue, err := apiv1.NewQueuesClient(z.conn).GetQueue(context.Background(), &apiv1.GetQueueRequest{Name: "apps"})
		if err != nil || queue.GetApps() != 1 || queue.GetSpec().GetGuaranteed().GetPercent() != 50 {
			t.Errorf("after a restart: %v, %v", queue, err)
		}
	})
}

func TestAnImageThatAnAppUsesKeepsItsName(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		z.deploy(webSpec(1))
		client := apiv1.NewImagesClient(z.conn)
		_, err := client.RemoveImage(context.Background(), &apiv1.RemoveImageRequest{Name: "web:1"})
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "app web uses image web:1") {
			t.Errorf("removed while it is used: %v", err)
		}
		if _, err := client.RemoveImage(context.Background(), &apiv1.RemoveImageRequest{Name: "web:2"}); err != nil {
			t.Errorf("an image that no app uses: %v", err)
		}
		if err := z.rm.ImageUnused(context.Background(), "web:1", "sha256:another"); err != nil {
			t.Errorf("a name that has moved: %v", err)
		}
	})
}

// Another grace is no new version, and holds for the instances that run.
func TestAnotherGraceHoldsForRunningInstances(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		container := m.startInstance(n, "web-1")
		spec := webSpec(1)
		spec.Roles[0].Stop = &apiv1.StopPolicy{Grace: durationpb.New(42 * time.Second)}
		if app := z.deploy(spec); app.GetVersion() != 1 {
			t.Errorf("version %d is wanted", app.GetVersion())
		}
		m.say(&masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: container}}})
		if !n.stopped(container) {
			t.Fatal("the instance was not stopped")
		}
		if grace := n.stops[len(n.stops)-1].GetGrace().AsDuration(); grace != 42*time.Second {
			t.Errorf("it was stopped with a grace of %v", grace)
		}
	})
}
