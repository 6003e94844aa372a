package scheduler

import (
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

func TestAnExplanationSaysWhatWouldHelp(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	app := id.App{ClusterStart: 1, Seq: 1}
	node := func(name id.Node, cpu, memory int64) Input {
		return SetNode{NodeSpec{Name: name, Capacity: resource.Vector{resource.CPU: cpu, resource.Memory: memory}}}
	}
	for name, c := range map[string]struct {
		facts []Input
		ask   Ask
		help  string
	}{
		"a node lacks a little": {
			facts: []Input{node("a", 400, 1<<30), node("b", 300, 1<<30)}, ask: Ask{Resources: resource.Vector{resource.CPU: 500, resource.Memory: 64 << 20}},
			help: "a comes nearest and lacks 0.1 cpu: with 0.4 cpu instead it fits there",
		},
		"a node lacks two things": {
			facts: []Input{node("a", 400, 32<<20), node("b", 100, 1<<30)}, ask: Ask{Resources: resource.Vector{resource.CPU: 500, resource.Memory: 64 << 20}},
			help: "a comes nearest and lacks 0.1 cpu and 32MiB of memory: with 0.4 cpu and 32MiB of memory instead it fits there",
		},
		"a node has nothing of it": {
			facts: []Input{node("a", 0, 1<<30)}, ask: Ask{Resources: resource.Vector{resource.CPU: 500}},
			help: "a comes nearest and lacks 0.5 cpu",
		},
		"a queue is full": {
			facts: []Input{node("a", 4000, 1<<30), SetQueues{Queues: []QueueSpec{
				{Name: "root"}, {Name: "default", Parent: "root", Maximum: Capacity{Absolute: resource.Vector{resource.CPU: 300, resource.Memory: 1 << 40}}},
			}}},
			ask:  Ask{Resources: resource.Vector{resource.CPU: 500}},
			help: "a maximum of queue default of 0.5 cpu would be enough, or asking for 0.3 cpu",
		},
		"no node is of the kind": {
			facts: []Input{node("a", 4000, 1<<30)},
			ask:   Ask{Resources: resource.Vector{resource.CPU: 500}, Constraints: []Constraint{mustConstraint(t, "disk_type == ssd")}},
			help:  "it needs a node with disk_type == ssd, or a manifest without that constraint",
		},
		"it fits": {
			facts: []Input{node("a", 4000, 1<<30)}, ask: Ask{Resources: resource.Vector{resource.CPU: 500}}, help: "",
		},
	} {
		core := New(Config{})
		c.ask.ID, c.ask.Pending = "x", 1
		for _, fact := range append(c.facts, AddApp{App: app, Name: "web", Queue: "default"}, SetAsk{App: app, Ask: c.ask}) {
			if err := core.Apply(fact); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		asks := core.Explain(app, now).Asks
		if len(asks) != 1 || asks[0].Help != c.help {
			t.Errorf("%s: %q, want %q", name, asks[0].Help, c.help)
		}
	}
}

func mustConstraint(t *testing.T, text string) Constraint {
	t.Helper()
	constraint, err := ParseConstraint(text)
	if err != nil {
		t.Fatal(err)
	}
	return constraint
}

func TestAsksOfOneKindAreExplainedAlike(t *testing.T) {
	core := New(Config{})
	app := id.App{ClusterStart: 1, Seq: 1}
	facts := []Input{
		SetNode{NodeSpec{Name: "a", Capacity: resource.Vector{resource.CPU: 100}}},
		AddApp{App: app, Name: "web", Queue: "default"},
		SetAsk{App: app, Ask: Ask{ID: "one", Pending: 1, Resources: resource.Vector{resource.CPU: 500}}},
		SetAsk{App: app, Ask: Ask{ID: "two", Pending: 3, Resources: resource.Vector{resource.CPU: 500}}},
		SetAsk{App: app, Ask: Ask{ID: "large", Pending: 1, Resources: resource.Vector{resource.CPU: 900}}},
	}
	for _, fact := range facts {
		if err := core.Apply(fact); err != nil {
			t.Fatal(err)
		}
	}
	asks := core.Explain(app, time.Unix(0, 0)).Asks
	if len(asks) != 3 || asks[0].Ask != "one" || asks[1].Ask != "two" || asks[1].Pending != 3 || asks[0].Tests[0] != asks[1].Tests[0] || asks[2].Tests[0] == asks[0].Tests[0] {
		t.Errorf("explained as %+v", asks)
	}
}
