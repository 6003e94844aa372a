package world

import (
	"container/heap"
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"slices"
	"time"
)

// Config is what a run is made of. Two runs with the same Config are the same.
type Config struct {
	// Seed is what everything that is left to chance is drawn from.
	Seed uint64
	// Cycles of trouble and calm. In a calm faults have ended, and the zone has to come to rest.
	Cycles int
	// Trouble is how long each trouble lasts; zero is an hour.
	Trouble time.Duration
	// Actions are what people do and what fails. Nil are those that the seed gives; an empty list is none.
	Actions []Action
	// Plant is a fault of the program itself, for tests of the laws; zero is none.
	Plant Plant
	// Only is the law that ends a run, for tests of the laws; empty is all.
	Only string
	// Trace is told of everything that happens; may be nil.
	Trace io.Writer
	// Record is asked for each run of the ResourceManager where it records what it is given; may be nil.
	Record func() io.Writer
}

// Result is what a run came to.
type Result struct {
	Seed    uint64
	Actions []Action
	// Broken is the law that was broken, Sentence how, and At when; empty if none was.
	Broken, Sentence string
	At               time.Duration
	// Simulated is how much time passed in the world, Steps how many things happened in it.
	Simulated time.Duration
	Steps     int64
	// Sent is a hash of everything that was sent, in its order.
	Sent uint64
	// Faults counts what failed, and Done what people did, by kind.
	Faults, Done map[string]int
	// Rested is how long it took at most until all was at rest after faults had ended.
	Rested time.Duration
	// Turns and Messages count those of the ResourceManager and of the network. Doubled are the calls that were sent twice.
	Turns, Messages, Doubled int64
}

// World is a zone with its machines, its network and its people, in one goroutine under a clock of its own.
type World struct {
	config Config
	// random is the source of all chance but that of the actions, each of which has one of its own.
	random *rand.Rand
	start  time.Time
	now    time.Time
	queue  events
	number int64
	sent   hash.Hash64
	result Result
	// over is set when a law was broken.
	over bool

	network   *network
	disk      *disk
	manager   *manager
	hosts     []*host
	balancers []*balancer
	people    *people
	laws      *laws
	// troubles are when something failed, oldest first.
	troubles []span
}

// began is when every world begins, a Monday.
var began = time.Date(2026, 3, 2, 5, 0, 0, 0, time.UTC)

// Run runs a world until a law is broken or its hours are over.
func Run(config Config) Result {
	w := newWorld(config)
	w.run()
	return w.result
}

func newWorld(config Config) *World {
	config = config.complete()
	w := &World{
		config: config, random: rand.New(rand.NewPCG(config.Seed, 1)), start: began, now: began, sent: fnv.New64a(),
		result: Result{Seed: config.Seed, Faults: map[string]int{}, Done: map[string]int{}},
	}
	w.network = newNetwork(w)
	w.laws = newLaws(w)
	w.people = newPeople(w)
	w.disk = newDisk()
	shape := rand.New(rand.NewPCG(config.Seed, 2))
	for i := range 3 + shape.IntN(3) {
		w.hosts = append(w.hosts, newHost(w, fmt.Sprintf("node-%d", i+1), 3000+1000*int64(shape.IntN(3))))
	}
	for i := range shape.IntN(3) {
		w.balancers = append(w.balancers, newBalancer(w, fmt.Sprintf("balancer-%d", i+1)))
	}
	if config.Actions == nil {
		config.Actions = actions(config)
	}
	w.result.Actions = config.Actions
	w.startManager()
	for _, h := range w.hosts {
		h.startManager()
	}
	for _, b := range w.balancers {
		b.run()
	}
	w.people.begin()
	for _, action := range config.Actions {
		w.at(w.start.Add(action.At), func() { w.perform(action) })
	}
	return w
}

