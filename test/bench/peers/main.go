// Command peers runs the scheduler core side by side with other schedulers written in Go, one after the other, at the
// shapes of test/bench/scheduler, and prints the grants a second of both and their ratio. It exits with status 1 if a
// ratio is below budgets.json. BENCH_NODES, BENCH_APPS and BENCH_ASKS narrow the matrix to one shape, BENCH_PEER (swarmkit,
// yunikorn) to one peer.
//
// It is a Go module of its own, on which nothing else depends. Another peer is one more file, one more entry of peers
// and its least ratios in budgets.json.
package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
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

// budgets are the least ratios at every shape, by processor time: of each peer, by the name of ours or decided.
type budgets map[string]map[string]float64

const decided = "decided"

var (
	spread = mammoth{policy: scheduler.Spread}
	stored = mammoth{policy: scheduler.Spread, stored: true}
	pack   = mammoth{policy: scheduler.Pack}
	ours   = []contender{spread, stored, pack}
	peers  = []peer{
		{contender: swarmKit{}, against: ours, writes: true, toTheEnd: true},
		{contender: yuniKorn{sorting: "fair"}, against: []contender{spread}},
		{contender: yuniKorn{sorting: "binpacking"}, against: []contender{pack}},
	}
)

// peer is a scheduler of others and what it is compared with.
type peer struct {
	contender
	// against are those of ours that do the same, the first of them nothing besides.
	against []contender
	// writes is whether it decides all before it writes the first grant, so that deciding can be compared alone.
	writes bool
	// toTheEnd is whether nothing can stop it before all is granted.
	toTheEnd bool
}

// patience is how long a peer is meant to run at a shape. One that cannot be stopped, and would take longer at the pace
// of the shape before, is given fewer asks.
const patience = 20 * time.Second

func main() {
	if text := os.Getenv(errandVariable); text != "" {
		if err := runErrand(text, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
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
	chosen, err := choose(os.Getenv("BENCH_PEER"))
	if err != nil {
		return err
	}
	fmt.Println(machine())
	fmt.Println("Grants a second by the processor time of all threads and by the clock, garbage collection in both; the run in the middle of up to three.")
	fmt.Printf("%s and %s: %s.\n%s: %s.\n", spread.name(), pack.name(), spread.covers(), stored.name(), stored.covers())
	fmt.Println("Each × is ours by the peer's. Decided is the rate until the first grant is written, which for spread is all of it.")
	var missed []string
	for _, p := range chosen {
		fmt.Printf("\n%s: %s.\n", p.name(), p.covers())
		rows, err := compare(p, shapes)
		if err != nil {
			return err
		}
		for _, by := range []clock{processor, wall} {
			summarise(p, rows, by)
		}
		missed = append(missed, judge(budget, p, rows)...)
	}
	fmt.Println()
	for _, line := range missed {
		fmt.Println("missed:", line)
	}
	if len(missed) > 0 {
		return fmt.Errorf("%d budgets missed", len(missed))
	}
	fmt.Println("every budget is met")
	return nil
}

// choose takes the peers whose names begin with a word, in any case.
func choose(word string) ([]peer, error) {
	var chosen []peer
	for _, p := range peers {
		if strings.HasPrefix(strings.ToLower(p.name()), strings.ToLower(word)) {
			chosen = append(chosen, p)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("BENCH_PEER=%q is the beginning of no peer's name: take swarmkit or yunikorn", word)
	}
	return chosen, nil
}

// row is one shape: how the peer did, and each of ours by its name.
type row struct {
	shape
	peer figure
	ours map[string]figure
}

// ratio is of one of ours, by its name, or of what was decided.
func (r row) ratio(of string, by clock) float64 {
	if of == decided {
		return r.ours[spread.name()].decidedPerSecond(by) / r.peer.decidedPerSecond(by)
	}
	return r.ours[of].perSecond(by) / r.peer.perSecond(by)
}

// compare runs a peer and ours at every shape and prints the table.
func compare(p peer, shapes []shape) ([]row, error) {
	warm := newWorkload(shape{nodes: 500, apps: 100, asks: 5_000})
	last, err := measure(p, warm)
	if err != nil {
		return nil, err
	}
	for _, c := range p.against {
		if _, err := measure(c, warm); err != nil {
			return nil, err
		}
	}
	printHeader(p)
	var rows []row
	var notes []string
	for _, s := range shapes {
		w := newWorkload(s)
		given := s.asks
		if p.toTheEnd {
			given = min(given, int(last.perSecond(wall)*patience.Seconds()))
		}
		r := row{shape: s, ours: map[string]figure{}}
		if r.peer, err = measure(p, w.first(given)); err != nil {
			return nil, err
		}
		last = r.peer
		if given < s.asks {
			notes = append(notes, fmt.Sprintf("%s: %s was given %d asks, to stay near %s", s, p.name(), given, patience))
		}
		if r.peer.granted < given {
			notes = append(notes, fmt.Sprintf("%s: %s granted %d of %d, in %.1f s", s, p.name(), r.peer.granted, given, r.peer.whole.Wall.Seconds()))
		}
		for _, c := range p.against {
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
			r.print(p, by)
		}
	}
	for _, note := range notes {
		fmt.Println(note)
	}
	return rows, nil
}

func printHeader(p peer) {
	fmt.Printf("%6s%6s%8s%11s%21s", "nodes", "apps", "asks", "by", p.name())
	for _, c := range p.against {
		fmt.Printf("%16s%7s", c.name(), "×")
	}
	if p.writes {
		fmt.Printf("%14s%10s%7s", "peer decided", decided, "×")
	}
	fmt.Println()
}

func (r row) print(p peer, by clock) {
	fmt.Printf("%6d%6d%8d%11s%21.0f", r.nodes, r.apps, r.asks, by, r.peer.perSecond(by))
	for _, c := range p.against {
		fmt.Printf("%16.0f%7.1f", r.ours[c.name()].perSecond(by), r.ratio(c.name(), by))
	}
	if p.writes {
		fmt.Printf("%14.0f%10.0f%7.1f", r.peer.decidedPerSecond(by), r.ours[spread.name()].decidedPerSecond(by), r.ratio(decided, by))
	}
	fmt.Println()
}

// summarise prints what is left of the lead where the peer is at its best, and what it comes to at its worst.
func summarise(p peer, rows []row, by clock) {
	rate := func(a, b row) int { return int(a.peer.perSecond(by) - b.peer.perSecond(by)) }
	best, worst := slices.MaxFunc(rows, rate), slices.MinFunc(rows, rate)
	for _, at := range []struct {
		word string
		row  row
	}{{"best", best}, {"worst", worst}} {
		fmt.Printf("%s at its %s by %s, %s: %.0f grants/s", p.name(), at.word, by, at.row.shape, at.row.peer.perSecond(by))
		for _, c := range p.against {
			fmt.Printf("; %s %.0f, %.1f times", c.name(), at.row.ours[c.name()].perSecond(by), at.row.ratio(c.name(), by))
		}
		fmt.Println()
	}
}

// judge compares with the budgets.
func judge(budget budgets, p peer, rows []row) []string {
	var missed []string
	for _, r := range rows {
		for _, of := range slices.Sorted(maps.Keys(budget[p.name()])) {
			if got, least := r.ratio(of, processor), budget[p.name()][of]; got < least {
				missed = append(missed, fmt.Sprintf("%s, %s: %.1f times the grants of %s, wanted %g", r.shape, of, got, p.name(), least))
			}
		}
		for _, c := range p.against {
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
