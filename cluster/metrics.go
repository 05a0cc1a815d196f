package cluster

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	applySeconds prometheus.Histogram
	detours      prometheus.Counter
	registerer   prometheus.Registerer
	collectors   []prometheus.Collector
}

func newMetrics(c *Cluster, registerer prometheus.Registerer) (*metrics, error) {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "holdfast", Subsystem: "cluster", Name: name, Help: help}, value)
	}
	m := &metrics{
		registerer: registerer,
		applySeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "holdfast", Subsystem: "cluster", Name: "apply_duration_seconds",
			Help:    "Time from handing a command to Raft until it was applied, on the leader.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		detours: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "holdfast", Subsystem: "cluster", Name: "detours_total",
			Help: "Requests that reached the leader through another member, because it cannot be reached from here.",
		}),
	}
	m.collectors = []prometheus.Collector{
		m.applySeconds, m.detours,
		gauge("leader", "1 on the member that leads.", func() float64 {
			if c.leading.Load() {
				return 1
			}
			return 0
		}),
		gauge("raft_term", "The Raft term of this member.", func() float64 { return float64(c.raft.CurrentTerm()) }),
		gauge("state_index", "The index of the last command this member applied.", func() float64 { return float64(c.State().Index()) }),
		gauge("volumes", "Volumes in the state of this member, deleted ones included until they are gone.", func() float64 { return float64(c.State().VolumeCount()) }),
		gauge("nodes", "Nodes in the state of this member.", func() float64 { return float64(c.State().NodeCount()) }),
	}
	for i, collector := range m.collectors {
		if err := registerer.Register(collector); err != nil {
			m.collectors = m.collectors[:i]
			m.unregister()
			return nil, fmt.Errorf("register cluster metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) unregister() {
	for _, collector := range m.collectors {
		m.registerer.Unregister(collector)
	}
}
