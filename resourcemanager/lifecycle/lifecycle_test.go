package lifecycle_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/internal/fsm"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// TestEveryPair replays every table: what follows in each state on each event is written down, and a pair without a
// rule is shown as "-".
func TestEveryPair(t *testing.T) {
	datadriven.RunTest(t, "testdata/tables", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "app":
			return draw(lifecycle.Apps(), lifecycle.AppRemoved, lifecycle.AppEmpty)
		case "attempt":
			return draw(lifecycle.Attempts(), lifecycle.AttemptFinished, lifecycle.AttemptFinishes)
		case "container":
			return draw(lifecycle.Containers(), lifecycle.ContainerDone, lifecycle.ContainerNodeGone)
		case "node":
			return draw(lifecycle.Nodes(), lifecycle.NodeLost, lifecycle.NodeExpires)
		}
		d.Fatalf(t, "no table is named %q", d.Cmd)
		return ""
	})
}

func draw[S fsm.State, E fsm.Event](table fsm.Table[S, E], last S, final E) string {
	var text strings.Builder
	for state := S(0); state <= last; state++ {
		fmt.Fprintf(&text, "%v\n", state)
		for event := E(0); event <= final; event++ {
			next, ok := table.Next(state, event)
			if !ok {
				fmt.Fprintf(&text, "  %-20v -\n", event)
				continue
			}
			fmt.Fprintf(&text, "  %-20v %v\n", event, next)
		}
	}
	return text.String()
}

func TestDiagramsNameEveryStateThatCanBeReached(t *testing.T) {
	for _, diagram := range lifecycle.Mermaid() {
		if !strings.HasPrefix(diagram.Text, "stateDiagram-v2\n") {
			t.Errorf("%s: %q", diagram.Name, diagram.Text)
		}
		if strings.Contains(diagram.Text, "--> UNSPECIFIED") || strings.Contains(diagram.Text, "--> STATE_UNSPECIFIED") {
			t.Errorf("%s goes back to before its beginning:\n%s", diagram.Name, diagram.Text)
		}
	}
}

func TestALeaseIsFreeOnlyAfterItsNodeOrAnOperatorSaidSo(t *testing.T) {
	table := lifecycle.Containers()
	ends := []lifecycle.ContainerEvent{lifecycle.ReportedDone, lifecycle.ContainerMissing, lifecycle.ContainerExpired, lifecycle.ContainerNodeGone}
	rapid.Check(t, func(t *rapid.T) {
		state, _ := table.Next(lifecycle.ContainerUnspecified, lifecycle.ContainerGranted)
		reported := false
		for _, event := range rapid.SliceOf(rapid.SampledFrom(containerEvents())).Draw(t, "events") {
			before := state
			state, _ = table.Next(state, event)
			if before.Held() && !state.Held() && !slices.Contains(ends, event) {
				t.Fatalf("%v freed a %v lease", event, before)
			}
			if event == lifecycle.ContainerExpired && reported && before.Held() && !state.Held() {
				t.Fatalf("a lease that its node has reported as %v expired", before)
			}
			if event == lifecycle.ContainerMissing && !reported && !state.Held() && before.Held() {
				t.Fatal("a lease that no node has reported yet was taken for gone")
			}
			if state < before {
				t.Fatalf("%v went back to %v on %v", before, state, event)
			}
			reported = reported || state > lifecycle.ContainerNew
		}
	})
}

func containerEvents() []lifecycle.ContainerEvent {
	var events []lifecycle.ContainerEvent
	for event := lifecycle.ReportedNew; event <= lifecycle.ContainerNodeGone; event++ {
		events = append(events, event)
	}
	return events
}

func TestAnEndedLeaseStaysEnded(t *testing.T) {
	for _, event := range containerEvents() {
		if next, _ := lifecycle.Containers().Next(lifecycle.ContainerDone, event); next != lifecycle.ContainerDone {
			t.Errorf("%v brought an ended lease back to %v", event, next)
		}
	}
}

func TestAnAppHasAtMostOneLiveAttempt(t *testing.T) {
	table := lifecycle.Attempts()
	rapid.Check(t, func(t *rapid.T) {
		state := lifecycle.AttemptUnspecified
		live := 0
		events := []lifecycle.AttemptEvent{
			lifecycle.AttemptSubmitted, lifecycle.AttemptGranted, lifecycle.AttemptRegisters, lifecycle.AttemptEnds, lifecycle.AttemptFinishes,
		}
		for _, event := range rapid.SliceOf(rapid.SampledFrom(events)).Draw(t, "events") {
			before := state
			next, ok := table.Next(state, event)
			if !ok {
				continue
			}
			state = next
			if event == lifecycle.AttemptSubmitted {
				live++
			}
			if before.Live() && !state.Live() {
				live--
			}
			if live > 1 || live < 0 {
				t.Fatalf("%d attempts live after %v in %v", live, event, before)
			}
		}
	})
}

func TestARemovedAppNeverComesBack(t *testing.T) {
	table := lifecycle.Apps()
	for event := lifecycle.AppSubmitted; event <= lifecycle.AppEmpty; event++ {
		if _, ok := table.Next(lifecycle.AppRemoved, event); ok {
			t.Errorf("%v does something to a removed app", event)
		}
		next, _ := table.Next(lifecycle.AppRemoving, event)
		if next != lifecycle.AppRemoving && next != lifecycle.AppRemoved {
			t.Errorf("%v saves an app that is being removed: it is %v", event, next)
		}
	}
}

func TestAnAppIsGoneOnlyOnceItWasSeenEmpty(t *testing.T) {
	table := lifecycle.Apps()
	rapid.Check(t, func(t *rapid.T) {
		state, _ := table.Next(lifecycle.AppUnspecified, lifecycle.AppSubmitted)
		events := []lifecycle.AppEvent{
			lifecycle.AppMasterRegistered, lifecycle.AppAttemptEnded, lifecycle.AppAttemptsExhausted,
			lifecycle.AppStart, lifecycle.AppStop, lifecycle.AppRemove, lifecycle.AppEmpty,
		}
		for _, event := range rapid.SliceOf(rapid.SampledFrom(events)).Draw(t, "events") {
			before := state
			state, _ = table.Next(state, event)
			over := state == lifecycle.AppStopped || state == lifecycle.AppRemoved
			if over && before != state && event != lifecycle.AppEmpty {
				t.Fatalf("%v ended a %v app before it was seen empty", event, before)
			}
		}
	})
}

func TestALostNodeComesBackOnlyByRegistering(t *testing.T) {
	table := lifecycle.Nodes()
	for event := lifecycle.NodeRegisters; event <= lifecycle.NodeExpires; event++ {
		next, _ := table.Next(lifecycle.NodeLost, event)
		if next != lifecycle.NodeLost && event != lifecycle.NodeRegisters {
			t.Errorf("%v made a lost node %v", event, next)
		}
	}
}

func TestADrainingNodeIsNotUsedAgainUntilSomebodySaysSo(t *testing.T) {
	table := lifecycle.Nodes()
	rapid.Check(t, func(t *rapid.T) {
		state := lifecycle.NodeDraining
		events := []lifecycle.NodeEvent{lifecycle.NodeFails, lifecycle.NodeRecovers, lifecycle.NodeEmpty, lifecycle.NodeDrain}
		for _, event := range rapid.SliceOf(rapid.SampledFrom(events)).Draw(t, "events") {
			state, _ = table.Next(state, event)
			if state != lifecycle.NodeDraining && state != lifecycle.NodeDrained {
				t.Fatalf("%v made it %v", event, state)
			}
		}
	})
}
