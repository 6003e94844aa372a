package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// A trial that needs a process of its own starts this one again.
func TestMain(m *testing.M) {
	if text := os.Getenv(errandVariable); text != "" {
		if err := runErrand(text, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func grants(t *testing.T, c contender, w workload) []placement {
	t.Helper()
	o, err := try(c, w)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.check(o.Placed); err != nil {
		t.Error(err)
	}
	return o.Placed
}

// everybody is ours and the peers.
func everybody() []contender {
	all := slices.Clone(ours)
	for _, p := range peers {
		all = append(all, p)
	}
	return all
}

func TestEverybodyGrantsAllThatIsAsked(t *testing.T) {
	w := newWorkload(shape{nodes: 30, apps: 4, asks: 600})
	for _, c := range everybody() {
		t.Run(c.name(), func(t *testing.T) {
			perApp := make([]int, w.apps)
			for _, p := range grants(t, c, w) {
				perApp[p.App]++
			}
			if want := []int{150, 150, 150, 150}; !slices.Equal(perApp, want) {
				t.Errorf("the apps were granted %v of %v", perApp, want)
			}
		})
	}
}

// What is compared is the same work: with room for it everywhere, each app has equally many containers on every node.
func TestOursAndSwarmKitSpreadAlike(t *testing.T) {
	w := newWorkload(shape{nodes: 30, apps: 4, asks: 240})
	for _, c := range []contender{spread, stored, swarmKit{}} {
		t.Run(c.name(), func(t *testing.T) {
			count := map[placement]int{}
			for _, p := range grants(t, c, w) {
				count[p]++
			}
			for app := range w.apps {
				for node := range w.nodes {
					if n := count[placement{app, node}]; n != 2 {
						t.Errorf("app %d has %d containers on node %d, not 2", app, n, node)
					}
				}
			}
		})
	}
}

// shares has how much of each node is in use, as YuniKorn reckons it: the mean of cpu and memory.
func shares(w workload, placed []placement) []float64 {
	used := make([]float64, len(w.nodeSizes))
	for _, p := range placed {
		used[p.Node] += share(w.appSizes[p.App], w.nodeSizes[p.Node])
	}
	return used
}

func share(of, whole size) float64 {
	return (float64(of.cpu)/float64(whole.cpu) + float64(of.memory)/float64(whole.memory)) / 2
}

// YuniKorn spreads otherwise: it evens out how full the nodes are, whose containers they hold is all one to it. No node is ahead
// of another by more than its last container.
func TestYuniKornFairEvensOutTheNodes(t *testing.T) {
	w := newWorkload(shape{nodes: 30, apps: 4, asks: 240})
	used := shares(w, grants(t, named(t, "YuniKorn fair"), w))
	var last float64
	for _, a := range w.appSizes {
		last = max(last, share(a, w.nodeSizes[0]))
	}
	if least, most := slices.Min(used), slices.Max(used); most-least > last {
		t.Errorf("nodes are in use from %.3f to %.3f, further apart than %.3f", least, most, last)
	}
}

// Packing is the same work for both: nodes are full or empty, with few between.
func TestOursAndYuniKornPackAlike(t *testing.T) {
	w := newWorkload(shape{nodes: 30, apps: 4, asks: 240})
	for _, c := range []contender{pack, named(t, "YuniKorn binpacking")} {
		t.Run(c.name(), func(t *testing.T) {
			var empty, begun int
			for _, s := range shares(w, grants(t, c, w)) {
				switch {
				case s == 0:
					empty++
				case s < 0.5:
					begun++
				}
			}
			if empty < w.nodes/3 || begun > w.apps {
				t.Errorf("%d of %d nodes are empty and %d less than half full", empty, w.nodes, begun)
			}
		})
	}
}

func named(t *testing.T, name string) contender {
	t.Helper()
	i := slices.IndexFunc(peers, func(p peer) bool { return p.name() == name })
	if i < 0 {
		t.Fatalf("no peer is called %q", name)
	}
	return peers[i]
}

func TestEveryShapeLeavesAQuarterFree(t *testing.T) {
	shapes, err := matrix()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range shapes {
		w := newWorkload(s)
		var has, asked size
		for _, n := range w.nodeSizes {
			has.cpu, has.memory = has.cpu+n.cpu, has.memory+n.memory
		}
		for i := range w.asks {
			a := w.appSizes[w.app(i)]
			asked.cpu, asked.memory = asked.cpu+a.cpu, asked.memory+a.memory
		}
		if cpu, memory := float64(asked.cpu)/float64(has.cpu), float64(asked.memory)/float64(has.memory); cpu > 0.8 || memory > 0.8 {
			t.Errorf("%s ask for %.2f of the cpu and %.2f of the memory", s, cpu, memory)
		}
	}
}

func TestAnOvercommittedNodeIsFound(t *testing.T) {
	w := newWorkload(shape{nodes: 1, apps: 1, asks: 1})
	fitting := int(w.nodeSizes[0].cpu / w.appSizes[0].cpu)
	if err := w.check(make([]placement, fitting)); err != nil {
		t.Errorf("%d containers fit: %v", fitting, err)
	}
	if err := w.check(make([]placement, fitting+1)); err == nil || !strings.HasPrefix(err.Error(), "node 0 has 16000 millicores") {
		t.Errorf("%d containers do not fit: %v", fitting+1, err)
	}
}

func TestABudgetIsMissedByRatioAndByGrants(t *testing.T) {
	did := func(granted int, whole, deciding time.Duration) figure {
		return figure{granted: granted, whole: span{Processor: whole}, deciding: span{Processor: deciding}}
	}
	good := did(10, time.Second, time.Second)
	r := row{shape: shape{nodes: 1, apps: 1, asks: 10}, peer: did(10, 9*time.Second, 3*time.Second), ours: map[string]figure{
		spread.name(): good, stored.name(): good, pack.name(): did(9, time.Second, time.Second),
	}}
	missed := judge(budgets{"SwarmKit": {"spread": 10, "spread + store": 7, decided: 1}}, peers[0], []row{r})
	want := []string{"1 nodes, 1 apps, 10 asks, spread: 9.0 times the grants of SwarmKit, wanted 10", "1 nodes, 1 apps, 10 asks, pack: 9 granted"}
	if !slices.Equal(missed, want) {
		t.Errorf("missed %q, want %q", missed, want)
	}
}

func TestEveryPeerHasBudgetsOfItsRatios(t *testing.T) {
	var budget budgets
	if err := json.Unmarshal(budgetsFile, &budget); err != nil {
		t.Fatal(err)
	}
	if len(budget) != len(peers) {
		t.Errorf("%d peers have budgets, of %d", len(budget), len(peers))
	}
	for _, p := range peers {
		known := map[string]bool{decided: p.writes}
		for _, c := range p.against {
			known[c.name()] = true
		}
		least := budget[p.name()]
		if least[p.against[0].name()] <= 0 {
			t.Errorf("nothing is wanted of %s against %s", p.against[0].name(), p.name())
		}
		for of := range least {
			if !known[of] {
				t.Errorf("%s is not compared with %s", p.name(), of)
			}
		}
	}
}

func TestAPeerIsChosenByTheBeginningOfItsName(t *testing.T) {
	for word, want := range map[string]int{"": 3, "swarmkit": 1, "YuniKorn": 2, "yunikorn fair": 1} {
		if chosen, err := choose(word); err != nil || len(chosen) != want {
			t.Errorf("%q chooses %d peers (%v), not %d", word, len(chosen), err, want)
		}
	}
	if _, err := choose("nomad"); err == nil {
		t.Error("nomad was found")
	}
}
