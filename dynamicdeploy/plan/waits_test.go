package plan

import (
	"strings"
	"testing"
	"time"
)

func TestARolloutWithoutProgressSaysWhatItWaitsFor(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := New("web", 1)
	desired := Desired{Count: 1, Version: 1, Update: Update{MaxSurge: 1, Deadline: time.Minute}}
	r.SetDesired(desired, now)
	r.Next(now)
	const why = "web-1 waits for capacity: queue default holds all of its maximum"
	r.SetWaiting(why)
	r.Next(now.Add(time.Minute))
	if got := r.Rollout(now).Reason; !strings.HasPrefix(got, "version 1 made no progress for 1m0s: 0 of 1 instances ") || !strings.HasSuffix(got, "; "+why) {
		t.Errorf("reason %q", got)
	}
	r.SetWaiting("")
	desired.Version = 2
	r.SetDesired(desired, now)
	r.Next(now.Add(2 * time.Minute))
	if got := r.Rollout(now).Reason; strings.Contains(got, why) {
		t.Errorf("an old reason is kept: %q", got)
	}
}
