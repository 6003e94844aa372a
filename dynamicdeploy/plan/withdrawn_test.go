package plan

import (
	"slices"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// A master that takes over from one that died during a withdrawal receives the confirmation at once. It may not receive it a second
// time.
func TestAWithdrawalThatIsConfirmedBeforeTheFirstDecisionCounts(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	container := id.Container{App: id.App{ClusterStart: 1, Seq: 1}, Seq: 1}
	takeOver := func(count int) *Role {
		r := New("web", 2)
		r.SetNode("node-1", NodeReady)
		r.SetDesired(Desired{Count: count, Version: 1, Restart: Restart{Window: time.Minute, MaxFailures: 5}}, now)
		r.Adopt(Adopted{Container: container, Number: 1, Version: 1, Node: "node-1", GrantedAt: now})
		r.Observe(Status{Container: container, Stage: StageRunning, Health: Healthy, RunningSince: now, HealthySince: now}, now)
		r.Withdrawn("web-1", now)
		return r
	}
	released := func(r *Role) bool {
		actions, _ := r.Next(now)
		return slices.ContainsFunc(actions, func(action Action) bool {
			release, ok := action.(Release)
			return ok && release.Container == container
		})
	}
	if !released(takeOver(0)) {
		t.Error("an instance that nothing routes to, and that is not desired, is not given back")
	}

	r := takeOver(1)
	if released(r) {
		t.Fatal("an instance that is desired is given back")
	}
	r.Withdrawn("web-1", now) // late: it was put into service meanwhile
	r.SetDesired(Desired{Count: 0, Version: 1, Restart: Restart{Window: time.Minute, MaxFailures: 5}}, now)
	if released(r) {
		t.Error("an instance that was in service is given back before its withdrawal is confirmed")
	}
	r.Withdrawn("web-1", now)
	if !released(r) {
		t.Error("an instance that nothing routes to any more is not given back")
	}
}
