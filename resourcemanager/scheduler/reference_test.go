package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// reference is a scheduler without an index or caches: for each container it examines every node, and for each grant every queue
// and ask. It has what the comparison needs: queues, order, constraints, limits per node, pack and spread.
type reference struct {
	queues  []QueueSpec
	nodes   []NodeSpec
	used    map[id.Node]resource.Vector
	groups  map[string]map[id.Node]int
	holds   map[id.Queue]resource.Vector
	asks    []*referenceAsk
	zone    resource.Vector
	granted []id.Node
}

type referenceAsk struct {
	queue  id.Queue
	app    int
	spec   Ask
	failed bool
}

func (r *reference) capacity(name id.Queue, limit bool) resource.Vector {
	for _, q := range r.queues {
		if q.Name != name {
			continue
		}
		parent := r.zone
		if q.Parent != "" {
			parent = r.capacity(q.Parent, limit)
		}
		if limit {
			return q.Maximum.limit(parent)
		}
		if q.Parent == "" {
			return parent
		}
		return q.Guaranteed.of(parent)
	}
	return resource.Vector{}
}

func (r *reference) path(name id.Queue) []id.Queue {
	var path []id.Queue
	for name != "" {
		path = append(path, name)
		i := slices.IndexFunc(r.queues, func(q QueueSpec) bool { return q.Name == name })
		name = r.queues[i].Parent
	}
	slices.Reverse(path)
	return path
}

// less compares two asks by the queues on their paths, then by order of submission.
func (r *reference) less(x, y *referenceAsk) bool {
	p, q := r.path(x.queue), r.path(y.queue)
	for i := 0; i < len(p) && i < len(q); i++ {
		if p[i] == q[i] {
			continue
		}
		share := func(name id.Queue) (bool, float64) {
			used, guaranteed := r.holds[name], r.capacity(name, false)
			if guaranteed.IsZero() {
				return true, shareOf(&used, &r.zone)
			}
			return false, shareOf(&used, &guaranteed)
		}
		last1, share1 := share(p[i])
		last2, share2 := share(q[i])
		switch {
		case last1 != last2:
			return last2
		case share1 != share2:
			return share1 < share2
		}
		order := func(name id.Queue) int {
			return slices.IndexFunc(r.queues, func(q QueueSpec) bool { return q.Name == name })
		}
		return order(p[i]) < order(q[i])
	}
	if x.spec.Priority != y.spec.Priority {
		return x.spec.Priority > y.spec.Priority
	}
	return x.app < y.app
}

func (r *reference) run() {
	for _, n := range r.nodes {
		r.zone = r.zone.Add(n.Capacity)
	}
	for {
		var first *referenceAsk
		for _, k := range r.asks {
			if !k.failed && k.spec.Pending > 0 && (first == nil || r.less(k, first)) {
				first = k
			}
		}
		if first == nil {
			return
		}
		if !r.place(first) {
			first.failed = true
		}
	}
}

func (r *reference) place(k *referenceAsk) bool {
	for _, name := range r.path(k.queue) {
		if limit := r.capacity(name, true); limit != r.zone && r.holds[name].Add(k.spec.Resources).Lacking(limit) >= 0 {
			return false
		}
	}
	group := fmt.Sprint(k.app)
	best, bestCount, bestLeft := -1, 0, 0.0
	for i, n := range r.nodes {
		free := n.Capacity.Sub(r.used[n.Name])
		count := r.groups[group][n.Name]
		ok := k.spec.Resources.Lacking(free) < 0 && (k.spec.MaxPerNode == 0 || count < k.spec.MaxPerNode)
		for _, constraint := range k.spec.Constraints {
			have, known := n.Attributes[constraint.Attribute]
			ok = ok && constraint.Matches(have, known)
		}
		if !ok {
			continue
		}
		left := float64(free[resource.CPU])/float64(r.zone[resource.CPU]) + float64(free[resource.Memory])/float64(r.zone[resource.Memory])
		better := best < 0 || left < bestLeft
		if k.spec.Policy == Spread {
			better = best < 0 || count < bestCount || count == bestCount && left > bestLeft
		}
		if better {
			best, bestCount, bestLeft = i, count, left
		}
	}
	if best < 0 {
		return false
	}
	node := r.nodes[best].Name
	r.used[node] = r.used[node].Add(k.spec.Resources)
	if r.groups[group] == nil {
		r.groups[group] = map[id.Node]int{}
	}
	r.groups[group][node]++
	for _, name := range r.path(k.queue) {
		r.holds[name] = r.holds[name].Add(k.spec.Resources)
	}
	k.spec.Pending--
	r.granted = append(r.granted, node)
	return true
}

// problem is one input for both.
type problem struct {
	queues []QueueSpec
	nodes  []NodeSpec
	asks   []*referenceAsk
}

func (p *problem) reference() *reference {
	r := &reference{queues: p.queues, nodes: p.nodes, used: map[id.Node]resource.Vector{}, groups: map[string]map[id.Node]int{}, holds: map[id.Queue]resource.Vector{}}
	for _, k := range p.asks {
		clone := *k
		r.asks = append(r.asks, &clone)
	}
	r.run()
	return r
}

