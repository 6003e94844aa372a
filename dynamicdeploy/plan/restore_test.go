package plan

import (
	"testing"
	"time"
)

// An app that is stopped in the middle of a rollout has no master until it is started again.
func TestARolloutIsNotFailedForTheTimeWithoutAMaster(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	desired := Desired{
		Count: 2, Version: 2, CanRevert: true, Restart: Restart{Window: time.Minute, MaxFailures: 5},
		Update: Update{MaxSurge: 1, Deadline: 5 * time.Minute},
	}
	before := New("web", 1)
	before.SetDesired(desired, now)
	before.Next(now)
	memo := before.Memo()
	now = now.Add(time.Hour)

	r := New("web", 2)
	r.SetDesired(desired, now)
	r.Restore(memo)
	fails := func() bool {
		actions, _ := r.Next(now)
		for _, action := range actions {
			if _, ok := action.(Revert); ok {
				return true
			}
		}
		return r.Rollout(now).State == Failed
	}
	if fails() {
		t.Errorf("the rollout has failed as soon as a master is there: %s", r.Rollout(now).Reason)
	}
	now = now.Add(5*time.Minute/2 - time.Second)
	if fails() {
		t.Errorf("the rollout has failed before half of its deadline: %s", r.Rollout(now).Reason)
	}
	now = now.Add(time.Second)
	if !fails() {
		t.Error("the rollout made no progress for half of its deadline, and has not failed")
	}
}
