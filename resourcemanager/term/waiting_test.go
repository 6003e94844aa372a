package term

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// narrowQueue is a tree whose queue "narrow" may hold one instance of webSpec and its master, and little more.
func narrowQueue() *apiv1.SetQueuesRequest {
	return &apiv1.SetQueuesRequest{Queues: []*apiv1.QueueSpec{
		{Name: "root"},
		{Name: "default", Parent: "root"},
		{Name: "narrow", Parent: "root", Maximum: &apiv1.Capacity{Absolute: &corev1.Resources{CpuMillis: 700, MemoryBytes: 4 << 30, DiskBytes: 4 << 30}}},
	}}
}

// oldFirst is what a master says would help.
const oldFirst = "an old instance goes first"

// fullQueue has an app of one instance at its second version, for whose first new instance its queue leaves no room.
func fullQueue(z *testZone) (*fakeNode, *fakeMaster) {
	if _, err := z.rm.SetQueues(context.Background(), narrowQueue()); err != nil {
		z.t.Fatal(err)
	}
	n := z.addNode("node-1")
	spec := webSpec(1)
	spec.Queue = "narrow"
	z.deploy(spec)
	m := n.launchMaster()
	m.startInstance(n, "web-1")
	m.say(&masterv1.AllocateRequest{Status: done(1, 1), ObservedGeneration: 1})
	next := spec2(1)
	next.Queue = "narrow"
	z.deploy(next)
	ask := ask1("web-2")
	ask.Help = oldFirst
	m.say(&masterv1.AllocateRequest{
		ObservedGeneration: 2, Asks: []*masterv1.Ask{ask},
		Instances: []*masterv1.InstanceReport{{Id: "web-2", Version: 2, State: apiv1.Instance_PENDING}},
		Status:    &apiv1.MasterStatus{Version: 2, State: apiv1.MasterStatus_WORKING, Total: 1},
	})
	return n, m
}

func waitingEvents(z *testZone, app string) (messages []string) {
	for _, event := range z.events(app) {
		if event.GetTo() == "WAITING" {
			messages = append(messages, event.GetMessage())
		}
	}
	return messages
}

func TestARolloutInAFullQueueSaysWhichLimitAndWhatWouldDo(t *testing.T) {
	inZone(t, func(z *testZone) {
		n, m := fullQueue(z)
		z.pass(time.Second)
		const why = "web-2 waits for capacity: queue narrow holds 0.6 cpu of its maximum of 0.7 cpu; 0.5 cpu more are requested"
		const help = oldFirst
		app := z.app("web")
		if len(app.GetWaiting()) != 1 || app.GetWaiting()[0].GetText() != why || app.GetWaiting()[0].GetHelp() != help || app.GetWaiting()[0].GetInstances() != 1 {
			t.Fatalf("it says %v", app.GetWaiting())
		}
		if got := app.GetInstances()[1]; got.GetId() != "web-2" || !strings.HasPrefix(got.GetReason(), "it waits for capacity: queue narrow holds") {
			t.Errorf("its instance says %v", got)
		}
		var told *masterv1.Waits
		for _, answer := range m.heard() {
			if answer.GetWaits() != nil {
				told = answer.GetWaits()
			}
		}
		if len(told.GetWaiting()) != 1 || told.GetWaiting()[0].GetText() != why {
			t.Errorf("the master is told %v", told)
		}
		explained, err := z.apps().ExplainApp(context.Background(), &apiv1.GetAppRequest{Name: "web"})
		if err != nil || len(explained.GetObstacles()) != 1 || explained.GetObstacles()[0].GetHelp() != help {
			t.Errorf("explain says %v, %v", explained, err)
		}
		z.pass(time.Minute)
		if got := waitingEvents(z, "web"); len(got) != 1 || got[0] != "web: "+why+"; "+help {
			t.Errorf("events: %q", got)
		}
		since := z.app("web").GetWaiting()[0].GetSince()
		z.restart()
		n.register()
		m.connect()
		z.pass(10 * time.Second)
		if got := z.app("web").GetWaiting(); len(got) != 1 || got[0].GetText() != why || !got[0].GetSince().AsTime().Equal(since.AsTime()) {
			t.Errorf("after a restart it says %v", got)
		}
	})
}

