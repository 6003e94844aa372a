package plan

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/internal/id"
)

// world is a ResourceManager and nodes as a Role sees them, with the safety properties as sentences.
type world struct {
	t       *rapid.T
	role    *Role
	wanted  Wanted
	now     time.Time
	attempt int32
	nodes   map[id.Node]NodeState
	// asks are what the ResourceManager still has to grant; those of dead masters may be among them.
	asks       map[string]Ask
	containers map[id.Container]*thing
	sequence   int64
	// outs are the instances whose withdrawal is not confirmed yet.
	outs map[string]bool
	// slots is how many instances there were.
	slots int
	// floor is how many healthy ones there must be while nothing fails; negative while that is not checked.
	floor int
}

// thing is a container that is granted and not seen gone.
type thing struct {
	id           id.Container
	node         id.Node
	ask          Ask
	instance     string
	number       int
	version      int32
	started      bool
	healthy      bool
	inService    bool
	withdrawn    bool
	told         bool // its node has spoken of it
	refused      bool // it does not run
	released     bool
	grantedAt    time.Time
	runningSince time.Time
}

func newWorld(t *rapid.T) *world {
	w := &world{
		t: t, now: begin, nodes: map[id.Node]NodeState{"n1": Ready, "n2": Ready, "n3": Ready}, asks: map[string]Ask{},
		containers: map[id.Container]*thing{}, outs: map[string]bool{}, floor: -1,
		wanted: Wanted{
			Count: rapid.IntRange(0, 5).Draw(t, "count"), Version: 1,
			Update: Update{
				MaxSurge: rapid.IntRange(0, 2).Draw(t, "surge"), MaxUnavailable: rapid.IntRange(0, 2).Draw(t, "unavailable"), Deadline: 5 * time.Minute,
				MinHealthy: time.Duration(rapid.IntRange(0, 3).Draw(t, "healthy for")) * 4 * time.Second,
			},
			Restart: Restart{Window: 10 * time.Minute, MaxFailures: 5, Backoff: time.Second, MaxBackoff: time.Minute},
			Drain:   time.Duration(rapid.IntRange(0, 3).Draw(t, "drain")) * time.Second,
		},
	}
	w.master(Memo{})
	w.next()
	return w
}

// master begins an attempt with what the one before left.
func (w *world) master(memo Memo) {
	w.attempt++
	w.role = New("web", w.attempt)
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		w.role.SetNode(name, w.nodes[name])
	}
	w.role.Want(w.wanted, w.now)
	w.role.Restore(memo)
	var unstarted []*thing
	for _, c := range w.all() {
		if !c.started {
			unstarted = append(unstarted, c)
			continue
		}
		w.role.Adopt(Adopted{Container: c.id, Number: c.number, Version: c.version, Node: c.node, GrantedAt: c.grantedAt})
	}
	for _, c := range unstarted {
		w.role.Granted(Grant{Container: c.id, Node: c.node, Ask: c.ask.ID, Version: c.ask.Version, At: c.grantedAt})
	}
	for _, c := range w.all() {
		if c.started && w.nodes[c.node] != Lost && rapid.Bool().Draw(w.t, "told at once") {
			w.tell(c)
		}
	}
	w.slots = len(w.role.slots)
}

func (w *world) all() []*thing {
	things := slices.Collect(maps.Values(w.containers))
	slices.SortFunc(things, func(a, b *thing) int { return a.id.Compare(b.id) })
	return things
}

func (w *world) tell(c *thing) {
	status := Status{Container: c.id, Stage: Running, RunningSince: c.runningSince}
	switch {
	case c.released:
		status.Stage = Ending
	case c.healthy:
		status.Health, status.GoodSince = Good, c.runningSince
	}
	c.told = true
	w.role.Observe(status, w.now)
}

