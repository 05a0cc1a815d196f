package core

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

func (s *script) detach() {
	s.t.Helper()
	s.step(Event{Kind: EventDetach})
}

func TestDetachDrainsFlushesAndClearsTheLogs(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.detach()
	s.write(2, 'x', mib, 4*kib)
	s.expect("A: write 'w' 0+4K", "B: write 'w' 0+4K", "done 2: attachment ended")
	s.answer("A B")
	s.expect("done 1", "A: flush 1", "B: flush 1")
	s.answer("A B")
	s.expect("A: store clear log{0}", "B: store clear log{0}")
	s.answer("A B")
	s.expect("A: close", "B: close", "stopped")
}

func TestDetachOfAnIdleVolume(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.detach()
	s.settle()
	s.expect("A: flush 1", "B: flush 1", "A: close", "B: close", "stopped")
}

// The mark of rule 7 goes, too: the next engine need not wait.
func TestDetachClearsTheMark(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.silent = bit(1)
	s.lose("B")
	s.settle()
	s.drop()
	s.detach()
	s.settle()
	s.expectAmong("propose waited out", "A: store view 22", "stopped")
	if s.view.NotWaitedOut {
		t.Error("the mark is still there")
	}
}

func TestDetachRecordsWhatAnAbsentReplicaLacks(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B", before: func(s *script) {
		s.replica("A").dirty = []block.DirtySet{{Replica: replicaID(1), Removal: 10}}
	}})
	s.write(1, 'w', 0, 4*kib)
	s.settle()
	s.drop()
	s.detach()
	s.settle()
	s.expectAmong("A: flush 1", "A: store add dirty B{0}", "A: store clear log{0}", "stopped")
}

// A resync ends; it goes on at the next attach.
func TestDetachDuringAResync(t *testing.T) {
	s := resyncing(t, nil)
	s.detach()
	s.expect("B: close", "A: flush 1")
	s.settle()
	s.expect("A: close", "stopped")
	if !s.replica("A").dirty[0].Regions.Has(0) {
		t.Error("what the target lacked is forgotten")
	}
}

// A member fails while the core drains: it is removed before the end, because
// what was acknowledged must be on every member.
func TestDetachWithAMemberThatFails(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.detach()
	s.silent = bit(1)
	s.lose("B")
	s.settle()
	s.expectAmong("propose remove B", "done 1", "A: store clear log{0}", "propose waited out", "stopped")
}

func TestDetachWhileAttaching(t *testing.T) {
	s := beginAttach(t, scene{members: "A B"})
	s.read(1, 0, 4*kib)
	s.drop()
	s.detach()
	s.expect("done 1: attachment ended", "A: close", "B: close", "stopped")
}

// Divergent regions stay in the logs for the next attach.
func TestDetachKeepsDivergentRegionsLogged(t *testing.T) {
	s := divergentAttached(t, func(c *Config) { c.Limits.Copies = 1 })
	s.write(1, 'x', 0, 4*kib)
	s.detach()
	s.settle()
	s.expectAmong("A: store clear log{0}", "stopped")
	if s.replica("B").log.Empty() {
		t.Error("the log of the divergent region is gone")
	}
}

func TestAbort(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.flush(2)
	s.read(3, 0, 4*kib)
	s.drop()
	s.step(Event{Kind: EventAbort})
	s.expect("done 1: attachment ended", "done 2: attachment ended", "done 3: attachment ended",
		"A: close", "B: close", "stopped: attachment ended")
	s.detach()
	s.pass(time.Minute)
	s.expect()
}
