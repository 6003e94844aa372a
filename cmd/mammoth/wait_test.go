package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
)

// trigger calls do once it was written the word.
type trigger struct {
	bytes.Buffer
	word string
	do   func()
}

func (t *trigger) Write(p []byte) (int, error) {
	n, err := t.Buffer.Write(p)
	if strings.Contains(t.String(), t.word) {
		t.do()
	}
	return n, err
}

func TestAnInterruptStopsTheWaitingAndSaysThatTheRestGoesOn(t *testing.T) {
	address := serveTerm(t, emptyStore(), nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	errs := &trigger{word: "waiting: ", do: func() { cancel(errInterrupted) }}
	var out bytes.Buffer
	code := run(ctx, []string{"deploy", "stuck:1", "--wait", "--server", address}, streams{in: strings.NewReader(""), out: &out, err: errs}, func(string) string { return "" })
	const last = "mammoth: stopped waiting; the deployment of \"stuck\" continues, `mammoth app show stuck` shows its progress\n"
	if code != exitInterrupted || !strings.HasSuffix(errs.String(), "\n"+last) || out.Len() != 0 {
		t.Errorf("code %d, output %q, errors %q", code, out.String(), errs.String())
	}
}

func TestAnInterruptedStreamSaysNothing(t *testing.T) {
	address := serveTerm(t, emptyStore(), nil)
	if code, _, errs := mammoth(t.Context(), address, "deploy", "hello:1", "--name", "web"); code != 0 {
		t.Fatal(errs)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	out := &trigger{word: "\"web\"", do: func() { cancel(errInterrupted) }}
	var errs bytes.Buffer
	code := run(ctx, []string{"events", "-f", "-o", "json", "--server", address}, streams{in: strings.NewReader(""), out: out, err: &errs}, func(string) string { return "" })
	if code != exitInterrupted || errs.Len() != 0 {
		t.Errorf("code %d, errors %q", code, errs.String())
	}
}

func TestATerminalIsRedrawnInPlace(t *testing.T) {
	var screen bytes.Buffer
	show := &liveProgress{out: &screen, columns: func() int { return 40 }}
	app := &apiv1.App{Name: "web", Wanted: 2, Instances: []*apiv1.Instance{
		{Id: "web-1", State: apiv1.Instance_STARTING, Node: "node-1", Version: 1},
		{Id: "web-2", State: apiv1.Instance_PENDING, Version: 1, Reason: "no node has room for it at the moment"},
	}}
	show.update(app)
	first := screen.String()
	if strings.Contains(first, "A") || strings.Count(first, "\n") != 3 {
		t.Errorf("the first frame must only draw: %q", first)
	}
	for line := range strings.Lines(first) {
		if letters := len([]rune(strings.NewReplacer("\x1b[2K", "", "\x1b[J", "", "\n", "").Replace(line))); letters >= 40 {
			t.Errorf("a line of %d letters wraps on a terminal of 40: %q", letters, line)
		}
	}
	screen.Reset()
	app.Running = 1
	app.Instances[0].State = apiv1.Instance_RUNNING
	app.Instances[0].Phases = []*corev1.Phase{{Name: "run", DurationMs: 7}}
	show.update(app)
	if !strings.HasPrefix(screen.String(), "\x1b[3A\x1b[2Kweb: 1 of 2 instances run\n") {
		t.Errorf("the second frame must go up three lines first: %q", screen.String())
	}
}

func TestARolloutIsDoneOnlyWhenItsOwnVersionRuns(t *testing.T) {
	deployed := change{app: &apiv1.App{Version: 2, Generation: 5}}
	app := func(edit func(*apiv1.App)) *apiv1.App {
		app := &apiv1.App{
			State: apiv1.App_RUNNING, Version: 2, Generation: 5, ObservedGeneration: 5, Wanted: 1, Running: 1,
			Status: statusOf(&dynamicdeployv1.Rollout{State: dynamicdeployv1.Rollout_DONE, Version: 2}), Instances: []*apiv1.Instance{{Id: "a", Version: 2}},
		}
		edit(app)
		return app
	}
	for name, c := range map[string]struct {
		now  *apiv1.App
		done bool
		err  string
	}{
		"done":              {now: app(func(*apiv1.App) {}), done: true},
		"not yet seen":      {now: app(func(a *apiv1.App) { a.ObservedGeneration = 4 })},
		"an old one left":   {now: app(func(a *apiv1.App) { a.Instances = append(a.Instances, &apiv1.Instance{Version: 1}) })},
		"only old ones run": {now: app(func(a *apiv1.App) { a.Instances[0].Version = 1 })},
		"one too many":      {now: app(func(a *apiv1.App) { a.Instances = append(a.Instances, &apiv1.Instance{Version: 2}) })},
		"progressing": {now: app(func(a *apiv1.App) {
			a.Status = statusOf(&dynamicdeployv1.Rollout{State: dynamicdeployv1.Rollout_PROGRESSING, Version: 2})
		})},
		"no master yet": {now: app(func(a *apiv1.App) { a.State = apiv1.App_ACCEPTED })},
		"old failure": {now: app(func(a *apiv1.App) {
			a.Status = statusOf(&dynamicdeployv1.Rollout{State: dynamicdeployv1.Rollout_FAILED, Version: 1})
		}), done: true},
		"failed": {now: app(func(a *apiv1.App) {
			a.Status = statusOf(&dynamicdeployv1.Rollout{State: dynamicdeployv1.Rollout_FAILED, Version: 2, Reason: "it exits"})
		}), err: "it exits"},
		"reverted": {now: app(func(a *apiv1.App) {
			a.Status = statusOf(&dynamicdeployv1.Rollout{State: dynamicdeployv1.Rollout_REVERTED, Version: 3, Reason: "no"})
		}), err: "was reverted"},
		"overtaken": {now: app(func(a *apiv1.App) { a.Version, a.Instances[0].Version = 3, 3 }), err: "newer version"},
		"keeps failing": {now: app(func(a *apiv1.App) {
			a.Running = 0
			a.Spec = &apiv1.AppSpec{Roles: []*apiv1.RoleSpec{{Restart: &apiv1.RestartPolicy{MaxFailures: 5}}}}
			a.Instances[0].State, a.Instances[0].Failures, a.Instances[0].Reason = apiv1.Instance_BACKOFF, 5, "failed 5 times, last: exited with code 7"
		}), err: "exited with code 7"},
		"fails, but not for good": {now: app(func(a *apiv1.App) {
			a.Running = 0
			a.Spec = &apiv1.AppSpec{Roles: []*apiv1.RoleSpec{{Restart: &apiv1.RestartPolicy{MaxFailures: 5}}}}
			a.Instances[0].State, a.Instances[0].Failures = apiv1.Instance_BACKOFF, 4
		})},
		"degraded": {now: app(func(a *apiv1.App) { a.State, a.Reason = apiv1.App_DEGRADED, "all died" }), err: "all died"},
	} {
		done, err := rolledOut(deployed, c.now)
		if done != c.done || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: done %v, error %v", name, done, err)
		}
	}
	// What a revert has put back is deployed as it is.
	deployed.app.Status = statusOf(&dynamicdeployv1.Rollout{State: dynamicdeployv1.Rollout_REVERTED, Version: 2})
	if done, err := rolledOut(deployed, app(func(a *apiv1.App) {
		a.Status = statusOf(&dynamicdeployv1.Rollout{State: dynamicdeployv1.Rollout_REVERTED, Version: 2})
	})); !done || err != nil {
		t.Errorf("put back before: done %v, error %v", done, err)
	}
}

func TestOfAnAppThatIsRemovedItSaysWhichNodeIsWaitedFor(t *testing.T) {
	var out bytes.Buffer
	lines := &lineProgress{out: &out, seen: map[string]string{}}
	app := &apiv1.App{
		Name: "web", State: apiv1.App_REMOVING, Reason: "a person removed it",
		Instances: []*apiv1.Instance{{Id: "web-1", ContainerId: "c1", Node: "node-3", State: apiv1.Instance_UNREACHABLE, Reason: "it was not seen gone"}},
	}
	lines.update(app)
	app.Reason = "it waits for node-3"
	lines.update(app)
	lines.update(app)
	want := "web-1: unreachable on node-3, it was not seen gone\nweb: removing: a person removed it\nweb: removing: it waits for node-3\n"
	if out.String() != want {
		t.Errorf("it says\n%s", out.String())
	}
	if note := rolloutNote(app); note != ": removing: it waits for node-3" {
		t.Errorf("on a terminal it says %q", note)
	}
}

func TestWhoeverWaitsIsToldWhy(t *testing.T) {
	var out bytes.Buffer
	lines := &lineProgress{out: &out, seen: map[string]string{}}
	app := &apiv1.App{Name: "web", State: apiv1.App_RUNNING, Wanted: 1, Waiting: []*apiv1.Waiting{
		{Text: "web-2 waits for capacity: queue default holds 1.8 cpu of its maximum of 2 cpu", Help: "`maxUnavailable: 1` would do", Instances: 1},
	}}
	lines.update(app)
	app.Waiting[0].Text = "web-2 waits for capacity: queue default holds 1.9 cpu of its maximum of 2 cpu"
	lines.update(app)
	app.Waiting[0] = &apiv1.Waiting{Text: "web-2 is in back-off: exited with code 7", Until: timestamppb.New(time.Now().Add(30 * time.Second)), Instances: 1}
	lines.update(app)
	app.Waiting = nil
	lines.update(app)
	const want = "web: waiting: web-2 waits for capacity: queue default holds 1.8 cpu of its maximum of 2 cpu; `maxUnavailable: 1` would do\n" +
		"web: waiting: web-2 is in back-off: exited with code 7; next try in 30s\n"
	if out.String() != want {
		t.Errorf("it says\n%s", out.String())
	}
}

func TestOnATerminalAReasonIsShownWhole(t *testing.T) {
	var screen bytes.Buffer
	show := &liveProgress{out: &screen, columns: func() int { return 40 }}
	show.update(&apiv1.App{Name: "web", Wanted: 1, Waiting: []*apiv1.Waiting{{Text: "web-2 waits for capacity: queue default holds 1.8 cpu of its maximum of 2 cpu"}}})
	text := strings.NewReplacer("\x1b[2K", "", "\x1b[J", "").Replace(screen.String())
	const want = "web: 0 of 1 instances run\n  waiting: web-2 waits for capacity:\n    queue default holds 1.8 cpu of its\n    maximum of 2 cpu\n"
	if text != want {
		t.Errorf("it shows\n%s", text)
	}
}

func TestAnAppThatHasNothingRunningIsStarting(t *testing.T) {
	for want, app := range map[string]*apiv1.App{
		"running":  {State: apiv1.App_RUNNING, Wanted: 2, Running: 1},
		"starting": {State: apiv1.App_RUNNING, Wanted: 1},
		"failing":  {State: apiv1.App_RUNNING, Wanted: 1, Instances: []*apiv1.Instance{{State: apiv1.Instance_BACKOFF}}},
		"accepted": {State: apiv1.App_ACCEPTED, Wanted: 1},
	} {
		if got := stateWord(app); got != want {
			t.Errorf("%v is %q, want %q", app, got, want)
		}
	}
}

func TestAWaitEndsWhenTheEndCannotCome(t *testing.T) {
	before := change{app: &apiv1.App{State: apiv1.App_RUNNING, Version: 1, Generation: 2, Status: statusOf(&dynamicdeployv1.Rollout{State: dynamicdeployv1.Rollout_DONE, Version: 1})}}
	for name, c := range map[string]struct {
		done func(change, *apiv1.App) (bool, error)
		now  *apiv1.App
		err  string
	}{
		"stopped meanwhile":    {scaled, &apiv1.App{State: apiv1.App_STOPPING, Reason: "root stopped it", Version: 1}, "it is stopping meanwhile: root stopped it"},
		"removed meanwhile":    {rolledOut, &apiv1.App{State: apiv1.App_REMOVING, Version: 1}, "it is removing meanwhile"},
		"a restart that fails": {restarted, &apiv1.App{State: apiv1.App_RUNNING, Version: 1, ObservedGeneration: 2, Status: statusOf(&dynamicdeployv1.Rollout{State: dynamicdeployv1.Rollout_FAILED, Version: 1, Reason: "it crashes"})}, "it crashes"},
		"started again":        {stopped, &apiv1.App{State: apiv1.App_ACCEPTED, Generation: 3}, "it was started again meanwhile"},
	} {
		done, err := c.done(before, c.now)
		if done || err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: done %v, error %v", name, done, err)
		}
	}
}

func TestLongWorkIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newUploadProgress(&out, 2<<20)
		p.update(1 << 20)
		<-time.After(6 * time.Second)
		p.update(2 << 20)
		<-time.After(5 * time.Second)
		p.end()
		if want := "uploading: 1MiB of 2MiB\nuploaded 2MiB; the zone unpacks and checks it\n"; out.String() != want {
			t.Errorf("it says\n%s", out.String())
		}
	})
}
