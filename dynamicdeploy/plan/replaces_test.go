package plan

import (
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// An ask says whether its instance has run before: the scheduler lets such asks go before reservations.
func TestOnlyAnAskForAnInstanceThatHasRunReplacesOne(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := New("web", 1)
	r.SetNode("node-1", Ready)
	r.Want(Wanted{Count: 1, Version: 1, Restart: Restart{Window: time.Minute, MaxFailures: 5}}, now)
	asked := func() Ask {
		t.Helper()
		actions, _ := r.Next(now)
		for _, action := range actions {
			if ask, ok := action.(Ask); ok {
				return ask
			}
		}
		t.Fatalf("nothing is asked for: %v", actions)
		return Ask{}
	}
	first := asked()
	if first.Replaces {
		t.Error("the first ask of an instance is said to replace one")
	}
	container := id.Container{App: id.App{ClusterStart: 1, Seq: 1}, Seq: 1}
	r.Granted(Grant{Ask: first.ID, Container: container, Node: "node-1", At: now})
	r.Next(now)
	r.Ended(container, Exit{Blame: App, Reason: "it exited with code 1"}, now)
	now = now.Add(time.Minute)
	if !asked().Replaces {
		t.Error("an instance that ended is asked for again as if it were new")
	}
}
