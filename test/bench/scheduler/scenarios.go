package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// shape is one cell of the matrix: asks are containers in all, each an ask of its own.
type shape struct{ nodes, apps, asks int }

// result is what a scenario came to at one shape.
type result struct {
	shape
	scenario string
	granted  int
	// deciding is the time within Schedule, intake that within Apply.
	deciding, intake time.Duration
	// p99 and slowest are of passes.
	p99, slowest time.Duration
	mallocs      float64
	bytesPerNode float64
}

func (r result) rate() float64 { return float64(r.granted) / r.deciding.Seconds() }

func (r result) intakeRate() float64 { return float64(r.granted) / (r.deciding + r.intake).Seconds() }

var scenarios = []struct {
	name string
	run  func(shape) result
}{
	{"pack", func(s shape) result { return fill(s, nil) }},
	{"spread", func(s shape) result { return fill(s, func(k *scheduler.Ask, _ int) { k.Policy = scheduler.Spread }) }},
	{"constraints", func(s shape) result { return fill(s, constrain) }},
	{"gangs", gangs},
	{"churn", churn},
	{"blocked", blocked},
	{"preempt", preempt},
}

// zone is a core with nodes of three sizes and ten queues of two users each.
type zone struct {
	shape
	core    *scheduler.Core
	random  *rand.Rand
	now     time.Time
	grants  []scheduler.Grant
	passes  []time.Duration
	result  result
	mallocs uint64
	before  uint64
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const queues = 10

func newZone(s shape) *zone {
	runtime.GC()
	z := &zone{shape: s, random: rand.New(rand.NewPCG(1, 2)), now: epoch, result: result{shape: s}}
	z.before = heap()
	z.core = scheduler.New(scheduler.Config{Epoch: 1})
	z.apply(tree(90))
	for i := range s.nodes {
		size := int64(1 + i%3)
		node := scheduler.NodeSpec{
			Name:     id.Node(fmt.Sprintf("node-%06d", i)),
			Capacity: resource.Vector{resource.CPU: 16_000 * size, resource.Memory: 64 << 30 * size, resource.Disk: 1 << 40, resource.Ports: 10_000},
			Attributes: map[string]scheduler.Value{
				"rack": {Text: fmt.Sprintf("rack-%d", i/40)}, "disk_type": {Text: []string{"ssd", "hdd"}[i%2]},
				"generation": {Kind: scheduler.NumberValue, Number: float64(i % 5)},
			},
		}
		z.apply(scheduler.SetNode{Node: node})
	}
	for i := range s.apps {
		z.apply(scheduler.AddApp{App: appID(i), Name: fmt.Sprintf("app-%d", i), Queue: queueName(i % queues), User: []string{"ann", "bob"}[i/queues%2]})
	}
	return z
}

// tree has five leaves on each of two sides.
func tree(userLimit float64) scheduler.SetQueues {
	percent := func(p float64) scheduler.Capacity { return scheduler.Capacity{Percent: p, IsPercent: true} }
	specs := []scheduler.QueueSpec{{Name: "root"}, {Name: "left", Parent: "root", Guaranteed: percent(50)}, {Name: "right", Parent: "root", Guaranteed: percent(50)}}
	for i := range queues {
		parent := specs[1+i%2].Name
		specs = append(specs, scheduler.QueueSpec{Name: queueName(i), Parent: parent, Guaranteed: percent(20), UserLimitPercent: userLimit})
	}
	return scheduler.SetQueues{Queues: specs}
}

func queueName(i int) id.Queue { return id.Queue(fmt.Sprintf("queue-%d", i)) }

func appID(i int) id.App { return id.App{ClusterStart: 1, Seq: int64(i + 1)} }

func (z *zone) apply(in scheduler.Input) {
	if err := z.core.Apply(in); err != nil {
		panic(fmt.Sprintf("%T: %v", in, err))
	}
}

// cpuTime is the processor time of this thread, so that what else the machine does, does not count.
func cpuTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

func heap() uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func mallocs() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.Mallocs
}

// ask is the i-th ask of the run: one of twenty sizes, such that all asks together fill about three quarters of
// the zone, or are a tenth of a small node each where that is less.
func (z *zone) ask(i int) scheduler.Ask {
	mean := min(float64(z.nodes)*32_000*0.75/float64(z.asks), 1_600)
	step := float64(1+z.random.IntN(20)) / 10
	cpu := max(int64(mean*step), 1)
	memory := max(int64(mean*float64(1+z.random.IntN(4))/2.5*float64(4<<20)), 1)
	return scheduler.Ask{
		ID: fmt.Sprintf("ask-%d", i), Pending: 1, Policy: scheduler.Pack,
		Resources: resource.Vector{resource.CPU: cpu, resource.Memory: memory},
	}
}

func constrain(k *scheduler.Ask, i int) {
	switch i % 4 {
	case 0:
		k.Constraints = []scheduler.Constraint{{Attribute: "disk_type", Operator: scheduler.Equal, Values: []scheduler.Value{{Text: "ssd"}}}}
	case 1:
		k.Constraints = []scheduler.Constraint{{Attribute: "generation", Operator: scheduler.GreaterEqual, Values: []scheduler.Value{{Kind: scheduler.NumberValue, Number: 3}}}}
	case 2:
		k.MaxPerNode = 2
	case 3:
		k.Policy, k.SpreadOver = scheduler.Spread, "rack"
	}
}

