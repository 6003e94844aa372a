// Command deploy measures how fast and how lightly a zone brings up, replaces, finds again and ends instances, against
// the bare Docker API doing the same in the same run on the same machine. Run it with `make bench-deploy`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/test/zone"
)

// row is one line of the table: what was measured, against which budget.
type row struct {
	what   string
	figure string
	budget string
	met    bool
}

func main() {
	log.SetFlags(0)
	rounds := flag.Int("rounds", 5, "how often each pair is measured; medians are compared")
	instances := flag.Int("instances", 20, "instances of each deployment")
	flag.Parse()
	rows, err := run(context.Background(), *rounds, *instances)
	print(rows)
	if err != nil {
		log.Fatal("bench-deploy: ", err)
	}
}

func run(ctx context.Context, rounds, instances int) (rows []row, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("process memory and the engine can be read by root only; run it as root")
	}
	dir, err := os.MkdirTemp("", "mammoth-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	programs, err := zone.Build(ctx, ".", dir)
	if err != nil {
		return nil, err
	}
	b := &bench{ctx: ctx, programs: programs, dir: dir, rounds: rounds, instances: instances}
	if err := b.start(); err != nil {
		return nil, errors.Join(err, b.close())
	}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, measure := range []func() ([]row, error){b.idle, b.deployBridge, b.deployHost, b.replacement, b.reattachment} {
		more, err := measure()
		rows = append(rows, more...)
		if err != nil {
			return rows, err
		}
	}
	return rows, nil
}

func print(rows []row) {
	fmt.Println(machine())
	fmt.Printf("%-64s %-28s %-12s %s\n", "what", "figure", "budget", "met")
	for _, r := range rows {
		met := "yes"
		if !r.met {
			met = "NO"
		}
		fmt.Printf("%-64s %-28s %-12s %s\n", r.what, r.figure, r.budget, met)
	}
}

func median(durations []time.Duration) time.Duration {
	slices.Sort(durations)
	return durations[len(durations)/2]
}

func machine() string {
	cpu := "unknown cpu"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		cpu = field(string(text), "model name")
	}
	memory := "unknown memory"
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		memory = field(string(text), "MemTotal")
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("machine: %d × %s, %s, Linux %s", cores(), cpu, memory, filepath.Clean(string(trim(kernel))))
}
