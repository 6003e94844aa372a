package plan

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/google/go-cmp/cmp"

	"github.com/mammoth-os/mammoth/internal/id"
)

// world is a ResourceManager and nodes as a Role sees them. It checks the safety properties after every step.
type world struct {
	t       *rapid.T
	role    *Role
	desired Desired
	now     time.Time
	attempt int32
	nodes   map[id.Node]NodeState
	// asks are those that are not granted yet; earlier masters may have made some.
	asks       map[string]Ask
	containers map[id.Container]*thing
	sequence   int64
	// withdrawals are the instances whose withdrawal is not confirmed yet.
	withdrawals map[string]bool
	// slots is the number of slots after the last step.
	slots int
	// floor is the number of healthy instances that must remain while nothing fails; negative while that is not checked.
	floor int
}

// thing is a container that was granted and not seen gone.
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
	reported     bool // its node has reported it
	refused      bool // it does not run
	released     bool
	grantedAt    time.Time
	runningSince time.Time
}

func newWorld(t *rapid.T) *world {
	w := &world{
		t: t, now: begin, nodes: map[id.Node]NodeState{"n1": NodeReady, "n2": NodeReady, "n3": NodeReady}, asks: map[string]Ask{},
		containers: map[id.Container]*thing{}, withdrawals: map[string]bool{}, floor: -1,
		desired: Desired{
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

// master starts an attempt with the memo of the one before.
func (w *world) master(memo Memo) {
	w.attempt++
	w.role = New("web", w.attempt)
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		w.role.SetNode(name, w.nodes[name])
	}
	w.role.SetDesired(w.desired, w.now)
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
		if c.started && w.nodes[c.node] != NodeLost && rapid.Bool().Draw(w.t, "reported at once") {
			w.report(c)
		}
	}
	w.slots = w.role.slots.len()
}

func (w *world) all() []*thing {
	things := slices.Collect(maps.Values(w.containers))
	slices.SortFunc(things, func(a, b *thing) int { return a.id.Compare(b.id) })
	return things
}

func (w *world) report(c *thing) {
	status := Status{Container: c.id, Stage: StageRunning, RunningSince: c.runningSince}
	switch {
	case c.released:
		status.Stage = StageStopping
	case c.healthy:
		status.Health, status.HealthySince = Healthy, c.runningSince
	}
	c.reported = true
	w.role.Observe(status, w.now)
}

// next performs and checks every action of the plan.
func (w *world) next() time.Time {
	actions, next := w.role.Next(w.now)
	for _, action := range actions {
		w.perform(action)
	}
	surge := w.desired.Update.MaxSurge
	w.checkExclusive()
	if surge == 0 && w.desired.Update.MaxUnavailable == 0 {
		surge = 1
	}
	for _, c := range w.all() {
		if !c.released && w.nodes[c.node] == NodeDraining {
			surge = max(surge, 1)
		}
	}
	if slots := w.role.slots.len(); slots > w.slots && slots > w.maxSlots(max(surge, 1)) {
		w.t.Fatalf("there are %d instances where %d are wanted with a surge of %d", slots, w.desired.Count, surge)
	}
	w.slots = w.role.slots.len()
	if again, _ := w.role.Next(w.now); len(again) > 0 {
		w.t.Fatalf("a second call at once has more actions: %#v", again)
	}
	w.checkCalm(next)
	w.updateRegistry()
	w.checkFloor()
	return next
}

// checkCalm checks that time alone changes nothing before the time at which the plan is to be looked at again. A memo that changes is stored
// and acknowledged, and the acknowledgement has the plan looked at.
func (w *world) checkCalm(next time.Time) {
	const moment = time.Millisecond
	if !next.IsZero() && !next.After(w.now.Add(moment)) {
		return
	}
	before := w.role.Memo()
	w.now = w.now.Add(moment)
	if again, _ := w.role.Next(w.now); len(again) > 0 {
		w.t.Fatalf("a moment later there are more actions: %#v", again)
	}
	if diff := cmp.Diff(before, w.role.Memo()); diff != "" {
		w.t.Fatalf("a moment later the memo is another one: %s", diff)
	}
}

// updateRegistry registers what is in service: a container that a new master found healthy serves again.
func (w *world) updateRegistry() {
	for _, i := range w.role.Instances(w.now) {
		if c := w.containers[i.Container]; c != nil && i.State != InstanceUnknown && i.InService && !c.inService {
			c.inService, c.withdrawn = true, false
			delete(w.withdrawals, i.Name)
		}
	}
}

// maxSlots is the highest number of slots: all desired instances of two versions, except in a rolling update.
func (w *world) maxSlots(surge int) int {
	if w.desired.Update.Strategy == Rolling {
		return w.desired.Count + surge
	}
	return 2 * (w.desired.Count + surge)
}

// checkExclusive: the new version is not in service while the old one is.
func (w *world) checkExclusive() {
	if w.desired.Update.Strategy != BlueGreen || !w.desired.Update.Exclusive || w.desired.Count == 0 {
		return
	}
	var fresh, old bool
	for _, i := range w.role.Instances(w.now) {
		if i.State == InstanceUnknown || i.State == InstanceUnreachable {
			continue // its node has not reported, or cannot be reached
		}
		fresh = fresh || i.InService && i.Version == w.desired.Version
		old = old || i.InService && i.Version != w.desired.Version
	}
	if fresh && old {
		w.t.Fatalf("two versions are in service at once\n%s", w)
	}
}

func (w *world) serving() int {
	serving := 0
	for _, c := range w.containers {
		if c.healthy && c.inService && w.nodes[c.node] != NodeLost {
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
	if serving < w.floor-w.desired.Update.MaxUnavailable {
		w.t.Fatalf("only %d serve where %d are wanted and %d may be missing, though nothing failed\n%s", serving, w.floor, w.desired.Update.MaxUnavailable, w)
	}
	if serving >= w.desired.Count {
		w.floor = w.desired.Count
	}
}

func (w *world) perform(action Action) {
	switch a := action.(type) {
	case Ask:
		if _, ok := w.asks[a.ID]; ok {
			w.t.Fatalf("%s was asked twice", a.ID)
		}
		w.asks[a.ID] = a
	case WithdrawAsk:
		delete(w.asks, a.ID)
	case Start:
		c := w.containers[a.Container]
		if c == nil || c.started || c.released {
			w.t.Fatalf("%s is started in %v, which is %+v", a.Instance, a.Container, c)
		}
		for _, other := range w.containers {
			if other.started && !other.released && other.instance == a.Instance && w.nodes[other.node] != NodeLost {
				w.t.Fatalf("%s is started in %v while %v runs as %s", a.Instance, a.Container, other.id, a.Instance)
			}
		}
		c.started, c.instance, c.number, c.version = true, a.Instance, a.Number, a.Version
	case Withdraw:
		for _, c := range w.containers {
			if c.instance == a.Instance && !c.released {
				c.inService = false
			}
		}
		w.withdrawals[a.Instance] = true
	case Release:
		c := w.containers[a.Container]
		if c == nil {
			return
		}
		if !c.released && c.started && !c.withdrawn && !c.refused && w.nodes[c.node] != NodeLost {
			w.t.Fatalf("%v (%s) is stopped before it was withdrawn", c.id, c.instance)
		}
		c.released, c.inService = true, false
		if !c.started {
			delete(w.containers, c.id)
		}
	case Forget:
		for _, c := range w.containers {
			if c.instance == a.Instance && c.started && !c.released {
				w.t.Fatalf("%s is closed while %v runs", a.Instance, c.id)
			}
		}
	}
}

// step is one random event. A benign one breaks nothing.
func (w *world) step(benign bool) {
	kinds := []string{"grant", "grant", "healthy", "healthy", "healthy", "confirm", "confirm", "gone", "gone", "pass", "deploy", "scale", "new master", "drain", "restart", "report", "promote", "pause"}
	if !benign {
		kinds = append(kinds, "crash", "crash", "sicken", "refuse", "lose", "return", "preempt", "grant lost")
	}
	switch rapid.SampledFrom(kinds).Draw(w.t, "step") {
	case "grant":
		w.grant()
	case "grant lost":
		w.grantLost()
	case "healthy":
		if c := w.pick(func(c *thing) bool {
			return c.started && !c.refused && !c.healthy && !c.released && w.nodes[c.node] != NodeLost
		}); c != nil {
			c.healthy, c.runningSince = true, w.now
			w.report(c)
		}
	case "report":
		if c := w.pick(func(c *thing) bool { return c.started && !c.refused && w.nodes[c.node] != NodeLost }); c != nil {
			w.report(c)
		}
	case "confirm":
		w.confirm()
	case "gone":
		if c := w.pick(func(c *thing) bool { return c.released && w.nodes[c.node] != NodeLost }); c != nil {
			w.gone(c, BlameNobody)
		}
	case "pass":
		w.now = w.now.Add(time.Duration(rapid.IntRange(1, 20000).Draw(w.t, "ms")) * time.Millisecond)
	case "deploy":
		w.desired.Version++
		w.desired.Paused = false
		w.desired.Update.Strategy = rapid.SampledFrom([]Strategy{Rolling, Canary, BlueGreen}).Draw(w.t, "strategy")
		w.desired.Update.Percent = rapid.IntRange(1, 100).Draw(w.t, "percent")
		w.desired.Update.Exclusive = !benign && rapid.Bool().Draw(w.t, "exclusive")
		w.role.SetDesired(w.desired, w.now)
	case "promote":
		w.desired.Update.Percent = rapid.IntRange(w.desired.Update.Percent, 100).Draw(w.t, "percent")
		w.role.SetDesired(w.desired, w.now)
	case "pause":
		w.desired.Paused = !w.desired.Paused
		w.role.SetDesired(w.desired, w.now)
	case "restart":
		w.desired.RestartBefore = w.now
		w.role.SetDesired(w.desired, w.now)
	case "scale":
		w.desired.Count = rapid.IntRange(0, 5).Draw(w.t, "count")
		w.floor = min(w.floor, w.desired.Count)
		w.role.SetDesired(w.desired, w.now)
	case "new master":
		w.master(w.role.Memo())
	case "drain":
		w.setNode(NodeDraining, NodeReady)
	case "crash":
		if c := w.pick(func(c *thing) bool { return c.started && w.nodes[c.node] != NodeLost }); c != nil {
			w.gone(c, rapid.SampledFrom([]Blame{BlameApp, BlameNode, BlameEither, BlameNobody}).Draw(w.t, "blame"))
		}
	case "sicken":
		if c := w.pick(func(c *thing) bool { return c.healthy && !c.released && w.nodes[c.node] != NodeLost }); c != nil {
			c.healthy = false
			w.role.Observe(Status{Container: c.id, Stage: StageRunning, Health: Unhealthy, RunningSince: c.runningSince}, w.now)
		}
	case "refuse":
		if c := w.pick(func(c *thing) bool { return c.started && !c.reported && !c.released }); c != nil {
			refusal := rapid.SampledFrom([]StartError{StartRefused, StartInvalid, StartUnanswered}).Draw(w.t, "refusal")
			if refusal != StartUnanswered {
				c.refused, c.inService = true, false
			}
			w.role.StartFailed(c.id, "refused", refusal, w.now)
		}
	case "lose":
		w.setNode(NodeLost, NodeLost)
	case "return":
		w.setNode(NodeReady, NodeReady)
	case "preempt":
		if c := w.pick(func(c *thing) bool { return c.started && !c.released }); c != nil {
			w.role.SetPreemption(c.id, w.now.Add(30*time.Second))
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
		if w.nodes[name] == NodeReady {
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

// grantLost is a grant whose master ends before it hears of it.
func (w *world) grantLost() {
	if w.newContainer() != nil {
		w.master(w.role.Memo())
	}
}

func (w *world) confirm() {
	outs := slices.Sorted(maps.Keys(w.withdrawals))
	if len(outs) == 0 {
		return
	}
	instance := rapid.SampledFrom(outs).Draw(w.t, "instance")
	delete(w.withdrawals, instance)
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

// settle grants, reports and confirms everything until nothing is left to do. A failed rollout is followed by a new version.
func (w *world) settle() {
	w.desired.Paused, w.desired.Update.Percent = false, 100
	if w.role.rollout.state == Failed {
		w.desired.Version++
	}
	w.role.SetDesired(w.desired, w.now)
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		w.nodes[name] = NodeReady
		w.role.SetNode(name, NodeReady)
	}
	for range 2000 {
		next := w.next()
		switch {
		case len(w.asks) > 0:
			w.grant()
			continue
		case len(w.withdrawals) > 0:
			w.confirm()
			continue
		}
		if c := w.pick(func(c *thing) bool { return c.released }); c != nil {
			w.gone(c, BlameNobody)
			continue
		}
		if c := w.pick(func(c *thing) bool { return c.started && !c.healthy }); c != nil {
			c.healthy, c.runningSince = true, w.now
		}
		for _, c := range w.all() {
			w.report(c)
		}
		w.now = w.now.Add(time.Second)
		if next.IsZero() && w.unsettled() == "" {
			return
		}
	}
	w.t.Fatalf("it never comes to rest: %s\n%s", w.unsettled(), w)
}

// unsettled says what is not yet as desired; empty if nothing.
func (w *world) unsettled() string {
	serving := 0
	for _, c := range w.containers {
		if c.healthy && c.inService && c.version == w.desired.Version && !c.grantedAt.Before(w.desired.RestartBefore) {
			serving++
		}
	}
	if serving != w.desired.Count || len(w.containers) != w.desired.Count || w.role.slots.len() != w.desired.Count {
		return fmt.Sprintf("%d serve in %d containers of %d instances, wanted are %d", serving, len(w.containers), w.role.slots.len(), w.desired.Count)
	}
	return ""
}

func (w *world) String() string {
	text := ""
	at := w.role.view(w.now)
	for _, s := range w.role.slots.sorted() {
		text += fmt.Sprintf("%s: phase %d, goal %d, version %d, %+v\n", w.role.names.instance(s.number), at.phase(s), at.goal(s), s.version, s.container)
	}
	for _, c := range w.all() {
		text += fmt.Sprintf("%+v\n", *c)
	}
	return text
}

// Whatever happens (crashes, lost and drained nodes, scalings, deployments, masters that end at any moment): no instance has
// two reachable containers, none is stopped before it was withdrawn, count and surge are never exceeded, and when the
// failures stop, exactly the desired instances run.
func TestWhateverHappensTheDesiredStateIsReached(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			w.step(false)
		}
		w.settle()
	})
}

// While nothing fails, rollouts, restarts, drains and new masters never leave fewer healthy instances than
// count−MaxUnavailable.
func TestWhileNothingFailsEnoughAlwaysServe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.settle()
		w.floor = w.desired.Count
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			w.step(true)
		}
		w.settle()
	})
}

