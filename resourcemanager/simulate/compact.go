package simulate

import (
	"context"
	"slices"
	"sort"
	"time"
)

// pendingAllowed is the share of the requested cpu that may stay pending.
const pendingAllowed = 0.002

// CompactionReport is the smallest number of machines that suffice.
type CompactionReport struct {
	Shared Cell   `json:"shared"`
	Parts  []Cell `json:"parts"`
	// SplitP90 is the sum of the machines of all parts; Saved is the share of it that the shared cell does not need.
	SplitP90     int     `json:"splitP90"`
	SplitMeanCPU float64 `json:"splitMeanCpuUtilisation"`
	Saved        float64 `json:"saved"`
}

// Cell is a set of queues with machines of their own.
type Cell struct {
	Queues []string `json:"queues"`
	// Nodes is how many machines each seed needed; P90 is the 90th percentile.
	Nodes   []int   `json:"nodes"`
	P90     int     `json:"p90"`
	MeanCPU float64 `json:"meanCpuUtilisation"`
}

// compact computes the machines that the queues need together and apart.
func compact(ctx context.Context, s *Scenario, progress func(done, total time.Duration)) (*CompactionReport, error) {
	if s.Compaction.Seeds == 0 {
		s.Compaction.Seeds = 11
	}
	if s.Compaction.Pending == 0 {
		s.Compaction.Pending = duration(10 * time.Minute)
	}
	var all []string
	for _, part := range s.Compaction.Parts {
		all = append(all, part...)
	}
	cells := append([][]string{all}, s.Compaction.Parts...)
	report := &CompactionReport{}
	day := time.Duration(s.Duration)
	total := day * time.Duration(1+len(cells)*s.Compaction.Seeds)
	for i, queues := range cells {
		cell := Cell{Queues: queues}
		for seed := range s.Compaction.Seeds {
			if progress != nil {
				progress(day*time.Duration(1+i*s.Compaction.Seeds+seed), total)
			}
			one := *s
			one.Seed = s.Seed + uint64(seed)
			if i > 0 {
				one.keepOnly(queues)
			}
			nodes, mean, err := fewest(ctx, &one)
			if err != nil {
				return nil, err
			}
			cell.Nodes = append(cell.Nodes, nodes)
			cell.MeanCPU += mean / float64(s.Compaction.Seeds)
		}
		sorted := slices.Sorted(slices.Values(cell.Nodes))
		cell.P90 = sorted[(len(sorted)*9+9)/10-1]
		if i == 0 {
			report.Shared = cell
			continue
		}
		report.Parts = append(report.Parts, cell)
		report.SplitP90 += cell.P90
	}
	for _, part := range report.Parts {
		report.SplitMeanCPU += part.MeanCPU * float64(part.P90) / float64(report.SplitP90)
	}
	if report.SplitP90 > 0 {
		report.Saved = 1 - float64(report.Shared.P90)/float64(report.SplitP90)
	}
	return report, nil
}

// keepOnly removes all other queues, their workloads, and the contracts.
func (s *Scenario) keepOnly(queues []string) {
	keeps := func(name string) bool { return slices.Contains(queues, name) }
	var kept []Queue
	root := ""
	for _, q := range s.Queues {
		if q.Parent == "" {
			root = q.Name
		}
	}
	for _, q := range s.Queues {
		switch {
		case q.Parent == "":
			kept = append(kept, Queue{Name: q.Name})
		case keeps(q.Name):
			kept = append(kept, Queue{Name: q.Name, Parent: root, Guaranteed: capacity{Percent: 100 / float64(len(queues)), IsPercent: true}, Fair: q.Fair})
		}
	}
	s.Queues, s.Lending = kept, nil
	s.Workloads = slices.DeleteFunc(slices.Clone(s.Workloads), func(w Workload) bool { return !keeps(w.Queue) })
}

// fewest is the smallest number of machines with which at most pendingAllowed stays pending.
func fewest(ctx context.Context, s *Scenario) (nodes int, meanCPU float64, err error) {
	most := 0
	for _, group := range s.Nodes {
		most += group.Count
	}
	means := map[int]float64{}
	tryWith := func(count int) bool {
		if err != nil {
			return true
		}
		one := *s
		one.Nodes = shrink(s.Nodes, count, most)
		var m *meter
		if m, err = simulate(ctx, &one, nil); err != nil {
			return true
		}
		means[count] = m.report.MeanCPU
		return m.report.PendingShare <= pendingAllowed && m.report.ServiceShortfall <= pendingAllowed
	}
	low, high := 1, 2*most
	nodes = low + sort.Search(high-low, func(i int) bool { return tryWith(low + i) })
	return nodes, means[nodes], err
}

// shrink scales groups of nodes to a total of count nodes.
func shrink(groups []Nodes, count, most int) []Nodes {
	var scaled []Nodes
	before, taken := 0, 0
	for _, group := range groups {
		before += group.Count
		group.Count = before*count/most - taken
		taken += group.Count
		if group.Count > 0 {
			scaled = append(scaled, group)
		}
	}
	return scaled
}
