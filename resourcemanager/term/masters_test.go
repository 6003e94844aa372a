package term

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

func masterContainer(z *testZone, name string) string {
	return z.app(name).GetMaster().GetContainerId()
}

func TestAMasterThatIsKilledIsReplacedAtOnceAndTheNextAdoptsAll(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(2))
		m := n.launchMaster()
		one, two := m.startInstance(n, "web-1"), m.startInstance(n, "web-2")
		m.say(&masterv1.AllocateRequest{Memo: []byte("remember")})
		for attempt := int32(2); attempt <= 31; attempt++ {
			n.done(masterContainer(z, "web"), &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 137})
			next := n.launchMaster()
			if next.attempt != attempt {
				t.Fatalf("the attempt after %d is %d", attempt-1, next.attempt)
			}
			if string(next.register.GetMemo()) != "remember" {
				t.Errorf("the memo came back as %q", next.register.GetMemo())
			}
			var adopted []string
			for _, allocation := range next.register.GetContainers() {
				adopted = append(adopted, allocation.GetLease().GetContainerId()+" "+allocation.GetLabels()["instance"])
			}
			if !slices.Equal(adopted, []string{one + " web-1", two + " web-2"}) {
				t.Fatalf("attempt %d is handed over %v", attempt, adopted)
			}
			if ids, _ := z.board.Serving("web"); !slices.Equal(ids, []string{"web-1", "web-2"}) {
				t.Fatalf("in the registry while masters change: %v", ids)
			}
		}
		if app := z.app("web"); app.GetState() != apiv1.App_RUNNING || app.GetRunning() != 2 {
			t.Errorf("after thirty deaths the app is %v with %d instances", app.GetState(), app.GetRunning())
		}
	})
}

func TestANewMasterIsGrantedNothingThatOnlyTheLastOneAskedFor(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		work := ask1("work")
		work.Count = 3
		work.Resources.CpuMillis = 3500 // one of them fits beside the master
		if got := len(allocated(m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{work}}))); got != 1 {
			t.Fatalf("a small node grants %d, want 1", got)
		}
		n.done(masterContainer(z, "web"), &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 137})
		next := n.launchMaster()
		if handed := len(next.register.GetContainers()); handed != 1 {
			t.Fatalf("the next master is handed %d containers, want 1", handed)
		}
		next.heard()
		z.addNode("node-2")
		z.addNode("node-3")
		if got := allocated(next.heard()); len(got) != 0 {
			t.Errorf("granted without having been asked for by this attempt: %v", got)
		}
		// Asking again under the id counts what was granted before.
		if got := len(allocated(next.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{work}}))); got != 2 {
			t.Errorf("asked again for 3 in total, of which 1 is held: %d were granted, want 2", got)
		}
	})
}

func TestMastersThatKeepFailingLeaveTheAppDegradedUntilAPersonRestartsIt(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		m.startInstance(n, "web-1")
		n.done(masterContainer(z, "web"), &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 2})
		for range 4 {
			z.pass(20 * time.Second) // longer than any back-off so far
			n.run(masterContainer(z, "web"), nil)
			n.done(masterContainer(z, "web"), &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 2})
		}
		app := z.app("web")
		if app.GetState() != apiv1.App_DEGRADED || !strings.Contains(app.GetReason(), "no master") {
			t.Fatalf("after five failures the app is %v: %s", app.GetState(), app.GetReason())
		}
		if ids, _ := z.board.Serving("web"); !slices.Equal(ids, []string{"web-1"}) {
			t.Errorf("the instances of a degraded app in the registry: %v", ids)
		}
		launched := len(n.launches)
		z.pass(time.Hour)
		if len(n.launches) != launched {
			t.Error("a degraded app started a master by itself")
		}
		if _, err := z.apps().RestartApp(context.Background(), &apiv1.RestartAppRequest{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		next := n.launchMaster()
		if len(next.register.GetContainers()) != 1 || z.app("web").GetState() != apiv1.App_RUNNING {
			t.Errorf("after the restart: %v with %d containers", z.app("web").GetState(), len(next.register.GetContainers()))
		}
	})
}

func TestAMasterThatNeverRegistersIsGivenUp(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		first := masterContainer(z, "web")
		n.run(first, nil)
		z.pass(time.Minute + 2*time.Second)
		if !n.stopped(first) {
			t.Error("its container was not stopped")
		}
		if got := z.app("web").GetMaster().GetAttempt(); got != 2 {
			t.Errorf("attempt %d follows", got)
		}
	})
}

func TestAnAttemptThatWasReplacedIsToldSoAndChangesNothing(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		old := n.launchMaster()
		old.startInstance(n, "web-1")
		old.cancel() // its stream breaks, it goes on running
		z.pass(time.Minute + 2*time.Second)
		m := n.launchMaster()
		if _, err := old.client.Register(metadataOf(old), &masterv1.RegisterRequest{AppId: old.app, Attempt: 1}); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("an old attempt registers: %v", err)
		}
		stream, err := old.client.Allocate(metadataOf(old))
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := stream.Recv(); err != nil || !answer.GetSuperseded() {
			t.Errorf("an old attempt's stream says %v, %v", answer, err)
		}
		if ids, _ := z.board.Serving("web"); len(ids) != 1 || len(m.register.GetContainers()) != 1 {
			t.Errorf("the new attempt has %d containers, the registry %v", len(m.register.GetContainers()), ids)
		}
		if _, err := m.client.Register(context.Background(), &masterv1.RegisterRequest{}); status.Code(err) != codes.Unauthenticated {
			t.Errorf("without a token: %v", err)
		}
	})
}

