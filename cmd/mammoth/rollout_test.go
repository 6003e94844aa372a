package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
)

func canaryApp() *apiv1.App {
	app := &apiv1.App{Name: "web", Status: statusOf(&dynamicdeployv1.Rollout{
		State: dynamicdeployv1.Rollout_PAUSED, Version: 2, Updated: 1, Total: 3, Percent: 10, Reason: "a reason", Canary: true,
	})}
	for i, version := range []int32{1, 1, 1, 2} {
		app.Instances = append(app.Instances, &apiv1.Instance{
			Id: "web-" + string(rune('1'+i)), Version: version, State: apiv1.Instance_RUNNING, Node: "node-1",
		})
	}
	return app
}

// statusOf is the status of an app whose rollout is as given.
func statusOf(rollout *dynamicdeployv1.Rollout) *apiv1.MasterStatus {
	detail, err := anypb.New(rollout)
	if err != nil {
		panic(err)
	}
	status := &apiv1.MasterStatus{
		Version: rollout.GetVersion(), Reason: rollout.GetReason(), Done: rollout.GetUpdated(), Total: rollout.GetTotal(), Detail: detail,
	}
	switch rollout.GetState() {
	case dynamicdeployv1.Rollout_PROGRESSING:
		status.State = apiv1.MasterStatus_WORKING
	case dynamicdeployv1.Rollout_PAUSED:
		status.State, status.Text = apiv1.MasterStatus_WAITING, fmt.Sprintf("the rollout of version %d is paused", rollout.GetVersion())
		status.Help = `"mammoth app promote web" gives it the whole app`
	case dynamicdeployv1.Rollout_FAILED:
		status.State, status.Text = apiv1.MasterStatus_FAILED, fmt.Sprintf("the rollout of version %d failed", rollout.GetVersion())
		status.Help = `"mammoth app rollback" goes back to version 1`
	case dynamicdeployv1.Rollout_DONE, dynamicdeployv1.Rollout_REVERTED:
		status.State = apiv1.MasterStatus_DONE
	}
	return status
}

func TestARolloutIsALineForEachChange(t *testing.T) {
	out := &bytes.Buffer{}
	show := &lineRollout{out: out}
	app := canaryApp()
	show.update(app)
	show.update(app)
	app.Status = statusOf(&dynamicdeployv1.Rollout{State: dynamicdeployv1.Rollout_DONE, Version: 2, Updated: 3, Total: 3, Percent: 100})
	show.update(app)
	want := "web: version 2 is paused, 1 of 3 instances, 10 % of the requests: a reason; \"mammoth app promote web\" gives it the whole app\n" +
		"web: version 2 is done, 3 of 3 instances\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

func TestARolloutIsRedrawnOnATerminal(t *testing.T) {
	out := &bytes.Buffer{}
	show := &liveRollout{liveProgress: liveProgress{out: out, columns: func() int { return 60 }}}
	show.update(canaryApp())
	first := out.String()
	if !strings.Contains(first, "version 1  ██████████████████████  3 of 3 run") || !strings.Contains(first, "version 2  ███████                 1 of 1 run") {
		t.Errorf("the first frame is\n%s", first)
	}
	out.Reset()
	show.update(canaryApp())
	if !strings.HasPrefix(out.String(), "\x1b[7A") {
		t.Errorf("the second frame is not drawn over the seven lines of the first: %q", out.String()[:10])
	}
}

func TestSharesOfRequests(t *testing.T) {
	for text, want := range map[string]int32{"10%": 10, "1": 1, "100%": 100, "0%": 0, "101%": 0, "ten": 0, "-5%": 0, "": 0} {
		got, err := parsePercent(text)
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
}
