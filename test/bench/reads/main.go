// Command reads times who reads while a zone is busy: a real term with its zone, its store with fsync and its gRPC server in this process,
// simulated nodes and application masters without a network, and readers over gRPC. It measures allocations with and without watchers in
// turns, so that the ratio is of one run, prints a table with the machine, and exits with status 1 if a budget is missed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/mammoth-os/mammoth/companions/registry"
	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/peer/peertest"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/term"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// The budgets.
const (
	mostList   = 20 * time.Millisecond
	mostTold   = 100 * time.Millisecond
	mostSlower = 1.10
)

type options struct {
	nodes, apps, perApp, rate, watchers, rounds int
	length                                      time.Duration
	dir, profile                                string
}

func main() {
	var o options
	flag.IntVar(&o.nodes, "nodes", 10_000, "how many nodes")
	flag.IntVar(&o.apps, "apps", 10_000, "how many apps")
	flag.IntVar(&o.perApp, "containers", 10, "how many containers each app holds all the while")
	flag.IntVar(&o.rate, "rate", 1_000, "how many more containers are asked for in a second")
	flag.IntVar(&o.watchers, "watchers", 200, "how many watch")
	flag.IntVar(&o.rounds, "rounds", 3, "how often it is measured without watchers, and then with them")
	flag.DurationVar(&o.length, "for", 10*time.Second, "how long a measurement takes")
	flag.StringVar(&o.profile, "profile", "", "a file for a profile of the processor, of all but the filling in")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "the folder in which the store is kept for as long as it takes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	debug.SetGCPercent(500) // none comes within a measurement
	if err := measure(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// profiled does something, and writes a profile of it if there is a file for it.
func profiled(file string, do func() error) error {
	if file == "" {
		return do()
	}
	to, err := os.Create(file)
	if err != nil {
		return err
	}
	defer to.Close() //nolint:errcheck // StopCPUProfile has written it
	if err := pprof.StartCPUProfile(to); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return do()
}

// operator is somebody who may do everything.
func operator(ctx context.Context) context.Context {
	return peertest.With(ctx, peer.User{Name: "root", Operator: true})
}

func measure(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp(o.dir, "mammoth-reads-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	disk, err := store.OpenFile(dir, store.Options{Now: time.Now(), EventRetention: 10_000})
	if err != nil {
		return err
	}
	rm, err := term.Begin(ctx, term.Config{
		Settings: zone.Settings{
			Name: "reads", Version: "bench", Listen: "127.0.0.1:7070", Address: "127.0.0.1", NodeTimeout: time.Minute, ReportInterval: time.Second,
			KeyRotation: 24 * time.Hour, AllowInsecure: true,
		},
		EventRetention: 10_000, Metrics: term.NewMetrics(), Logger: slog.New(slog.DiscardHandler),
		Registry: func(epoch int64, _ term.Observer) term.Registry { return registry.New(epoch << 32) },
	}, disk)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	service.Register(server, rm.Services())
	running, end := context.WithCancel(ctx)
	group, running := errgroup.WithContext(running)
	group.Go(func() error { return rm.Run(running) })
	group.Go(func() error { return server.Serve(listener) })
	group.Go(func() error { <-running.Done(); server.Stop(); return nil })
	group.Go(func() error {
		defer end()
		f, err := watch(running, o, rm, listener.Addr().String())
		if err != nil {
			return err
		}
		return f.print(o)
	})
	if err := group.Wait(); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// figures are what was measured.
type figures struct {
	filled           time.Duration
	apps, containers int
	quiet            durations
	// collected is watched while the garbage collector runs.
	watched, collected seen
	cores              [2]float64
}

// seen is what was measured while there were watchers.
type seen struct{ allocations, lists, tells durations }

func watch(ctx context.Context, o options, rm *term.Term, address string) (*figures, error) {
	f := &figures{}
	began := time.Now()
	l := newLoad(rm, o.perApp)
	defer l.end()
	if err := l.fill(ctx, o); err != nil {
		return nil, err
	}
	f.filled, f.apps = time.Since(began), len(rm.AllApps())
	f.containers = int(rm.Zone().GetContainers())
	connections := make([]*grpc.ClientConn, 8)
	for i := range connections {
		connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
		if err != nil {
			return nil, err
		}
		defer connection.Close() //nolint:errcheck // nothing is left to be said
		connections[i] = connection
	}
	if err := l.run(ctx, o, o.length/2, &durations{}); err != nil { // to warm up
		return nil, err
	}
	return f, profiled(o.profile, func() error { return l.compare(ctx, o, connections, f) })
}

// compare measures without watchers and with them, in turns. The garbage collector runs before each measurement, so that none of them is
// slower than others for it: most of what it marks belongs to the simulated nodes and masters. One more measurement with watchers has it
// run in the middle.
func (l *load) compare(ctx context.Context, o options, connections []*grpc.ClientConn, f *figures) error {
	for range o.rounds {
		runtime.GC()
		before := cpu()
		if err := l.run(ctx, o, o.length, &f.quiet); err != nil {
			return err
		}
		f.cores[0] += (cpu() - before) / o.length.Seconds() / float64(o.rounds)
		before = cpu()
		if err := l.watched(ctx, o, connections, &f.watched, false); err != nil {
			return err
		}
		f.cores[1] += (cpu() - before) / o.length.Seconds() / float64(o.rounds)
	}
	return l.watched(ctx, o, connections, &f.collected, true)
}

// watched measures with watchers. The garbage collector runs before it, and in the middle of it too if collect is set.
func (l *load) watched(ctx context.Context, o options, connections []*grpc.ClientConn, into *seen, collect bool) error {
	readers, stop := context.WithCancel(ctx)
	defer stop()
	reading := startReaders(readers, o, connections, l)
	runtime.GC()
	if collect {
		defer time.AfterFunc(o.length/2, runtime.GC).Stop()
	}
	err := l.run(ctx, o, o.length, &into.allocations)
	stop()
	return errors.Join(err, reading(into))
}

func (f *figures) print(o options) error {
	fmt.Printf("%s, %d processors, %s/%s, %s\n", processor(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	fmt.Printf("%d nodes, %d apps, %d containers; %d allocations/s; the store is on %s, with fsync. Nodes, masters and readers are in the same process.\n",
		o.nodes, f.apps, f.containers, o.rate, o.dir)
	fmt.Printf("%d times %s without watchers and as long with %d, each of the containers of one app, and one who reads lists.\n"+
		"The garbage collector runs between the measurements. One more measurement has a collection in its middle.\n", o.rounds, o.length, o.watchers)
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	row := func(name string, d *durations) {
		fmt.Fprintf(t, "%s\tp50 %s\tp90 %s\tp99 %s\tmost %s\t%d\n", name, d.at(0.5), d.at(0.9), d.at(0.99), d.at(1), len(d.all))
	}
	fmt.Fprintf(t, "filled in\t%s\n", f.filled.Round(time.Millisecond))
	row("ask to allocation, nobody watches", &f.quiet)
	row("ask to allocation, with watchers", &f.watched.allocations)
	row("grant to watcher told", &f.watched.tells)
	row("a page of a list", &f.watched.lists)
	row("with a garbage collection: ask to allocation", &f.collected.allocations)
	row("with a garbage collection: grant to watcher told", &f.collected.tells)
	row("with a garbage collection: a page of a list", &f.collected.lists)
	fmt.Fprintf(t, "processor, all in\t%.2f cores, with watchers %.2f\n", f.cores[0], f.cores[1])
	if err := t.Flush(); err != nil {
		return err
	}
	slower := float64(f.watched.allocations.at(0.99)) / float64(max(1, f.quiet.at(0.99)))
	fmt.Printf("with watchers the p99 of an allocation is %.2f times as long\n", slower)
	missed := 0
	for _, budget := range []struct {
		met  bool
		text string
	}{
		{f.watched.lists.at(0.99) < mostList, fmt.Sprintf("p99 of a page %s, at most %s allowed", f.watched.lists.at(0.99), mostList)},
		{f.watched.tells.at(0.99) < mostTold && len(f.watched.tells.all) > 0, fmt.Sprintf("p99 until a watcher is told %s, at most %s allowed", f.watched.tells.at(0.99), mostTold)},
		{slower <= mostSlower, fmt.Sprintf("allocations are %.2f times as slow with watchers, at most %.2f allowed", slower, mostSlower)},
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

// cpu is the processor time that this process has used, in seconds.
func cpu() float64 {
	raw, _ := os.ReadFile("/proc/self/stat")
	_, rest, _ := strings.Cut(string(raw), ") ")
	var user, system float64
	if fields := strings.Fields(rest); len(fields) > 12 {
		_, _ = fmt.Sscan(fields[11], &user)
		_, _ = fmt.Sscan(fields[12], &system)
	}
	return (user + system) / 100
}
