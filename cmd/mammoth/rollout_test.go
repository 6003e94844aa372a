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

// shopApp is an app with a front and a db whose rollouts are in these states.
func shopApp(version int32, front, db dynamicdeployv1.Rollout_State, whole dynamicdeployv1.Rollout_State) *apiv1.App {
	return &apiv1.App{
		Name: "shop", State: apiv1.App_RUNNING, Version: version, ObservedGeneration: 1,
		Spec: &apiv1.AppSpec{Roles: []*apiv1.RoleSpec{{Name: "front"}, {Name: "db"}}},
		Status: statusOf(&dynamicdeployv1.Rollout{
			State: whole, Version: version, Updated: 2, Total: 3, Reason: "front is a canary with 10 % of the requests",
			Roles: []*dynamicdeployv1.RoleRollout{
				{Role: "front", State: front, Updated: 1, Total: 2, Percent: 10, Reason: "it waits"}, {Role: "db", State: db, Updated: 1, Total: 1, Percent: 100},
			},
		}),
	}
}

func TestTheRolloutsOfSeveralRolesAreALineEach(t *testing.T) {
	const paused, done = dynamicdeployv1.Rollout_PAUSED, dynamicdeployv1.Rollout_DONE
	out := &bytes.Buffer{}
	whole, front := &lineRollout{out: out}, &lineRollout{out: out, role: "front"}
	app := shopApp(2, paused, dynamicdeployv1.Rollout_PROGRESSING, dynamicdeployv1.Rollout_PROGRESSING)
	app.Status.Reason = ""
	whole.update(app)
	// Only what has changed is said again.
	whole.update(shopApp(2, paused, done, paused))
	front.update(app)
	want := `shop: version 2 is progressing, 2 of 3 instances
shop, role front: paused, 1 of 2 instances, 10 % of the requests: it waits
shop, role db: progressing, 1 of 1 instances, 100 % of the requests
shop: version 2 is paused, 2 of 3 instances: front is a canary with 10 % of the requests; "mammoth app promote web" gives it the whole app
shop, role db: done, 1 of 1 instances
shop, role front: paused, 1 of 2 instances, 10 % of the requests: it waits
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

func TestWhoWaitsForARoleWaitsForNoOther(t *testing.T) {
	const progressing, paused, done = dynamicdeployv1.Rollout_PROGRESSING, dynamicdeployv1.Rollout_PAUSED, dynamicdeployv1.Rollout_DONE
	const failed, reverted = dynamicdeployv1.Rollout_FAILED, dynamicdeployv1.Rollout_REVERTED
	stopped := shopApp(2, progressing, done, progressing)
	stopped.State = apiv1.App_STOPPED
	for name, c := range map[string]struct {
		role string
		now  *apiv1.App
		done bool
		err  string
	}{
		"it goes on":                    {"front", shopApp(2, progressing, done, progressing), false, ""},
		"it is done":                    {"front", shopApp(2, done, progressing, progressing), true, ""},
		"it waits":                      {"front", shopApp(2, paused, progressing, progressing), true, ""},
		"it is done and another failed": {"front", shopApp(2, done, failed, failed), true, ""},
		"it failed":                     {"front", shopApp(2, failed, done, failed), false, "the rollout of role front failed: it waits"},
		"it was reverted":               {"front", shopApp(3, reverted, done, reverted), false, "role front did not come up and was reverted: it waits"},
		"it was reverted before":        {"front", shopApp(2, reverted, done, reverted), true, ""},
		"another one was reverted":      {"front", shopApp(3, done, reverted, reverted), true, ""},
		"the app was stopped":           {"front", stopped, false, "it is stopped meanwhile"},
		"the whole app, one waits":      {"", shopApp(2, paused, done, paused), true, ""},
		"the whole app, one taken back": {"", shopApp(3, paused, reverted, paused), false, "replaced by a newer version"},
		"the version before is shown":   {"front", shopApp(1, done, done, done), false, ""},
	} {
		before := change{app: &apiv1.App{Name: "shop", State: apiv1.App_RUNNING, Version: 2, Generation: 1}, role: c.role}
		ended, err := rolledOut(before, c.now)
		if ended != c.done || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%s: done %t, %v; want %t, %q", name, ended, err, c.done, c.err)
		}
	}
}
