package term

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// Metrics is what /metrics shows of the terms of a process. The loop writes, so that a reader never waits for it.
type Metrics struct {
	registry   *prometheus.Registry
	turns      prometheus.Histogram
	commits    prometheus.Counter
	committing prometheus.Histogram
	events     prometheus.Counter
	apps       *prometheus.GaugeVec
	nodes      *prometheus.GaugeVec
	containers prometheus.Gauge
	instances  prometheus.Gauge
	refused    prometheus.Gauge
	full       prometheus.Gauge
	losses     prometheus.Gauge
	// stale says that something was told since counted, when the counts were taken.
	stale   bool
	counted time.Time
}

// NewMetrics makes them.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		turns: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mammoth_loop_turn_seconds", Help: "How long a turn of the ResourceManager's loop took, its commit included.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8),
		}),
		commits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mammoth_store_commits_total", Help: "Batches written to the store.",
		}),
		committing: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mammoth_store_commit_seconds", Help: "How long a turn's commit took, its fsync included.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8),
		}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mammoth_events_total", Help: "Events of the zone since the process began.",
		}),
		apps: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mammoth_apps", Help: "Apps by state.",
		}, []string{"state"}),
		nodes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mammoth_nodes", Help: "Nodes by state.",
		}, []string{"state"}),
		containers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mammoth_containers", Help: "Leases that are held.",
		}),
		instances: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mammoth_instances", Help: "Instances that application masters report.",
		}),
	}
	m.refused = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "mammoth_queue_file_refused", Help: "1 while the file that declares the queue tree says what cannot be, and the tree before it stays in force.",
	})
	m.full = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "mammoth_store_full", Help: "1 while the disk of the store is full, and changes that need room are refused.",
	})
	m.losses = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "mammoth_store_losses", Help: "Losses of records that nobody has accepted yet, for which the zone stands still.",
	})
	m.registry.MustRegister(
		m.full, m.losses, m.turns, m.commits, m.committing, m.events, m.apps, m.nodes, m.containers, m.instances, m.refused,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// CountRefused shows how many connections were closed because there were too many.
func (m *Metrics) CountRefused(refused func() int64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "mammoth_connections_refused_total", Help: "Connections that were closed because there were too many.",
	}, func() float64 { return float64(refused()) }))
}

func (m *Metrics) committed(took time.Duration) {
	m.commits.Inc()
	m.committing.Observe(took.Seconds())
}

// observe follows a turn. The counts are taken anew only when something was told, since nothing changed otherwise, and
// at most once a tick, since they go over every node.
func (m *Metrics) observe(z *zone.Core, out *zone.Ready, began time.Time) {
	m.turns.Observe(time.Since(began).Seconds())
	m.events.Add(float64(len(out.Events)))
	m.stale = m.stale || len(out.Events) > 0
	if !m.stale || began.Sub(m.counted) < zone.Tick {
		return
	}
	m.stale, m.counted = false, began
	counts := z.Counts()
	for state := apiv1.App_ACCEPTED; state <= apiv1.App_REMOVED; state++ {
		m.apps.WithLabelValues(state.String()).Set(float64(counts.Apps[state]))
	}
	for state := apiv1.NodeState_READY; state <= apiv1.NodeState_LOST; state++ {
		m.nodes.WithLabelValues(state.String()).Set(float64(counts.Nodes[state]))
	}
	m.containers.Set(float64(counts.Containers))
	m.instances.Set(float64(counts.Instances))
	m.losses.Set(float64(counts.Losses))
	m.full.Set(oneIf(counts.Full))
	m.refused.Set(oneIf(counts.QueueFileRefused))
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// Handler serves /metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
