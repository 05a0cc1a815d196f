package cluster

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// logModel is what a log must hold.
type logModel struct {
	t     *testing.T
	draw  *rand.Rand
	dir   string
	store LogStore
	first uint64
	data  []string
}

func (m *logModel) last() uint64 { return m.first + uint64(len(m.data)) - 1 }

// TestLogSurvivesKills truncates the log at both ends, as Raft does after a change
// of the leader and after a snapshot, kills the process between any two steps, and
// reads everything. A log that cannot be read keeps its node from ever starting.
func TestLogSurvivesKills(t *testing.T) {
	for seed := range uint64(4) {
		m := &logModel{t: t, draw: rand.New(rand.NewPCG(seed, 0)), dir: t.TempDir(), first: 1}
		m.open()
		for range 40 {
			m.step()
			m.check(seed)
		}
		if err := m.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func (m *logModel) open() {
	m.t.Helper()
	var err error
	if m.store, err = OpenLogStore(m.dir, hclog.NewNullLogger()); err != nil {
		m.t.Fatal(err)
	}
}

func (m *logModel) step() {
	m.t.Helper()
	switch kind := m.draw.IntN(8); {
	case kind < 3:
		var logs []*raft.Log
		for range 1 + m.draw.IntN(5) {
			m.data = append(m.data, fmt.Sprint(m.draw.Uint64()))
			logs = append(logs, &raft.Log{Index: m.last(), Term: 1, Data: []byte(m.data[len(m.data)-1])})
		}
		if err := m.store.StoreLogs(logs); err != nil {
			m.t.Fatal(err)
		}
	case kind < 5 && len(m.data) > 1:
		from := m.first + 1 + m.draw.Uint64N(uint64(len(m.data)-1))
		m.delete(from, m.last())
		m.data = m.data[:from-m.first]
	case kind < 6 && len(m.data) > 1:
		upTo := m.first + m.draw.Uint64N(uint64(len(m.data)-1))
		m.delete(m.first, upTo)
		m.data = m.data[upTo+1-m.first:]
		m.first = upTo + 1
	default:
		m.kill()
	}
}

func (m *logModel) delete(from, to uint64) {
	m.t.Helper()
	if err := m.store.DeleteRange(from, to); err != nil {
		m.t.Fatal(err)
	}
}

// kill goes on with the files as they are while the process has them open.
func (m *logModel) kill() {
	m.t.Helper()
	copied := m.t.TempDir()
	if err := os.CopyFS(filepath.Join(copied, "log"), os.DirFS(m.dir)); err != nil {
		m.t.Fatal(err)
	}
	if err := m.store.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.dir = filepath.Join(copied, "log")
	m.open()
}

func (m *logModel) check(seed uint64) {
	m.t.Helper()
	first, err := m.store.FirstIndex()
	if err != nil {
		m.t.Fatal(err)
	}
	last, err := m.store.LastIndex()
	if err != nil {
		m.t.Fatal(err)
	}
	if len(m.data) == 0 {
		if last != 0 {
			m.t.Fatalf("seed %d: an empty log ends at %d", seed, last)
		}
		return
	}
	var data []string
	for i := first; i <= last; i++ {
		var log raft.Log
		if err := m.store.GetLog(i, &log); err != nil {
			m.t.Fatalf("seed %d: entry %d of %d to %d: %v", seed, i, first, last, err)
		}
		data = append(data, string(log.Data))
	}
	if first != m.first || !slices.Equal(data, m.data) {
		m.t.Fatalf("seed %d: the log is %d %v, want %d %v", seed, first, data, m.first, m.data)
	}
}
