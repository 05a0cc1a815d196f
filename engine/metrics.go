package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// Metrics are what the engines of a node count.
type Metrics struct {
	events        [core.NoticeUnreadable + 1]prometheus.Counter
	duration      [core.FlushRequest + 1]prometheus.Observer
	failures      [core.FlushRequest + 1]prometheus.Counter
	bytes         [core.FlushRequest + 1]prometheus.Counter
	repairedBytes prometheus.Counter
	copiedBytes   prometheus.Counter
	starts        prometheus.Counter
	// all are the collectors behind the fields.
	all []prometheus.Collector
}

// eventNames are the values of the label "event".
func eventNames() map[core.NoticeKind]string {
	return map[core.NoticeKind]string{
		core.NoticeMemberLost:     "member_lost",
		core.NoticeResyncStarted:  "resync_started",
		core.NoticeResyncProgress: "resync_progress",
		core.NoticeAdmitted:       "admitted",
		core.NoticeRepaired:       "repaired",
		core.NoticeFrozen:         "frozen",
		core.NoticeThawed:         "thawed",
		core.NoticeDiffer:         "differ",
		core.NoticeUnreadable:     "unreadable",
	}
}

// operationNames are the values of the label "operation".
func operationNames() map[core.RequestKind]string {
	return map[core.RequestKind]string{
		core.ReadRequest:  "read",
		core.WriteRequest: "write",
		core.ZeroRequest:  "zero",
		core.FlushRequest: "flush",
	}
}

// durationBuckets span, in seconds, an overwrite of a cached disk to a request
// that waited for a failed replica to be removed.
func durationBuckets() []float64 {
	return []float64{50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30}
}

// NewMetrics registers the metrics of a node's engines.
func NewMetrics(registry prometheus.Registerer) (*Metrics, error) {
	m := newMetrics()
	for _, c := range m.all {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of engines: %w", err)
		}
	}
	return m, nil
}

func newMetrics() *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_engine_" + name, Help: help})
	}
	vector := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "holdfast_engine_" + name, Help: help}, []string{label})
	}
	events := vector("events_total", "What engines reported, by event.", "event")
	failures := vector("request_failures_total", "Client requests that ended with an error, by operation.", "operation")
	bytes := vector("request_bytes_total", "Bytes of client requests that succeeded, by operation.", "operation")
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "holdfast_engine_request_duration_seconds",
		Help:    "How long client requests took, by operation.",
		Buckets: durationBuckets(),
	}, []string{"operation"})
	m := &Metrics{
		repairedBytes: counter("repaired_bytes_total", "Bytes of replicas that were repaired from a peer."),
		copiedBytes:   counter("resync_copied_bytes_total", "Bytes copied to replicas by resyncs that were admitted."),
		starts:        counter("starts_total", "Engine starts, each one epoch of a volume."),
	}
	// Looked up once: a request pays no search by label.
	for kind, name := range eventNames() {
		m.events[kind] = events.WithLabelValues(name)
	}
	for kind, name := range operationNames() {
		m.duration[kind] = duration.WithLabelValues(name)
		m.failures[kind] = failures.WithLabelValues(name)
		m.bytes[kind] = bytes.WithLabelValues(name)
	}
	m.all = []prometheus.Collector{events, failures, bytes, duration, m.repairedBytes, m.copiedBytes, m.starts}
	return m
}

// request counts a client request that has ended.
func (m *Metrics) request(s *slot, took time.Duration, err error) {
	switch {
	case errors.Is(err, block.ErrDetached), errors.Is(err, block.ErrStaleEpoch):
		// It ended with its engine, and says nothing of the volume.
		return
	case err != nil:
		m.failures[s.kind].Inc()
		return
	}
	m.bytes[s.kind].Add(float64(s.bytes))
	m.duration[s.kind].Observe(took.Seconds())
}

func (m *Metrics) notice(n core.Notice) {
	m.events[n.Kind].Inc()
	switch n.Kind {
	case core.NoticeRepaired:
		m.repairedBytes.Add(float64(n.Bytes))
	case core.NoticeAdmitted:
		m.copiedBytes.Add(float64(n.Copied))
	}
}
