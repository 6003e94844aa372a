package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/nodemanager"
	"github.com/mammoth-os/mammoth/nodemanager/disk"
	"github.com/mammoth-os/mammoth/nodemanager/network"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/fake"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// upFile marks a folder as a whole zone's.
const upFile = "up.json"

// upSettings are the settings of `mammoth up`.
type upSettings struct {
	dir           string
	nodes         int
	stopInstances bool
	// started is the time of this start, again the command that repeats it; running is set once everything has started.
	started time.Time
	again   string
	running bool
	manager managerSettings
	node    nodeSettings
	beside  besideSettings
}

// upCommands run a whole zone in one process, and end what a zone has left on this machine.
type upCommands struct {
	streams
	env  func(string) string
	args []string
}

func (c *upCommands) upCommand() *cobra.Command {
	s := &upSettings{}
	daemon := &daemonFlags{}
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run a whole zone in one process",
		Long: `Up runs a zone on this machine: a ResourceManager and NodeManagers that share the
machine's Docker Engine, in one process and in the foreground.

Ctrl-C, or the signal TERM, ends the zone and leaves instances and their masters running; "mammoth up"
on the same folder takes them over again, "mammoth down" ends them.`,
		Example: `  mammoth up --dir /var/lib/mammoth --listen 127.0.0.1:7070 --nodes 2
  mammoth up --dir /var/lib/mammoth --zookeeper 127.0.0.1:2181 --nginx --dns`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := daemon.load(c.streams, cmd)
			if err != nil {
				return err
			}
			s.started, s.again = time.Now(), c.again()
			return c.up(cmd.Context(), s, log)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&s.dir, "dir", "/var/lib/mammoth", "a folder for what must outlive the zone's process")
	flags.IntVar(&s.nodes, "nodes", 1, "how many NodeManagers; they share the machine and its ports")
	flags.StringVar(&s.node.cpu, "node-cpu", "", "cpu of each node (default: an equal share of what is there)")
	flags.StringVar(&s.node.memory, "node-memory", "", "memory of each node (default: an equal share)")
	flags.StringVar(&s.node.disk, "node-disk", "", "disk of each node (default: an equal share)")
	flags.BoolVar(&s.stopInstances, "stop-instances", false, "at the end, end instances and their masters too")
	s.manager.shared(flags)
	s.node.shared(flags)
	addressVar(flags, addressFlag{&s.node.address, atIP}, "address", "127.0.0.1", "the address at which instances are reached")
	s.beside.flags(cmd)
	must(cmd.MarkFlagDirname("dir"))
	daemon.add(cmd, "warn")
	return cmd
}

// up runs a zone until ctx ends. If it cannot start, it removes the folders that it has created.
func (c *upCommands) up(ctx context.Context, s *upSettings, log *slog.Logger) (err error) {
	if s.nodes < 1 || s.nodes > 1000 {
		return usagef("--nodes: a zone in one process has 1 to 1000 nodes, not %d", s.nodes)
	}
	// Later starts in this folder use the same path.
	dir, err := filepath.Abs(s.dir)
	if err != nil {
		return fmt.Errorf("find %s: %w", s.dir, err)
	}
	s.dir = dir
	if err := s.beside.validate(); err != nil {
		return err
	}
	nodes, err := s.split()
	if err != nil {
		return err
	}
	made := missingFolders(s.dir)
	if err := s.manager.checkRecord(); err != nil {
		return err
	}
	unlock, err := lockFolder(s.dir, "zone")
	if err != nil {
		return err
	}
	defer unlock()
	defer func() {
		if err != nil && !s.running && len(made) > 0 {
			err = errors.Join(err, removeFolders(made))
		}
	}()
	zone, err := s.keep(nodes)
	if err != nil {
		return err
	}
	if s.node.runtime != runtimeFake {
		if all, err := measure(s.dir); err == nil {
			c.warnOfTooMuch(s, all)
		}
	}
	s.beside.dir, s.beside.zone, s.beside.digest = s.dir, zone, c.env("MAMMOTH_ZOOKEEPER_DIGEST")
	if err := s.beside.choose(); err != nil {
		return err
	}
	s.manager.dir, s.manager.zone = filepath.Join(s.dir, managerFolder), zone
	if err := c.runZone(ctx, s, nodes, log); err != nil {
		return err
	}
	return c.farewell(s)
}

