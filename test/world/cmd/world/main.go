// Command world runs simulated zones and prints what came of them. A seed that breaks a law is run again, and shrunk to the actions
// that it needs for that. With a seed it replays one of them and prints everything that happened in it.
package main

import (
	"bufio"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/mammoth-os/mammoth/test/world"
)

func main() {
	seeds := flag.Int("seeds", 100, "how many seeds are run")
	first := flag.Uint64("first", 1, "the first of them")
	hours := flag.Int("hours", 1, "cycles of trouble in each, each followed by twenty minutes in which the zone comes to rest")
	trouble := flag.Duration("trouble", time.Hour, "how long each trouble lasts")
	workers := flag.Int("workers", runtime.NumCPU(), "how many run at a time")
	within := flag.Duration("within", 0, "no seed is begun after so long; 0 is no limit")
	seed := flag.Uint64("seed", 0, "replay this seed and print all that happens")
	shrink := flag.Duration("shrink", 2*time.Minute, "look so long for a shorter run that breaks the same law; with -seed none is looked for unless this is given")
	plant := flag.String("plant", "", "a fault of the program itself to be found")
	only := flag.String("actions", "", "with -seed: what people do and what fails, instead of what the seed gives, as \"10s deploy 123, 16s cut 4\"")
	flag.Parse()
	config := world.Config{Cycles: *hours, Trouble: *trouble, Plant: world.Plant(*plant)}
	if *only != "" {
		actions, err := world.ParseActions(*only)
		if err != nil || *seed == 0 {
			fmt.Fprintln(os.Stderr, cmp.Or(err, errors.New("-actions needs the -seed that they belong to")))
			os.Exit(2)
		}
		config.Actions = actions
	}
	if *seed > 0 {
		config.Seed = *seed
		within := time.Duration(0)
		flag.Visit(func(f *flag.Flag) {
			if f.Name == "shrink" {
				within = *shrink
			}
		})
		os.Exit(replay(config, within))
	}
	fmt.Printf("%s, %d cores, %s\n", machine(), runtime.NumCPU(), runtime.Version())
	many := world.Many{First: *first, Seeds: *seeds, Config: config, Workers: *workers, Shrink: *shrink, Told: func(broken world.Result) {
		of := config
		of.Seed = broken.Seed
		fmt.Printf("seed %d broke %q: %s\n  run it again: %s\n", broken.Seed, broken.Broken, broken.Sentence, of.Command())
	}}
	if *within > 0 {
		many.Until = time.Now().Add(*within)
	}
	report := world.RunMany(many)
	report.Write(os.Stdout, config)
	if len(report.Broken) > 0 {
		os.Exit(1)
	}
}

// replay runs one seed with everything printed, after it was shrunk if it is to be.
func replay(config world.Config, shrink time.Duration) int {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush() //nolint:errcheck // nobody reads it then
	if shrink > 0 {
		failed := world.Run(config)
		if failed.Broken == "" {
			fmt.Fprintf(out, "seed %d breaks no law\n", config.Seed)
			return 0
		}
		_, config = world.Shrink(failed, config, time.Now().Add(shrink))
	}
	config.Trace = out
	result := world.Run(config)
	if config.Actions != nil {
		fmt.Fprintf(out, "%d actions are left:\n", len(config.Actions))
		for _, action := range config.Actions {
			fmt.Fprintf(out, "  %s\n", action)
		}
	}
	fmt.Fprintf(out, "seed %d: %s simulated, %d steps, sent %016x\n", result.Seed, result.Simulated, result.Steps, result.Sent)
	if result.Broken == "" {
		return 0
	}
	fmt.Fprintf(out, "it broke %q at %s: %s\n", result.Broken, result.At, result.Sentence)
	return 1
}

// machine is what kind of processor this one has.
func machine() string {
	info, _ := os.ReadFile("/proc/cpuinfo") // elsewhere it is not known
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