// next has the plan decide and checks every action.
func (w *world) next() time.Time {
	actions, next := w.role.Next(w.now)
	for _, action := range actions {
		w.perform(action)
	}
	surge := w.wanted.Update.MaxSurge
	w.checkExclusive()
	if surge == 0 && w.wanted.Update.MaxUnavailable == 0 {
		surge = 1
	}
	for _, c := range w.all() {
		if !c.released && w.nodes[c.node] == Draining {
			surge = max(surge, 1)
		}
	}
	if slots := len(w.role.slots); slots > w.slots && slots > w.most(max(surge, 1)) {
		w.t.Fatalf("there are %d instances where %d are wanted with a surge of %d", slots, w.wanted.Count, surge)
	}
	w.slots = len(w.role.slots)
	if again, _ := w.role.Next(w.now); len(again) > 0 {
		w.t.Fatalf("asked again at once, it does more: %#v", again)
	}
	w.report()
	w.checkFloor()
	return next
}

// report is what the registry learns: a container that a new master found healthy serves again.
func (w *world) report() {
	for _, i := range w.role.Instances(w.now) {
		if c := w.containers[i.Container]; c != nil && i.State != Unseen && i.InService && !c.inService {
			c.inService, c.withdrawn = true, false
			delete(w.outs, i.Name)
		}
	}
}

// most is how many instances there may be: as many as wanted of two versions, while the one makes ready beside the other.
func (w *world) most(surge int) int {
	if w.wanted.Update.Strategy == Rolling {
		return w.wanted.Count + surge
	}
	return 2 * (w.wanted.Count + surge)
}

// checkExclusive: while the old version is in service nowhere is the new one.
func (w *world) checkExclusive() {
	if w.wanted.Update.Strategy != BlueGreen || !w.wanted.Update.Exclusive || w.wanted.Count == 0 {
		return
	}
	var fresh, old bool
	for _, i := range w.role.Instances(w.now) {
		if i.State == Unseen || i.State == Unreachable {
			continue // nothing new is said of it, or nobody can tell it anything
		}
		fresh = fresh || i.InService && i.Version == w.wanted.Version
		old = old || i.InService && i.Version != w.wanted.Version
	}
	if fresh && old {
		w.t.Fatalf("two versions are in service at once\n%s", w)
	}
}

func (w *world) serving() int {
	serving := 0
	for _, c := range w.containers {
		if c.healthy && c.inService && w.nodes[c.node] != Lost {
			serving++
		}
	}
	return serving
}

func (w *world) checkFloor() {
	if w.floor < 0 {
		return
	}
	serving := w.serving()
	if serving < w.floor-w.wanted.Update.MaxUnavailable {
		w.t.Fatalf("only %d serve where %d are wanted and %d may be missing, though nothing failed\n%s", serving, w.floor, w.wanted.Update.MaxUnavailable, w)
	}
	if serving >= w.wanted.Count {
		w.floor = w.wanted.Count
	}
}

func (w *world) perform(action Action) {
	switch a := action.(type) {
	case Ask:
		if _, ok := w.asks[a.ID]; ok {
			w.t.Fatalf("%s was asked twice", a.ID)
		}
		w.asks[a.ID] = a
	case Unask:
		delete(w.asks, a.ID)
	case Start:
		c := w.containers[a.Container]
		if c == nil || c.started || c.released {
			w.t.Fatalf("%s is started in %v, which is %+v", a.Instance, a.Container, c)
		}
		for _, other := range w.containers {
			if other.started && !other.released && other.instance == a.Instance && w.nodes[other.node] != Lost {
				w.t.Fatalf("%s is started in %v while %v runs as %s", a.Instance, a.Container, other.id, a.Instance)
			}
		}
		c.started, c.instance, c.number, c.version = true, a.Instance, a.Number, a.Version
	case TakeOut:
		for _, c := range w.containers {
			if c.instance == a.Instance && !c.released {
				c.inService = false
			}
		}
		w.outs[a.Instance] = true
	case Release:
		c := w.containers[a.Container]
		if c == nil {
			return
		}
		if !c.released && c.started && !c.withdrawn && !c.refused && w.nodes[c.node] != Lost {
			w.t.Fatalf("%v (%s) is stopped before it was withdrawn", c.id, c.instance)
		}
		c.released, c.inService = true, false
		if !c.started {
			delete(w.containers, c.id)
		}
	case Close:
		for _, c := range w.containers {
			if c.instance == a.Instance && c.started && !c.released {
				w.t.Fatalf("%s is closed while %v runs", a.Instance, c.id)
			}
		}
	}
}

