package simulate

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is the result of a scenario. Times are seconds since its start unless they are dates; cpu is in cores.
type Report struct {
	Scenario    string `json:"scenario"`
	Description string `json:"description,omitempty"`
	Seed        uint64 `json:"seed"`
	// Start is the date of second zero.
	Start time.Time `json:"start"`
	Hours float64   `json:"hours"`
	Nodes int       `json:"nodes"`

	Started   int `json:"started"`
	Completed int `json:"completed"`
	// Notices is the number of preemption notices, and Stopped the number of containers that were stopped for others.
	Notices      int `json:"notices"`
	Stopped      int `json:"stopped"`
	NodeFailures int `json:"nodeFailures"`
	LostToNodes  int `json:"lostToNodes"`
	// CoreSeconds is the work of all containers. ThrownAway is the part that was lost because batch containers were stopped for
	// others, FailedCoreSeconds the part that was lost by failures of nodes.
	CoreSeconds       float64 `json:"coreSeconds"`
	ThrownAway        float64 `json:"thrownAwayCoreSeconds"`
	FailedCoreSeconds float64 `json:"failedCoreSeconds"`
	// ServiceShortfall is the share of the desired instances that were not running, averaged over time.
	ServiceShortfall float64 `json:"serviceShortfall"`
	// PendingShare is the share of the requested cpu that waited longer than the compaction allows.
	PendingShare float64 `json:"pendingShare"`
	MeanCPU      float64 `json:"meanCpuUtilisation"`
	MeanMemory   float64 `json:"meanMemoryUtilisation"`

	Workloads  []WorkloadReport  `json:"workloads"`
	Contracts  []ContractReport  `json:"contracts,omitempty"`
	Compaction *CompactionReport `json:"compaction,omitempty"`
	Points     []Point           `json:"points"`
	Passes     int               `json:"passes"`

	// The duration of the run itself is not in the JSON, which is the same for every run.
	decidingSeconds, wallSeconds float64
}

// WorkloadReport is how long containers of a workload waited, in seconds.
type WorkloadReport struct {
	Name    string  `json:"name"`
	Kind    string  `json:"kind"`
	Queue   string  `json:"queue"`
	Started int     `json:"started"`
	WaitP50 float64 `json:"waitP50"`
	WaitP90 float64 `json:"waitP90"`
	WaitP99 float64 `json:"waitP99"`
	WaitMax float64 `json:"waitMax"`
	// Waits counts by upper bound: 1s, 5s, 15s, 1m, 5m, 15m, 1h, more.
	Waits []int `json:"waits"`
}

// ContractReport is the ledger of a contract.
type ContractReport struct {
	Name            string           `json:"name"`
	LentCoreSeconds float64          `json:"lentCoreSeconds"`
	UsedCoreSeconds float64          `json:"usedCoreSeconds"`
	LostCoreSeconds float64          `json:"lostCoreSeconds"`
	LostShare       float64          `json:"lostShare"`
	Stopped         int              `json:"stopped"`
	Returned        int              `json:"returned"`
	HandBacks       []HandBackReport `json:"handBacks"`
}

// HandBackReport is one return of what was lent.
type HandBackReport struct {
	Promised time.Time `json:"promised"`
	Done     time.Time `json:"done"`
	InTime   bool      `json:"inTime"`
	Stopped  int       `json:"stopped"`
	Returned int       `json:"returned"`
}

// Point is a point of the charts.
type Point struct {
	At         float64            `json:"at"`
	CPU        float64            `json:"cpu"`
	Memory     float64            `json:"memory"`
	UsedCPU    float64            `json:"usedCpu"`
	UsedMemory float64            `json:"usedMemory"`
	Pending    float64            `json:"pendingCpu"`
	Used       map[string]float64 `json:"used"`
	Lent       float64            `json:"lent"`
	Borrowed   float64            `json:"borrowed"`
	Stopped    int                `json:"stopped"`
}

