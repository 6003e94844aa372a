// Command peers runs the scheduler core side by side with another scheduler written in Go, in one process, one after
// the other, at the shapes of test/bench/scheduler, and prints the grants a second of both and their ratio. It exits with
// status 1 if a ratio is below budgets.json. BENCH_NODES, BENCH_APPS and BENCH_ASKS narrow the matrix to one shape.
//
// It is a Go module of its own, on which nothing else depends. A peer is a contender; SwarmKit is the one there is, and
// another is one more file and one more entry of peers.
package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

//go:embed budgets.json
var budgetsFile []byte

// budgets are the least ratios to a peer at every shape, by processor time.
type budgets struct {
	// Spread is of the core alone, Stored of the core that writes its grants as the peer does.
	Spread float64 `json:"spread"`
	Stored float64 `json:"stored"`
	// Decided is of the core alone too, with the peer's writing left out.
	Decided float64 `json:"decided"`
}

var (
	peers  = []contender{swarmKit{}}
	spread = mammoth{policy: scheduler.Spread}
	stored = mammoth{policy: scheduler.Spread, stored: true}
	pack   = mammoth{policy: scheduler.Pack}
	ours   = []contender{spread, stored, pack}
)

// patience is how long a peer is meant to run at a shape. A pass cannot be cut short; so at the pace of the shape before,
// a peer that would take longer is given fewer asks.
const patience = 20 * time.Second

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var budget budgets
	if err := json.Unmarshal(budgetsFile, &budget); err != nil {
		return fmt.Errorf("budgets.json: %w", err)
	}
	shapes, err := matrix()
	if err != nil {
		return err
	}
	fmt.Println(machine())
	fmt.Println("Grants a second by the processor time of all threads and by the clock, garbage collection in both; the run in the middle of up to three.")
	fmt.Printf("%s and %s: %s.\n%s: %s.\n", spread.name(), pack.name(), spread.covers(), stored.name(), stored.covers())
	for _, peer := range peers {
		fmt.Printf("%s: %s.\n", peer.name(), peer.covers())
	}
	fmt.Println("Decided is the rate until the first grant is written, which for spread is all of it. Each × is ours by the peer's.")
	var missed []string
	for _, peer := range peers {
		rows, err := compare(peer, shapes)
		if err != nil {
			return err
		}
		for _, by := range []clock{processor, wall} {
			summarise(peer, rows, by)
		}
		missed = append(missed, judge(budget, peer, rows)...)
	}
	for _, line := range missed {
		fmt.Println("missed:", line)
	}
	if len(missed) > 0 {
		return fmt.Errorf("%d budgets missed", len(missed))
	}
	fmt.Println("every budget is met")
	return nil
}

// row is one shape: how the peer did, and each of ours by its name.
type row struct {
	shape
	// given is how many of the asks the peer was given.
	given int
	peer  figure
	ours  map[string]figure
}

func (r row) ratio(of contender, by clock) float64 {
	return r.ours[of.name()].perSecond(by) / r.peer.perSecond(by)
}

func (r row) decidedRatio(by clock) float64 {
	return r.ours[spread.name()].decidedPerSecond(by) / r.peer.decidedPerSecond(by)
}