func TestWhatAnInstanceWaitsForIsOverAtOnceWhenNothingIsMissing(t *testing.T) {
	inZone(t, func(z *testZone) {
		_, m := fullQueue(z)
		z.pass(time.Second)
		// It was looked at just now, so that it is not looked at again for what comes next.
		m.say(&masterv1.AllocateRequest{Instances: []*masterv1.InstanceReport{{Id: "web-2", Version: 2, State: apiv1.Instance_PENDING, Restarts: 1}}})
		if got := z.app("web").GetWaiting(); len(got) != 1 {
			t.Fatalf("an instance is not there, and it says %v", got)
		}
		m.say(&masterv1.AllocateRequest{GoneInstances: []string{"web-2"}, Status: done(2, 1)})
		if got := z.app("web").GetWaiting(); len(got) != 0 {
			t.Errorf("nothing is missing, and it says %v", got)
		}
		z.pass(time.Minute)
		if got := waitingEvents(z, "web"); len(got) != 1 {
			t.Errorf("events: %q", got)
		}
	})
}

func TestWhatIsInTheCourseOfThingsIsNoReasonUntilItLasts(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		granted := allocated(m.say(&masterv1.AllocateRequest{ObservedGeneration: 1, Asks: []*masterv1.Ask{ask1("web-1")}}))
		container := granted[0].GetLease().GetContainerId()
		n.report(container, func(s *corev1.ContainerStatus) {
			s.State, s.Labels = corev1.ContainerStatus_LOCALIZING, map[string]string{"instance": "web-1", "version": "1"}
		})
		m.say(&masterv1.AllocateRequest{Instances: []*masterv1.InstanceReport{{Id: "web-1", ContainerId: container, Version: 1, State: apiv1.Instance_DOWNLOADING}}})
		z.pass(2 * time.Second)
		if got := z.app("web").GetWaiting(); len(got) != 0 {
			t.Errorf("after two seconds it says %v", got)
		}
		z.pass(3 * time.Second)
		if got := z.app("web").GetWaiting(); len(got) != 1 || got[0].GetText() != "web-1 downloads its image on node-1: web:1" {
			t.Errorf("after five seconds it says %v", got)
		}
		n.report(container, func(s *corev1.ContainerStatus) {
			s.State, s.Health, s.HealthDetail = corev1.ContainerStatus_RUNNING, corev1.ContainerStatus_STARTING, "GET /healthz answers 404"
		})
		m.say(&masterv1.AllocateRequest{Instances: []*masterv1.InstanceReport{{Id: "web-1", ContainerId: container, Version: 1, State: apiv1.Instance_STARTING}}})
		z.pass(4 * time.Second)
		if got := z.app("web").GetWaiting(); len(got) != 1 || got[0].GetText() != "web-1 is not healthy yet: the last probe: GET /healthz answers 404" {
			t.Errorf("while its probe fails it says %v", got)
		}
		n.reportHealth(&corev1.NodeHealth{Reason: "the engine does not answer"})
		z.pass(2 * time.Second)
		if got := z.app("web").GetWaiting(); len(got) != 1 || got[0].GetText() != "web-1 is not healthy yet: node-1 is unhealthy: the engine does not answer" {
			t.Errorf("while its node is unwell it says %v", got)
		}
	})
}

