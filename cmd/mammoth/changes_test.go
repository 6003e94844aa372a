package main

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func TestInstancesThatChangeAlikeShareALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		lines := &lineProgress{out: &out, seen: map[string]string{}}
		says := func(when, want string) {
			t.Helper()
			lines.changes.Lock()
			defer lines.changes.Unlock()
			if out.String() != want {
				t.Errorf("%s it says\n%swant\n%s", when, &out, want)
			}
			out.Reset()
		}
		app := &apiv1.App{Name: "web"}
		for n := 1; n <= 50; n++ {
			app.Instances = append(app.Instances, &apiv1.Instance{Id: fmt.Sprintf("web-%d", n), State: apiv1.Instance_PENDING})
		}
		lines.update(app)
		for _, instance := range app.Instances[:3] {
			instance.State, instance.Node = apiv1.Instance_STARTING, "node-1"
		}
		lines.update(app)
		says("at first", "")
		<-time.After(holdChanges + time.Millisecond)
		says("after a second", "web-4 … web-50: pending\nweb-1: starting on node-1\nweb-2: starting on node-1\nweb-3: starting on node-1\n")

		for i, instance := range app.Instances {
			switch {
			case i < 3:
				instance.State = apiv1.Instance_RUNNING
			case i == 20:
			default:
				instance.State, instance.Node, instance.Reason = apiv1.Instance_STARTING, fmt.Sprintf("node-%d", i%2), "no answer"
			}
			lines.update(app) // one after the other
		}
		<-time.After(holdChanges + time.Millisecond)
		says("then", "web-1: running on node-1\nweb-2: running on node-1\nweb-3: running on node-1\n"+
			"web-4 … web-20, web-22 … web-50: starting on 2 nodes, no answer\n")

		app.Instances = app.Instances[:2]
		lines.update(app)
		lines.end()
		says("at the end", "web-3 … web-50: gone\n")
	})
}

func TestFewInstancesAreToldOfAtOnce(t *testing.T) {
	var out bytes.Buffer
	lines := &lineProgress{out: &out, seen: map[string]string{}}
	app := &apiv1.App{Name: "web"}
	for n := range 5 {
		app.Instances = append(app.Instances, &apiv1.Instance{Id: fmt.Sprintf("web-%d", n+1), State: apiv1.Instance_STARTING, Node: "node-1"})
	}
	lines.update(app)
	if want := "web-1 … web-5: starting on node-1\n"; out.String() != want {
		t.Errorf("it says\n%s", &out)
	}
}

func TestRunsOfNames(t *testing.T) {
	for want, names := range map[string][]string{
		"web-1, web-2":              {"web-1", "web-2"},
		"web-1 … web-3, web-5":      {"web-1", "web-2", "web-3", "web-5"},
		"web-a-1, web-b-2, web-b-3": {"web-a-1", "web-b-2", "web-b-3"},
		"a-1, a-3, a-5, a-7, a-9, a-11, a-13, a-15 and 2 more": {"a-1", "a-3", "a-5", "a-7", "a-9", "a-11", "a-13", "a-15", "a-17", "a-19"},
		"one, two": {"one", "two"},
	} {
		var group []instanceChange
		for _, name := range names {
			group = append(group, instanceChange{name: name})
		}
		if got := runsOf(group); got != want {
			t.Errorf("%v is %q, want %q", names, got, want)
		}
	}
}
