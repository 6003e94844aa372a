package simulate

import (
	"container/heap"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/mammoth-os/mammoth/internal/cron"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// tick is the shortest time between two passes. What happens within a tick is decided together.
const tick = time.Second

// engine is one run.
type engine struct {
	scenario *Scenario
	core     *scheduler.Core
	random   *rand.Rand
	start    time.Time
	now      time.Duration
	end      time.Duration
	events   events
	order    int64

	nodes   []scheduler.NodeSpec
	down    map[id.Node]bool
	apps    map[id.App]*app
	lastApp int64
	// held is every container that the core holds.
	held   map[id.Container]*container
	onNode map[id.Node]map[id.Container]*container
	meter  *meter
}

// app is a service app or a batch job.
type app struct {
	id       id.App
	workload *Workload
	asks     []*ask
	// left is how many containers of a batch job have not ended.
	left int
}

// ask is an ask of an app. waiting has the containers that wait, in groups of equal age, oldest first.
type ask struct {
	app     *app
	spec    scheduler.Ask
	runs    time.Duration
	waiting []batchOf
	running []*container
}

type batchOf struct {
	since time.Duration
	count int
}

type container struct {
	id      id.Container
	ask     *ask
	node    id.Node
	started time.Duration
	stopped bool
}

// event is something that happens at a time; events of one time happen in the order in which they were planned.
type event struct {
	at    time.Duration
	order int64
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }

func (e events) Less(i, j int) bool {
	if e[i].at != e[j].at {
		return e[i].at < e[j].at
	}
	return e[i].order < e[j].order
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

func (e *engine) plan(at time.Duration, do func()) {
	e.order++
	heap.Push(&e.events, event{at: at, order: e.order, do: do})
}

// simulate runs a scenario once. It calls progress, if not nil, with the simulated time.
func simulate(ctx context.Context, s *Scenario, progress func(done, total time.Duration)) (*meter, error) {
	e := &engine{
		scenario: s, start: s.Start, end: time.Duration(s.Duration),
		core: scheduler.New(scheduler.Config{Epoch: 1}), random: rand.New(rand.NewPCG(s.Seed, 1)),
		down: map[id.Node]bool{}, apps: map[id.App]*app{}, held: map[id.Container]*container{}, onNode: map[id.Node]map[id.Container]*container{},
	}
	e.meter = newMeter(s)
	if err := e.setUp(); err != nil {
		return nil, err
	}
	var next time.Duration
	for turn := 0; len(e.events) > 0 && e.events[0].at <= e.end; turn++ {
		if turn%256 == 0 {
			if err := ctx.Err(); err != nil {
				return nil, context.Cause(ctx)
			}
			if progress != nil {
				progress(e.now, e.end)
			}
		}
		e.now = e.events[0].at
		for len(e.events) > 0 && e.events[0].at == e.now {
			heap.Pop(&e.events).(event).do()
		}
		// A pass at the end of this tick, unless one is planned already.
		if at := e.now.Truncate(tick) + tick; at != next {
			next = at
			e.plan(at, e.pass)
		}
	}
	e.meter.finish(e)
	if progress != nil {
		progress(e.end, e.end)
	}
	return e.meter, nil
}

func (e *engine) apply(in scheduler.Input) {
	if err := e.core.Apply(in); err != nil {
		panic(fmt.Sprintf("the core refused %T: %v", in, err))
	}
}

// setUp schedules all events that do not depend on the scheduler's decisions.
func (e *engine) setUp() error {
	s := e.scenario
	if err := e.core.Apply(scheduler.SetQueues{Queues: s.queueSpecs()}); err != nil {
		return err
	}
	contracts, err := s.contracts()
	if err != nil {
		return err
	}
	if err := e.core.Apply(scheduler.SetContracts{Contracts: contracts}); err != nil {
		return err
	}
	e.buildNodes()
	for i := range s.Failures {
		e.planFailure(&s.Failures[i])
	}
	for i := range s.Workloads {
		w := &s.Workloads[i]
		// Each workload has its own random source, so that a change of one does not affect the others.
		random := rand.New(rand.NewPCG(s.Seed, uint64(i)+2))
		switch w.Kind {
		case "service":
			for range w.Apps {
				if err := e.addService(w, random); err != nil {
					return err
				}
			}
		case "trace":
			for _, j := range w.trace {
				if err := e.planJob(w, j); err != nil {
					return err
				}
			}
		default:
			for at := time.Duration(0); ; {
				at += untilNext(random, w.PerHour, w.Kind == "arrivals")
				if at >= e.end {
					break
				}
				if err := e.planJob(w, job{at: at, tasks: w.draw(random)}); err != nil {
					return err
				}
			}
		}
	}
	e.sample()
	e.plan(0, func() {})
	return nil
}

func (e *engine) buildNodes() {
	number := 0
	for _, group := range e.scenario.Nodes {
		for range group.Count {
			spec := scheduler.NodeSpec{Name: id.Node(fmt.Sprintf("node-%05d", number)), Capacity: group.capacity, Attributes: map[string]scheduler.Value{}}
			for name, value := range group.Attrs {
				spec.Attributes[name] = scheduler.Value{Text: value}
			}
			perRack := group.PerRack
			if perRack == 0 {
				perRack = 40
			}
			spec.Attributes["rack"] = scheduler.Value{Text: "r" + strconv.Itoa(number/perRack)}
			e.nodes = append(e.nodes, spec)
			e.apply(scheduler.SetNode{Node: spec})
			number++
		}
	}
}

func (e *engine) planFailure(f *Failure) {
	fail := func() {
		var chosen []scheduler.NodeSpec
		for _, spec := range e.nodes {
			if f.Rack != "" && spec.Attributes["rack"].Text == f.Rack && !e.down[spec.Name] {
				chosen = append(chosen, spec)
			}
		}
		for range f.Nodes {
			if spec := e.nodes[e.random.IntN(len(e.nodes))]; !e.down[spec.Name] {
				chosen = append(chosen, spec)
			}
		}
		for _, spec := range chosen {
			e.loseNode(spec, time.Duration(f.For))
		}
	}
	if f.Every == 0 {
		e.plan(time.Duration(f.At), fail)
		return
	}
	for at := time.Duration(f.At); at < e.end; at += time.Duration(f.Every) {
		if at > 0 {
			e.plan(at, fail)
		}
	}
}

// loseNode removes a node with its containers, and adds it again, empty, after a time.
func (e *engine) loseNode(spec scheduler.NodeSpec, long time.Duration) {
	if e.down[spec.Name] {
		return
	}
	e.down[spec.Name] = true
	e.meter.nodeFailures++
	e.apply(scheduler.RemoveNode{Node: spec.Name})
	gone := make([]*container, 0, len(e.onNode[spec.Name]))
	for _, k := range e.onNode[spec.Name] {
		gone = append(gone, k)
	}
	slices.SortFunc(gone, func(x, y *container) int { return x.id.Compare(y.id) })
	for _, k := range gone {
		e.meter.lost(k, e.now)
		e.gone(k)
		e.retry(k.ask)
	}
	if long > 0 {
		e.plan(e.now+long, func() {
			delete(e.down, spec.Name)
			e.apply(scheduler.SetNode{Node: spec})
		})
	}
}

func (e *engine) addApp(w *Workload) (*app, error) {
	e.lastApp++
	a := &app{id: id.App{ClusterStart: 1, Seq: e.lastApp}, workload: w}
	e.apps[a.id] = a
	err := e.core.Apply(scheduler.AddApp{App: a.id, Name: w.Name + "-" + strconv.FormatInt(e.lastApp, 10), Queue: id.Queue(w.Queue)})
	if err != nil {
		return nil, fmt.Errorf("workload %s: %w", w.Name, err)
	}
	return a, nil
}

func (e *engine) planJob(w *Workload, j job) error {
	if _, err := e.core.Plan(scheduler.AddApp{Name: w.Name, Queue: id.Queue(w.Queue)}, scheduler.Ask{Pending: 1, Resources: j.tasks[0].need}, e.start); err != nil {
		return fmt.Errorf("workload %s: %w", w.Name, err)
	}
	e.plan(j.at, func() {
		a, err := e.addApp(w)
		if err != nil {
			panic(err)
		}
		for i, t := range j.tasks {
			k := &ask{app: a, runs: t.runs, spec: scheduler.Ask{ID: strconv.Itoa(i), Resources: t.need, Policy: scheduler.Pack, Gang: w.Gang}}
			if w.Declare {
				k.spec.Duration = t.runs
			}
			a.asks = append(a.asks, k)
			a.left += t.instances
			e.want(k, t.instances)
		}
	})
	return nil
}

// want adds to the pending containers of an ask.
func (e *engine) want(k *ask, more int) {
	if more > 0 {
		k.waiting = append(k.waiting, batchOf{e.now, more})
	}
	for less := -more; less > 0; {
		last := len(k.waiting) - 1
		n := min(less, k.waiting[last].count)
		k.waiting[last].count -= n
		if less -= n; k.waiting[last].count == 0 {
			k.waiting = k.waiting[:last]
		}
	}
	k.spec.Pending = 0
	for _, b := range k.waiting {
		k.spec.Pending += b.count
	}
	e.apply(scheduler.SetAsk{App: k.app.id, Ask: k.spec})
}

// retry adds an ask for a container that was lost.
func (e *engine) retry(k *ask) {
	if k.app.workload.Kind != "service" {
		e.want(k, 1)
		return
	}
	e.scale(k)
}

// pass lets the core decide, and performs its decisions.
func (e *engine) pass() {
	for {
		begin := time.Now()
		d := e.core.Schedule(e.start.Add(e.now))
		e.meter.pass(time.Since(begin), len(d.Grants))
		for i := range d.Grants {
			e.granted(&d.Grants[i])
		}
		e.meter.notices += len(d.Notices)
		for _, stop := range d.Stops {
			e.stop(stop.Container)
		}
		if d.More(e.start.Add(e.now)) {
			continue
		}
		if at := d.Next.Sub(e.start); !d.Next.IsZero() && at <= e.end {
			e.plan(at, func() {})
		}
		return
	}
}

func (e *engine) granted(grant *scheduler.Grant) {
	a := e.apps[grant.Container.App]
	var k *ask
	for _, each := range a.asks {
		if each.spec.ID == grant.Ask {
			k = each
		}
	}
	first := &k.waiting[0]
	e.meter.waited(a.workload, e.now-first.since, grant.Resources)
	if first.count--; first.count == 0 {
		k.waiting = k.waiting[1:]
	}
	k.spec.Pending--
	held := &container{id: grant.Container, ask: k, node: grant.Node, started: e.now}
	e.held[held.id] = held
	if e.onNode[grant.Node] == nil {
		e.onNode[grant.Node] = map[id.Container]*container{}
	}
	e.onNode[grant.Node][held.id] = held
	k.running = append(k.running, held)
	e.meter.started++
	if k.runs > 0 {
		e.plan(e.now+k.runs, func() {
			if e.held[held.id] == nil || held.stopped {
				return
			}
			e.meter.completed++
			e.gone(held)
			if a.left--; a.left == 0 {
				e.apply(scheduler.RemoveApp{App: a.id})
				delete(e.apps, a.id)
			}
		})
	}
}

// stop stops a preempted container, which is gone once it has stopped.
func (e *engine) stop(name id.Container) {
	k := e.held[name]
	if k == nil || k.stopped {
		return
	}
	k.stopped = true
	e.plan(e.now+time.Duration(e.scenario.Stop), func() {
		if e.held[name] == nil {
			return
		}
		e.meter.preempted(k, e.now)
		e.gone(k)
		e.retry(k.ask)
	})
}

// gone releases a container that has ended.
func (e *engine) gone(k *container) {
	e.meter.ran(k, e.now)
	delete(e.held, k.id)
	delete(e.onNode[k.node], k.id)
	if i := slices.Index(k.ask.running, k); i >= 0 {
		k.ask.running = slices.Delete(k.ask.running, i, i+1)
	}
	e.apply(scheduler.Release{Container: k.id})
}

// sample takes a point of the charts, and schedules the next one.
func (e *engine) sample() {
	e.meter.sample(e)
	e.plan(e.now+time.Duration(e.scenario.Sample), e.sample)
}

// changes returns the instance counts of a service's calendar: the initial one, and those at later times of the run.
func (w *Workload) changes(start time.Time, end time.Duration) (initial int, at map[time.Duration]int, err error) {
	initial, at = w.Instances, map[time.Duration]int{}
	latest := time.Time{}
	for _, change := range w.Schedule {
		schedule, err := cron.Parse(change.Cron, change.Timezone)
		if err != nil {
			return 0, nil, fmt.Errorf("workload %s: %w", w.Name, err)
		}
		if before, ok := schedule.Last(start); ok && before.After(latest) {
			latest, initial = before, change.Instances
		}
		for tick, ok := schedule.Next(start); ok && tick.Sub(start) <= end; tick, ok = schedule.Next(tick) {
			at[tick.Sub(start)] = change.Instances
		}
	}
	return initial, at, nil
}
