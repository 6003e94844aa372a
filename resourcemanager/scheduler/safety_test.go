package scheduler

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// walks runs random lives and hands each pass to check, with the state before it.
func walks(t *testing.T, check func(t *rapid.T, w *walk, before snapshot, d Decisions)) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		w := newWalk(t)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w.step(t)
			before := w.snapshot()
			check(t, w, before, w.schedule(t))
		}
	})
}

// snapshot is what a property needs to know of the time before a pass.
type snapshot struct {
	// pending is by app and ask id what gangs wait for.
	gangs map[*app]map[string]int
	// over has, for each leaf, whether it or a queue above it holds more than its guarantee.
	over map[id.Queue]bool
	// warned are the containers with a notice.
	warned map[id.Container]bool
	// told are the deadlines of the notices to containers.
	told map[id.Container]time.Time
	// nodes holds what is free on each node.
	free map[id.Node]resource.Vector
}

func (w *walk) snapshot() snapshot {
	s := snapshot{gangs: map[*app]map[string]int{}, over: map[id.Queue]bool{}, warned: map[id.Container]bool{}, told: maps.Clone(w.told), free: map[id.Node]resource.Vector{}}
	for _, a := range w.core.apps.sorted() {
		s.gangs[a] = map[string]int{}
		for name, k := range a.asks {
			if k.spec.Gang {
				s.gangs[a][name] = k.spec.Pending
			}
		}
	}
	for _, usage := range w.core.Queues() {
		over := usage.Spec.Parent != "" && s.over[usage.Spec.Parent]
		for i := range usage.Used {
			over = over || usage.Spec.Parent != "" && usage.Used[i] > usage.Guaranteed[i]
		}
		s.over[usage.Spec.Name] = over
	}
	for _, given := range w.core.preemption.notices {
		s.warned[given.container.id] = true
	}
	for _, n := range w.core.fleet.nodes {
		s.free[n.spec.Name] = n.spec.Capacity.Sub(n.used)
	}
	return s
}

func TestWhatTheCoreRemembersIsNeverWrongAndNothingThatFitsWaits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWalk(t)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w.step(t)
			if err := verify(w.core, false); err != nil {
				t.Fatal(err)
			}
			// Facts come between the passes too, of which each may be cut short.
			if rapid.IntRange(0, 3).Draw(t, "cut") == 0 {
				w.schedule(t)
				continue
			}
			w.settle(t)
			if err := verify(w.core, true); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestNothingIsEverOverCommitted(t *testing.T) {
	walks(t, func(t *rapid.T, w *walk, before snapshot, d Decisions) {
		granted := map[id.Node]resource.Vector{}
		for _, grant := range d.Grants {
			granted[grant.Node] = granted[grant.Node].Add(grant.Resources)
		}
		for name, sum := range granted {
			for i, n := range sum {
				if n > 0 && n > before.free[name][i] {
					t.Fatalf("node %s had %v left and was given %v", name, before.free[name], sum)
				}
			}
		}
	})
}

func TestNoQueueIsGrantedMoreThanItsMaximum(t *testing.T) {
	walks(t, func(t *rapid.T, w *walk, _ snapshot, d Decisions) {
		usages := map[id.Queue]QueueUsage{}
		for _, usage := range w.core.Queues() {
			usages[usage.Spec.Name] = usage
		}
		if len(w.journal) > 0 && len(d.Stops) > 0 {
			return // Containers that stopped at once make the usage smaller than it was when the grants were made.
		}
		for _, grant := range d.Grants {
			for name := grant.Queue; name != ""; name = usages[name].Spec.Parent {
				for i, n := range grant.Resources {
					if u := usages[name]; n > 0 && u.Used[i] > u.Maximum[i] && u.Maximum != w.core.tree.capacity {
						t.Fatalf("queue %s holds %v, its maximum is %v, and it was granted %v", name, u.Used, u.Maximum, grant)
					}
				}
			}
		}
	})
}

// holders are the queues that were granted something in a pass, themselves or by a queue below.
type holders map[id.Queue]bool