// step is one thing that happens. A benign world breaks nothing.
func (w *world) step(benign bool) {
	kinds := []string{"grant", "grant", "healthy", "healthy", "healthy", "confirm", "confirm", "gone", "gone", "pass", "deploy", "scale", "reborn", "drain", "restart", "tell", "promote", "pause"}
	if !benign {
		kinds = append(kinds, "crash", "crash", "sicken", "refuse", "lose", "return", "preempt", "never told")
	}
	switch rapid.SampledFrom(kinds).Draw(w.t, "step") {
	case "grant":
		w.grant()
	case "never told":
		w.grantUntold()
	case "healthy":
		if c := w.pick(func(c *thing) bool {
			return c.started && !c.refused && !c.healthy && !c.released && w.nodes[c.node] != Lost
		}); c != nil {
			c.healthy, c.runningSince = true, w.now
			w.tell(c)
		}
	case "tell":
		if c := w.pick(func(c *thing) bool { return c.started && !c.refused && w.nodes[c.node] != Lost }); c != nil {
			w.tell(c)
		}
	case "confirm":
		w.confirm()
	case "gone":
		if c := w.pick(func(c *thing) bool { return c.released && w.nodes[c.node] != Lost }); c != nil {
			w.gone(c, Nobody)
		}
	case "pass":
		w.now = w.now.Add(time.Duration(rapid.IntRange(1, 20000).Draw(w.t, "ms")) * time.Millisecond)
	case "deploy":
		w.wanted.Version++
		w.wanted.Paused = false
		w.wanted.Update.Strategy = rapid.SampledFrom([]Strategy{Rolling, Canary, BlueGreen}).Draw(w.t, "strategy")
		w.wanted.Update.Percent = rapid.IntRange(1, 100).Draw(w.t, "percent")
		w.wanted.Update.Exclusive = !benign && rapid.Bool().Draw(w.t, "exclusive")
		w.role.Want(w.wanted, w.now)
	case "promote":
		w.wanted.Update.Percent = rapid.IntRange(w.wanted.Update.Percent, 100).Draw(w.t, "percent")
		w.role.Want(w.wanted, w.now)
	case "pause":
		w.wanted.Paused = !w.wanted.Paused
		w.role.Want(w.wanted, w.now)
	case "restart":
		w.wanted.RestartBefore = w.now
		w.role.Want(w.wanted, w.now)
	case "scale":
		w.wanted.Count = rapid.IntRange(0, 5).Draw(w.t, "count")
		w.floor = min(w.floor, w.wanted.Count)
		w.role.Want(w.wanted, w.now)
	case "reborn":
		w.master(w.role.Memo())
	case "drain":
		w.setNode(Draining, Ready)
	case "crash":
		if c := w.pick(func(c *thing) bool { return c.started && w.nodes[c.node] != Lost }); c != nil {
			w.gone(c, rapid.SampledFrom([]Blame{App, Node, Either, Nobody}).Draw(w.t, "blame"))
		}
	case "sicken":
		if c := w.pick(func(c *thing) bool { return c.healthy && !c.released && w.nodes[c.node] != Lost }); c != nil {
			c.healthy = false
			w.role.Observe(Status{Container: c.id, Stage: Running, Health: Bad, RunningSince: c.runningSince}, w.now)
		}
	case "refuse":
		if c := w.pick(func(c *thing) bool { return c.started && !c.told && !c.released }); c != nil {
			refusal := rapid.SampledFrom([]Refusal{Refused, RefusedSpec, Unanswered}).Draw(w.t, "refusal")
			if refusal != Unanswered {
				c.refused, c.inService = true, false
			}
			w.role.StartFailed(c.id, "refused", refusal, w.now)
		}
	case "lose":
		w.setNode(Lost, Lost)
	case "return":
		w.setNode(Ready, Ready)
	case "preempt":
		if c := w.pick(func(c *thing) bool { return c.started && !c.released }); c != nil {
			w.role.Preempted(c.id, w.now.Add(30*time.Second))
		}
	}
	w.next()
}

