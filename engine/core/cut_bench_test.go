package core

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// cut takes a snapshot while a write comes, up to the end of both, and deletes it again.
func (b *bench) cut(tb testing.TB) {
	tb.Helper()
	b.now += 1000
	b.core.Step(Event{Kind: EventCut, Now: b.now, Snapshot: block.Snapshot{ID: snapshotID(1), Created: 7}})
	done := b.done
	b.run(WriteRequest)
	if b.done != done+1 || len(b.core.view.Snapshots) != 1 || b.core.cut.stage != noCut {
		tb.Fatalf("%d writes ended, cut at stage %d, snapshots %v", b.done-done, b.core.cut.stage, b.core.view.Snapshots)
	}
	v := b.core.view.Clone()
	v.Revision++
	v.Snapshots = nil
	b.core.Step(Event{Kind: EventView, Now: b.now, View: v})
	b.settle()
	for i := range b.core.peers {
		// A target forgets its cuts much later.
		b.core.peers[i].cuts = nil
	}
}

// newBenchWithTarget has three replicas in sync and one that is back and lacks
// everything.
func newBenchWithTarget(tb testing.TB, size int64) *bench {
	tb.Helper()
	b := newLargeBench(tb, size, 3, 1, 0)
	b.run(WriteRequest)
	b.cut(tb)
	t := b.core.peers[3].target
	if t == nil || !t.active || t.remaining() < size/2 {
		tb.Fatal("the fourth replica does not come back")
	}
	t.blockedUntil = never
	return b
}

// TestCutOfTheLargestVolume: what the engine does for a cut of a volume of 64 TiB, with
// a target that lacks all of it, takes a small part of the pause that is promised. The
// best of some cuts counts, for the machine may be busy.
func TestCutOfTheLargestVolume(t *testing.T) {
	s := newBenchWithTarget(t, block.MaxVolumeSize)
	best := time.Hour
	for range 10 {
		began := time.Now()
		s.cut(t)
		best = min(best, time.Since(began))
	}
	t.Logf("%s", best)
	if best > 20*time.Millisecond {
		t.Errorf("a cut takes %s", best)
	}
}

// BenchmarkCut takes cuts of volumes of three replicas that are written at their end,
// while a fourth is away, or is back: it lacks everything either way. Clients wait for
// a cut, so its time must not follow the size.
func BenchmarkCut(b *testing.B) {
	for _, fourth := range []string{"away", "target"} {
		for _, size := range []struct {
			name  string
			bytes int64
		}{{"1GiB", 1 << 30}, {"1TiB", 1 << 40}, {"64TiB", block.MaxVolumeSize}} {
			b.Run(fourth+"/"+size.name, func(b *testing.B) {
				s := newBenchWithTarget(b, size.bytes)
				if fourth == "away" {
					s.away = replicaID(3)
					s.core.Step(Event{Kind: EventLost, Now: s.now, Replica: s.away, Session: s.core.peers[3].session})
					s.settle()
				}
				b.ReportAllocs()
				for b.Loop() {
					s.cut(b)
				}
			})
		}
	}
}
