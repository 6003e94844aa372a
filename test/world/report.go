package world

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Report is what a number of runs came to.
type Report struct {
	Runs      int
	Simulated time.Duration
	// Took is how long all of it took, and Worked how much processor time it used.
	Took, Worked time.Duration
	Faults, Done map[string]int
	// Steps, Turns, Messages and Doubled are the sums of those of the runs.
	Steps, Turns, Messages, Doubled int64
	// Broken are the runs that broke a law, in the order of their seeds. The first of them that were found are also in Failures.
	Broken   []Result
	Failures []Failure
	// Slowest is the seed that took longest, and how long an hour of it took.
	Slowest     uint64
	SlowestHour time.Duration
	// Restless is the seed that took longest to come to rest, and Rested how long that was.
	Restless uint64
	Rested   time.Duration
}

// Many is what a number of seeds are run with.
type Many struct {
	// First is the first of Seeds seeds.
	First uint64
	Seeds int
	// Each is run with the rest of this.
	Config Config
	// Workers run that many at a time.
	Workers int
	// Until ends it before all seeds were run; zero is never.
	Until time.Time
	// Shrink is how long a shorter run is looked for that breaks the same law, for each of the first ShrinkMost seeds that break one.
	Shrink time.Duration
	// Told hears of every run that broke a law, at once; may be nil.
	Told func(Result)
}

// ShrinkMost is how many seeds that break a law are run again and shrunk.
const ShrinkMost = 3

// RunMany runs seeds, each in a goroutine of its own.
func RunMany(many Many) Report {
	report := Report{Faults: map[string]int{}, Done: map[string]int{}}
	began, before := time.Now(), worked()
	var mu sync.Mutex
	var workers sync.WaitGroup
	next := many.First
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next == many.First+uint64(many.Seeds) || !many.Until.IsZero() && time.Now().After(many.Until) {
			return 0, false
		}
		next++
		return next - 1, true
	}
	for range max(1, many.Workers) {
		workers.Go(func() {
			for seed, ok := take(); ok; seed, ok = take() {
				start := time.Now()
				config := many.Config
				config.Seed = seed
				result := Run(config)
				mu.Lock()
				report.add(result, time.Since(start))
				broken := result.Broken != ""
				if broken && many.Told != nil {
					many.Told(result)
				}
				looked := broken && len(report.Broken) <= ShrinkMost
				mu.Unlock()
				if looked {
					failure := Look(result, config, time.Now().Add(many.Shrink))
					mu.Lock()
					report.Failures = append(report.Failures, failure)
					mu.Unlock()
				}
			}
		})
	}
	workers.Wait()
	report.Took, report.Worked = time.Since(began), worked()-before
	slices.SortFunc(report.Broken, func(a, b Result) int { return int(int64(a.Seed) - int64(b.Seed)) })
	return report
}

// worked is how much processor time this process has used.
func worked() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func (r *Report) add(result Result, took time.Duration) {
	r.Runs++
	r.Simulated += result.Simulated
	r.Steps, r.Turns, r.Messages, r.Doubled = r.Steps+result.Steps, r.Turns+result.Turns, r.Messages+result.Messages, r.Doubled+result.Doubled
	if result.Rested > r.Rested {
		r.Rested, r.Restless = result.Rested, result.Seed
	}
	for kind, n := range result.Faults {
		r.Faults[kind] += n
	}
	for kind, n := range result.Done {
		r.Done[kind] += n
	}
	if result.Broken != "" {
		r.Broken = append(r.Broken, result)
	}
	if hour := time.Duration(float64(took) / max(result.Simulated.Hours(), 0.01)); hour > r.SlowestHour {
		r.SlowestHour, r.Slowest = hour, result.Seed
	}
}

// Write prints it. Config is what its runs were made of.
func (r *Report) Write(to io.Writer, config Config) {
	line := func(format string, about ...any) { _, _ = fmt.Fprintf(to, format+"\n", about...) }
	hours := max(r.Simulated.Hours(), 0.001)
	line("%d seeds, %.1f simulated hours, %d steps, %d turns of the ResourceManager, %d messages, %d calls that were sent twice",
		r.Runs, hours, r.Steps, r.Turns, r.Messages, r.Doubled)
	line("%v, %v of processor time: %v an hour; the slowest seed took %v an hour (seed %d); %.0f hours can be simulated in 8 hours on 2 cores",
		r.Took.Round(time.Second), r.Worked.Round(time.Second), time.Duration(float64(r.Worked)/hours).Round(time.Millisecond), r.SlowestHour.Round(time.Millisecond), r.Slowest,
		16*3600/max(r.Worked.Seconds()/hours, 1e-6))
	line("everything was at rest again within %v (seed %d)", r.Rested, r.Restless)
	table := func(title string, counts map[string]int) {
		line("%s", title)
		for _, kind := range slices.Sorted(maps.Keys(counts)) {
			line("  %-36s %d", kind, counts[kind])
		}
	}
	table("What failed:", r.Faults)
	table("What people did:", r.Done)
	laws := map[string]int{}
	for _, broken := range r.Broken {
		laws[broken.Broken]++
	}
	line("Laws:")
	for _, law := range Laws {
		verdict := "held"
		if n := laws[law.Name]; n > 0 {
			verdict = fmt.Sprintf("broken by %d seeds", n)
		}
		line("  %-13s %-20s %s", law.Name, verdict, law.Sentence)
	}
	for _, broken := range r.Broken {
		i := slices.IndexFunc(r.Failures, func(f Failure) bool { return f.First.Seed == broken.Seed })
		if i >= 0 {
			r.Failures[i].Write(to, config)
			continue
		}
		config.Seed = broken.Seed
		line("seed %d broke %q at %s: %s\n  run it again: %s", broken.Seed, broken.Broken, broken.At.Round(time.Millisecond), strings.TrimSpace(broken.Sentence), config.Command())
	}
}
