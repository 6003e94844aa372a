package container_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/container"
)

func TestStatesOnlyRiseAndDoneIsTheEnd(t *testing.T) {
	for _, state := range container.States() {
		for _, event := range container.Events() {
			next, ok := container.Table().Next(state, event)
			if next < state {
				t.Errorf("%v on %v goes back to %v", state, event, next)
			}
			if !ok && next != state {
				t.Errorf("%v on %v has no rule and changes to %v", state, event, next)
			}
		}
	}
}

func TestAStopIsHeededInEveryStateBeforeTheEnd(t *testing.T) {
	for _, state := range container.States() {
		next, _ := container.Table().Next(state, container.StopRequested)
		if want := max(state, container.Stopping); next != want {
			t.Errorf("in %v a stop leads to %v, want %v", state, next, want)
		}
	}
}

func TestAnEndIsHeededInEveryStateBeforeTheEnd(t *testing.T) {
	for _, state := range container.States() {
		if next, _ := container.Table().Next(state, container.Ended); next != container.Done {
			t.Errorf("in %v an end leads to %v", state, next)
		}
	}
}

func TestNoGraceKeepsAStopFromSucceeding(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{
		-time.Hour: 0, 0: 0, time.Minute: time.Minute, 1<<63 - 1: 24 * time.Hour,
	} {
		now := time.Unix(1000, 0)
		c := brought(container.Running, now)
		var got []time.Duration
		for _, effect := range machine.Apply(now, c, container.Fact{Event: container.StopRequested, Stop: container.Stop{Grace: &asked}}) {
			if effect.Kind == container.StopProcess {
				got = append(got, effect.Grace)
			}
		}
		if len(got) != 1 || got[0] != want {
			t.Errorf("a stop with a grace of %v was done with %v, want %v", asked, got, want)
		}
	}
}

// Every fact in every state: applied to a container that was brought there, it never panics, and what it does
// is what testdata/pairs says.
func TestPairs(t *testing.T) {
	datadriven.RunTest(t, "testdata/pairs", func(t *testing.T, d *datadriven.TestData) string {
		var out strings.Builder
		for _, state := range container.States() {
			for _, event := range container.Events() {
				now := time.Unix(1000, 0)
				c := brought(state, now)
				effects := machine.Apply(now, c, container.Fact{Event: event, Detail: "why", Process: container.Process{StartedAt: now}})
				if len(effects) == 0 && c.State == state {
					continue
				}
				fmt.Fprintf(&out, "%-10v + %-19v = %-10v %s\n", state, event, c.State, names(effects))
			}
		}
		return out.String()
	})
}

func names(effects []container.Effect) string {
	words := make([]string, len(effects))
	for i, effect := range effects {
		words[i] = effect.Kind.String()
		if effect.Kind == container.StopProcess {
			words[i] += fmt.Sprintf("(%v)", effect.Grace)
		}
	}
	return strings.Join(words, ", ")
}

// brought is a container that has come to a state the usual way.
func brought(state container.State, now time.Time) *container.Container {
	c := &container.Container{
		ID:    id.Container{Epoch: 1, App: id.App{ClusterStart: 1, Seq: 1}, Seq: 1},
		Grace: 10 * time.Second, HasProbe: true, StartPeriod: time.Minute, MemoryBytes: 64 << 20,
	}
	machine.Accept(now, c)
	path := []container.Fact{
		{Event: container.Recorded},
		{Event: container.Prepared},
		{Event: container.Started, Process: container.Process{StartedAt: now}},
		{Event: container.StopRequested, Stop: container.Stop{Reason: container.StopCommanded, Message: "asked"}},
		{Event: container.Ended, Ending: container.Ending{Code: 143}},
	}
	for _, fact := range path[:state] {
		machine.Apply(now, c, fact)
	}
	return c
}

// The stories under testdata/stories read as prose: each line is a fact, what follows is what comes of it.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		var (
			c     *container.Container
			start = time.Unix(1_000_000, 0)
			now   = start
		)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var effects []container.Effect
			switch d.Cmd {
			case "accept":
				now = start
				c = &container.Container{
					ID:    id.Container{Epoch: 1, App: id.App{ClusterStart: 1, Seq: 1}, Seq: 1},
					Grace: 10 * time.Second, HasProbe: d.HasArg("probed"), StartPeriod: time.Minute, MemoryBytes: 64 << 20,
				}
				effects = machine.Accept(now, c)
			case "wait":
				var text string
				d.ScanArgs(t, "for", &text)
				by, err := time.ParseDuration(text)
				if err != nil {
					t.Fatal(err)
				}
				now = now.Add(by)
				effects = machine.Tick(now, c)
			case "fact":
				effects = machine.Apply(now, c, readFact(t, d, now))
			case "restart":
				effects = machine.Recover(now, c)
			default:
				d.Fatalf(t, "unknown command")
			}
			return describe(c, effects, start)
		})
	})
}

func readFact(t *testing.T, d *datadriven.TestData, now time.Time) container.Fact {
	name := strings.ReplaceAll(d.CmdArgs[0].Key, "-", " ")
	fact := container.Fact{Detail: strings.TrimSpace(d.Input), AsOf: now, Process: container.Process{StartedAt: now}}
	for _, event := range container.Events() {
		if event.String() == name {
			fact.Event = event
			if event == container.StopRequested {
				fact.Stop = container.Stop{Reason: container.StopCommanded, Message: fact.Detail}
			}
			for _, arg := range d.CmdArgs[1:] {
				switch arg.Key {
				case "grace":
					grace, err := time.ParseDuration(arg.Vals[0])
					if err != nil {
						t.Fatal(err)
					}
					fact.Stop.Grace = &grace
				case "code":
					arg.Scan(t, 0, &fact.Ending.Code)
				case "oom":
					fact.Ending.OOM = true
				case "signal":
					arg.Scan(t, 0, &fact.Ending.Signal)
				case "phase":
					arg.Scan(t, 0, &fact.Phase)
				}
			}
			return fact
		}
	}
	d.Fatalf(t, "no such fact: %s", name)
	return fact
}

func describe(c *container.Container, effects []container.Effect, start time.Time) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%v", c.State)
	if c.Health != container.NoProbe {
		fmt.Fprintf(&out, " (%v)", c.Health)
	}
	if c.Reason != "" {
		fmt.Fprintf(&out, ": %s", c.Reason)
	}
	if c.Exit != nil {
		fmt.Fprintf(&out, " [reason %d, code %d]", c.Exit.Reason, c.Exit.Code)
	}
	fmt.Fprintf(&out, "\n  do: %s\n", names(effects))
	for _, phase := range c.Phases {
		fmt.Fprintf(&out, "  %s from +%v", phase.Name, phase.StartedAt.Sub(start))
		if phase.Duration >= 0 {
			fmt.Fprintf(&out, " for %v", phase.Duration)
		}
		if phase.Error != "" {
			fmt.Fprintf(&out, " failed: %s", phase.Error)
		}
		out.WriteString("\n")
	}
	if at := machine.Deadline(c); !at.IsZero() {
		fmt.Fprintf(&out, "  next deadline +%v\n", at.Sub(start))
	}
	return out.String()
}