func (p *problem) core(t interface{ Fatal(...any) }) (*Core, []Grant) {
	c := New(Config{Epoch: 1})
	must := func(in Input) {
		if err := c.Apply(in); err != nil {
			t.Fatal(err)
		}
	}
	must(SetQueues{Queues: p.queues})
	for _, n := range p.nodes {
		must(SetNode{Node: n})
	}
	for i, k := range p.asks {
		app := id.App{ClusterStart: 1, Seq: int64(i + 1)}
		must(AddApp{App: app, Queue: k.queue})
		must(SetAsk{App: app, Ask: k.spec})
	}
	var grants []Grant
	for {
		d := c.Schedule(start)
		grants = append(grants, d.Grants...)
		if !d.More(start) {
			return c, grants
		}
	}
}

func TestTheCoreGrantsWhatTheReferenceGrantsWhereRoomIsNotTheQuestion(t *testing.T) {
	// With containers of one size no packing is better than another, so that both must grant the same to each queue.
	rapid.Check(t, func(t *rapid.T) {
		p := problem{queues: randomQueues(t)}
		for i := range p.queues {
			p.queues[i].Fair, p.queues[i].UserLimitPercent = false, 0
		}
		for i := range rapid.IntRange(1, 6).Draw(t, "nodes") {
			n := randomNode(t)
			n.Name, n.Closed = id.Node(fmt.Sprintf("node-%d", i)), ""
			size := int64(rapid.IntRange(0, 8).Draw(t, "size"))
			n.Capacity = resource.Vector{size * 1000, size << 30}
			p.nodes = append(p.nodes, n)
		}
		for i := range rapid.IntRange(1, 6).Draw(t, "asks") {
			p.asks = append(p.asks, &referenceAsk{
				queue: rapid.SampledFrom([]id.Queue{"apps", "low", "high"}).Draw(t, "queue"), app: i,
				spec: Ask{
					ID: "a", Pending: rapid.IntRange(1, 12).Draw(t, "pending"), Priority: int32(rapid.IntRange(0, 1).Draw(t, "priority")),
					Policy: Policy(rapid.IntRange(0, 1).Draw(t, "policy")), Resources: resource.Vector{1000, 1 << 30},
				},
			})
		}
		r := p.reference()
		c, grants := p.core(t)
		if len(grants) != len(r.granted) {
			t.Fatalf("the core granted %d containers, the reference %d", len(grants), len(r.granted))
		}
		for _, usage := range c.Queues() {
			if usage.Used != r.holds[usage.Spec.Name] {
				t.Fatalf("queue %s holds %v with the core, %v with the reference", usage.Spec.Name, usage.Used, r.holds[usage.Spec.Name])
			}
		}
	})
}

func TestSpreadIsAsEvenAsTheReferences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := problem{queues: DefaultQueues()}
		for i := range rapid.IntRange(1, 8).Draw(t, "nodes") {
			p.nodes = append(p.nodes, NodeSpec{Name: id.Node(fmt.Sprintf("node-%d", i)), Capacity: resource.Vector{int64(rapid.IntRange(1, 9).Draw(t, "size")) * 1000, 64 << 30}})
		}
		p.asks = []*referenceAsk{{queue: "default", spec: Ask{ID: "a", Pending: rapid.IntRange(1, 40).Draw(t, "pending"), Policy: Spread, Resources: resource.Vector{1000, 1 << 30}}}}
		counts := func(nodes []id.Node) []int {
			on := map[id.Node]int{}
			for _, n := range nodes {
				on[n]++
			}
			var all []int
			for _, n := range on {
				all = append(all, n)
			}
			slices.Sort(all)
			return all
		}
		_, grants := p.core(t)
		var nodes []id.Node
		for _, grant := range grants {
			nodes = append(nodes, grant.Node)
		}
		if got, want := counts(nodes), counts(p.reference().granted); !slices.Equal(got, want) {
			t.Fatalf("containers a node: %v, the reference has %v", got, want)
		}
	})
}

// packing fills heterogeneous nodes with containers of many shapes until nothing fits any more, and gives the use of
// the bottleneck, cpu, by the core and by the reference.
func packing(t *testing.T, seed uint64) (core, reference float64) {
	random := rand.New(rand.NewPCG(seed, 0))
	p := problem{queues: DefaultQueues()}
	var zone resource.Vector
	for i := range 120 {
		size := int64(1 + random.IntN(3))
		n := NodeSpec{Name: id.Node(fmt.Sprintf("node-%d", i)), Capacity: resource.Vector{size * 16_000, size * (96 << 30)}}
		zone = zone.Add(n.Capacity)
		p.nodes = append(p.nodes, n)
	}
	var asked int64
	for i := 0; asked < zone[resource.CPU]; i++ {
		cpu := int64(250 * (1 + random.IntN(16)))
		count := 1 + random.IntN(8)
		asked += cpu * int64(count)
		p.asks = append(p.asks, &referenceAsk{queue: "default", app: i, spec: Ask{
			ID: "a", Pending: count, Policy: Pack, Resources: resource.Vector{cpu, cpu * int64(1+random.IntN(8)) << 20},
		}})
	}
	r := p.reference()
	c, _ := p.core(t)
	return float64(c.tree.root().used[resource.CPU]) / float64(zone[resource.CPU]), float64(r.holds["root"][resource.CPU]) / float64(zone[resource.CPU])
}

func TestPackingIsNotWorseThanAFullScanByHalfAPoint(t *testing.T) {
	for seed := range uint64(8) {
		core, reference := packing(t, seed)
		t.Logf("seed %d: %.2f %% of cpu in use, the reference has %.2f %%", seed, 100*core, 100*reference)
		if core < 0.95 || core < reference-0.005 {
			t.Errorf("seed %d: the core uses %.2f %%, the reference %.2f %%", seed, 100*core, 100*reference)
		}
	}
}
