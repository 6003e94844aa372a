package plan

import (
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// An ask says whether its instance has run before: the scheduler serves such asks before reservations.
func TestOnlyAskForInstanceThatHasRunReplaces(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := New("web", 1)
	r.SetNode("node-1", NodeReady)
	r.SetDesired(Desired{Count: 1, Version: 1, Restart: Restart{Window: time.Minute, MaxFailures: 5}}, now)
	asked := func() Ask {
		t.Helper()
		actions, _ := r.Next(now)
		for _, action := range actions {
			if ask, ok := action.(Ask); ok {
				return ask
			}
		}
		t.Fatalf("no ask in %v", actions)
		return Ask{}
	}
	first := asked()
	if first.Replaces {
		t.Error("the first ask of an instance replaces one")
	}
	container := id.Container{App: id.App{ClusterStart: 1, Seq: 1}, Seq: 1}
	r.Granted(Grant{Ask: first.ID, Container: container, Node: "node-1", At: now})
	r.Next(now)
	r.Ended(container, Exit{Blame: BlameApp, Reason: "it exited with code 1"}, now)
	now = now.Add(time.Minute)
	if !asked().Replaces {
		t.Error("the ask for an instance that has run does not replace one")
	}
}