func TestEveryStateThatLastsSaysWhy(t *testing.T) {
	says := func(z *testZone, want string) {
		t.Helper()
		z.pass(5 * time.Second)
		for _, waiting := range z.app("web").GetWaiting() {
			if strings.Contains(waiting.GetText(), want) {
				return
			}
		}
		t.Errorf("it says %v, want %q", z.app("web").GetWaiting(), want)
	}
	inZone(t, func(z *testZone) {
		z.deploy(webSpec(1))
		says(z, "its application master (attempt 1) waits for capacity: no node has registered")
		n := z.addNode("node-1")
		n.lastLaunch()
		says(z, "its application master (attempt 1) was launched on node-1 and has not registered yet")
		m := n.launchMaster()
		says(z, "its application master has not applied the newest change yet")
		m.say(&masterv1.AllocateRequest{ObservedGeneration: 1, Instances: []*masterv1.InstanceReport{{
			Id: "web-1", Version: 1, State: apiv1.Instance_BACKOFF, Reason: "failed twice within 10m0s, last: exited with code 7",
			NextAttemptAt: timestamppb.New(time.Now().Add(30 * time.Second)),
		}}})
		says(z, "web-1 is in back-off: failed twice within 10m0s, last: exited with code 7")
		if until := z.app("web").GetWaiting()[0].GetUntil(); until == nil {
			t.Error("it does not say when it is tried again")
		}
		m.say(&masterv1.AllocateRequest{GoneInstances: []string{"web-1"}})
		container := m.startInstance(n, "web-1")
		m.say(&masterv1.AllocateRequest{Status: &apiv1.MasterStatus{Version: 1, State: apiv1.MasterStatus_WAITING, Done: 1, Total: 1, Text: "the rollout of version 1 is paused", Reason: "a person paused it"}})
		says(z, "the rollout of version 1 is paused: a person paused it")
		m.say(cameUp(1, 1))
		z.pass(5 * time.Second)
		if got := z.app("web").GetWaiting(); len(got) != 0 {
			t.Errorf("nothing is missing, and it says %v", got)
		}
		m.cancel()
		synctest.Wait()
		says(z, "its application master is not connected")
		if _, err := z.apps().RemoveApp(context.Background(), &apiv1.RemoveAppRequest{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		n.deaf.Store(true)
		z.pass(5 * time.Minute)
		says(z, "web-1 is being stopped on node-1")
		n.cut()
		z.pass(time.Minute)
		says(z, "node-1 is lost and holds 2 containers of it that nobody has seen gone")
		_ = container
	})
}

func TestReasonsThatChangeToAndFroAreToldOfNowAndThen(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		for i := range 60 {
			state := []apiv1.Instance_State{apiv1.Instance_BACKOFF, apiv1.Instance_UNHEALTHY}[i%2]
			m.say(&masterv1.AllocateRequest{ObservedGeneration: 1, Instances: []*masterv1.InstanceReport{{Id: "web-1", Version: 1, State: state, Reason: "it failed"}}})
			z.pass(time.Second)
		}
		if got := waitingEvents(z, "web"); len(got) < 5 || len(got) > 7 {
			t.Errorf("%d events in a minute: %q", len(got), got)
		}
	})
}

// What a state is called in a table is not always a word for a sentence.
func TestEachStateOfAnInstanceIsASentence(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		for state, want := range map[apiv1.Instance_State]string{
			apiv1.Instance_DOWNLOADING: "web-1 is downloading: why", apiv1.Instance_LOADING: "web-1 is loading: why",
			apiv1.Instance_STARTING: "web-1 is starting: why", apiv1.Instance_RUNNING: "web-1 is running: why",
			apiv1.Instance_UNHEALTHY: "web-1 is unhealthy: why", apiv1.Instance_DRAINING: "web-1 is draining: why",
			apiv1.Instance_STOPPING: "web-1 is stopping: why", apiv1.Instance_BACKOFF: "web-1 is in back-off: why",
			apiv1.Instance_UNREACHABLE: "web-1 is unreachable: why",
		} {
			m.say(&masterv1.AllocateRequest{ObservedGeneration: 1, Instances: []*masterv1.InstanceReport{{Id: "web-1", Version: 1, State: state, Reason: "why"}}})
			z.pass(time.Second)
			last := ""
			for _, event := range z.events("web") {
				if event.GetKind() == "instance" {
					last = event.GetMessage()
				}
			}
			if last != want {
				t.Errorf("%s: %q, want %q", state, last, want)
			}
		}
	})
}

func TestAnAppShowsAFewReasonsOnly(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(20))
		m := n.launchMaster()
		var reports []*masterv1.InstanceReport
		for i := range 20 {
			reports = append(reports, &masterv1.InstanceReport{Id: fmt.Sprintf("web-%d", i+1), Version: 1, State: apiv1.Instance_BACKOFF, Reason: strings.Repeat("x", i+1)})
		}
		m.say(&masterv1.AllocateRequest{ObservedGeneration: 1, Instances: reports})
		z.pass(time.Second)
		got := z.app("web").GetWaiting()
		if len(got) != 8 || got[1].GetText() != "web-2 is in back-off: xx" {
			t.Errorf("%d reasons: %v", len(got), got)
		}
	})
}

