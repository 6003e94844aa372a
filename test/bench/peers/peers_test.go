package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func grants(t *testing.T, c contender, w workload) []placement {
	t.Helper()
	trial, err := c.prepare(w)
	if err != nil {
		t.Fatal(err)
	}
	if err := trial.run(func() {}); err != nil {
		t.Fatal(err)
	}
	placed, err := trial.placed()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.check(placed); err != nil {
		t.Error(err)
	}
	if err := trial.close(); err != nil {
		t.Error(err)
	}
	return placed
}

func TestEverybodyGrantsAllThatIsAsked(t *testing.T) {
	w := newWorkload(shape{nodes: 30, apps: 4, asks: 600})
	for _, c := range slices.Concat(ours, peers) {
		t.Run(c.name(), func(t *testing.T) {
			perApp := make([]int, w.apps)
			for _, p := range grants(t, c, w) {
				perApp[p.app]++
			}
			if want := []int{150, 150, 150, 150}; !slices.Equal(perApp, want) {
				t.Errorf("the apps were granted %v of %v", perApp, want)
			}
		})
	}
}

// What is compared is the same work: with room for it everywhere, each app has equally many containers on every node.
func TestOursAndThePeersSpreadAlike(t *testing.T) {
	w := newWorkload(shape{nodes: 30, apps: 4, asks: 240})
	for _, c := range slices.Concat([]contender{spread, stored}, peers) {
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
		return figure{granted: granted, whole: span{processor: whole}, deciding: span{processor: deciding}}
	}
	good := did(10, time.Second, time.Second)
	r := row{shape: shape{nodes: 1, apps: 1, asks: 10}, peer: did(10, 9*time.Second, 3*time.Second), ours: map[string]figure{
		spread.name(): good, stored.name(): good, pack.name(): did(9, time.Second, time.Second),
	}}
	missed := judge(budgets{Spread: 10, Stored: 7, Decided: 1}, swarmKit{}, []row{r})
	want := []string{"1 nodes, 1 apps, 10 asks, spread: 9.0 times the grants of SwarmKit, wanted 10", "1 nodes, 1 apps, 10 asks, pack: 9 granted"}
	if !slices.Equal(missed, want) {
		t.Errorf("missed %q, want %q", missed, want)
	}
}