// runZone runs the ResourceManager and the nodes until ctx ends.
func (c *upCommands) runZone(ctx context.Context, s *upSettings, nodes []nodeSettings, log *slog.Logger) error {
	manager, err := newManager(ctx, s.manager, log)
	if err != nil {
		return err
	}
	conn, err := dialZone(manager.Address())
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is left to report
	companions, err := s.beside.make(conn, log)
	if err != nil {
		ended, end := context.WithCancel(ctx)
		end()
		return errors.Join(err, manager.Run(ended)) // it closes its store and its listener
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, running := errgroup.WithContext(ctx)
	// Companions end first, so that balancers can report that they leave.
	served, endManager := context.WithCancel(context.WithoutCancel(ctx))
	defer endManager()
	var beside sync.WaitGroup
	for _, one := range companions {
		beside.Add(1)
		group.Go(func() error {
			defer beside.Done()
			return one.Run(running)
		})
	}
	group.Go(func() error {
		<-running.Done()
		beside.Wait()
		endManager()
		return nil
	})
	group.Go(func() error { return manager.Run(served) })
	for _, settings := range nodes {
		settings.zone, settings.resourceManager = s.manager.zone, manager.Address()
		node, err := newNode(settings, log)
		if err != nil {
			cancel()
			return errors.Join(err, group.Wait())
		}
		defer node.close()
		group.Go(func() error { return node.Run(running) })
	}
	s.running = true
	group.Go(func() error {
		c.greet(running, manager, s, companions)
		return nil
	})
	if err := group.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// missingFolders lists the folders of a path that do not exist, the path itself first.
func missingFolders(path string) []string {
	var missing []string
	for ; ; path = filepath.Dir(path) {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return missing
		}
		missing = append(missing, path)
	}
}

// removeFolders deletes the first of these folders with its content, and those above it unless they have other content.
func removeFolders(folders []string) error {
	if err := os.RemoveAll(folders[0]); err != nil {
		return plainPathError(err)
	}
	for _, folder := range folders[1:] {
		_ = os.Remove(folder)
	}
	return nil
}

// split returns the settings of each node: its own folder, name and share of the ports.
func (s *upSettings) split() ([]nodeSettings, error) {
	ports, err := network.ParseRange(s.node.portRange)
	if err != nil {
		return nil, usagef("--port-range: %w", err)
	}
	shares, err := ports.Split(s.nodes)
	if err != nil {
		return nil, usagef("--port-range: %w", err)
	}
	if err := s.node.validate(); err != nil {
		return nil, err
	}
	if _, _, err := s.node.capacity(); err != nil {
		return nil, err
	}
	engine := fake.NewEngine()
	nodes := make([]nodeSettings, s.nodes)
	for i := range nodes {
		nodes[i] = s.node
		nodes[i].node = nodeName(i + 1)
		nodes[i].dir = filepath.Join(s.dir, nodes[i].node)
		nodes[i].portRange = shares[i].String()
		nodes[i].listen = "127.0.0.1:0"
		nodes[i].allowHostNetwork = s.manager.allowHostNetwork
		nodes[i].fake = engine
	}
	return nodes, nil
}

func nodeName(n int) string { return fmt.Sprintf("node-%d", n) }

// share is the capacity of one of several nodes on a machine.
type share struct {
	Nodes       int   `json:"nodes"`
	CPUMillis   int64 `json:"cpuMillis"`
	MemoryBytes int64 `json:"memoryBytes"`
	DiskBytes   int64 `json:"diskBytes"`
}

// keep returns the zone's name, chosen at the first start, and sets the share of each of several nodes.
func (s *upSettings) keep(nodes []nodeSettings) (zone string, err error) {
	path := filepath.Join(s.dir, upFile)
	notes := &zoneNotes{Zone: newZoneName()}
	if err := keepNotes(path, notes); err != nil {
		return "", err
	}
	s.manager.notes, s.manager.notesFile = notes, path
	if s.nodes == 1 {
		return notes.Zone, nil // a single NodeManager measures its capacity itself
	}
	if notes.Share == nil || notes.Share.Nodes != s.nodes {
		if notes.Share, err = measureShare(s.dir, s.nodes); err != nil {
			return "", err
		}
		if err := writeNotes(path, notes); err != nil {
			return "", err
		}
	}
	for i := range nodes {
		setDefault(&nodes[i].cpu, fmt.Sprintf("%dm", notes.Share.CPUMillis))
		setDefault(&nodes[i].memory, fmt.Sprintf("%dB", notes.Share.MemoryBytes))
		setDefault(&nodes[i].disk, fmt.Sprintf("%dB", notes.Share.DiskBytes))
	}
	return notes.Zone, nil
}

func setDefault(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

// measureShare divides the machine among n nodes: the cpu that it offers, and memory and disk minus a tenth for the system
// and the engine.
func measureShare(dir string, n int) (*share, error) {
	all, err := measure(dir)
	if err != nil {
		return nil, err
	}
	usable := func(amount int64) int64 { return max(1, amount/10*9/int64(n)) }
	return &share{
		Nodes: n, CPUMillis: max(1, nodemanager.OfferedCPU(goruntime.NumCPU())/int64(n)), MemoryBytes: usable(all[resource.Memory]), DiskBytes: usable(all[resource.Disk]),
	}, nil
}

// measure returns this machine's cores, its memory and the free space of dir's disk.
func measure(dir string) (resource.Vector, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return resource.Vector{}, fmt.Errorf("find out how much memory this machine has: %w", err)
	}
	free, _, err := disk.Free(dir)
	if err != nil {
		return resource.Vector{}, fmt.Errorf("find out how much disk is free: %w", err)
	}
	return resource.Vector{
		resource.CPU: int64(goruntime.NumCPU()) * 1000, resource.Memory: int64(info.Totalram) * int64(info.Unit), resource.Disk: free,
	}, nil
}

// warnOfTooMuch warns if the nodes have more capacity than the machine. That is allowed, for experiments.
func (c *upCommands) warnOfTooMuch(s *upSettings, has resource.Vector) {
	given, _, err := s.node.capacity()
	if err != nil {
		return
	}
	for _, part := range []struct {
		index  int
		flag   string
		what   string
		format func(int64) string
	}{
		{resource.CPU, "--node-cpu", "cpu", resource.FormatCPU},
		{resource.Memory, "--node-memory", "memory", resource.FormatBytes},
		{resource.Disk, "--node-disk", "free disk", resource.FormatBytes},
	} {
		// Dividing instead of multiplying cannot overflow.
		if given[part.index] > has[part.index]/int64(s.nodes) {
			fmt.Fprintf(c.err, "mammoth: %s %s for %s is more than the %s %s of this machine; instances will get in each other's way\n",
				part.flag, part.format(given[part.index]), plural(s.nodes, "node"), part.format(has[part.index]), part.what)
		}
	}
}

const (
	// readyTimeout is how long nodes may take to register before the zone is reported ready without them.
	readyTimeout = 10 * time.Second
	readyLook    = 20 * time.Millisecond
)

// greet prints the zone's address once its nodes have registered.
func (c *upCommands) greet(ctx context.Context, manager *manager, s *upSettings, companions []beside) {
	limit, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	look := time.NewTicker(readyLook)
	defer look.Stop()
	var nodes, found []*apiv1.Node
	for limit.Err() == nil {
		all, err := manager.nodes(limit)
		if err == nil {
			found = all
			if nodes = registered(found, s.started); len(nodes) >= s.nodes {
				break
			}
		}
		select {
		case <-limit.Done():
		case <-look.C:
		}
	}
	if ctx.Err() != nil {
		return
	}
	fmt.Fprintf(c.out, "zone %s listens at %s with %s; ctrl-C ends it and leaves instances running\n", s.manager.zone, manager.Address(), plural(len(nodes), "node"))
	for _, node := range nodes {
		r := node.GetCapacity()
		fmt.Fprintf(c.out, "%s: %s, %s cpu, %s memory, %s disk\n", node.GetName(), because(word(node.GetState()), node.GetReason()),
			resource.FormatCPU(r.GetCpuMillis()), resource.FormatBytes(r.GetMemoryBytes()), resource.FormatBytes(r.GetDiskBytes()))
	}
	c.warnOfMissing(found, s.nodes)
	for _, one := range companions {
		if one.awaitFront(limit) && ctx.Err() == nil {
			fmt.Fprintln(c.out, one.what)
		}
	}
}

// registered are the nodes that have registered since this start.
func registered(nodes []*apiv1.Node, started time.Time) []*apiv1.Node {
	return slices.DeleteFunc(slices.Clone(nodes), func(node *apiv1.Node) bool {
		return node.GetState() == apiv1.NodeState_LOST || node.GetRegisteredAt().AsTime().Before(started)
	})
}

// warnOfMissing warns of nodes that an earlier start on the folder had.
func (c *upCommands) warnOfMissing(found []*apiv1.Node, nodes int) {
	var missing []string
	most := nodes
	for _, node := range found {
		var n int
		if _, err := fmt.Sscanf(node.GetName(), "node-%d", &n); err == nil && n > nodes && node.GetName() == nodeName(n) {
			missing = append(missing, nodeName(n))
			most = max(most, n)
		}
	}
	switch len(missing) {
	case 0:
		return
	case 1:
		fmt.Fprintf(c.err, "mammoth: %s of an earlier start is not run any more, and its instances move to others; start with --nodes %d to have it back, or forget it with `mammoth node rm %s`\n",
			missing[0], most, missing[0])
	default:
		fmt.Fprintf(c.err, "mammoth: %s and %s of an earlier start are not run any more, and their instances move to others; start with --nodes %d to have them back, or forget each with `mammoth node rm %s`\n",
			strings.Join(missing[:len(missing)-1], ", "), missing[len(missing)-1], most, missing[0])
	}
}

// farewell prints what is left running, or ends it.
func (c *upCommands) farewell(s *upSettings) error {
	if s.stopInstances || s.node.runtime == runtimeFake {
		return c.endFolder(s.dir, "")
	}
	left, err := leftBehind(s.dir)
	if err != nil {
		fmt.Fprintf(c.err, "mammoth: what is left running could not be counted: %v\n", err)
		return nil
	}
	if left.instances+left.masters == 0 {
		fmt.Fprintln(c.out, "the zone has ended; nothing of it runs any more")
		return nil
	}
	program := filepath.Base(os.Args[0])
	fmt.Fprintf(c.out, "the zone has ended; %s and %s keep running: `%s` takes them over again, `%s down --dir %s` ends them\n",
		plural(left.instances, "instance"), plural(left.masters, "application master"), s.again, program, quoted(s.dir))
	return nil
}

// again is the command as it was typed, with the folder's absolute path, so that it can be used anywhere.
func (c *upCommands) again() string {
	words := []string{filepath.Base(os.Args[0])}
	for i, word := range c.args {
		value, joined := strings.CutPrefix(word, "--dir=")
		switch {
		case joined:
			word = "--dir=" + absolute(value)
		case i > 0 && c.args[i-1] == "--dir":
			word = absolute(word)
		}
		words = append(words, quoted(word))
	}
	return strings.Join(words, " ")
}

func absolute(path string) string {
	if whole, err := filepath.Abs(path); err == nil {
		return whole
	}
	return path
}

// quoted quotes a word for a shell.
func quoted(word string) string {
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool {
		return !strings.ContainsRune("-_./:=,%+@", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
