package nodemanager

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mammoth-os/mammoth/nodemanager/container"
)

// counters are the node's own metrics.
type counters struct {
	connected     atomic.Bool
	registrations atomic.Int64
	ended         atomic.Int64
	starts        prometheus.Histogram
}

func newCounters() *counters {
	return &counters{starts: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "mammoth_node_container_start_seconds", Help: "Time that the engine took to start a container.",
		Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	})}
}

func (c *counters) started(took time.Duration) { c.starts.Observe(took.Seconds()) }

func (c *counters) transition(to container.State) {
	if to == container.Done {
		c.ended.Add(1)
	}
}

var (
	descContainers = prometheus.NewDesc("mammoth_node_containers", "Containers on this node by state.", []string{"state"}, nil)
	descHealthy    = prometheus.NewDesc("mammoth_node_healthy", "Whether containers may be placed on the node.", nil, nil)
	descConnected  = prometheus.NewDesc("mammoth_node_connected", "Whether the node has a session with its ResourceManager.", nil, nil)
	descRegistered = prometheus.NewDesc("mammoth_node_registrations_total", "Registrations with the ResourceManager.", nil, nil)
	descEnded      = prometheus.NewDesc("mammoth_node_containers_ended_total", "Containers that have ended.", nil, nil)
	descFetched    = prometheus.NewDesc("mammoth_node_image_fetched_bytes_total", "Bytes of images fetched to this node.", nil, nil)
)

// collector asks the owner for figures when metrics are read, instead of updating them at each change.
type collector struct{ nm *NodeManager }

func (c collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{descContainers, descHealthy, descConnected, descRegistered, descEnded, descFetched} {
		descs <- desc
	}
	c.nm.counters.starts.Describe(descs)
}

func (c collector) Collect(metrics chan<- prometheus.Metric) {
	type figures struct {
		states  [container.Done + 1]int
		healthy bool
	}
	now, err := ask(c.nm.edges, c.nm, func(o *owner) (figures, error) {
		f := figures{healthy: o.node.Health().GetHealthy()}
		for _, h := range o.node.All() {
			f.states[h.Core.State]++
		}
		return f, nil
	})
	if err != nil {
		return
	}
	for _, state := range container.States() {
		metrics <- prometheus.MustNewConstMetric(descContainers, prometheus.GaugeValue, float64(now.states[state]), state.String())
	}
	counters := c.nm.counters
	metrics <- prometheus.MustNewConstMetric(descHealthy, prometheus.GaugeValue, number(now.healthy))
	metrics <- prometheus.MustNewConstMetric(descConnected, prometheus.GaugeValue, number(counters.connected.Load()))
	metrics <- prometheus.MustNewConstMetric(descRegistered, prometheus.CounterValue, float64(counters.registrations.Load()))
	metrics <- prometheus.MustNewConstMetric(descEnded, prometheus.CounterValue, float64(counters.ended.Load()))
	if c.nm.config.Layers != nil {
		metrics <- prometheus.MustNewConstMetric(descFetched, prometheus.CounterValue, float64(c.nm.config.Layers.TotalFetched()))
	}
	counters.starts.Collect(metrics)
}

func number(flag bool) float64 {
	if flag {
		return 1
	}
	return 0
}

// pages serves /metrics, /healthz (the process answers) and /readyz (it has a session and may be given containers).
func (nm *NodeManager) pages() http.Handler {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector{nm})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if _, err := ask(r.Context(), nm, func(*owner) (bool, error) { return true, nil }); err != nil {
			http.Error(w, sentence(err), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		reason, err := ask(r.Context(), nm, func(o *owner) (string, error) { return o.node.Health().GetReason(), nil })
		switch {
		case err != nil:
			reason = sentence(err)
		case reason == "" && !nm.counters.connected.Load():
			reason = "the node has no session with its ResourceManager"
		}
		if reason != "" {
			http.Error(w, reason, http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	return mux
}
