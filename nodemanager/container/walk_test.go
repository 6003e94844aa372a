package container_test

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/container"
)

var machine = container.Machine{
	Retention: time.Hour, RetryMin: time.Second, RetryMax: 8 * time.Second,
	LaunchTimeout: time.Minute, ExitTimeout: time.Second,
}

// world is one container, the engine that may have a process for it, and the edges between the two.
type world struct {
	t   *rapid.T
	now time.Time
	c   *container.Container
	// What was written down last, and what is to be written when there is time.
	disk, unsaved []byte
	// The engine: whether it answers, whether a process runs, whether one ever ran and has ended.
	away, running, ended bool
	untold               bool // an end that nobody was told of yet
	calls                []container.EffectKind
	dropped              bool
	wanted               bool
	byHand               bool      // what runs was started by somebody else, after its end
	started              time.Time // when what runs was
	removed              bool      // the engine has nothing of it any more
	listing              *container.Fact
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, now: time.Unix(1_000_000, 0)}
	w.c = &container.Container{
		ID: id.Container{Epoch: 1, App: id.App{ClusterStart: 1, Seq: 1}, Seq: 1}, Grace: 10 * time.Second,
		HasProbe: rapid.Bool().Draw(t, "probed"), StartPeriod: 20 * time.Second,
	}
	w.perform(machine.Accept(w.now, w.c))
	return w
}

func (w *world) apply(fact container.Fact) {
	before, sequence := w.c.State, w.c.Sequence
	effects := machine.Apply(w.now, w.c, fact)
	w.check(before, sequence)
	w.perform(effects)
}

func (w *world) check(before container.State, sequence int64) {
	if w.c.State < before {
		w.t.Fatalf("went back from %v to %v", before, w.c.State)
	}
	if w.c.Sequence < sequence {
		w.t.Fatalf("the sequence fell from %d to %d", sequence, w.c.Sequence)
	}
}

func (w *world) perform(effects []container.Effect) {
	for _, effect := range effects {
		switch effect.Kind {
		case container.Save:
			w.unsaved = w.record()
		case container.Drop:
			w.dropped = true
		case container.Start:
			if w.inFlight(container.Start) || w.inFlight(container.StopProcess) {
				w.t.Fatal("a start was asked for while another call was under way")
			}
			w.calls = append(w.calls, effect.Kind)
		case container.StopProcess:
			if w.c.State == container.Done && effect.Grace != 0 {
				w.t.Fatal("what somebody else has started is given a grace")
			}
			if w.inFlight(container.Start) {
				w.t.Fatal("a stop was asked for that the start under way would outrun")
			}
			w.calls = append(w.calls, effect.Kind)
		case container.Record, container.Prepare, container.Remove, container.Purge:
			w.calls = append(w.calls, effect.Kind)
		}
	}
	if w.c.State == container.Done && (w.running && !w.byHand || w.inFlight(container.Start)) {
		w.t.Fatal("done, and a process runs or may yet be started")
	}
}

func (w *world) record() []byte {
	raw, err := json.Marshal(w.c)
	if err != nil {
		w.t.Fatal(err)
	}
	return raw
}

func (w *world) write() {
	if w.unsaved != nil {
		w.disk, w.unsaved = w.unsaved, nil
	}
}

func (w *world) inFlight(kind container.EffectKind) bool {
	for _, call := range w.calls {
		if call == kind {
			return true
		}
	}
	return false
}

// answer lets the i-th call under way come to its end.
func (w *world) answer(i int, fails bool) {
	call := w.calls[i]
	w.calls = append(w.calls[:i:i], w.calls[i+1:]...)
	switch call {
	case container.Record:
		if fails {
			w.apply(container.Fact{Event: container.RecordFailed, Detail: "no space"})
			return
		}
		w.disk = w.record()
		w.apply(container.Fact{Event: container.Recorded})
	case container.Prepare:
		switch {
		case w.away:
			w.apply(container.Fact{Event: container.PrepareUnavailable, Detail: "no engine"})
		case fails:
			w.apply(container.Fact{Event: container.PrepareFailed, Detail: "no image"})
		default:
			w.apply(container.Fact{Event: container.Prepared})
		}
	case container.Start:
		switch {
		case w.ended && !w.away: // a runtime shows what it has instead of starting it again
			w.apply(container.Fact{Event: container.Started, Process: container.Process{StartedAt: w.now}})
			w.untold = true
			w.tell()
		case w.away: // the answer is lost; the start may have happened
			if fails && !w.ended {
				w.run()
			}
			w.apply(container.Fact{Event: container.StartUnavailable, Detail: "no engine"})
		case fails && !w.running:
			w.apply(container.Fact{Event: container.StartFailed, Detail: "no such command"})
		default:
			w.run()
			w.apply(container.Fact{Event: container.Started, Process: container.Process{StartedAt: w.started}})
		}
	case container.StopProcess:
		if w.away {
			w.apply(container.Fact{Event: container.StopFailed, Detail: "no engine"})
			return
		}
		w.die()
		w.apply(container.Fact{Event: container.Stopped})
	case container.Remove:
		switch {
		case w.running:
			w.apply(container.Fact{Event: container.RemoveRefused, Detail: "it runs"})
			return
		case w.away:
			w.apply(container.Fact{Event: container.RemoveFailed, Detail: "no engine"})
			return
		}
		w.ended, w.removed = false, true
		w.apply(container.Fact{Event: container.Removed})
	case container.Purge:
		w.apply(container.Fact{Event: container.Purged})
	}
}

func (w *world) run() {
	if !w.running {
		w.running, w.started = true, w.now
	}
}