func grantedBelow(w *walk, d Decisions) holders {
	granted := holders{}
	for _, grant := range d.Grants {
		for q := w.core.tree.named(grant.Queue); q != nil; q = q.parent {
			granted[q.spec.Name] = true
		}
	}
	return granted
}

// touch reports whether a queue, or one above it except the root, holds more than before the pass.
func (h holders) touch(q *queue) bool {
	for ; q.parent != nil; q = q.parent {
		if h[q.spec.Name] {
			return true
		}
	}
	return false
}

func TestAPreemptedUnitWasBorrowed(t *testing.T) {
	walks(t, func(t *rapid.T, w *walk, before snapshot, d Decisions) {
		given := grantedBelow(w, d)
		for _, notice := range d.Notices {
			ctr := w.core.containers.byID[notice.Container]
			if ctr == nil || given.touch(ctr.app.leaf) || before.warned[notice.Container] {
				continue
			}
			if !before.over[ctr.app.leaf.spec.Name] {
				t.Fatalf("container %s got notice, but queue %s and those above it are within their guarantees", notice.Container, ctr.app.leaf.spec.Name)
			}
		}
	})
}

func TestNothingIsStoppedOfAQueueThatHoldsNoMoreThanItsGuarantee(t *testing.T) {
	walks(t, func(t *rapid.T, w *walk, before snapshot, d Decisions) {
		given := grantedBelow(w, d)
		for _, stop := range d.Stops {
			a := w.core.apps.byID[stop.Container.App]
			if a == nil || a.leaf == nil || given.touch(a.leaf) {
				continue
			}
			if !before.over[a.leaf.spec.Name] {
				t.Fatalf("container %s is stopped, but queue %s and those above it are within their guarantees", stop.Container, a.leaf.spec.Name)
			}
		}
	})
}

func TestEveryNoticeIsAtLeastAsLongAsTheQueueOrTheContractPromises(t *testing.T) {
	walks(t, func(t *rapid.T, w *walk, before snapshot, d Decisions) {
		for _, notice := range d.Notices {
			ctr := w.core.containers.byID[notice.Container]
			if ctr == nil || ctr.notice == nil {
				continue
			}
			promised := w.now.Add(w.core.config.Notice)
			if lent := ctr.notice.contract; lent != nil {
				// Containers that are preempted for a hand-back must have ended before the window closes, however short the window
				// is.
				if claim := ctr.notice.claim; claim == nil || !claim.ask.app.leaf.isUnder(lent.lender) {
					continue
				}
				promised = w.now.Add(lent.spec.Notice)
				if back := lent.window.Close.Add(-lent.spec.Grace); back.Before(promised) {
					promised = back
				}
			}
			if heard, ok := before.told[notice.Container]; ok && heard.Before(promised) {
				promised = heard
			}
			if notice.Deadline.Before(promised) && (ctr.notice.contract == nil || notice.Deadline.After(w.now)) {
				t.Fatalf("container %s has %s, and was promised %s", notice.Container, notice.Deadline.Sub(w.now), promised.Sub(w.now))
			}
		}
	})
}

func TestNothingIsStoppedThatHadNoNoticeOrWhoseNoticeRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWalk(t)
		deadlines := map[id.Container]time.Time{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w.step(t)
			d := w.schedule(t)
			for _, ctr := range d.Cancelled {
				delete(deadlines, ctr)
			}
			for _, notice := range d.Notices {
				deadlines[notice.Container] = notice.Deadline
			}
			for _, stop := range d.Stops {
				deadline, ok := deadlines[stop.Container]
				if !ok || deadline.After(w.now) {
					t.Fatalf("container %s is stopped at %s, its notice says %s", stop.Container, w.now, deadline)
				}
				delete(deadlines, stop.Container)
			}
		}
	})
}

