package simulate

import (
	"math"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// meter collects the figures of a run.
type meter struct {
	scenario *Scenario
	services []*service

	started, completed, notices, nodeFailures, stopped, lostToNodes int
	passes                                                          int
	deciding                                                        time.Duration
	// Core-seconds: run by containers, lost by stops, lost by failures, wanted by services, and of those not running.
	run, thrown, failed, wanted, short float64
	// late is the cores of containers that waited longer than Compaction.Pending; demanded is the cores of all containers.
	late, demanded float64
	waits          map[string][]float64
	points         []Point
	lastStopped    int
	report         Report
}

func newMeter(s *Scenario) *meter {
	return &meter{scenario: s, waits: map[string][]float64{}}
}

func (m *meter) serviceOf(k *ask) *service {
	for _, s := range m.services {
		if s.ask == k {
			return s
		}
	}
	return nil
}

func (m *meter) pass(took time.Duration, _ int) {
	m.passes++
	m.deciding += took
}

func (m *meter) waited(w *Workload, wait time.Duration, need resource.Vector) {
	m.waits[w.Name] = append(m.waits[w.Name], wait.Seconds())
	m.demand(wait, float64(need[resource.CPU])/1000)
}

func (m *meter) demand(wait time.Duration, cores float64) {
	m.demanded += cores
	if c := m.scenario.Compaction; c != nil && wait > time.Duration(c.Pending) {
		m.late += cores
	}
}

func (m *meter) ran(k *container, now time.Duration) { m.run += coreSeconds(k, now) }

func (m *meter) preempted(k *container, now time.Duration) {
	m.stopped++
	if k.ask.runs > 0 {
		m.thrown += coreSeconds(k, now)
	}
}

func (m *meter) lost(k *container, now time.Duration) {
	m.lostToNodes++
	if k.ask.runs > 0 {
		m.failed += coreSeconds(k, now)
	}
}

func coreSeconds(k *container, now time.Duration) float64 {
	return (now - k.started).Seconds() * float64(k.ask.spec.Resources[resource.CPU]) / 1000
}

// sample takes a point.
func (m *meter) sample(e *engine) {
	point := Point{At: e.now.Seconds(), Used: map[string]float64{}, Stopped: m.stopped - m.lastStopped}
	m.lastStopped = m.stopped
	usages := e.core.Queues()
	for _, u := range usages {
		cores := float64(u.Used[resource.CPU]) / 1000
		if u.Spec.Parent == "" {
			point.UsedCPU, point.UsedMemory = cores, float64(u.Used[resource.Memory])
			point.Pending = float64(u.Pending[resource.CPU]) / 1000
			continue
		}
		point.Used[string(u.Spec.Name)] = cores
	}
	for _, spec := range e.nodes {
		if !e.down[spec.Name] {
			point.CPU += float64(spec.Capacity[resource.CPU]) / 1000
			point.Memory += float64(spec.Capacity[resource.Memory])
		}
	}
	for _, l := range e.core.Ledgers() {
		point.Lent += float64(l.Lent[resource.CPU]) / 1000
		point.Borrowed += float64(l.Borrowed[resource.CPU]) / 1000
	}
	m.points = append(m.points, point)
	if e.now == 0 {
		return // Nothing can run before the first pass.
	}
	step := time.Duration(e.scenario.Sample).Seconds()
	for _, s := range m.services {
		cores := float64(s.ask.spec.Resources[resource.CPU]) / 1000
		m.wanted += float64(s.wanted) * cores * step
		m.short += float64(max(s.wanted-len(s.ask.running), 0)) * cores * step
	}
}

// finish computes the report.
func (m *meter) finish(e *engine) {
	for _, k := range e.held {
		m.ran(k, e.end)
	}
	for _, a := range e.apps {
		for _, k := range a.asks {
			for _, b := range k.waiting {
				m.demand(e.end-b.since, float64(b.count)*float64(k.spec.Resources[resource.CPU])/1000)
			}
		}
	}
	r := &m.report
	r.Scenario, r.Seed, r.Hours, r.Nodes = m.scenario.Name, m.scenario.Seed, e.end.Hours(), len(e.nodes)
	r.Description, r.Start = m.scenario.Description, m.scenario.Start
	r.Started, r.Completed, r.Notices, r.Stopped = m.started, m.completed, m.notices, m.stopped
	r.NodeFailures, r.LostToNodes = m.nodeFailures, m.lostToNodes
	r.CoreSeconds, r.ThrownAway, r.FailedCoreSeconds = math.Round(m.run), math.Round(m.thrown), math.Round(m.failed)
	if m.wanted > 0 {
		r.ServiceShortfall = m.short / m.wanted
	}
	if m.demanded > 0 {
		r.PendingShare = m.late / m.demanded
	}
	var cpu, memory, usedCPU, usedMemory float64
	for _, p := range m.points {
		cpu, memory, usedCPU, usedMemory = cpu+p.CPU, memory+p.Memory, usedCPU+p.UsedCPU, usedMemory+p.UsedMemory
	}
	if cpu > 0 && memory > 0 {
		r.MeanCPU, r.MeanMemory = usedCPU/cpu, usedMemory/memory
	}
	for i := range m.scenario.Workloads {
		w := &m.scenario.Workloads[i]
		waits := m.waits[w.Name]
		slices.Sort(waits)
		r.Workloads = append(r.Workloads, WorkloadReport{
			Name: w.Name, Kind: w.Kind, Queue: w.Queue, Started: len(waits),
			WaitP50: quantile(waits, 0.5), WaitP90: quantile(waits, 0.9), WaitP99: quantile(waits, 0.99), WaitMax: quantile(waits, 1),
			Waits: histogram(waits),
		})
	}
	for _, l := range e.core.Ledgers() {
		c := ContractReport{
			Name: l.Contract, LentCoreSeconds: math.Round(l.LentCoreSeconds), UsedCoreSeconds: math.Round(l.UsedCoreSeconds),
			LostCoreSeconds: math.Round(l.LostCoreSeconds), Stopped: l.Stopped, Returned: l.Returned,
		}
		if l.UsedCoreSeconds > 0 {
			c.LostShare = l.LostCoreSeconds / l.UsedCoreSeconds
		}
		for _, back := range l.HandBacks {
			h := HandBackReport{Promised: back.Promised, Stopped: back.Stopped, Returned: back.Returned}
			if !back.Done.IsZero() {
				h.Done, h.InTime = back.Done, !back.Done.After(back.Promised)
			}
			c.HandBacks = append(c.HandBacks, h)
		}
		r.Contracts = append(r.Contracts, c)
	}
	r.Points = m.points
	r.Passes = m.passes
	r.decidingSeconds = m.deciding.Seconds()
}

func quantile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}

// waitBounds are the upper bounds, in seconds, of the bars of the chart of waiting times. The last bar has none.
var waitBounds = []float64{1, 5, 15, 60, 300, 900, 3600}

func histogram(sorted []float64) []int {
	counts := make([]int, len(waitBounds)+1)
	for _, wait := range sorted {
		i := 0
		for i < len(waitBounds) && wait > waitBounds[i] {
			i++
		}
		counts[i]++
	}
	return counts
}