func (w *world) die() {
	if w.running {
		w.running, w.ended, w.untold, w.byHand = false, true, true, false
	}
}

// revive starts it again from outside, possibly before its end was reported.
func (w *world) revive() {
	if w.ended && !w.running && (w.c.State == container.Done || w.c.State == container.Running) {
		w.run()
		w.byHand = true
	}
}

// late is a call from before the end that the engine performs only now: the container exists, and never runs.
func (w *world) late() {
	if w.removed && !w.running && w.c.State == container.Done {
		w.ended, w.removed = true, false
	}
}

func (w *world) tell() {
	if w.untold {
		w.untold = false
		w.apply(container.Fact{Event: container.Ended, Ending: container.Ending{Code: 1, At: w.now}})
	}
}

func (w *world) list() *container.Fact {
	fact := container.Fact{AsOf: w.now, Event: container.Missing}
	switch {
	case w.running:
		fact.Event, fact.Process = container.Found, container.Process{StartedAt: w.started}
	case w.ended && w.c.State == container.Done:
		fact.Event = container.LeftBehind
	case w.ended:
		fact.Event = container.Ended
	}
	return &fact
}

func (w *world) tick(by time.Duration) {
	w.now = w.now.Add(by)
	before, sequence := w.c.State, w.c.Sequence
	effects := machine.Tick(w.now, w.c)
	w.check(before, sequence)
	w.perform(effects)
	if at := machine.Deadline(w.c); !w.dropped && !at.IsZero() && !at.After(w.now) {
		w.t.Fatalf("in %v, Tick left a deadline behind that has passed", w.c.State)
	}
}

// crash ends the NodeManager suddenly. Calls in progress have happened or not, and their results are lost.
func (w *world) crash(happened bool) {
	if w.disk == nil {
		return // it was never accepted as far as anybody knows
	}
	for _, call := range w.calls {
		if call == container.Start && happened && !w.ended {
			w.run()
		}
	}
	w.calls, w.untold, w.listing, w.unsaved = nil, false, nil, nil
	w.c = &container.Container{}
	if err := json.Unmarshal(w.disk, w.c); err != nil {
		w.t.Fatal(err)
	}
	w.wanted = w.c.StopRequest != nil
	w.perform(machine.Recover(w.now, w.c))
	if !w.away {
		w.apply(*w.list())
	}
}

// settle completes all calls in progress, with an engine that answers.
func (w *world) settle() {
	w.away = false
	for range 200 {
		w.apply(*w.list())
		w.tell()
		for len(w.calls) > 0 {
			w.answer(0, false)
		}
		w.tick(time.Second)
	}
}

// Whatever happens in whatever order: no container has two processes; none is started after its end; none is Done while a process
// runs or may still appear; one that is to be stopped ends; and a container that was started again from outside, or created late by
// the engine, is removed.
func TestNoContainerIsEverDoneWithAProcessLeftNorStartedTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		t.Repeat(map[string]func(*rapid.T){
			"answer": func(t *rapid.T) {
				if len(w.calls) > 0 {
					w.answer(rapid.IntRange(0, len(w.calls)-1).Draw(t, "call"), rapid.IntRange(0, 3).Draw(t, "luck") == 0)
				}
			},
			"begin": func(*rapid.T) { // the process is there before the answer
				if w.inFlight(container.Start) && !w.ended {
					w.run()
				}
			},
			"write": func(*rapid.T) { w.write() },
			"die":   func(*rapid.T) { w.die() },
			"tell":  func(*rapid.T) { w.tell() },
			"stop": func(t *rapid.T) {
				grace := rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute}).Draw(t, "grace")
				w.wanted = true
				w.apply(container.Fact{Event: container.StopRequested, Stop: container.Stop{Reason: container.StopCommanded, Grace: &grace}})
			},
			"probe": func(t *rapid.T) {
				w.apply(container.Fact{Event: rapid.SampledFrom([]container.Event{container.ProbePassed, container.ProbeFailed, container.ProbeInconclusive}).Draw(t, "verdict")})
			},
			"time":   func(t *rapid.T) { w.tick(time.Duration(rapid.IntRange(1, 30).Draw(t, "s")) * time.Second) },
			"engine": func(t *rapid.T) { w.away = rapid.Bool().Draw(t, "away") },
			"ask": func(*rapid.T) {
				if !w.away {
					w.listing = w.list()
				}
			},
			"hear": func(*rapid.T) {
				if w.listing != nil {
					w.now = w.now.Add(time.Millisecond)
					w.apply(*w.listing)
					w.listing = nil
				}
			},
			"revive": func(*rapid.T) { w.revive() },
			"late":   func(*rapid.T) { w.late() },
			"forget": func(*rapid.T) { w.apply(container.Fact{Event: container.EndAcknowledged}) },
			"crash":  func(t *rapid.T) { w.crash(rapid.Bool().Draw(t, "happened")) },
		})
		if !w.wanted {
			w.wanted = true
			w.apply(container.Fact{Event: container.StopRequested, Stop: container.Stop{Reason: container.LeaseEnded}})
		}
		w.settle()
		if w.c.State != container.Done || w.running || w.c.Exit == nil {
			t.Fatalf("its end was wanted; it is %v, running %v, exit %v", w.c.State, w.running, w.c.Exit)
		}
		w.apply(container.Fact{Event: container.EndAcknowledged})
		w.settle()
		w.tick(2 * time.Hour)
		w.settle()
		if w.running || w.ended {
			t.Fatal("something of an ended container is left in the engine")
		}
		if !w.dropped {
			t.Fatal("an ended container that nobody needs was kept for ever")
		}
	})
}