// A version whose instances all end before they count takes nothing from the one before: whatever the strategy,
// count−MaxUnavailable instances of that one serve.
func TestAVersionThatNeverCountsReplacesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.desired.Update.MinHealthy = 10 * time.Second
		w.settle()
		old := w.desired.Version
		w.desired.Version++
		w.desired.Update.Strategy = rapid.SampledFrom([]Strategy{Rolling, Canary, BlueGreen}).Draw(t, "strategy")
		w.desired.Update.Percent = rapid.IntRange(1, 100).Draw(t, "percent")
		w.desired.Update.Exclusive = rapid.Bool().Draw(t, "exclusive")
		w.role.SetDesired(w.desired, w.now)
		w.next()
		young := func(c *thing) bool { return c.version != old && c.healthy && !c.released }
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"grant", "healthy", "confirm", "gone", "pass", "pass", "crash", "new master"}).Draw(t, "step") {
			case "grant":
				w.grant()
			case "healthy":
				if c := w.pick(func(c *thing) bool { return c.started && !c.healthy && !c.released }); c != nil {
					c.healthy, c.runningSince = true, w.now
					w.report(c)
				}
			case "confirm":
				w.confirm()
			case "gone":
				if c := w.pick(func(c *thing) bool { return c.released }); c != nil {
					w.gone(c, BlameNobody)
				}
			case "pass":
				then := w.now.Add(time.Duration(rapid.IntRange(1, 9000).Draw(t, "ms")) * time.Millisecond)
				for _, c := range w.all() {
					if young(c) && !then.Before(c.runningSince.Add(w.desired.Update.MinHealthy)) {
						w.gone(c, BlameApp)
						w.next()
					}
				}
				w.now = then
			case "crash":
				if c := w.pick(young); c != nil {
					w.gone(c, BlameApp)
				}
			case "new master":
				w.master(w.role.Memo())
				for _, c := range w.all() {
					if c.started {
						w.report(c)
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
			if serving < w.desired.Count-w.desired.Update.MaxUnavailable {
				t.Fatalf("of version %d only %d serve where %d are wanted and %d may be missing\n%s", old, serving, w.desired.Count, w.desired.Update.MaxUnavailable, w)
			}
		}
	})
}

func TestInWords(t *testing.T) {
	for times, want := range map[int]string{1: "once", 2: "2 times", 5: "5 times"} {
		if got := InWords(times); got != want {
			t.Errorf("%d: %q, want %q", times, got, want)
		}
	}
}
