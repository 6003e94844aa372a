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

func TestAVersionThatFailsSaysHowOftenItMayAndForHowLong(t *testing.T) {
	at := time.Now().Add(time.Hour).Truncate(time.Second)
	clock := momentOf(at)
	rollout := func(failures int32, reverts bool, failsAt *timestamppb.Timestamp) *dynamicdeployv1.Rollout {
		return &dynamicdeployv1.Rollout{
			State: dynamicdeployv1.Rollout_PROGRESSING, Version: 2, Failures: failures, MaxFailures: 5, FailsAt: failsAt, Reverts: reverts,
		}
	}
	for want, r := range map[string]*dynamicdeployv1.Rollout{
		"": {State: dynamicdeployv1.Rollout_DONE, Version: 2},
		"version 2: it is reverted after 5 failures, or at " + clock + " without progress":                         rollout(0, true, timestamppb.New(at)),
		"version 2: its rollout fails after 5 failures":                                                            rollout(0, false, nil),
		"version 2 failed 2 of 5 times; it is reverted after 5, or at " + clock + " without progress":              rollout(2, true, timestamppb.New(at)),
		"version 2 failed 2 of 5 times; its rollout fails after 5":                                                 rollout(2, false, nil),
		"version 2 failed 5 of 5 times; it is reverted at " + clock + " unless a node turns out to be to blame":    rollout(5, true, timestamppb.New(at)),
		"version 2 failed 5 of 5 times; its rollout fails at " + clock + " unless a node turns out to be to blame": rollout(5, false, timestamppb.New(at)),
	} {
		if got := failureOutlook(&apiv1.App{Status: statusOf(r)}); got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
}

func TestWhoeverWaitsIsToldEachFailureThatCounts(t *testing.T) {
	var out bytes.Buffer
	lines := &lineProgress{out: &out, seen: map[string]string{}}
	at := time.Now().Add(time.Minute)
	rollout := &dynamicdeployv1.Rollout{
		State: dynamicdeployv1.Rollout_PROGRESSING, Version: 2, Total: 1, MaxFailures: 5, FailsAt: timestamppb.New(at), Reverts: true,
	}
	app := &apiv1.App{Name: "web", Status: statusOf(rollout)}
	lines.update(app)
	if out.Len() != 0 {
		t.Errorf("of a rollout that comes along it says\n%s", &out)
	}
	app.Waiting = []*apiv1.Waiting{{Text: "web-2 is not healthy yet", Instances: 1}}
	lines.update(app)
	lines.update(app)
	app.Waiting = nil
	for _, failures := range []int32{1, 1, 2} {
		rollout.Failures = failures
		app.Status = statusOf(rollout)
		lines.update(app)
	}
	clock := momentOf(at)
	want := "web: version 2: it is reverted after 5 failures, or at " + clock + " without progress\nweb: waiting: web-2 is not healthy yet\n"
	for failures := 1; failures <= 2; failures++ {
		want += fmt.Sprintf("web: version 2 failed %d of 5 times; it is reverted after 5, or at %s without progress\n", failures, clock)
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
	(&liveRollout{liveProgress{out: &screen, columns: func() int { return 400 }}}).update(app)
	for where, text := range map[string]string{"app show": shown.String(), "app rollout": lines.String(), "app rollout on a terminal": screen.String()} {
		if strings.Count(text, "promote") != 1 || strings.Count(text, "web-5 waits for capacity") != 1 {
			t.Errorf("%s says\n%s", where, text)
		}
	}
}