func TestANodeThatIsDrainedSaysWhatKeepsItsContainers(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		m.startInstance(n, "web-1")
		m.say(&masterv1.AllocateRequest{ObservedGeneration: 1, Status: done(1, 1)})
		if _, err := z.rm.Drain(context.Background(), "node-1", "a new disk"); err != nil {
			t.Fatal(err)
		}
		m.say(&masterv1.AllocateRequest{
			Asks: []*masterv1.Ask{ask1("web-2")}, Instances: []*masterv1.InstanceReport{{Id: "web-2", Version: 1, State: apiv1.Instance_PENDING}},
		})
		z.pass(time.Second)
		waiting := z.node("node-1").GetWaiting()
		if len(waiting) != 1 || waiting[0].GetText() != "web: web-2 waits for capacity: no node is open: node-1 is being drained" {
			t.Errorf("it says %v", waiting)
		}
		again, err := z.rm.Drain(context.Background(), "node-1", "a new disk")
		if err != nil || len(again.GetWaiting()) != 1 || again.GetWaiting()[0].GetText() != waiting[0].GetText() {
			t.Errorf("to whoever drains it again it says %v, %v", again.GetWaiting(), err)
		}
	})
}

func TestANodeThatIsDrainedShowsAFewReasonsOnly(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		for _, app := range []string{"shop", "web"} {
			spec := webSpec(6)
			spec.Name = app
			z.deploy(spec)
			m := n.launchMaster()
			m.startInstance(n, app+"-7")
			var reports []*masterv1.InstanceReport
			for i := range 6 {
				reports = append(reports, &masterv1.InstanceReport{Id: fmt.Sprintf("%s-%d", app, i+1), Version: 1, State: apiv1.Instance_BACKOFF, Reason: strings.Repeat("x", i+1)})
			}
			m.say(&masterv1.AllocateRequest{ObservedGeneration: 1, Instances: reports})
		}
		if _, err := z.rm.Drain(context.Background(), "node-1", "a new disk"); err != nil {
			t.Fatal(err)
		}
		z.pass(time.Second)
		if got := z.node("node-1").GetWaiting(); len(got) != 8 || got[7].GetText() != "web: web-2 is in back-off: xx" {
			t.Errorf("%d reasons: %v", len(got), got)
		}
	})
}

func TestAnAppThatFailsItsProbeSaysWhatItSawAndWhatComesOfIt(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		container := m.startInstance(n, "web-1")
		const saw, comes = "GET /wrong answered 404", "GET /wrong answered 404; unless healthy 1m0s after the start, that is failure 3 of 5 of version 1"
		failsAt := timestamppb.New(time.Now().Add(90 * time.Second))
		n.report(container, func(status *corev1.ContainerStatus) {
			status.State, status.Health, status.HealthDetail = corev1.ContainerStatus_RUNNING, corev1.ContainerStatus_STARTING, saw
		})
		m.say(&masterv1.AllocateRequest{
			ObservedGeneration: 1,
			Instances:          []*masterv1.InstanceReport{{Id: "web-1", ContainerId: container, Version: 1, State: apiv1.Instance_STARTING, Reason: comes}},
			Status: &apiv1.MasterStatus{
				Version: 1, State: apiv1.MasterStatus_WORKING, Total: 1,
				Outlook: &apiv1.Outlook{Text: "version 1 failed 5 times, which is too often; it is reverted", At: failsAt, Unless: "a node turns out to be to blame"},
			},
		})
		z.pass(10 * time.Second)
		app := z.app("web")
		if got := app.GetWaiting(); len(got) != 1 || got[0].GetText() != "web-1 is not healthy yet: the last probe: "+comes {
			t.Errorf("it waits for %v", got)
		}
		if outlook := app.GetStatus().GetOutlook(); !outlook.GetAt().AsTime().Equal(failsAt.AsTime()) {
			t.Errorf("its outlook is %v", outlook)
		}
		explained, err := z.apps().ExplainApp(context.Background(), &apiv1.GetAppRequest{Name: "web"})
		if want := "; version 1 failed 5 times, which is too often; it is reverted in 1m20s unless a node turns out to be to blame"; err != nil || !strings.HasSuffix(explained.GetSummary(), want) {
			t.Errorf("explain says %q, %v", explained.GetSummary(), err)
		}
	})
}