func TestAsksAreAbsolute(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		ask := ask1("web-1")
		ask.Count = 2
		if got := allocated(m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask}})); len(got) != 2 {
			t.Fatalf("two asked for, %d granted", len(got))
		}
		if got := allocated(m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask}})); len(got) != 0 {
			t.Errorf("sending it again granted %d more", len(got))
		}
		more := ask1("web-1")
		more.Count = 3
		if got := allocated(m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{more}})); len(got) != 1 {
			t.Errorf("one more in total granted %d", len(got))
		}
		big := ask1("web-9")
		big.Resources.CpuMillis = 100_000
		m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{big}})
		withdrawn := ask1("web-9")
		withdrawn.Resources.CpuMillis, withdrawn.Count = 100_000, 0
		m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{withdrawn}})
		explanation, err := z.apps().ExplainApp(context.Background(), &apiv1.GetAppRequest{Name: "web"})
		if err != nil || len(explanation.GetObstacles()) != 0 {
			t.Errorf("after the ask was withdrawn: %v, %v", explanation, err)
		}
	})
}

func TestAnInstanceIsWithdrawnOnceBalancersKnow(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		container := m.startInstance(n, "web-1")
		z.board.HoldBack()
		answers := m.say(&masterv1.AllocateRequest{Instances: []*masterv1.InstanceReport{{
			Id: "web-1", ContainerId: container, State: apiv1.Instance_DRAINING, InService: false, Weight: 100,
		}}})
		if ids, _ := z.board.Serving("web"); len(ids) != 0 {
			t.Errorf("still in the registry: %v", ids)
		}
		for _, answer := range answers {
			if len(answer.GetWithdrawn()) > 0 {
				t.Error("withdrawn before the balancers knew")
			}
		}
		z.board.Confirm()
		var withdrawn []string
		for _, answer := range m.heard() {
			withdrawn = append(withdrawn, answer.GetWithdrawn()...)
		}
		if !slices.Equal(withdrawn, []string{"web-1"}) {
			t.Errorf("withdrawn: %v", withdrawn)
		}
		// The first answer of the next stream repeats it.
		m.openStream()
		withdrawn = nil
		for _, answer := range m.heard() {
			withdrawn = append(withdrawn, answer.GetWithdrawn()...)
		}
		if !slices.Equal(withdrawn, []string{"web-1"}) {
			t.Errorf("repeated: %v", withdrawn)
		}
		// A master that has not heard of it repeats its report.
		withdrawn = nil
		for _, answer := range m.say(&masterv1.AllocateRequest{Instances: []*masterv1.InstanceReport{{
			Id: "web-1", ContainerId: container, State: apiv1.Instance_DRAINING, InService: false, Weight: 100,
		}}}) {
			withdrawn = append(withdrawn, answer.GetWithdrawn()...)
		}
		if !slices.Equal(withdrawn, []string{"web-1"}) {
			t.Errorf("after the report was repeated: %v", withdrawn)
		}
	})
}

func TestEndsAreRepeatedUntilTheyAreAcknowledged(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		container := m.startInstance(n, "web-1")
		n.done(container, &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 1})
		completed := func() (ids []string) {
			for _, answer := range m.heard() {
				for _, status := range answer.GetCompleted() {
					ids = append(ids, status.GetLease().GetContainerId())
				}
			}
			return ids
		}
		if got := completed(); !slices.Equal(got, []string{container}) {
			t.Fatalf("told: %v", got)
		}
		m.openStream()
		if got := completed(); !slices.Equal(got, []string{container}) {
			t.Errorf("told on the next stream: %v", got)
		}
		m.say(&masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: container}}})
		m.openStream()
		if got := completed(); len(got) != 0 {
			t.Errorf("told after it was acknowledged: %v", got)
		}
	})
}

func metadataOf(m *fakeMaster) context.Context {
	return context.WithoutCancel(m.ctx)
}

func TestWhatADeadMasterAskedForDoesNotTakeTheNextOnesRoom(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		// Of 4 cores the master has 0.1, and 0.4 are left, so that what it frees is room for one more.
		for i := range 9 {
			m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask1(fmt.Sprintf("web-%d", i+1))}})
		}
		z.pass(12 * time.Second) // by now the node is reserved for the next of them
		first := masterContainer(z, "web")
		n.done(first, &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 137})
		synctest.Wait()
		if next := masterContainer(z, "web"); next == "" || next == first {
			t.Errorf("the next master was given %q after %q", next, first)
		}
		if used := z.node("node-1").GetUsed().GetCpuMillis(); used != 3600 {
			t.Errorf("%d millicores are used, want 3600", used)
		}
	})
}
