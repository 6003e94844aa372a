package docker

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"

	"github.com/mammoth-os/mammoth/internal/id"
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
		l := runPeriod{started: sentAt.Add(-time.Hour), ended: sentAt.Add(c.after), stopSignal: c.stopSignal}
		if got := l.endedOf(sentSignal{signal: c.signal, at: sentAt}); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	again := runPeriod{started: sentAt.Add(time.Millisecond), ended: sentAt.Add(time.Second)}
	if again.endedOf(sentSignal{signal: 15, at: sentAt}) {
		t.Error("a restart by hand explains the end of the life after it")
	}
}

// Whoever removes a container by hand leaves nothing of it behind here.
func TestSignalsOfRemovedContainersAreForgotten(t *testing.T) {
	r, err := New(Config{Zone: "z", Node: "n", LogDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	key := id.Container{Epoch: 1, App: id.App{ClusterStart: 1, Seq: 1}, Seq: 1}
	tell := func(action events.Action) {
		r.event(t.Context(), events.Message{Action: action, Actor: events.Actor{ID: "abc", Attributes: map[string]string{
			labelContainer: key.String(), "name": name(key), "signal": "9",
		}}}, time.Now())
	}
	tell(events.ActionKill)
	if got := r.signals.last["abc"].signal; got != 9 {
		t.Errorf("the signal is %d", got)
	}
	tell(events.ActionDestroy)
	if len(r.signals.last) != 0 {
		t.Errorf("left: %v", r.signals.last)
	}
}