// run lets trouble and calm follow each other.
func (w *World) run() {
	for n := range w.config.Cycles {
		from := w.start.Add(time.Duration(n) * w.config.cycle())
		w.until(from.Add(w.config.Trouble))
		if w.over {
			break
		}
		w.calm()
		if w.over || w.config.Only != "" && w.config.Only != "rest" {
			break
		}
		w.awaitRest(from.Add(w.config.cycle()))
		w.until(from.Add(w.config.cycle()))
		w.laws.rest()
		if w.over {
			break
		}
	}
	w.result.Simulated = w.now.Sub(w.start)
	w.result.Sent = w.sent.Sum64()
}

// calm is how long a zone has to come to rest.
const calm = 20 * time.Minute

// cycle is how long trouble and the calm after it last together.
func (c Config) cycle() time.Duration { return c.Trouble + calm }

func (c Config) complete() Config {
	c.Cycles = max(1, c.Cycles)
	if c.Trouble <= 0 {
		c.Trouble = time.Hour
	}
	return c
}

// awaitRest lets time pass until all is at rest, and notes how long that took.
func (w *World) awaitRest(by time.Time) {
	began := w.now
	for !w.over && w.now.Before(by) && w.laws.unrest() != "" {
		w.until(w.now.Add(2 * time.Second))
	}
	w.result.Rested = max(w.result.Rested, w.now.Sub(began))
}

// until lets everything happen up to an instant.
func (w *World) until(at time.Time) {
	for len(w.queue) > 0 && !w.over && !w.queue[0].at.After(at) {
		next := heap.Pop(&w.queue).(event)
		w.now = next.at
		w.result.Steps++
		next.do()
	}
	if !w.over {
		w.now = at
	}
}

// at has something happen at an instant, after everything that was put there before.
func (w *World) at(instant time.Time, do func()) {
	if instant.Before(w.now) {
		instant = w.now
	}
	w.number++
	heap.Push(&w.queue, event{instant, w.number, do})
}

func (w *World) after(d time.Duration, do func()) { w.at(w.now.Add(d), do) }

// between draws a duration.
func (w *World) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.random.Int64N(int64(most-least)+1))
}

// chance is true once in so many times.
func (w *World) chance(in int) bool { return w.random.IntN(in) == 0 }

// span is a time in which something failed.
type span struct{ from, to time.Time }

// fault counts something that fails for a while.
func (w *World) fault(kind string, lasts time.Duration, format string, about ...any) {
	w.result.Faults[kind]++
	w.troubles = append(w.troubles, span{w.now, w.now.Add(lasts)})
	w.trace("FAULT %s for %s: %s", kind, lasts, fmt.Sprintf(format, about...))
}

// quiet reports whether nothing failed from an instant on until now.
func (w *World) quiet(from time.Time) bool { return w.quietUntil(from, w.now) }

func (w *World) quietUntil(from, to time.Time) bool {
	return !slices.ContainsFunc(w.troubles, func(s span) bool { return s.from.Before(to) && s.to.After(from) })
}

func (w *World) trace(format string, about ...any) {
	if w.config.Trace == nil {
		return
	}
	_, _ = fmt.Fprintf(w.config.Trace, "%-15s %s\n", w.now.Sub(w.start), fmt.Sprintf(format, about...))
}

// breach ends the run: a law was broken.
func (w *World) breach(law, format string, about ...any) {
	if w.over || w.config.Only != "" && w.config.Only != law && law != "start" {
		return
	}
	w.over = true
	w.result.Broken, w.result.Sentence, w.result.At = law, fmt.Sprintf(format, about...), w.now.Sub(w.start)
	w.trace("BROKEN %s: %s", law, w.result.Sentence)
}

// seed is the random bytes of a turn.
func (w *World) seed() (bytes [32]byte) {
	for i := range bytes {
		bytes[i] = byte(w.random.Uint32())
	}
	return bytes
}

// event is something that is to happen.
type event struct {
	at     time.Time
	number int64
	do     func()
}

// events are a heap by time and then by number.
type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].number < e[j].number
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = event{}
	*e = (*e)[:last]
	return x
}
