// Package simulate drives the real scheduler core through a scenario on a virtual clock: nodes that fail, queues,
// lending contracts, services that follow the day, and batch jobs. The same scenario and seed give the same report.
//
// It owns the virtual clock and everything around the core: nodes, apps and their random numbers.
package simulate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/resourcemanager/calendar"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// Scenario is what is simulated.
type Scenario struct {
	Name        string `yaml:"name"`
	Description string `yaml:"description"`
	// Seed is the seed of the random numbers.
	Seed uint64 `yaml:"seed"`
	// Start is the date of second zero.
	Start time.Time `yaml:"start"`
	// Duration is how long the simulated time is, at most 31 days.
	Duration duration `yaml:"duration"`
	// Sample is how often the charts take a point; 5m if absent.
	Sample duration `yaml:"sample"`
	// Stop is how long a container takes to stop; 5s if absent.
	Stop      duration   `yaml:"stop"`
	Nodes     []Nodes    `yaml:"nodes"`
	Failures  []Failure  `yaml:"failures"`
	Queues    []Queue    `yaml:"queues"`
	Lending   []Lending  `yaml:"lending"`
	Workloads []Workload `yaml:"workloads"`
	// Compaction, if present, also computes how few machines would suffice, together and apart.
	Compaction *Compaction `yaml:"compaction"`
	lines      lines
}

// Nodes is a number of equal nodes.
type Nodes struct {
	Name   string     `yaml:"name"`
	Count  int        `yaml:"count"`
	CPU    millicores `yaml:"cpu"`
	Memory bytes      `yaml:"memory"`
	Disk   bytes      `yaml:"disk"`
	// PerRack is how many nodes a rack has; a Failure may take a rack.
	PerRack  int   `yaml:"perRack"`
	Attrs    attrs `yaml:"attributes"`
	capacity resource.Vector
}

type attrs map[string]string

// Failure makes nodes fail for a time: a rack, or a number of nodes, once or repeatedly.
type Failure struct {
	// At is when the first failure begins. With Every it is repeated at that interval.
	At    duration `yaml:"at"`
	Every duration `yaml:"every"`
	// For is how long the nodes are away.
	For   duration `yaml:"for"`
	Rack  string   `yaml:"rack"`
	Nodes int      `yaml:"nodes"`
}

// Queue is a queue of the tree.
type Queue struct {
	Name       string   `yaml:"name"`
	Parent     string   `yaml:"parent"`
	Guaranteed capacity `yaml:"guaranteed"`
	Maximum    capacity `yaml:"maximum"`
	Fair       bool     `yaml:"fair"`
	UserLimit  percent  `yaml:"userLimit"`
	Notice     duration `yaml:"notice"`
}

// Lending is a contract with its window on the calendar.
type Lending struct {
	Name      string   `yaml:"name"`
	Lender    string   `yaml:"lender"`
	Borrowers []string `yaml:"borrowers"`
	Window    Window   `yaml:"window"`
	Lend      percent  `yaml:"lend"`
	Floor     percent  `yaml:"floor"`
	Notice    duration `yaml:"notice"`
	Grace     duration `yaml:"grace"`
}

// Window is a cron expression with a duration.
type Window struct {
	Cron     string   `yaml:"cron"`
	Duration duration `yaml:"duration"`
	Timezone string   `yaml:"timezone"`
}

// Workload is apps of one kind.
type Workload struct {
	Name  string `yaml:"name"`
	Queue string `yaml:"queue"`
	// Kind is service, batch, arrivals or trace.
	Kind   string     `yaml:"kind"`
	CPU    millicores `yaml:"cpu"`
	Memory bytes      `yaml:"memory"`
	// Gang grants all containers of a job together.
	Gang bool `yaml:"gang"`

	// A service has Apps apps of Instances instances each, which follow a daily curve and surges.
	Apps      int `yaml:"apps"`
	Instances int `yaml:"instances"`
	// Curve, Schedule and Surges change the number of instances of a service.
	Curve      *Curve   `yaml:"curve"`
	Schedule   []Change `yaml:"schedule"`
	Surges     []Surge  `yaml:"surges"`
	MaxPerNode int      `yaml:"maxPerNode"`

	// Batch jobs and arrivals come at random, so many an hour. Jobs have the published shapes of tasks and
	// instances, MaxInstances cuts the long tail; arrivals are single containers that come in bursts.
	PerHour      float64 `yaml:"perHour"`
	MaxInstances int     `yaml:"maxInstances"`
	// Declare is true if the scheduler knows the duration of its containers.
	Declare bool `yaml:"declare"`

	// File is a trace: see ReadTrace.
	File  string `yaml:"file"`
	trace []job
}

