package engine

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-io/holdfast/engine/core"
)

// Metrics are what the engines of a node count.
type Metrics struct {
	notices       *prometheus.CounterVec
	repairedBytes prometheus.Counter
	copiedBytes   prometheus.Counter
	starts        prometheus.Counter
}

// noticeNames are the values of the label "event".
var noticeNames = map[core.NoticeKind]string{
	core.NoticeMemberLost:     "member_lost",
	core.NoticeResyncStarted:  "resync_started",
	core.NoticeResyncProgress: "resync_progress",
	core.NoticeAdmitted:       "admitted",
	core.NoticeRepaired:       "repaired",
	core.NoticeFrozen:         "frozen",
	core.NoticeThawed:         "thawed",
	core.NoticeDiffer:         "differ",
}

// NewMetrics registers the metrics of a node's engines.
func NewMetrics(registry prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		notices: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_engine_events_total",
			Help: "What engines reported, by event.",
		}, []string{"event"}),
		repairedBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "holdfast_engine_repaired_bytes_total",
			Help: "Bytes of replicas that were repaired from a peer.",
		}),
		copiedBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "holdfast_engine_resync_copied_bytes_total",
			Help: "Bytes copied to replicas by resyncs that were admitted.",
		}),
		starts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "holdfast_engine_starts_total",
			Help: "Engine starts, each one epoch of a volume.",
		}),
	}
	for _, c := range []prometheus.Collector{m.notices, m.repairedBytes, m.copiedBytes, m.starts} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) notice(n core.Notice) {
	m.notices.WithLabelValues(noticeNames[n.Kind]).Inc()
	switch n.Kind {
	case core.NoticeRepaired:
		m.repairedBytes.Add(float64(n.Bytes))
	case core.NoticeAdmitted:
		m.copiedBytes.Add(float64(n.Copied))
	}
}
