package scheduler

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// walk drives a core through a random life: nodes that come, go, shrink and close, apps of several queues, asks
// with all that asks can have, containers that end.
type walk struct {
	core    *Core
	now     time.Time
	live    []id.Container
	journal []entry
	// told are the deadlines of the notices to containers.
	told map[id.Container]time.Time
}

// entry is one operation on the core: an input, or a pass at a time with its decisions.
type entry struct {
	input     Input
	at        time.Time
	decisions string
}

// newWalk begins with queues, some nodes and an app in each leaf.
func newWalk(t *rapid.T) *walk {
	w := &walk{core: New(Config{Epoch: 1}), now: start}
	// Few enough that passes are cut short.
	if rapid.Bool().Draw(t, "small passes") {
		w.core.pass.grantsPerPass = rapid.IntRange(1, 5).Draw(t, "grants a pass")
		w.core.pass.looksPerPass = rapid.IntRange(1, 50).Draw(t, "looks a pass")
	}
	w.apply(t, SetQueues{Queues: randomQueues(t)})
	for range rapid.IntRange(0, 5).Draw(t, "nodes") {
		w.apply(t, SetNode{Node: randomNode(t)})
	}
	for i, leaf := range []id.Queue{"apps", "low", "high"} {
		app := id.App{ClusterStart: 1, Seq: int64(i + 1)}
		w.apply(t, AddApp{App: app, Name: fmt.Sprintf("app-%d", app.Seq), Queue: leaf, User: "ann"})
		w.apply(t, SetAsk{App: app, Ask: randomAsk(t)})
	}
	return w
}

func (w *walk) apply(t *rapid.T, in Input) {
	w.journal = append(w.journal, entry{input: in})
	if err := w.core.Apply(in); err != nil {
		t.Fatalf("%T %+v: %v", in, in, err)
	}
}

func randomQueues(t *rapid.T) []QueueSpec {
	percent := func(n int) Capacity { return Capacity{Percent: float64(n), IsPercent: true} }
	split := rapid.IntRange(0, 100).Draw(t, "split")
	inner := rapid.IntRange(0, 100).Draw(t, "inner")
	most := func(n int) Capacity { return percent(rapid.IntRange(n, 100).Draw(t, "maximum")) }
	return []QueueSpec{
		{Name: "root"},
		{Name: "apps", Parent: "root", Guaranteed: percent(split), Maximum: most(split), UserLimitPercent: float64(rapid.SampledFrom([]int{0, 0, 50}).Draw(t, "userlimit"))},
		{Name: "batch", Parent: "root", Guaranteed: percent(100 - split), Maximum: most(100 - split)},
		{Name: "low", Parent: "batch", Guaranteed: percent(inner), Maximum: most(inner), Fair: rapid.Bool().Draw(t, "fair")},
		{Name: "high", Parent: "batch", Guaranteed: percent(100 - inner), Maximum: most(100 - inner), MaxMasterPercent: 20},
	}
}

func (w *walk) step(t *rapid.T) {
	switch rapid.IntRange(0, 14).Draw(t, "step") {
	case 0, 1:
		w.apply(t, SetNode{Node: randomNode(t)})
	case 2:
		name := nodeName(t)
		if slot, ok := w.core.fleet.slots[name]; ok && w.core.fleet.nodes[slot].known {
			w.apply(t, RemoveNode{Node: name})
		}
	case 3:
		app := id.App{ClusterStart: 1, Seq: int64(rapid.IntRange(1, 5).Draw(t, "app"))}
		name := fmt.Sprintf("app-%d", app.Seq)
		if rapid.IntRange(0, 3).Draw(t, "renamed") == 0 {
			name = fmt.Sprintf("app-%d", rapid.IntRange(1, 5).Draw(t, "name"))
		}
		w.apply(t, AddApp{
			App: app, Name: name, User: rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "user"),
			Queue:    rapid.SampledFrom([]id.Queue{"apps", "low", "high"}).Draw(t, "queue"),
			Priority: int32(rapid.IntRange(0, 1).Draw(t, "priority")),
		})
	case 4:
		for _, a := range w.core.apps.sorted() {
			if !a.removed && a.leaf != nil && rapid.IntRange(0, 5).Draw(t, "remove") == 0 {
				w.apply(t, RemoveApp{App: a.id})
				break
			}
		}
	case 5, 6, 7:
		for _, a := range w.core.apps.sorted() {
			if !a.removed && a.leaf != nil && rapid.Bool().Draw(t, "asks") {
				w.apply(t, SetAsk{App: a.id, Ask: randomAsk(t)})
			}
		}
	case 8, 9:
		for range rapid.IntRange(0, 4).Draw(t, "ends") {
			if len(w.live) == 0 {
				break
			}
			i := rapid.IntRange(0, len(w.live)-1).Draw(t, "which")
			w.apply(t, Release{Container: w.live[i]})
			w.live = append(w.live[:i], w.live[i+1:]...)
		}
	case 10:
		w.now = w.now.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "seconds")) * time.Second)
	case 11:
		w.apply(t, SetContracts{})
		w.apply(t, SetQueues{Queues: randomQueues(t)})
	case 12:
		if len(w.live) > 0 {
			w.apply(t, Checkpoint{Container: w.live[rapid.IntRange(0, len(w.live)-1).Draw(t, "which")], At: w.now})
		}
	case 13:
		w.apply(t, SetContracts{Contracts: w.contracts(t)})
	case 14:
		w.hold(t)
	}
}

