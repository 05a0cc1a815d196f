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
	duration      [core.ChangedRequest + 1]prometheus.Observer
	failures      [core.ChangedRequest + 1]prometheus.Counter
	bytes         [core.ChangedRequest + 1]prometheus.Counter
	repairedBytes prometheus.Counter
	copiedBytes   prometheus.Counter
	starts        prometheus.Counter
	scrubbedBytes prometheus.Counter
	// damaged counts blocks by disk and by what became of them.
	damaged *prometheus.CounterVec
	// all are the collectors behind the fields.
	all []prometheus.Collector
}

// eventNames are the values of the label "event".
func eventNames() map[core.NoticeKind]string {
	return map[core.NoticeKind]string{
		core.NoticeMemberLost:     "member_lost",
		core.NoticeResyncStarted:  "resync_started",
		core.NoticeResyncProgress: "resync_progress",
		core.NoticeNoRoom:         "no_room",
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
		core.ReadRequest:    "read",
		core.WriteRequest:   "write",
		core.ZeroRequest:    "zero",
		core.FlushRequest:   "flush",
		core.ChangedRequest: "changed",
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
		scrubbedBytes: counter("scrubbed_bytes_total", "Bytes of volumes that scrubs have read on every in-sync replica."),
		damaged: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_disk_damaged_blocks_total",
			Help: "Blocks of 4 KiB that engines of this node found damaged, by disk and outcome: repaired from a peer, or lost, each time one is found.",
		}, []string{"disk", "outcome"}),
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
	m.all = []prometheus.Collector{events, failures, bytes, duration, m.repairedBytes, m.copiedBytes, m.starts, m.scrubbedBytes, m.damaged}
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
	blocks := float64((n.Bytes + block.BlockSize - 1) / block.BlockSize)
	switch n.Kind {
	case core.NoticeRepaired:
		m.repairedBytes.Add(float64(n.Bytes))
		if n.Err != nil {
			m.damaged.WithLabelValues(n.Disk.String(), "repaired").Add(blocks)
		}
	case core.NoticeUnreadable:
		m.damaged.WithLabelValues(n.Disk.String(), "lost").Add(blocks)
	case core.NoticeAdmitted:
		m.copiedBytes.Add(float64(n.Copied))
	}
}

// DiskRepaired counts damage on a disk of this node, in bytes, that was repaired from a
// peer for whom no engine was needed: that of a snapshot being read.
func (m *Metrics) DiskRepaired(disk block.DiskID, bytes int64) {
	m.repairedBytes.Add(float64(bytes))
	m.damaged.WithLabelValues(disk.String(), "repaired").Add(float64((bytes + block.BlockSize - 1) / block.BlockSize))
}

func (m *Metrics) scrubbed(s core.Scrubbed) { m.scrubbedBytes.Add(float64(s.Bytes)) }