// Curve is a day: all instances at Peak, Low of them twelve hours later.
type Curve struct {
	Peak duration `yaml:"peak"`
	Low  percent  `yaml:"low"`
}

// Change sets the number of instances by the calendar.
type Change struct {
	Cron      string `yaml:"cron"`
	Timezone  string `yaml:"timezone"`
	Instances int    `yaml:"instances"`
}

// Surge raises the number of instances for a while.
type Surge struct {
	At        duration `yaml:"at"`
	For       duration `yaml:"for"`
	Instances int      `yaml:"instances"`
}

// Compaction removes machines until more than 0.2 % of the work stays pending, for several seeds; once with all
// queues on one zone and once with each part on machines of its own.
type Compaction struct {
	Seeds int        `yaml:"seeds"`
	Parts [][]string `yaml:"parts"`
	// Pending is how long a container may wait before it counts as pending.
	Pending duration `yaml:"pending"`
}

// Load reads a scenario and the traces that it names. What is wrong with the scenario is of type manifest.Errors.
func Load(path string) (Scenario, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Scenario{}, err
	}
	s, err := Parse(text)
	if err != nil {
		return Scenario{}, err
	}
	var mistakes manifest.Errors
	for i := range s.Workloads {
		if w := &s.Workloads[i]; w.Kind == "trace" {
			if err := w.load(filepath.Dir(path)); err != nil {
				mistakes = append(mistakes, manifest.Error{Line: s.lines.of("workloads", i), Message: fmt.Sprintf("workload %s: %v", w.Name, err)})
			}
		}
	}
	if mistakes != nil {
		return Scenario{}, mistakes
	}
	return s, nil
}

// load reads the trace of a scenario in dir.
func (w *Workload) load(dir string) error {
	path := filepath.Join(dir, w.File)
	file, err := os.Open(path)
	var failed *fs.PathError
	if errors.As(err, &failed) {
		return fmt.Errorf("its file %s cannot be read: %w", path, failed.Err)
	}
	if w.trace, err = ReadTrace(file); err != nil {
		err = fmt.Errorf("%s: %w", w.File, err)
	}
	return errors.Join(err, file.Close())
}