// Options are how a scenario is run.
type Options struct {
	// Seed replaces the scenario's if it is not zero.
	Seed uint64
	// Progress is called with the simulated time so far and in total. Compaction adds to both.
	Progress func(done, total time.Duration)
}

// Run simulates a scenario. It ends early, with the cause, when ctx does.
func Run(ctx context.Context, scenario Scenario, options Options) (Report, error) {
	if options.Seed != 0 {
		scenario.Seed = options.Seed
	}
	begin := time.Now()
	m, err := simulate(ctx, &scenario, options.Progress)
	if err != nil {
		return Report{}, err
	}
	report := m.report
	if scenario.Compaction != nil {
		compaction, err := compact(ctx, &scenario, options.Progress)
		if err != nil {
			return Report{}, err
		}
		report.Compaction = compaction
	}
	report.wallSeconds = time.Since(begin).Seconds()
	return report, nil
}

// WriteTable writes the report for a person.
func (r *Report) WriteTable(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	line("SCENARIO", "%s, seed %d, %g hours, %d nodes", r.Scenario, r.Seed, r.Hours, r.Nodes)
	line("CONTAINERS", "%d started, %d completed", r.Started, r.Completed)
	line("UTILISATION", "cpu %.1f %%, memory %.1f %%", 100*r.MeanCPU, 100*r.MeanMemory)
	line("STOPPED FOR OTHERS", "%d of %d warned, %.2f %% of all core-seconds thrown away", r.Stopped, r.Notices, 100*share(r.ThrownAway, r.CoreSeconds))
	line("SERVICES SHORT OF", "%.3f %% of what they wanted", 100*r.ServiceShortfall)
	if r.NodeFailures > 0 {
		line("NODE FAILURES", "%d, with %d containers", r.NodeFailures, r.LostToNodes)
	}
	line("SIMULATED IN", "%.1fs, of which %.1fs in %d passes of the scheduler", r.wallSeconds, r.decidingSeconds, r.Passes)
	fmt.Fprintln(w)
	fmt.Fprintln(w, "WORKLOAD\tKIND\tQUEUE\tSTARTED\tWAIT P50\tP90\tP99\tMAX")
	for _, l := range r.Workloads {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", l.Name, l.Kind, l.Queue, l.Started, span(l.WaitP50), span(l.WaitP90), span(l.WaitP99), span(l.WaitMax))
	}
	if len(r.Contracts) > 0 {
		fmt.Fprintln(w, "\nCONTRACT\tLENT CORE-HOURS\tUSED\tLOST\tSTOPPED\tHAND-BACKS IN TIME")
		for _, c := range r.Contracts {
			inTime := 0
			for _, h := range c.HandBacks {
				if h.InTime {
					inTime++
				}
			}
			fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.2f %%\t%d\t%d of %d\n", c.Name, c.LentCoreSeconds/3600, c.UsedCoreSeconds/3600, 100*c.LostShare, c.Stopped, inTime, len(c.HandBacks))
		}
	}
	if c := r.Compaction; c != nil {
		fmt.Fprintf(w, "\nMACHINES\tNEEDED (P90 OF %d SEEDS)\tMEAN CPU\n", len(c.Shared.Nodes))
		fmt.Fprintf(w, "shared\t%d\t%.1f %%\n", c.Shared.P90, 100*c.Shared.MeanCPU)
		for _, part := range c.Parts {
			fmt.Fprintf(w, "only %s\t%d\t%.1f %%\n", strings.Join(part.Queues, ", "), part.P90, 100*part.MeanCPU)
		}
		fmt.Fprintf(w, "split\t%d\t%.1f %%\n", c.SplitP90, 100*c.SplitMeanCPU)
		fmt.Fprintf(w, "saved\t%.1f %%\t\n", 100*c.Saved)
	}
	return w.Flush()
}

func share(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return part / whole
}

func span(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}
