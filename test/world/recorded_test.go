package world

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/resourcemanager/recording"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// recordedHour are actions of an hour: people change their minds, and programs and machines fail.
func recordedHour() []Action {
	kinds := []string{
		"deploy", "scale", "kill-master", "crash-instance", "lend", "restart", "kill-nodemanager", "rollback", "lend-now", "drain", "cut",
		"deploy", "undrain", "sicken-instance", "stop", "crash-machine", "fill-store", "promote", "deploy", "remove", "stop-engine",
	}
	var all []Action
	for i := range 80 {
		all = append(all, Action{time.Duration(20+40*i) * time.Second, kinds[i%len(kinds)], 7<<8 + uint64(i)})
	}
	// What it is given after a restart is another recording.
	all = append(all, Action{40*time.Minute + time.Second, "kill-resourcemanager", 1})
	slices.SortStableFunc(all, func(a, b Action) int { return int(a.At - b.At) })
	return all
}

// TestARecordedHourDecidesTheSame records what the ResourceManager is given in an hour, and plays it back: every turn decides and answers
// the same, and the zones are the same in the end.
func TestARecordedHourDecidesTheSame(t *testing.T) {
	var recorded []*bytes.Buffer
	w := newWorld(Config{Seed: 3, Trouble: time.Hour, Actions: recordedHour(), Record: func() io.Writer {
		recorded = append(recorded, &bytes.Buffer{})
		return recorded[len(recorded)-1]
	}})
	w.until(w.start.Add(time.Hour))
	if w.over || len(recorded) != 2 {
		t.Fatalf("the hour broke %q: %s; the ResourceManager was started %d times", w.result.Broken, w.result.Sentence, len(recorded))
	}
	if err := w.manager.record.Err(); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	var last *zone.Core
	var turns int
	for n, recorded := range recorded {
		played, err := recording.Replay(recorded, func(turn recording.Turn) error {
			for _, in := range turn.Inputs {
				kinds[fmt.Sprintf("%T", in)]++
			}
			if !turn.Same {
				return fmt.Errorf("turn %d at %v, of %+v, decided %+v and answered %+v, and something else before", turn.Number, turn.Now, turn.Inputs, turn.Ready, turn.Answers)
			}
			return nil
		})
		if err != nil {
			t.Fatalf("recording %d: %v", n+1, err)
		}
		last, turns = played.Zone, turns+played.Turns
	}
	for _, kind := range []zone.Input{
		zone.RegisterNode{},
		zone.OpenSession{},
		zone.NodeReport{},
		zone.NodeStreamEnded{},
		zone.RegisterMaster{},
		zone.OpenAllocate{},
		zone.Allocate{},
		zone.MasterStreamEnded{},
		zone.Deploy{},
		zone.AddContracts{},
		zone.LendNow{},
		zone.Confirmed{},
		zone.BalancerConnected{},
		zone.RoomChanged{},
		zone.Beats{},
	} {
		if kinds[fmt.Sprintf("%T", kind)] == 0 {
			t.Errorf("the hour has no %T", kind)
		}
	}
	for what, of := range map[string]func(*zone.Core) any{
		"the zone":  func(z *zone.Core) any { return z.Summary() },
		"nodes":     func(z *zone.Core) any { return z.Nodes() },
		"apps":      func(z *zone.Core) any { return z.Apps() },
		"contracts": func(z *zone.Core) any { return z.Contracts() },
		"lending":   func(z *zone.Core) any { return z.LendingReport() },
		"counts":    func(z *zone.Core) any { return z.Counts() },
		"history":   func(z *zone.Core) any { return histories(z) },
		"its due":   func(z *zone.Core) any { return z.Wake().UTC() },
	} {
		if got, want := fmt.Sprint(of(last)), fmt.Sprint(of(w.manager.core)); got != want {
			t.Errorf("%s in the end: %s, want %s", what, got, want)
		}
	}
	t.Logf("%d turns of %d kinds of inputs, on %d nodes with %d balancers; %v", turns, len(kinds), len(w.hosts), len(w.balancers), w.result.Faults)
}

func histories(z *zone.Core) []string {
	var all []string
	for _, app := range z.Apps() {
		history, err := z.History(app.GetName())
		explained, why := z.Explain(app.GetName())
		all = append(all, fmt.Sprint(history, err, explained, why))
	}
	return all
}
