package term

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// startMaster lets a program outside of the zone be the master of an app. It has not connected yet.
func (z *testZone) startMaster(app string) *fakeMaster {
	z.t.Helper()
	started, err := z.rm.StartMaster(as("root"), externalSpec(app))
	if err != nil {
		z.t.Fatal(err)
	}
	m := &fakeMaster{z: z, app: started.GetAppId(), attempt: started.GetAttempt(), bearer: started.GetToken()}
	m.ctx, m.cancel = context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+m.bearer))
	z.pass(0)
	return m
}

func externalSpec(app string) *apiv1.AppSpec {
	return &apiv1.AppSpec{Name: app, Kind: apiv1.AppSpec_EXTERNAL, Queue: "default"}
}

func TestAProgramOutsideOfTheZoneIsAMaster(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		shown := func(state apiv1.App_State, outcome apiv1.App_Outcome, reason string) {
			t.Helper()
			app := z.app("numbers")
			text := app.GetReason()
			for _, w := range app.GetWaiting() {
				text += "; " + w.GetText() + "; " + w.GetHelp()
			}
			if app.GetState() != state || app.GetOutcome() != outcome || !strings.Contains(text, reason) {
				t.Errorf("it is shown as %v, %v, %q; want %v, %v, %q", app.GetState(), app.GetOutcome(), text, state, outcome, reason)
			}
		}
		first := z.startMaster("numbers")
		z.pass(time.Second)
		shown(apiv1.App_ACCEPTED, apiv1.App_OUTCOME_NONE, "its application master (attempt 1) was started outside of the zone, and has not registered yet")
		first.connect()
		z.pass(time.Second)
		shown(apiv1.App_RUNNING, apiv1.App_OUTCOME_NONE, "")
		held := allocated(first.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask1("one")}}))[0].GetLease().GetContainerId()
		n.run(held, nil)

		// A second one takes over.
		second := z.startMaster("numbers")
		if answers := first.heard(); len(answers) == 0 || !answers[len(answers)-1].GetSuperseded() {
			t.Errorf("the first master is told %v", answers)
		}
		second.connect()
		if containers := second.register.GetContainers(); second.attempt != 2 || len(containers) != 1 || containers[0].GetLease().GetContainerId() != held {
			t.Errorf("attempt %d is handed %v", second.attempt, containers)
		}

		// Without one, what it has started runs on. A ResourceManager that was restarted starts none by itself either.
		second.cancel()
		z.pass(2 * time.Minute)
		shown(apiv1.App_ACCEPTED, apiv1.App_OUTCOME_NONE, `its application master is a program outside of the zone, and does not run; "mammoth app run numbers -- COMMAND" starts it`)
		z.restart()
		n.register()
		z.pass(2 * time.Minute)
		if z.app("numbers").GetState() != apiv1.App_ACCEPTED || n.stopped(held) {
			t.Errorf("without a master the app is %v; its container was stopped: %v", z.app("numbers").GetState(), n.stopped(held))
		}

		// The end of its work is the end of the app.
		third := z.startMaster("numbers")
		third.connect()
		third.say(&masterv1.AllocateRequest{Memo: []byte("99 of 100"), Status: &apiv1.MasterStatus{State: apiv1.MasterStatus_WORKING, Text: "99 of 100 are counted"}})
		if status := z.app("numbers").GetStatus(); status.GetText() != "99 of 100 are counted" || status.GetVersion() != 1 {
			t.Errorf("of a status that names no version people are shown %v", status)
		}
		explained, err := z.apps().ExplainApp(context.Background(), &apiv1.GetAppRequest{Name: "numbers"})
		if want := "numbers is running: 0 instances healthy; 99 of 100 are counted"; err != nil || explained.GetSummary() != want {
			t.Errorf("explain says %q, %v, want %q", explained.GetSummary(), err, want)
		}
		third.say(&masterv1.AllocateRequest{Status: &apiv1.MasterStatus{
			State: apiv1.MasterStatus_FAILED, Text: "99 of 100 are counted", Reason: "the last one is blank", Help: "fill it in",
			Outlook: &apiv1.Outlook{Text: "it is left out", At: timestamppb.New(time.Now().Add(time.Minute))},
		}})
		z.pass(time.Second)
		explained, err = z.apps().ExplainApp(context.Background(), &apiv1.GetAppRequest{Name: "numbers"})
		if want := "numbers is running: 0 instances healthy; 99 of 100 are counted; it is left out in 59s"; err != nil || explained.GetSummary() != want {
			t.Errorf("explain says %q, %v, want %q", explained.GetSummary(), err, want)
		}
		if o := explained.GetObstacles(); len(o) != 1 || o[0].GetReason() != "99 of 100 are counted: the last one is blank" || o[0].GetHelp() != "fill it in" {
			t.Errorf("explain names %v", o)
		}
		if _, err := third.client.Finish(third.ctx, &masterv1.FinishRequest{Reason: "all is counted"}); err != nil {
			t.Fatal(err)
		}
		z.pass(0)
		if !n.stopped(held) {
			t.Error("a container outlives the work")
		}
		n.done(held, &corev1.Exit{Reason: corev1.Exit_STOPPED})
		z.pass(time.Second)
		shown(apiv1.App_STOPPED, apiv1.App_SUCCEEDED, "all is counted")

		// It may begin anew, and end in other ways.
		fourth := z.startMaster("numbers")
		fourth.connect()
		if status := z.app("numbers").GetStatus(); status.GetState() != apiv1.MasterStatus_NONE {
			t.Errorf("other work begins with the status %v", status)
		}
		if memo := fourth.register.GetMemo(); len(memo) > 0 {
			t.Errorf("other work begins with %q", memo)
		}
		for _, answer := range fourth.heard() {
			if len(answer.GetCompleted()) > 0 {
				t.Errorf("other work begins with the ends %v", answer.GetCompleted())
			}
		}
		shown(apiv1.App_RUNNING, apiv1.App_OUTCOME_NONE, "")
		if _, err := fourth.client.Finish(fourth.ctx, &masterv1.FinishRequest{Failed: true, Reason: "a number is missing"}); err != nil {
			t.Fatal(err)
		}
		z.pass(time.Second)
		shown(apiv1.App_STOPPED, apiv1.App_FAILED, "a number is missing")
		z.restart()
		shown(apiv1.App_STOPPED, apiv1.App_FAILED, "a number is missing")
		z.startMaster("numbers").connect()
		if _, err := z.rm.Stop(as("root"), "numbers"); err != nil {
			t.Fatal(err)
		}
		z.pass(time.Second)
		shown(apiv1.App_STOPPED, apiv1.App_KILLED, "stopped it")
	})
}

