package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
)

func TestAnOutlookIsToldInTheMastersWords(t *testing.T) {
	at := time.Now().Add(time.Hour).Truncate(time.Second)
	outlook := &apiv1.Outlook{Text: "the ring is closed", At: timestamppb.New(at), Unless: "a worker comes"}
	app := &apiv1.App{
		Name: "ring", State: apiv1.App_RUNNING, Spec: &apiv1.AppSpec{Name: "ring", Framework: "ring"},
		Status: &apiv1.MasterStatus{State: apiv1.MasterStatus_WAITING, Text: "no worker is there", Help: "add one", Outlook: outlook},
	}
	var shown bytes.Buffer
	if err := appText(&shown, app); err != nil {
		t.Fatal(err)
	}
	said := "the ring is closed at " + momentOf(at) + " unless a worker comes"
	for _, want := range []string{"status     waiting: no worker is there; add one\n", "outlook    " + said + "\n"} {
		if !strings.Contains(shown.String(), want) {
			t.Errorf("it shows\n%swant %q", &shown, want)
		}
	}
	if line := rolloutLines(app, "")[0]; line != "ring: waiting: no worker is there; add one" {
		t.Errorf("app rollout says %q", line)
	}
	if said := workText(app); said != "no worker is there, version 0; add one" {
		t.Errorf("--wait ends with %q", said)
	}
	app.State = apiv1.App_STOPPING
	if text := outlookText(app); text != "" {
		t.Errorf("of an app that is stopped it says %q", text)
	}
}

func TestWhoeverWaitsIsToldEachFailureThatCounts(t *testing.T) {
	var out bytes.Buffer
	lines := &lineProgress{out: &out, seen: map[string]string{}}
	at := time.Now().Add(time.Minute)
	status := &apiv1.MasterStatus{
		State: apiv1.MasterStatus_WORKING, Version: 2, Total: 1, Outlook: &apiv1.Outlook{Text: "version 2 is reverted after 5 failures, or without progress", At: timestamppb.New(at)},
	}
	app := &apiv1.App{Name: "web", Status: status, Instances: []*apiv1.Instance{{Id: "web-2", Version: 2}, {Id: "web-1", Version: 1, Failures: 3}}}
	lines.update(app)
	lines.end()
	out.Reset()
	lines.update(app)
	if out.Len() != 0 {
		t.Errorf("of a rollout that comes along it says\n%s", &out)
	}
	app.Waiting = []*apiv1.Waiting{{Text: "web-2 is not healthy yet", Instances: 1}}
	lines.update(app)
	lines.update(app)
	app.Waiting = nil
	for _, failures := range []int32{1, 1, 2} {
		app.Instances[0].Failures = failures
		status.Outlook.Text = fmt.Sprintf("version 2 failed %d times", failures)
		lines.update(app)
	}
	// A clock that pauses is not a change.
	status.Outlook = &apiv1.Outlook{Text: "version 2 is reverted after 5 failures"}
	app.Instances[0].Failures = 0
	lines.update(app)
	clock := momentOf(at)
	want := "web: version 2 is reverted after 5 failures, or without progress at " + clock + "\nweb: waiting: web-2 is not healthy yet\n"
	for failures := 1; failures <= 2; failures++ {
		want += fmt.Sprintf("web: version 2 failed %d times at %s\n", failures, clock)
	}
	if out.String() != want {
		t.Errorf("it says\n%swant\n%s", &out, want)
	}
}

func TestAReasonIsShownAsItWasMasked(t *testing.T) {
	app := &apiv1.App{Name: "web", Status: statusOf(&dynamicdeployv1.Rollout{State: dynamicdeployv1.Rollout_FAILED, Version: 2, Reason: "it said \x1b[2J"})}
	visibleMessage(app)
	var shown bytes.Buffer
	if err := appText(&shown, app); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(shown.String(), "it said") || strings.Contains(shown.String(), "\x1b") {
		t.Errorf("it shows %q", &shown)
	}
}

func TestAPausedRolloutNamesTheWaysOnOnce(t *testing.T) {
	app := canaryApp()
	app.Spec = &apiv1.AppSpec{Roles: []*apiv1.RoleSpec{{Update: &apiv1.UpdatePolicy{Strategy: apiv1.UpdatePolicy_CANARY, CanaryPercent: 10}}}}
	app.Waiting = []*apiv1.Waiting{
		{Text: "the rollout of version 2 is paused: a reason", Help: `"mammoth app promote web" gives it the whole app`},
		{Text: "web-5 waits for capacity", Instances: 1},
	}
	var shown, lines, screen bytes.Buffer
	if err := appText(&shown, app); err != nil {
		t.Fatal(err)
	}
	(&lineRollout{out: &lines}).update(app)
	(&liveRollout{liveProgress: liveProgress{out: &screen, columns: func() int { return 400 }}}).update(app)
	for where, text := range map[string]string{"app show": shown.String(), "app rollout": lines.String(), "app rollout on a terminal": screen.String()} {
		if strings.Count(text, "promote") != 1 || strings.Count(text, "web-5 waits for capacity") != 1 {
			t.Errorf("%s says\n%s", where, text)
		}
	}
}