// hold counts a container of an earlier epoch, as after a restart, wherever it is said to be.
func (w *walk) hold(t *rapid.T) {
	k := randomAsk(t)
	in := Hold{
		Container: id.Container{App: id.App{ClusterStart: 1, Seq: int64(rapid.IntRange(1, 6).Draw(t, "app"))}, Seq: int64(rapid.IntRange(1, 9).Draw(t, "seq"))},
		Node:      nodeName(t), Resources: k.Resources, Ask: k.ID, Group: k.Group, Master: k.Master, Duration: k.Duration, Service: k.Service,
		StartedAt: w.now.Add(-time.Duration(rapid.IntRange(0, 100).Draw(t, "age")) * time.Second), Gang: int64(rapid.IntRange(0, 2).Draw(t, "gang")),
	}
	w.apply(t, in)
	if !slices.Contains(w.live, in.Container) {
		w.live = append(w.live, in.Container)
	}
}

// contracts draws up to two contracts, if the lender has anything to lend, with windows about now.
func (w *walk) contracts(t *rapid.T) []Contract {
	var contracts []Contract
	for i := range rapid.IntRange(0, 2).Draw(t, "contracts") {
		lender := rapid.SampledFrom([]id.Queue{"apps", "high"}).Draw(t, "lender")
		borrower := map[id.Queue]id.Queue{"apps": "batch", "high": "low"}[lender]
		lend := rapid.IntRange(1, 100).Draw(t, "lend")
		lc := Contract{
			Name: fmt.Sprintf("contract-%d", i), Lender: lender, Borrowers: []id.Queue{borrower},
			LendPercent: float64(lend), FloorPercent: float64(rapid.IntRange(0, 100-lend).Draw(t, "floor")),
			Notice: time.Duration(rapid.IntRange(0, 20).Draw(t, "notice")) * time.Second,
			Grace:  time.Duration(rapid.IntRange(0, 5).Draw(t, "grace")) * time.Second,
		}
		at := w.now.Add(time.Duration(rapid.IntRange(-30, 30).Draw(t, "opens")) * time.Second)
		for range rapid.IntRange(0, 3).Draw(t, "windows") {
			closes := at.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "length")) * time.Second)
			lc.Windows = append(lc.Windows, Window{at, closes})
			at = closes.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "pause")) * time.Second)
		}
		contracts = append(contracts, lc)
	}
	return contracts
}

func nodeName(t *rapid.T) id.Node {
	return id.Node(fmt.Sprintf("node-%d", rapid.IntRange(1, 6).Draw(t, "node")))
}

