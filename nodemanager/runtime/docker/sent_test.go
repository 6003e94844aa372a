package docker

import (
	"testing"
	"time"
)

func TestWhetherAnEndIsASignalsDoing(t *testing.T) {
	sentAt := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		what       string
		signal     int
		after      time.Duration
		stopSignal string
		want       bool
	}{
		{"none was sent", 0, 0, "", false},
		{"killed", 9, 0, "", true},
		{"the end is noted before the signal", 9, -20 * time.Millisecond, "", true},
		{"it drained before it ended", 15, 40 * time.Second, "", true},
		{"it took no notice, and crashed later", 15, 2 * time.Minute, "", false},
		{"it ends at a hang-up", 1, 100 * time.Millisecond, "", true},
		{"it reads its configuration again, and crashed later", 1, 3 * time.Second, "", false},
		{"a hang-up is how it is asked to end", 1, 30 * time.Second, "SIGHUP", true},
		{"another is how it is asked to end", 1, 30 * time.Second, "SIGWINCH", false},
		{"its stop signal is none", 1, 30 * time.Second, "SIGFOO", false},
	} {
		l := life{started: sentAt.Add(-time.Hour), ended: sentAt.Add(c.after), stopSignal: c.stopSignal}
		if got := l.endedOf(sent{signal: c.signal, at: sentAt}); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	again := life{started: sentAt.Add(time.Millisecond), ended: sentAt.Add(time.Second)}
	if again.endedOf(sent{signal: 15, at: sentAt}) {
		t.Error("a restart by hand explains the end of the life after it")
	}
}