// compare runs a peer and ours at every shape and prints the table.
func compare(peer contender, shapes []shape) ([]row, error) {
	warm := newWorkload(shape{nodes: 500, apps: 100, asks: 5_000})
	last, err := measure(peer, warm)
	if err != nil {
		return nil, err
	}
	for _, c := range ours {
		if _, err := measure(c, warm); err != nil {
			return nil, err
		}
	}
	fmt.Printf("%6s%6s%8s%11s%12s%10s%7s%16s%7s%10s%7s%14s%10s%7s\n", "nodes", "apps", "asks", "by", peer.name(), spread.name(), "×", stored.name(), "×", pack.name(), "×",
		"peer decided", "decided", "×")
	var rows []row
	var notes []string
	for _, s := range shapes {
		w := newWorkload(s)
		r := row{shape: s, given: min(s.asks, int(last.perSecond(wall)*patience.Seconds())), ours: map[string]figure{}}
		if r.peer, err = measure(peer, w.first(r.given)); err != nil {
			return nil, err
		}
		last = r.peer
		if r.given < s.asks {
			notes = append(notes, fmt.Sprintf("%s: %s was given %d asks, to stay near %s", s, peer.name(), r.given, patience))
		}
		if r.peer.granted < r.given {
			notes = append(notes, fmt.Sprintf("%s: %s granted %d of %d", s, peer.name(), r.peer.granted, r.given))
		}
		for _, c := range ours {
			f, err := measure(c, w)
			if err != nil {
				return nil, err
			}
			if r.ours[c.name()] = f; f.granted < s.asks {
				notes = append(notes, fmt.Sprintf("%s: %s granted %d of %d", s, c.name(), f.granted, s.asks))
			}
		}
		rows = append(rows, r)
		for _, by := range []clock{processor, wall} {
			fmt.Printf("%6d%6d%8d%11s%12.0f%10.0f%7.1f%16.0f%7.1f%10.0f%7.1f%14.0f%10.0f%7.1f\n", s.nodes, s.apps, s.asks, by, r.peer.perSecond(by),
				r.ours[spread.name()].perSecond(by), r.ratio(spread, by), r.ours[stored.name()].perSecond(by), r.ratio(stored, by),
				r.ours[pack.name()].perSecond(by), r.ratio(pack, by),
				r.peer.decidedPerSecond(by), r.ours[spread.name()].decidedPerSecond(by), r.decidedRatio(by))
		}
	}
	for _, note := range notes {
		fmt.Println(note)
	}
	return rows, nil
}

// summarise prints what is left of the lead where the peer is at its best, and what it comes to at its worst.
func summarise(peer contender, rows []row, by clock) {
	rate := func(a, b row) int { return int(a.peer.perSecond(by) - b.peer.perSecond(by)) }
	best, worst := slices.MaxFunc(rows, rate), slices.MinFunc(rows, rate)
	for _, at := range []struct {
		word string
		row  row
	}{{"best", best}, {"worst", worst}} {
		fmt.Printf("%s at its %s by %s, %s: %.0f grants/s; spread %.0f, %.1f times; spread + store %.0f, %.1f times\n", peer.name(), at.word, by, at.row.shape, at.row.peer.perSecond(by),
			at.row.ours[spread.name()].perSecond(by), at.row.ratio(spread, by), at.row.ours[stored.name()].perSecond(by), at.row.ratio(stored, by))
	}
}

// judge compares with the budgets.
func judge(budget budgets, peer contender, rows []row) []string {
	var missed []string
	for _, r := range rows {
		for _, ratio := range []struct {
			what       string
			got, least float64
		}{
			{spread.name(), r.ratio(spread, processor), budget.Spread},
			{stored.name(), r.ratio(stored, processor), budget.Stored},
			{"decided", r.decidedRatio(processor), budget.Decided},
		} {
			if ratio.got < ratio.least {
				missed = append(missed, fmt.Sprintf("%s, %s: %.1f times the grants of %s, wanted %g", r.shape, ratio.what, ratio.got, peer.name(), ratio.least))
			}
		}
		for _, c := range ours {
			if f := r.ours[c.name()]; f.granted < r.asks {
				missed = append(missed, fmt.Sprintf("%s, %s: %d granted", r.shape, c.name(), f.granted))
			}
		}
	}
	return missed
}

func matrix() ([]shape, error) {
	nodes, err := dimension("BENCH_NODES", 500, 1_000, 5_000, 10_000)
	if err != nil {
		return nil, err
	}
	apps, err := dimension("BENCH_APPS", 2, 100, 1_000)
	if err != nil {
		return nil, err
	}
	asks, err := dimension("BENCH_ASKS", 10_000, 50_000, 100_000)
	if err != nil {
		return nil, err
	}
	var shapes []shape
	for _, n := range nodes {
		for _, a := range apps {
			for _, k := range asks {
				shapes = append(shapes, shape{nodes: n, apps: a, asks: k})
			}
		}
	}
	return shapes, nil
}

func dimension(name string, all ...int) ([]int, error) {
	text := os.Getenv(name)
	if text == "" {
		return all, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		return nil, fmt.Errorf("%s=%q is not a positive number", name, text)
	}
	return []int{n}, nil
}

// machine says what the run happens on.
func machine() string {
	model := "unknown processor"
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%s, %d processors, %s/%s, %s", model, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}