func randomNode(t *rapid.T) NodeSpec {
	n := NodeSpec{Name: nodeName(t), Attributes: map[string]Value{}}
	n.Capacity[resource.CPU] = int64(rapid.IntRange(0, 8).Draw(t, "cpu")) * 1000
	n.Capacity[resource.Memory] = int64(rapid.IntRange(0, 8).Draw(t, "memory")) << 30
	n.Capacity[resource.Ports] = int64(rapid.IntRange(0, 5).Draw(t, "ports"))
	if rapid.Bool().Draw(t, "ssd") {
		n.Attributes["disk"] = Value{Text: "ssd"}
	}
	if rack := rapid.IntRange(0, 2).Draw(t, "rack"); rack > 0 {
		n.Attributes["rack"] = Value{Kind: NumberValue, Number: float64(rack)}
	}
	if rapid.IntRange(0, 5).Draw(t, "closed") == 0 {
		n.Closed = "drained"
	}
	return n
}

func randomAsk(t *rapid.T) Ask {
	k := Ask{
		ID:      fmt.Sprintf("ask-%d", rapid.IntRange(1, 3).Draw(t, "ask")),
		Pending: rapid.IntRange(0, 6).Draw(t, "pending"),
		Policy:  rapid.SampledFrom([]Policy{Spread, Pack}).Draw(t, "policy"),
		Gang:    rapid.IntRange(0, 3).Draw(t, "gang") == 0,
		Master:  rapid.IntRange(0, 3).Draw(t, "master") == 0,
		Group:   rapid.SampledFrom([]string{"", "g"}).Draw(t, "group"),
		Service: rapid.IntRange(0, 2).Draw(t, "service") == 0, Replaces: rapid.IntRange(0, 3).Draw(t, "replaces") == 0,
	}
	k.Resources[resource.CPU] = int64(rapid.IntRange(1, 12).Draw(t, "cpu")) * 250
	k.Resources[resource.Memory] = int64(rapid.IntRange(0, 12).Draw(t, "memory")) << 28
	k.Resources[resource.Ports] = int64(rapid.IntRange(0, 1).Draw(t, "ports"))
	if rapid.IntRange(0, 2).Draw(t, "known") == 0 {
		k.Duration = time.Duration(rapid.IntRange(1, 100).Draw(t, "duration")) * time.Second
	}
	if rapid.Bool().Draw(t, "over racks") {
		k.SpreadOver = "rack"
	}
	if rapid.IntRange(0, 2).Draw(t, "limited") == 0 {
		k.MaxPerNode = rapid.IntRange(1, 2).Draw(t, "a node")
	}
	switch rapid.IntRange(0, 7).Draw(t, "where") {
	case 0:
		k.Constraints = []Constraint{{Attribute: "disk", Operator: Equal, Values: []Value{{Text: "ssd"}}}}
	case 1:
		k.Avoid = []id.Node{nodeName(t)}
	case 2:
		k.Affinity = []string{fmt.Sprintf("app-%d", rapid.IntRange(1, 5).Draw(t, "near"))}
	case 3:
		k.AntiAffinity = []string{fmt.Sprintf("app-%d", rapid.IntRange(1, 5).Draw(t, "far"))}
	}
	return k
}

// schedule runs a pass, after which the stopped containers may or may not end at once.
func (w *walk) schedule(t *rapid.T) Decisions {
	d := w.core.Schedule(w.now)
	w.journal = append(w.journal, entry{at: w.now, decisions: fmt.Sprintf("%+v", d)})
	for _, grant := range d.Grants {
		w.live = append(w.live, grant.Container)
	}
	for _, ctr := range d.Cancelled {
		delete(w.told, ctr)
	}
	for _, notice := range d.Notices {
		if w.told == nil {
			w.told = map[id.Container]time.Time{}
		}
		w.told[notice.Container] = notice.Deadline
	}
	for _, stop := range d.Stops {
		i := slices.Index(w.live, stop.Container)
		if i >= 0 && rapid.Bool().Draw(t, "stops at once") {
			w.apply(t, Release{Container: stop.Container})
			w.live = slices.Delete(w.live, i, i+1)
		}
	}
	return d
}

// settle runs passes until nothing more can be decided now, and returns the number of grants.
func (w *walk) settle(t *rapid.T) int {
	granted := 0
	for range 1_000 {
		d := w.schedule(t)
		granted += len(d.Grants)
		// What stops at once comes back after its pass.
		if !d.More(w.now) && !w.core.fleet.hasTouched() {
			return granted
		}
		if err := verify(w.core, false); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("a thousand passes have not decided all that there is to decide")
	return granted
}
