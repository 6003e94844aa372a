// Command sim puts a real `mammoth resourcemanager` under the load of a large zone: simulated NodeManagers with real
// gRPC streams, several thousand to a process, that report once a second, and an application master that asks for
// containers at a constant rate, starts them, and gives them back after a while. It prints what the ResourceManager
// took for it and on which machine, and exits with status 1 if a budget is missed.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"time"
)

// The budgets.
const (
	mostCores       = 1.0
	mostKiBPerNode  = 20.0
	mostP99         = 50 * time.Millisecond
	heldFor         = 3 * time.Second
	warmUp          = 5 * time.Second
	reportsPer      = time.Second
	nodesPerProcess = 5_000
)

type options struct {
	mammoth     string
	nodes       int
	rate        int
	length      time.Duration
	connections int
	dir         string

	// Of a process of nodes, and of the master's.
	resourceManager string
	first, count    int
	master          bool
}

func main() {
	var o options
	flag.StringVar(&o.mammoth, "mammoth", "bin/mammoth", "the program under test")
	flag.IntVar(&o.nodes, "nodes", 10_000, "how many nodes")
	flag.IntVar(&o.rate, "rate", 1_000, "how many containers the master asks for in a second")
	flag.DurationVar(&o.length, "for", 30*time.Second, "how long is measured")
	flag.IntVar(&o.connections, "connections", 100, "how many connections the nodes share")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "the folder in which the store is kept for as long as it takes")
	flag.StringVar(&o.resourceManager, "resourcemanager", "", "be a process of nodes, for the ResourceManager at this address")
	flag.IntVar(&o.first, "first", 0, "the first node's number")
	flag.IntVar(&o.count, "count", 0, "how many nodes this process is")
	flag.BoolVar(&o.master, "master", false, "be the application master that the environment says")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	// What is measured shares the machine with what measures.
	debug.SetGCPercent(400)
	work := measure
	switch {
	case o.master:
		work = beMaster
	case o.resourceManager != "":
		work = beNodes
	}
	if err := work(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// figures are what was seen of the ResourceManager.
type figures struct {
	emptyKiB, idleKiB, loadedKiB float64
	idleCores, loadedCores       float64
	registered                   time.Duration
	load                         loadResult
}

// measure runs everything and prints the table.
func measure(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp(o.dir, "mammoth-sim-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	rm, err := startResourceManager(ctx, o, dir)
	if err != nil {
		return err
	}
	defer rm.end()
	seen, err := watch(ctx, o, rm, dir)
	if err != nil {
		return err
	}
	return seen.print(o)
}

func watch(ctx context.Context, o options, rm *program, dir string) (*figures, error) {
	f := &figures{}
	pause(ctx, 2*time.Second)
	f.emptyKiB = rm.residentKiB()

	began := time.Now()
	var processes []*program
	defer func() {
		for _, p := range processes {
			p.end()
		}
	}()
	for first := 0; first < o.nodes; first += nodesPerProcess {
		p, err := startNodes(ctx, o, rm.address, first, min(nodesPerProcess, o.nodes-first))
		if err != nil {
			return nil, err
		}
		processes = append(processes, p)
	}
	for _, p := range processes {
		if line, err := p.out.ReadString('\n'); err != nil || line != "ready\n" {
			return nil, fmt.Errorf("the nodes did not get ready: %q, %v", line, err)
		}
	}
	f.registered = time.Since(began)
	pause(ctx, 5*time.Second)
	f.idleCores = rm.cores(ctx, o.length/2)
	f.idleKiB = rm.residentKiB()

	// Any image will do, since nothing is ever run.
	image := filepath.Join(dir, "load.image")
	for _, args := range [][]string{{"image", "pack", o.mammoth, "-o", image}, {"--server", rm.address, "deploy", image, "--name", "load"}} {
		if out, err := exec.CommandContext(ctx, o.mammoth, args...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("deploy the app of the load: %w: %s", err, out)
		}
	}
	// The process on one of whose nodes the master was launched tells when it has begun and what came out.
	lines := make(chan string)
	for _, p := range processes {
		go func() {
			for {
				line, err := p.out.ReadString('\n')
				if err != nil {
					return
				}
				lines <- line
			}
		}()
	}
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case line := <-lines:
			if line == "warm\n" {
				f.loadedCores = rm.cores(ctx, o.length)
				f.loadedKiB = rm.residentKiB()
				continue
			}
			if err := json.Unmarshal([]byte(line), &f.load); err != nil {
				return nil, fmt.Errorf("the load said %q: %w", line, err)
			}
			return f, nil
		case <-time.After(o.length + time.Minute):
			return nil, fmt.Errorf("the load did not end")
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (f *figures) print(o options) error {
	perNode := (f.idleKiB - f.emptyKiB) / float64(o.nodes)
	fmt.Printf("%s, %d processors, %s/%s, %s\n", processor(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	fmt.Printf("%d nodes in processes of %d and over %d connections, one report a second each; the ResourceManager's store is on %s, with fsync.\n",
		o.nodes, nodesPerProcess, o.connections, o.dir)
	fmt.Println("Nodes and master share the machine with it. Left out are the log, which is set to warnings, and a connection for each node.")
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "all nodes registered\t%s\n", f.registered.Round(time.Millisecond))
	fmt.Fprintf(t, "resident, no node\t%.0f MiB\n", f.emptyKiB/1024)
	fmt.Fprintf(t, "resident, %d nodes\t%.0f MiB\t%.1f KiB a node\n", o.nodes, f.idleKiB/1024, perNode)
	fmt.Fprintf(t, "resident, under load\t%.0f MiB\n", f.loadedKiB/1024)
	fmt.Fprintf(t, "processor, only reports\t%.2f cores\n", f.idleCores)
	fmt.Fprintf(t, "processor, under load\t%.2f cores\n", f.loadedCores)
	fmt.Fprintf(t, "asked\t%.0f containers/s\tgranted %.0f/s\t%d in all\n", f.load.AskedPerSecond, f.load.GrantedPerSecond, f.load.Granted)
	fmt.Fprintf(t, "ask to allocation\tp50 %s\tp90 %s\tp99 %s\tmost %s\n", f.load.P50, f.load.P90, f.load.P99, f.load.Most)
	if err := t.Flush(); err != nil {
		return err
	}
	missed := 0
	for _, budget := range []struct {
		met  bool
		text string
	}{
		{f.loadedCores < mostCores, fmt.Sprintf("%.2f cores under load, at most %.0f allowed", f.loadedCores, mostCores)},
		{perNode < mostKiBPerNode, fmt.Sprintf("%.1f KiB a node, at most %.0f allowed", perNode, mostKiBPerNode)},
		{f.load.P99 < mostP99, fmt.Sprintf("p99 from ask to allocation %s, at most %s allowed", f.load.P99, mostP99)},
		{f.load.GrantedPerSecond > 0.98*f.load.AskedPerSecond, "grants do not keep up with asks"},
	} {
		if !budget.met {
			missed++
			fmt.Println("missed:", budget.text)
		}
	}
	if missed > 0 {
		return fmt.Errorf("%d budgets missed", missed)
	}
	fmt.Println("every budget is met")
	return nil
}

func processor() string {
	raw, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(raw)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

func startResourceManager(ctx context.Context, o options, dir string) (*program, error) {
	p, err := start(ctx, o.mammoth, "resourcemanager", "--dir", filepath.Join(dir, "rm"), "--listen", "127.0.0.1:0", "--log-level", "warn")
	if err != nil {
		return nil, err
	}
	line, err := p.out.ReadString('\n')
	if _, rest, ok := strings.Cut(line, " listens at "); ok {
		p.address, _, _ = strings.Cut(strings.TrimSpace(rest), " ")
	}
	if err != nil || p.address == "" {
		p.end()
		return nil, fmt.Errorf("the ResourceManager said %q, %v", line, err)
	}
	go func() { _, _ = io.Copy(io.Discard, p.out) }()
	return p, nil
}

func startNodes(ctx context.Context, o options, address string, first, count int) (*program, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	connections := max(1, o.connections*count/o.nodes)
	return start(ctx, self, "-resourcemanager", address, "-first", fmt.Sprint(first), "-count", fmt.Sprint(count),
		"-connections", fmt.Sprint(connections), "-rate", fmt.Sprint(o.rate), "-for", o.length.String())
}

// program is a process whose output is read.
type program struct {
	*exec.Cmd
	out     *bufio.Reader
	address string
}

func start(ctx context.Context, name string, args ...string) (*program, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &program{Cmd: cmd, out: bufio.NewReader(out)}, nil
}

func (p *program) end() {
	_ = p.Process.Kill()
	_ = p.Wait()
}

// cores is how many processors the program uses on average for a while.
func (p *program) cores(ctx context.Context, d time.Duration) float64 {
	before, began := p.ticks(), time.Now()
	pause(ctx, d)
	return (p.ticks() - before) / 100 / time.Since(began).Seconds()
}

// ticks is the processor time used, in the kernel's hundredths of a second.
func (p *program) ticks() float64 {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	_, rest, _ := strings.Cut(string(raw), ") ")
	var user, system float64
	if fields := strings.Fields(rest); len(fields) > 12 {
		_, _ = fmt.Sscan(fields[11], &user)
		_, _ = fmt.Sscan(fields[12], &system)
	}
	return user + system
}

func (p *program) residentKiB() float64 {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			var kib float64
			_, _ = fmt.Sscan(rest, &kib)
			return kib
		}
	}
	return 0
}