func TestGangsAreWholeOrAbsent(t *testing.T) {
	walks(t, func(t *rapid.T, w *walk, before snapshot, d Decisions) {
		granted := map[*app]map[string]int{}
		for _, grant := range d.Grants {
			a := w.core.apps.byID[grant.Container.App]
			if granted[a] == nil {
				granted[a] = map[string]int{}
			}
			granted[a][grant.Ask]++
		}
		for a, asks := range granted {
			for name, n := range asks {
				if want, isGang := before.gangs[a][name]; isGang && n != want {
					t.Fatalf("gang %s of %s wanted %d and was granted %d", name, a.title(), want, n)
				}
			}
		}
	})
}

func TestReplayingTheJournalGivesTheSameDecisionsWhateverWasAskedInBetween(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWalk(t)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w.step(t)
			w.core.Explain(id.App{ClusterStart: 1, Seq: 1}, w.now)
			if _, err := w.core.Plan(AddApp{Name: "app-2", Queue: "low"}, randomAsk(t), w.now); err != nil {
				_ = err // A plan may be refused; what counts is that it leaves no trace.
			}
			w.core.Queues()
			w.core.lending.ledgers()
			w.schedule(t)
		}
		again := New(Config{Epoch: 1})
		again.pass.grantsPerPass, again.pass.looksPerPass = w.core.pass.grantsPerPass, w.core.pass.looksPerPass
		for i, entry := range w.journal {
			if entry.input != nil {
				if err := again.Apply(entry.input); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if got := fmt.Sprintf("%+v", again.Schedule(entry.at)); got != entry.decisions {
				t.Fatalf("entry %d gave\n%s\nand again\n%s", i, entry.decisions, got)
			}
		}
	})
}

func TestNobodyStarvesOnAZoneThatBecomesFree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWalk(t)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			w.step(t)
			w.schedule(t)
		}
		w.apply(t, SetContracts{})
		for round := 0; ; round++ {
			for _, ctr := range w.live {
				w.apply(t, Release{Container: ctr})
			}
			w.live = w.live[:0]
			w.now = w.now.Add(30 * time.Second)
			if w.settle(t) == 0 && len(w.live) == 0 {
				break
			}
			if round > 200 {
				t.Fatal("there is no end to what is granted")
			}
		}
		for _, a := range w.core.apps.sorted() {
			for _, k := range a.sortedAsks() {
				if k.spec.Gang {
					continue
				}
				if w.core.tree.limit(k, &k.spec.Resources).kind != noLimit {
					continue
				}
				for _, n := range w.core.fleet.nodes {
					if n.known && w.core.fleet.failureOn(n, k).rule == noRule {
						t.Fatalf("ask %s of %s is never granted, though node %s is free for it", k.spec.ID, a.title(), n.spec.Name)
					}
				}
			}
		}
	})
}

// units is a zone of equal nodes and equal containers, in which guarantees can be met exactly.
func units(t *rapid.T) *walk {
	w := &walk{core: New(Config{Epoch: 1}), now: start}
	queues := randomQueues(t)
	for i := range queues {
		queues[i].UserLimitPercent, queues[i].Maximum = 0, Capacity{}
	}
	w.apply(t, SetQueues{Queues: queues})
	for i := range rapid.IntRange(1, 5).Draw(t, "nodes") {
		size := int64(rapid.IntRange(1, 6).Draw(t, "size"))
		w.apply(t, SetNode{Node: NodeSpec{Name: id.Node(fmt.Sprintf("node-%d", i)), Capacity: resource.Vector{size * 1000, size << 30}}})
	}
	for i, leaf := range []id.Queue{"apps", "low", "high"} {
		w.apply(t, AddApp{App: id.App{ClusterStart: 1, Seq: int64(i + 1)}, Name: fmt.Sprintf("app-%d", i), Queue: leaf})
	}
	return w
}