func TestWhoMayNotBeAMasterIsRefused(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		z.deploy(webSpec(1))
		z.startMaster("numbers")
		refused := func(what string, err error, code codes.Code, part string) {
			t.Helper()
			if status.Code(wire.Status(err)) != code || !strings.Contains(status.Convert(wire.Status(err)).Message(), part) {
				t.Errorf("%s: %v, want %v with %q", what, err, code, part)
			}
		}
		_, err := z.rm.StartMaster(as("root"), externalSpec("web"))
		refused("of an app of the zone's", err, codes.FailedPrecondition, "web is deployed, and the zone runs its application master; choose another name")
		unknown := externalSpec("other")
		unknown.Queue = "none"
		_, err = z.rm.StartMaster(as("root"), unknown)
		refused("a queue that is not there", err, codes.NotFound, "none")
		_, err = z.apps().StartMaster(context.Background(), &apiv1.StartMasterRequest{Name: "Web!"})
		refused("a bad name", err, codes.InvalidArgument, "name")
		_, err = z.apps().StartMaster(context.Background(), &apiv1.StartMasterRequest{Name: "other"})
		refused("somebody who may not run programs", err, codes.PermissionDenied, "may not start the application master of other, which may run any program on the nodes")
		_, err = z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Spec: &apiv1.AppSpec{Name: "other", Kind: apiv1.AppSpec_EXTERNAL}})
		refused("a deployment of the kind", err, codes.InvalidArgument, "is not deployed")
		other := webSpec(1)
		other.Name = "numbers"
		_, err = z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Spec: other, IfGeneration: -1})
		refused("a deployment over it", err, codes.FailedPrecondition, "is a program outside of the zone; nothing can be deployed over it")
		_, err = z.apps().GetAppManifest(context.Background(), &apiv1.GetAppRequest{Name: "numbers"})
		refused("its manifest", err, codes.FailedPrecondition, "numbers has no manifest")
		_, err = z.rm.Scale(as("root"), &apiv1.ScaleAppRequest{Name: "numbers", Instances: 3})
		refused("its count", err, codes.FailedPrecondition, "the application master of numbers is a program outside of the zone; it decides itself")
		_, err = z.rm.Restart(as("root"), "numbers")
		refused("a restart", err, codes.FailedPrecondition, `"mammoth app run numbers -- COMMAND" starts it`)
		if _, err := z.rm.Remove(as("root"), "numbers"); err != nil {
			t.Fatal(err)
		}
		z.pass(time.Second)
		_, err = z.apps().GetApp(context.Background(), &apiv1.GetAppRequest{Name: "numbers"})
		refused("once it is removed", err, codes.NotFound, "numbers")
	})
}
