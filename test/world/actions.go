package world

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Action is something that people do, or that fails. What it is about is drawn from its own seed, so that it stays the same when others
// are left out.
type Action struct {
	At   time.Duration
	Kind string
	Seed uint64
}

func (a Action) String() string { return fmt.Sprintf("%s %s %d", a.At, a.Kind, a.Seed) }

// kind is what an action does to a world.
type kind struct {
	name string
	// often is how often it comes among the others of its sort.
	often int
	do    func(*World, *rand.Rand)
}

// actions are what people do and what fails in a world of a seed. Each seed has some kinds only, some of them often: worlds in which
// everything fails all the time come nowhere.
func actions(config Config) []Action {
	random := rand.New(rand.NewPCG(config.Seed, 4))
	var all []Action
	mix := func(kinds []kind, often int) {
		var some []string
		for _, k := range kinds {
			if k.name == "deploy" || random.IntN(3) > 0 {
				for range k.often * (1 + random.IntN(3)) {
					some = append(some, k.name)
				}
			}
		}
		if len(some) == 0 || often == 0 {
			return
		}
		for n := range config.Cycles {
			first := time.Duration(n)*config.cycle() + 30*time.Second
			at := first
			for at < first+config.Trouble-time.Minute {
				all = append(all, Action{at, some[random.IntN(len(some))], random.Uint64()})
				gap := config.Trouble / time.Duration(often)
				at += time.Duration(random.Int64N(int64(2 * gap)))
				if random.IntN(3) == 0 {
					at -= time.Duration(random.Int64N(int64(gap))) // several come together
				}
				at = max(at, first)
			}
		}
	}
	mix(deeds(), []int{10, 30, 60, 120}[random.IntN(4)])
	mix(faults(), []int{0, 6, 20, 60, 150}[random.IntN(5)])
	slices.SortStableFunc(all, func(a, b Action) int { return int(a.At - b.At) })
	return all
}

// kinds are all kinds of actions.
func kinds() []kind { return slices.Concat(deeds(), faults()) }

// perform does an action.
func (w *World) perform(a Action) {
	random := rand.New(rand.NewPCG(a.Seed, 3))
	for _, k := range kinds() {
		if k.name == a.Kind {
			w.trace("ACTION %s", a)
			k.do(w, random)
			return
		}
	}
	panic("nobody knows how to " + a.Kind)
}

func pick[T any](random *rand.Rand, all []T) T { return all[random.IntN(len(all))] }

// lasting draws how long something lasts: mostly seconds, sometimes minutes.
func lasting(random *rand.Rand) time.Duration {
	most := pick(random, []time.Duration{time.Second, 8 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute})
	return time.Duration(1 + random.Int64N(int64(most)))
}