func (w *world) pick(fits func(*thing) bool) *thing {
	things := slices.DeleteFunc(w.all(), func(c *thing) bool { return !fits(c) })
	if len(things) == 0 {
		return nil
	}
	return rapid.SampledFrom(things).Draw(w.t, "container")
}

func (w *world) newContainer() *thing {
	var ready []id.Node
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		if w.nodes[name] == Ready {
			ready = append(ready, name)
		}
	}
	asks := slices.Sorted(maps.Keys(w.asks))
	if len(ready) == 0 || len(asks) == 0 {
		return nil
	}
	ask := w.asks[rapid.SampledFrom(asks).Draw(w.t, "ask")]
	delete(w.asks, ask.ID)
	w.sequence++
	c := &thing{
		id: id.Container{Epoch: 1, Seq: w.sequence}, node: rapid.SampledFrom(ready).Draw(w.t, "node"), ask: ask, grantedAt: w.now,
	}
	w.containers[c.id] = c
	return c
}

func (w *world) grant() {
	if c := w.newContainer(); c != nil {
		w.role.Granted(Grant{Container: c.id, Node: c.node, Ask: c.ask.ID, Version: c.ask.Version, At: w.now})
	}
}

// grantUntold is a grant that the master does not live to hear of.
func (w *world) grantUntold() {
	if w.newContainer() != nil {
		w.master(w.role.Memo())
	}
}

func (w *world) confirm() {
	outs := slices.Sorted(maps.Keys(w.outs))
	if len(outs) == 0 {
		return
	}
	instance := rapid.SampledFrom(outs).Draw(w.t, "instance")
	delete(w.outs, instance)
	for _, c := range w.containers {
		if c.instance == instance && !c.inService {
			c.withdrawn = true
		}
	}
	w.role.Withdrawn(instance, w.now)
}

func (w *world) gone(c *thing, blame Blame) {
	delete(w.containers, c.id)
	w.role.Ended(c.id, Exit{Blame: blame, Reason: "it ended"}, w.now)
}

func (w *world) setNode(to, instead NodeState) {
	name := rapid.SampledFrom(slices.Sorted(maps.Keys(w.nodes))).Draw(w.t, "node")
	if w.nodes[name] == to {
		to = instead
	}
	w.nodes[name] = to
	w.role.SetNode(name, to)
}

// settle is a world that obliges until nothing is left to do. A rollout that has failed is tried again.
func (w *world) settle() {
	w.wanted.Paused, w.wanted.Update.Percent = false, 100
	if w.role.rollout.state == Failed {
		w.wanted.Version++
	}
	w.role.Want(w.wanted, w.now)
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		w.nodes[name] = Ready
		w.role.SetNode(name, Ready)
	}
	for range 2000 {
		next := w.next()
		switch {
		case len(w.asks) > 0:
			w.grant()
			continue
		case len(w.outs) > 0:
			w.confirm()
			continue
		}
		if c := w.pick(func(c *thing) bool { return c.released }); c != nil {
			w.gone(c, Nobody)
			continue
		}
		if c := w.pick(func(c *thing) bool { return c.started && !c.healthy }); c != nil {
			c.healthy, c.runningSince = true, w.now
		}
		for _, c := range w.all() {
			w.tell(c)
		}
		w.now = w.now.Add(time.Second)
		if next.IsZero() && w.settled() == "" {
			return
		}
	}
	w.t.Fatalf("it never settles: %s\n%s", w.settled(), w)
}

// settled says what is not yet as wanted; empty if nothing.
func (w *world) settled() string {
	serving := 0
	for _, c := range w.containers {
		if c.healthy && c.inService && c.version == w.wanted.Version && !c.grantedAt.Before(w.wanted.RestartBefore) {
			serving++
		}
	}
	if serving != w.wanted.Count || len(w.containers) != w.wanted.Count || len(w.role.slots) != w.wanted.Count {
		return fmt.Sprintf("%d serve in %d containers of %d instances, wanted are %d", serving, len(w.containers), len(w.role.slots), w.wanted.Count)
	}
	return ""
}