func TestNoGuaranteeIsBreachedBeyondNoticeAndStop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := units(t)
		for range rapid.IntRange(1, 6).Draw(t, "rounds") {
			for seq := range 3 {
				app := id.App{ClusterStart: 1, Seq: int64(seq + 1)}
				w.apply(t, SetAsk{App: app, Ask: Ask{
					ID: "a", Pending: rapid.IntRange(0, 30).Draw(t, "pending"), Policy: Policy(rapid.IntRange(0, 1).Draw(t, "policy")),
					Resources: resource.Vector{1000, 1 << 30},
				}})
			}
			for i := len(w.live) - 1; i >= 0; i-- {
				if rapid.IntRange(0, 3).Draw(t, "ends") == 0 {
					w.apply(t, Release{Container: w.live[i]})
					w.live = append(w.live[:i], w.live[i+1:]...)
				}
			}
			// One pass gives notices, one at the deadline stops containers, and one more grants the freed room.
			for passes, turns := 0, 0; passes < 3; turns++ {
				d := w.core.Schedule(w.now)
				for _, grant := range d.Grants {
					w.live = append(w.live, grant.Container)
				}
				for _, stop := range d.Stops {
					w.apply(t, Release{Container: stop.Container})
					for i, ctr := range w.live {
						if ctr == stop.Container {
							w.live = append(w.live[:i], w.live[i+1:]...)
							break
						}
					}
				}
				// A pass that has more to decide requests the next one at once.
				if d.Next.Equal(w.now) && turns < 1000 {
					continue
				}
				passes++
				w.now = w.now.Add(w.core.config.Notice)
			}
			unit := resource.Vector{1000, 1 << 30}
			for _, usage := range w.core.Queues() {
				if asks := !usage.Pending.IsZero(); asks && within(&usage.Used, &unit, &usage.Guaranteed) {
					t.Fatalf("queue %s still asks for %v, holds %v and is guaranteed %v", usage.Spec.Name, usage.Pending, usage.Used, usage.Guaranteed)
				}
			}
		}
	})
}

func TestTheSameContainerIsNotTakenAgainAndAgain(t *testing.T) {
	// Two batch apps borrow everything, and a service comes and goes. An app that was preempted has a credit and is more expensive
	// to preempt, so the stops alternate.
	c := New(Config{Epoch: 1})
	must := func(in Input) {
		t.Helper()
		if err := c.Apply(in); err != nil {
			t.Fatal(err)
		}
	}
	half := Capacity{Percent: 50, IsPercent: true}
	must(SetQueues{Queues: []QueueSpec{{Name: "root"}, {Name: "services", Parent: "root", Guaranteed: half}, {Name: "batch", Parent: "root"}}})
	must(SetNode{Node: NodeSpec{Name: "n", Capacity: resource.Vector{2000, 2 << 30}}})
	unit := resource.Vector{1000, 1 << 30}
	ids := []id.App{{ClusterStart: 1, Seq: 1}, {ClusterStart: 1, Seq: 2}, {ClusterStart: 1, Seq: 3}}
	for i, queue := range []id.Queue{"batch", "batch", "services"} {
		must(AddApp{App: ids[i], Name: fmt.Sprintf("app-%d", i), Queue: queue})
	}
	stops := map[id.App]int{}
	now := start
	for range 20 {
		for _, app := range ids[:2] {
			held := 0
			for ctr := c.apps.byID[app].containers; ctr != nil; ctr = ctr.nextOfApp {
				held++
			}
			must(SetAsk{App: app, Ask: Ask{ID: "a", Pending: 1 - held, Policy: Pack, Resources: unit}})
		}
		c.Schedule(now)
		now = now.Add(time.Minute)
		must(SetAsk{App: ids[2], Ask: Ask{ID: "a", Pending: 1, Policy: Pack, Resources: unit}})
		c.Schedule(now)
		now = now.Add(c.config.Notice)
		for _, stop := range c.Schedule(now).Stops {
			stops[stop.Container.App]++
			must(Release{Container: stop.Container})
		}
		for _, grant := range append([]Grant(nil), c.Schedule(now).Grants...) {
			if grant.Queue == "services" {
				must(Release{Container: grant.Container})
			}
		}
	}
	if stops[ids[0]]+stops[ids[1]] != 20 || stops[ids[0]] < 8 || stops[ids[1]] < 8 {
		t.Errorf("of twenty stops one app had %d, the other %d", stops[ids[0]], stops[ids[1]])
	}
}