// Parse reads a scenario. What is wrong with it is of type manifest.Errors.
func Parse(text []byte) (Scenario, error) {
	var s Scenario
	if err := manifest.CheckFields(text, "a scenario", &s); err != nil {
		return Scenario{}, err
	}
	var document yaml.Node
	if err := errors.Join(yaml.Unmarshal(text, &document), document.Decode(&s)); err != nil {
		return Scenario{}, manifest.Errors{{Message: strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\n", " "), "yaml: ")}}
	}
	s.lines = lines{document.Content[0]}
	if mistakes := s.check(); len(mistakes) > 0 {
		slices.SortStableFunc(mistakes, func(a, b manifest.Error) int { return a.Line - b.Line })
		return Scenario{}, mistakes
	}
	return s, nil
}

// lines finds the lines of the parts of a scenario.
type lines struct{ root *yaml.Node }

// of is the line of an item of one of the scenario's lists.
func (l lines) of(list string, item int) int {
	for i := 0; i+1 < len(l.root.Content); i += 2 {
		if l.root.Content[i].Value == list {
			return l.root.Content[i+1].Content[item].Line
		}
	}
	return 0
}

// check sets defaults and returns the mistakes.
func (s *Scenario) check() (mistakes manifest.Errors) {
	if s.Start.IsZero() {
		s.Start = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	}
	for _, each := range []struct {
		value *duration
		other time.Duration
	}{{&s.Duration, 24 * time.Hour}, {&s.Sample, 5 * time.Minute}, {&s.Stop, 5 * time.Second}} {
		if *each.value == 0 {
			*each.value = duration(each.other)
		}
	}
	fail := func(line int, err error) {
		mistakes = append(mistakes, manifest.Error{Line: line, Message: wire.Sentence(err)})
	}
	if most := calendar.Longest; time.Duration(s.Duration) > most {
		fail(0, fmt.Errorf("the scenario lasts %s; at most 31 days are simulated", time.Duration(s.Duration)))
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Count <= 0 || n.CPU <= 0 || n.Memory <= 0 {
			fail(s.lines.of("nodes", i), fmt.Errorf("nodes %q need a count, cpu and memory", n.Name))
		}
		n.capacity = resource.Vector{resource.CPU: int64(n.CPU), resource.Memory: int64(n.Memory), resource.Disk: max(int64(n.Disk), 1<<40), resource.Ports: 10_000}
	}
	if len(s.Nodes) == 0 {
		fail(0, errors.New("the scenario has no nodes"))
	}
	for i := range s.Workloads {
		if err := s.Workloads[i].check(); err != nil {
			fail(s.lines.of("workloads", i), err)
		}
	}
	if len(s.Queues) == 0 {
		fail(0, errors.New("the scenario has no queues"))
		return mistakes
	}
	if err := scheduler.CheckQueues(s.queueSpecs()); err != nil {
		fail(s.lineOfQueue(err), err)
		return mistakes
	}
	for i, w := range s.Workloads {
		if err := s.checkQueueOf(w); err != nil {
			fail(s.lines.of("workloads", i), err)
		}
	}
	contracts, failed := s.contracts()
	if len(failed) > 0 {
		return append(mistakes, failed...)
	}
	if err := scheduler.CheckContracts(contracts, s.queueSpecs()); err != nil {
		line := 0
		for i, l := range s.Lending {
			if line == 0 && manifest.Mentions(err.Error(), l.Name) {
				line = s.lines.of("lending", i)
			}
		}
		fail(line, err)
	}
	return mistakes
}

// lineOfQueue is the line of the queue that an error is about. If the error names several, it is the lowest in the tree.
func (s *Scenario) lineOfQueue(err error) (line int) {
	for i, q := range s.Queues {
		if manifest.Mentions(err.Error(), q.Name) && (line == 0 || q.Parent != "") {
			line = s.lines.of("queues", i)
		}
	}
	return line
}

// checkQueueOf checks that a workload's queue is a leaf.
func (s *Scenario) checkQueueOf(w Workload) error {
	var leaves []string
	for _, q := range s.Queues {
		if !slices.ContainsFunc(s.Queues, func(other Queue) bool { return other.Parent == q.Name }) {
			leaves = append(leaves, q.Name)
		}
	}
	if w.Queue != "" && !slices.Contains(leaves, w.Queue) {
		return fmt.Errorf("workload %s: queue %q is none that apps can be in; those for apps are %s", w.Name, w.Queue, strings.Join(leaves, ", "))
	}
	return nil
}

func (w *Workload) check() error {
	if w.Name == "" || w.Queue == "" {
		return errors.New("every workload needs a name and a queue")
	}
	if w.Kind != "trace" && (w.CPU <= 0 || w.Memory <= 0) {
		return fmt.Errorf("workload %s needs cpu and memory", w.Name)
	}
	switch w.Kind {
	case "service":
		if w.Instances <= 0 {
			return fmt.Errorf("workload %s is a service and needs instances", w.Name)
		}
		w.Apps = max(w.Apps, 1)
	case "batch", "arrivals":
		if w.PerHour <= 0 {
			return fmt.Errorf("workload %s is of kind %s and needs perHour", w.Name, w.Kind)
		}
	case "trace":
		if w.File == "" {
			return fmt.Errorf("workload %s is a trace and needs a file", w.Name)
		}
	default:
		return fmt.Errorf("workload %s has the kind %q; it must be service, batch, arrivals or trace", w.Name, w.Kind)
	}
	return nil
}

func (s *Scenario) queueSpecs() []scheduler.QueueSpec {
	specs := make([]scheduler.QueueSpec, len(s.Queues))
	for i, q := range s.Queues {
		specs[i] = scheduler.QueueSpec{
			Name: id.Queue(q.Name), Parent: id.Queue(q.Parent), Guaranteed: scheduler.Capacity(q.Guaranteed), Maximum: scheduler.Capacity(q.Maximum),
			Fair: q.Fair, UserLimitPercent: float64(q.UserLimit), Notice: time.Duration(q.Notice),
		}
	}
	return specs
}

// contracts computes the contracts with all windows of the scenario.
func (s *Scenario) contracts() (contracts []scheduler.Contract, mistakes manifest.Errors) {
	contracts = make([]scheduler.Contract, len(s.Lending))
	for i, l := range s.Lending {
		window := calendar.Window{Cron: l.Window.Cron, Duration: time.Duration(l.Window.Duration), Timezone: l.Window.Timezone}
		windows, err := window.Between(s.Start, s.Start.Add(time.Duration(s.Duration)))
		if err != nil {
			mistakes = append(mistakes, manifest.Error{Line: s.lines.of("lending", i), Message: fmt.Sprintf("lending contract %s: %s", l.Name, wire.Sentence(err))})
		}
		grace := time.Duration(l.Grace)
		if grace == 0 {
			grace = 2 * time.Duration(s.Stop)
		}
		contracts[i] = scheduler.Contract{
			Name: l.Name, Lender: id.Queue(l.Lender), LendPercent: float64(l.Lend), FloorPercent: float64(l.Floor),
			Notice: time.Duration(l.Notice), Grace: grace, Windows: windows,
		}
		for _, name := range l.Borrowers {
			contracts[i].Borrowers = append(contracts[i].Borrowers, id.Queue(name))
		}
	}
	return contracts, mistakes
}