func (w *world) String() string {
	text := ""
	for _, s := range w.role.sorted() {
		text += fmt.Sprintf("%s: phase %d, goal %d, version %d, %+v\n", w.role.instance(s), w.role.phase(s, w.now), w.role.goal(s, w.now), s.version, s.current)
	}
	for _, c := range w.all() {
		text += fmt.Sprintf("%+v\n", *c)
	}
	return text
}

// Whatever happens (crashes, lost and drained nodes, scalings, deploys, masters that die at any moment): no instance has two
// containers where both can be seen, none is stopped before it was withdrawn, there are never more than wanted and surge
// allow, and when the failures stop, exactly what is wanted runs.
func TestWhateverHappensWantedIsRunningInTheEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			w.step(false)
		}
		w.settle()
	})
}

// While nothing fails, rollouts, restarts, drains and new masters never leave fewer healthy ones than wanted−unavailable.
func TestWhileNothingFailsEnoughAlwaysServe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.settle()
		w.floor = w.wanted.Count
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			w.step(true)
		}
		w.settle()
	})
}

// A version whose every instance dies before it has been healthy for long enough takes nothing from the one before: whatever the
// strategy, of that one wanted−unavailable serve.
func TestWhatDiesYoungTakesNothingAway(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.wanted.Update.MinHealthy = 10 * time.Second
		w.settle()
		old := w.wanted.Version
		w.wanted.Version++
		w.wanted.Update.Strategy = rapid.SampledFrom([]Strategy{Rolling, Canary, BlueGreen}).Draw(t, "strategy")
		w.wanted.Update.Percent = rapid.IntRange(1, 100).Draw(t, "percent")
		w.wanted.Update.Exclusive = rapid.Bool().Draw(t, "exclusive")
		w.role.Want(w.wanted, w.now)
		w.next()
		young := func(c *thing) bool { return c.version != old && c.healthy && !c.released }
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"grant", "healthy", "confirm", "gone", "pass", "pass", "crash", "reborn"}).Draw(t, "step") {
			case "grant":
				w.grant()
			case "healthy":
				if c := w.pick(func(c *thing) bool { return c.started && !c.healthy && !c.released }); c != nil {
					c.healthy, c.runningSince = true, w.now
					w.tell(c)
				}
			case "confirm":
				w.confirm()
			case "gone":
				if c := w.pick(func(c *thing) bool { return c.released }); c != nil {
					w.gone(c, Nobody)
				}
			case "pass":
				then := w.now.Add(time.Duration(rapid.IntRange(1, 9000).Draw(t, "ms")) * time.Millisecond)
				for _, c := range w.all() {
					if young(c) && !then.Before(c.runningSince.Add(w.wanted.Update.MinHealthy)) {
						w.gone(c, App)
						w.next()
					}
				}
				w.now = then
			case "crash":
				if c := w.pick(young); c != nil {
					w.gone(c, App)
				}
			case "reborn":
				w.master(w.role.Memo())
				for _, c := range w.all() {
					if c.started {
						w.tell(c)
					}
				}
			}
			w.next()
			serving := 0
			for _, c := range w.all() {
				if c.version == old && c.healthy && c.inService {
					serving++
				}
			}
			if serving < w.wanted.Count-w.wanted.Update.MaxUnavailable {
				t.Fatalf("of version %d only %d serve where %d are wanted and %d may be missing\n%s", old, serving, w.wanted.Count, w.wanted.Update.MaxUnavailable, w)
			}
		}
	})
}

func TestHowOftenSomethingFailedIsSaidInWords(t *testing.T) {
	for times, want := range map[int]string{1: "once", 2: "2 times", 5: "5 times"} {
		if got := inWords(times); got != want {
			t.Errorf("%d: %q, want %q", times, got, want)
		}
	}
}
