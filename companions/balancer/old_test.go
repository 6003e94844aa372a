package balancer

import (
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestReloadDelay(t *testing.T) {
	for _, test := range []struct {
		old, most int
		want      time.Duration
	}{
		{0, 64, time.Second},
		{31, 64, time.Second},
		{32, 64, 2 * time.Second},
		{40, 64, 5 * time.Second},
		{48, 64, 10 * time.Second},
		{56, 64, MaxReloadDelay},
		{64, 64, MaxReloadDelay},
		{200, 64, MaxReloadDelay},
		{0, 1, time.Second},
		{1, 1, MaxReloadDelay},
		{3, 0, MaxReloadDelay},
	} {
		if got := ReloadDelay(time.Second, test.old, test.most); got != test.want {
			t.Errorf("of %d processes that may be %d there are: a rest of %s, want %s", test.most, test.old, got, test.want)
		}
	}
	if got := ReloadDelay(time.Minute, 64, 64); got != time.Minute {
		t.Errorf("whoever asks for a minute gets %s", got)
	}
}

// A connection that was there before a hundred seconds of changes, one a second, is there after them, even if each change leaves
// every worker behind.
func TestHundredSecondsOfChanges(t *testing.T) {
	for _, workers := range []int{1, 2, 4, 8, 32} {
		most, old, now := max(64, 16*workers), 0, time.Duration(0)
		for old+workers <= most {
			old += workers
			now += ReloadDelay(time.Second, old, most)
		}
		if now < 100*time.Second {
			t.Errorf("with %d workers the first connection is cut after %s", workers, now)
		}
	}
}

func TestTheOldestEnd(t *testing.T) {
	var commands []*exec.Cmd
	var pids []int
	for range 4 {
		command := exec.Command("sleep", "1000")
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		defer command.Process.Kill() //nolint:errcheck // it may be gone
		commands, pids = append(commands, command), append(pids, command.Process.Pid)
		// Starts are told apart by hundredths of a second.
		for began := time.Now(); time.Since(began) < 20*time.Millisecond; {
			Pause(t.Context(), time.Millisecond)
		}
	}
	if ended := EndOldest(reversed(pids), 4); ended != 0 {
		t.Errorf("of four that may be four %d were ended", ended)
	}
	if ended := EndOldest(reversed(pids), 2); ended != 2 {
		t.Errorf("of four that may be two %d were ended", ended)
	}
	for _, command := range commands[:2] {
		if err := command.Wait(); err == nil {
			t.Error("an old one ended by itself")
		}
	}
	for _, pid := range pids[2:] {
		if HasEnded(pid) {
			t.Error("a young one was ended")
		}
	}
}

func reversed(pids []int) []int {
	pids = slices.Clone(pids)
	slices.Reverse(pids)
	return pids
}

func TestMemory(t *testing.T) {
	if size := resident(1); size <= 0 {
		t.Errorf("the first process takes %d bytes", size)
	}
	if limit := memoryLimit(); limit < 1<<20 {
		t.Errorf("this process may have %d bytes", limit)
	}
	if got := MaxOldFor(1_000_000_000, 1); got < 1 || got >= 1_000_000_000 {
		t.Errorf("%d processes fit into this machine's memory", got)
	}
	if got := MaxOldFor(3, -1); got != 3 {
		t.Errorf("of a process that is gone %d fit, want 3", got)
	}
}
