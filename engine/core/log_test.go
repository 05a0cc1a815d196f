package core

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Rule 15: idle for long, flushed everywhere, cleared.
func TestLogOfAnIdleRegionIsCleared(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.settle()
	s.pass(20 * time.Second)
	s.write(2, 'x', 16*mib, 4*kib)
	s.settle()
	s.drop()
	s.await("A: flush", 12*time.Second)
	s.expect("A: flush 1", "B: flush 1") // for the first; the second is not idle yet
	s.answer("A B")
	s.expect("A: store clear log{0}", "B: store clear log{0}")
	s.settle()
	s.await("A: flush", 40*time.Second)
	s.settle()
	s.expectAmong("A: flush 2", "A: store clear log{1}")
	if n := s.core.Status().LogRegions; n != 0 {
		t.Errorf("%d regions are logged", n)
	}
	if !s.replica("A").log.Empty() || !s.replica("B").log.Empty() {
		t.Error("a log is not empty")
	}
	s.pass(time.Hour)
	s.expect()
}

// A region that is written while its flush runs stays in the log.
func TestLogOfARegionWrittenDuringTheFlushIsKept(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'v', 0, 4*kib)
	s.write(2, 'v', 16*mib, 4*kib)
	s.settle()
	s.await("A: flush", time.Minute)
	s.drop()
	s.write(3, 'w', 0, 4*kib)
	s.reply(0, 1)
	s.reply(1, 1)
	s.answer("A B") // the flush, which began before
	s.expectAmong("done 3", "A: store clear log{1}", "B: store clear log{1}")
	s.settle()
	s.write(4, 'w', 32*mib, 4*kib) // and one that is still being written
	s.silent = bit(1)
	s.pass(5 * time.Second)
	s.expectNone("A: flush")
}

// Writes into a region that is leaving the logs wait for the round trip, else
// one could slip into a region that has just left (rule 14).
func TestWriteWaitsWhileItsRegionLeavesTheLog(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'v', 0, 4*kib)
	s.settle()
	s.await("A: flush", time.Minute)
	s.answer("A B")
	s.expectAmong("A: store clear log{0}")
	s.write(2, 'w', 4*kib, 4*kib)
	s.write(3, 'w', 16*mib, 4*kib)
	s.expect("A: write 'w' 16M+4K", "B: write 'w' 16M+4K")
	s.answer("A")
	s.expect()
	s.answer("B")
	s.expect("A: write 'w' 4K+4K", "B: write 'w' 4K+4K")
	s.settle()
	if !s.replica("A").log.Has(0) {
		t.Error("a written region is not in the log")
	}
}

// Past the limit all that is not being written goes, idle or not.
func TestCrowdedLogIsCleared(t *testing.T) {
	s := beginServing(t, scene{members: "A B", config: func(c *Config) { c.Limits.LogRegions = 2 }})
	for r := range int64(3) {
		s.write(uint64(r), 'w', r*16*mib, 4*kib)
	}
	s.settle()
	s.drop()
	s.pass(1500 * time.Millisecond)
	s.settle()
	s.expectAmong("A: flush 1", "A: store clear log{0 1 2}")
}

// Rule 15, flush-then-crash: what an absent replica may lack is durably in its
// dirty set on every member before the region leaves the logs.
func TestLogIsClearedOnlyAfterAbsentReplicasAreMarked(t *testing.T) {
	s := beginServing(t, scene{members: "A C", absent: "B", before: func(s *script) {
		for _, n := range []string{"A", "C"} {
			s.replica(n).dirty = []block.DirtySet{{Replica: replicaID(1), Removal: 10}}
		}
	}})
	s.write(1, 'w', 0, 4*kib)
	s.settle()
	s.await("A: flush", time.Minute)
	s.answer("A C")
	s.expectAmong("A: store add dirty B{0}", "C: store add dirty B{0}")
	s.answer("A")
	s.expect()
	s.answer("C")
	s.expect("A: store clear log{0}", "C: store clear log{0}")
}

// A target that has everything in a region, and flushed it, needs no mark.
func TestLogIsClearedWithATargetThatLacksNothing(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B", size: 32 * mib, before: func(s *script) {
		dirtyFor("B", "A")(s)
		s.replica("A").bad[1] = true // so that the resync does not end
	}})
	s.wake("B")
	s.settle()
	s.write(1, 'w', 16*mib, 4*kib)
	s.settle()
	s.drop()
	for s.core.flush.count < 1 {
		s.pass(time.Second)
		s.silent = bit(0)
		s.settle() // the target is the first to finish its flush
		s.wake("A")
		s.settle()
	}
	s.expectAmong("A: flush 1", "B: flush 1", "A: store clear log{1}")
	if s.replica("A").dirty[0].Regions.Has(1) {
		t.Error("region 1 is dirty for a target that has it")
	}
}

// While a member is being removed nothing leaves a log on its account.
func TestMemberFailsWhileTheLogIsCleared(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'v', 0, 4*kib)
	s.settle()
	s.await("A: flush", time.Minute)
	s.answer("A B")
	s.expectAmong("A: store clear log{0}")
	s.silent = bit(1)
	s.lose("B")
	s.write(2, 'w', 0, 4*kib)
	s.settle()
	s.expectAmong("propose remove B", "lost B: unavailable", "done 2")
	if !s.replica("A").log.Has(0) {
		t.Error("a written region is not in the log")
	}
	s.wake("B")
	s.pass(10 * time.Second)
	s.settle()
	if s.content("B", 0, 4*kib) != "'w'" {
		t.Error("B lacks the write")
	}
}