// want applies all asks, adjusted.
func (z *zone) want(adjust func(*scheduler.Ask, int)) {
	asks := make([]scheduler.SetAsk, z.asks)
	for i := range asks {
		asks[i] = scheduler.SetAsk{App: appID(i % z.apps), Ask: z.ask(i)}
		if adjust != nil {
			adjust(&asks[i].Ask, i)
		}
	}
	begin := cpuTime()
	for i := range asks {
		if err := z.core.Apply(asks[i]); err != nil {
			panic(err)
		}
	}
	z.result.intake += cpuTime() - begin
}

func (z *zone) pass() scheduler.Decisions {
	z.now = z.now.Add(time.Millisecond)
	before := mallocs()
	begin := cpuTime()
	d := z.core.Schedule(z.now)
	took := cpuTime() - begin
	z.mallocs += mallocs() - before
	z.passes = append(z.passes, took)
	z.result.deciding += took
	z.result.granted += len(d.Grants)
	return d
}

// settle passes until nothing more is granted, and gives what was.
func (z *zone) settle() []scheduler.Grant {
	var grants []scheduler.Grant
	for {
		d := z.pass()
		grants = append(grants, d.Grants...)
		if !d.More(z.now) {
			return grants
		}
	}
}

// done closes the result.
func (z *zone) done() result {
	z.result.p99, z.result.slowest = percentile(z.passes, 99), slices.Max(z.passes)
	z.result.mallocs = float64(z.mallocs) / float64(max(z.result.granted, 1))
	passes := z.passes
	z.passes, z.grants = nil, nil
	after := heap()
	z.result.bytesPerNode = (float64(after) - float64(z.before)) / float64(z.nodes)
	runtime.KeepAlive(z.core)
	runtime.KeepAlive(passes)
	return z.result
}

// percentile is by nearest rank.
func percentile(all []time.Duration, p int) time.Duration {
	return slices.Sorted(slices.Values(all))[(len(all)*p+99)/100-1]
}

// fill grants all asks on an empty zone.
func fill(s shape, adjust func(*scheduler.Ask, int)) result {
	z := newZone(s)
	z.want(adjust)
	z.settle()
	return z.done()
}

// gangs asks in gangs of 20.
func gangs(s shape) result {
	z := newZone(s)
	const size = 20
	for i := range s.asks / size {
		k := z.ask(i)
		k.Pending, k.Gang = size, true
		begin := cpuTime()
		z.apply(scheduler.SetAsk{App: appID(i % s.apps), Ask: k})
		z.result.intake += cpuTime() - begin
	}
	z.settle()
	return z.done()
}

// churn keeps a filled zone busy: in each pass a hundred containers end and a hundred asks come.
func churn(s shape) result {
	z := newZone(s)
	z.want(nil)
	z.grants = z.settle()
	z.result, z.passes, z.mallocs = result{shape: s}, nil, 0
	const each = 100
	for round := range 200 {
		begin := cpuTime()
		for range each {
			i := z.random.IntN(len(z.grants))
			z.apply(scheduler.Release{Container: z.grants[i].Container})
			last := len(z.grants) - 1
			z.grants[i] = z.grants[last]
			z.grants = z.grants[:last]
		}
		for i := range each {
			n := s.asks + round*each + i
			z.apply(scheduler.SetAsk{App: appID(n % s.apps), Ask: z.ask(n)})
		}
		z.result.intake += cpuTime() - begin
		z.grants = append(z.grants, z.pass().Grants...)
	}
	return z.done()
}

// blocked has every ask wait for more than any node has left, and ends a container too small to help before each
// pass. Its passes are what it measures.
func blocked(s shape) result {
	z := newZone(s)
	z.want(func(k *scheduler.Ask, _ int) { k.Resources[resource.CPU] += 47_000 })
	z.apply(scheduler.SetAsk{App: appID(0), Ask: scheduler.Ask{ID: "small", Pending: s.nodes, Priority: 1, Policy: scheduler.Spread, Resources: resource.Vector{resource.CPU: 2_000, resource.Memory: 1 << 30}}})
	z.grants = z.settle()
	z.result, z.passes, z.mallocs = result{shape: s}, nil, 0
	for i := range min(1_000, len(z.grants)) {
		z.apply(scheduler.Release{Container: z.grants[i].Container})
		z.pass()
	}
	return z.done()
}

// preempt is a zone that the right half of the tree fills, until the left half asks for its guarantee. Each pass
// chooses victims; they stop when their notice is over, and what they leave is granted.
func preempt(s shape) result {
	z := newZone(s)
	z.apply(tree(0))
	const size = 2_000
	each := func(app, count int) {
		z.apply(scheduler.SetAsk{App: appID(app), Ask: scheduler.Ask{ID: "all", Pending: count, Policy: scheduler.Pack, Resources: resource.Vector{resource.CPU: size, resource.Memory: 4 << 30}}})
	}
	all := s.nodes * 32_000 / size
	each(1, all)
	z.settle()
	z.result, z.passes, z.mallocs = result{shape: s}, nil, 0
	left := min(all*2/5, 20_000)
	for app := 0; app < s.apps; app += 2 {
		each(app, max(1, left/max(1, s.apps/2)))
	}
	var stops []scheduler.Stop
	for quiet := 0; quiet < 3 && len(z.passes) < 5_000; {
		d := z.pass()
		stops = append(stops, d.Stops...)
		for _, stop := range stops {
			z.apply(scheduler.Release{Container: stop.Container})
		}
		stops = stops[:0]
		if len(d.Grants)+len(d.Notices)+len(d.Stops) > 0 {
			quiet = 0
		} else if quiet++; !d.Next.IsZero() {
			z.now = d.Next
		}
	}
	return z.done()
}
