package plan

import (
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// What an engine does to instances while it goes down must not delay them once it is back.
func TestTheBackoffOfWhatANodeDidIsTakenBack(t *testing.T) {
	for _, goesDown := range []bool{true, false} {
		r := New("web", 1)
		now := time.Unix(1000, 0)
		r.SetDesired(Desired{
			Count: 1, Version: 1, Restart: Restart{Window: 10 * time.Minute, MaxFailures: 1, Backoff: time.Second, MaxBackoff: time.Minute},
		}, now)
		r.SetNode("node-1", NodeReady)
		ask := func() (ask string) {
			actions, _ := r.Next(now)
			for _, action := range actions {
				if asked, ok := action.(Ask); ok {
					ask = asked.ID
				}
			}
			return ask
		}
		for n := range int64(2) {
			asked := ask()
			if asked == "" {
				t.Fatalf("start %d: nothing is asked for", n+1)
			}
			container := id.Container{App: id.App{Seq: 1}, Seq: n + 1}
			r.Granted(Grant{Container: container, Node: "node-1", Ask: asked, At: now})
			r.Next(now)
			r.Ended(container, Exit{Blame: BlameEither, Reason: "the engine could not start it"}, now)
		}
		if ask() != "" {
			t.Error("after two failures it is asked for at once")
		}
		now = now.Add(time.Second)
		if goesDown {
			r.SetNode("node-1", NodeUnhealthy)
		}
		if asked := ask() != ""; asked != goesDown {
			t.Errorf("its node was unhealthy: %v, and it is asked for again: %v; %+v", goesDown, asked, r.Instances(now))
		}
	}
}

// A node that goes down long after a failure did not cause it, however long nobody has looked.
func TestAnOldFailureIsNotTheNodes(t *testing.T) {
	at := time.Unix(1000, 0)
	for after, want := range map[time.Duration]int{2 * detectionTime: 1, 2*detectionTime + time.Second: 0} {
		var p provisional
		p.add(provisionalFailure{at: at, node: "node-1"})
		if got := p.settle(func(id.Node) bool { return true }, at.Add(after)); len(got) != want || len(p.failures) != 0 {
			t.Errorf("after %s %d failures are the node's, want %d; %d are left", after, len(got), want, len(p.failures))
		}
	}
}
