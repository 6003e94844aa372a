package plan

import (
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// rolledOutTo is a role whose instances run version 1 and which has begun with a canary of version 2.
func rolledOutTo(t *testing.T, desired Desired, now time.Time) *Role {
	t.Helper()
	r, last := New("web", 1), int64(0)
	settle := func() {
		for range 10 {
			actions, _ := r.Next(now)
			for _, action := range actions {
				if ask, ok := action.(Ask); ok {
					last++
					container := id.Container{App: id.App{ClusterStart: 1, Seq: 1}, Seq: last}
					r.Granted(Grant{Container: container, Node: "n1", Ask: ask.ID, Version: ask.Version, At: now})
				}
				if start, ok := action.(Start); ok {
					r.Observe(Status{Container: start.Container, Stage: StageRunning, Health: Healthy, RunningSince: now, HealthySince: now}, now)
				}
			}
		}
	}
	first := desired
	first.Version = 1
	r.SetDesired(first, now)
	settle()
	r.SetDesired(desired, now)
	settle()
	if got := r.Rollout(now); got.State != Paused || r.Before() != 1 {
		t.Fatalf("the canary is %+v, before it was version %d", got, r.Before())
	}
	return r
}

func TestAVersionThatChangesNothingOfARoleLeavesItsRollout(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	desired := Desired{
		Count: 4, Version: 2, CanRevert: true, Restart: Restart{Window: time.Hour, MaxFailures: 2, Backoff: time.Second, MaxBackoff: time.Second},
		Update: Update{MaxSurge: 1, Strategy: Canary, Percent: 25, MinHealthy: 0},
	}
	next := desired
	next.Version = 3
	paused := func(r *Role, when string) {
		t.Helper()
		got, has := r.Rollout(now), map[int32]int{}
		for _, instance := range r.Instances(now) {
			has[instance.Version]++
		}
		if got.State != Paused || got.Version != 3 || got.Failures != 1 || r.Before() != 1 || has[1] != 4 || has[3] != 1 || has[2] != 0 {
			t.Errorf("%s the rollout is %+v, before it was version %d, with instances %v", when, got, r.Before(), has)
		}
	}
	r := rolledOutTo(t, desired, now)
	r.rollout.addFailure(r.desired, "it exits", now)
	memo := r.Memo()
	if !r.ContinueAs(3) {
		t.Fatal("a rollout that is under way does not go on")
	}
	r.SetDesired(next, now)
	r.Next(now)
	paused(r, "with the next version")

	// The same for a master that takes over after that.
	if !memo.ContinueAs(3) || memo.Over() {
		t.Fatalf("the memo does not go on: %+v", memo.Rollout)
	}
	other := New("web", 2)
	other.SetDesired(next, now)
	other.Restore(memo)
	paused(other, "with the next master")

	// A rollout that has failed begins anew.
	r.rollout.addFailure(r.desired, "it exits", now)
	r.Next(now)
	now = now.Add(detectionTime)
	r.Next(now)
	if failed := r.Memo(); r.Rollout(now).State != Failed || r.ContinueAs(4) || failed.ContinueAs(4) {
		t.Errorf("a rollout that has failed goes on: %+v", r.Rollout(now))
	}
	next.Version = 4
	r.SetDesired(next, now)
	if got := r.Rollout(now); got.State != Progressing || got.Failures != 0 {
		t.Errorf("after a failure the next version begins as %+v", got)
	}
}

func TestARevertIsNotSaidOfTheNextVersion(t *testing.T) {
	o := rollout{version: 3, state: Reverted, reason: "it failed", before: 3}
	if !o.continueAs(4) || o.state != Done || o.reason != "" || o.version != 4 || o.before != 4 {
		t.Errorf("it is %+v", o)
	}
	if nothing := (&rollout{}); nothing.continueAs(1) {
		t.Error("a rollout that never began goes on")
	}
}
