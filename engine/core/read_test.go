package core

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

func TestReadPrefersTheReplicaOnThisNode(t *testing.T) {
	s := beginServing(t, scene{members: "A B", config: func(c *Config) { c.Node = nodeID(1) }})
	s.read(1, 0, 4*kib)
	s.expect("B: read 0+4K")
	s.answer("B")
	s.expect("done 1 '.'")
}

// Rule 13: a read waits for overlapping writes in flight, reads share a range.
func TestReadWaitsForAWriteInFlight(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.read(2, 2*kib, 512)
	s.read(3, 0, 8*kib)
	s.expect("A: write 'w' 0+4K", "B: write 'w' 0+4K")
	s.answer("A B")
	s.expect("done 1", "A: read 2K+512", "A: read 0+8K")
	s.write(4, 'x', 0, 512)
	s.expect()
	s.answer("A A")
	s.expect("done 2 'w'", "done 3 'w.'", "A: write 'x' 0+512", "B: write 'x' 0+512")
}

// Rule 7: the lease runs from the sending of a ping that every member answered,
// and is checked after the request arrived.
func TestReadIsNotSentUnderAnExpiredLease(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.silent = bit(1)
	s.pass(1999 * time.Millisecond)
	s.read(1, 0, 4*kib)
	s.answer("A") // the read; A's pings answer themselves
	s.expect("A: read 0+4K", "done 1 '.'")
	s.pass(time.Millisecond)
	s.read(2, 0, 4*kib)
	s.expect()
	s.wake("B")
	s.expect("A: read 0+4K")
}

func TestReadRenewsTheLeaseAtOnce(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.showPings = true
	s.now += block.Instant(2 * second) // the machine slept
	s.read(1, 0, 4*kib)
	s.expect("A: ping", "B: ping")
	s.answer("A")
	s.expect()
	s.answer("B")
	s.expect("A: read 0+4K")
}

// A late answer counts from when the ping was sent.
func TestReadLeaseRunsFromTheSendingOfThePing(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.showPings = true
	s.pass(500 * time.Millisecond)
	s.now += block.Instant(1900 * millisecond)
	s.answer("A B") // the answers to pings of 1.9 seconds ago
	s.read(1, 0, 4*kib)
	s.expectAmong("A: read 0+4K")
	s.answer("A")
	s.now += block.Instant(100 * millisecond)
	s.drop()
	s.read(2, 0, 4*kib)
	s.expectNone("A: read")
}

// While B cannot answer, A is not asked again and again: that would be a ping
// for each round trip, until B's removal commits.
func TestReadRenewsTheLeaseOnlyWhereItRanOut(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.showPings = true
	s.lose("B")
	s.drop()
	s.read(1, 0, 4*kib)
	s.expect()
	s.pass(600 * time.Millisecond)
	s.drop()
	s.answer("A")
	s.expect()
}

// A lone member needs no ping while no proposal is open.
func TestReadFromALoneMemberNeedsNoLease(t *testing.T) {
	s := beginServing(t, scene{members: "A"})
	s.pass(time.Hour)
	s.silent = bit(0)
	s.read(1, 0, 4*kib)
	s.expect("A: read 0+4K")
}

// Rule 7, lost-removal: the removal of B may have landed in somebody else's
// favour. Until its outcome is known, a read needs B's part of the lease.
func TestReadNeedsTheLeaseOfAMemberWhoseRemovalIsProposed(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.lose("B")
	s.expectAmong("propose remove B")
	s.outcome(block.Unknown)
	s.read(1, 0, 4*kib)
	s.pass(10 * time.Second)
	s.expectNone("A: read")
	s.commit() // the no-op
	s.settle()
	s.expectAmong("propose remove B", "A: read 0+4K", "done 1 '.'")
}

// Bytes that arrive while the gate is shut are given out when it opens.
func TestReadIsHeldWhileTheViewIsNotStored(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.read(1, 0, 4*kib)
	s.lose("B")
	s.commit()
	s.drop()
	s.answer("A")
	s.expect()
	s.answer("A")
	s.expectAmong("done 1 '.'")
}

func TestReadGoesElsewhereWhenItsMemberIsLost(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.read(1, 0, 4*kib)
	s.lose("A")
	s.expect("A: read 0+4K", "propose remove A", "frozen: unavailable")
	s.silent = bit(0)
	s.settle()
	s.expectAmong("lost A: unavailable", "B: read 0+4K", "done 1 '.'")
}

// A damaged copy: another member serves the read, and the chunk is repaired
// from an intact copy (rule 30).
func TestReadOfADamagedCopy(t *testing.T) {
	s := beginServing(t, scene{members: "A B", before: func(s *script) {
		s.replica("A").plant('w', 0, 8*kib)
		s.replica("B").plant('w', 0, 8*kib)
		s.replica("A").bad[1] = true
		s.replica("A").log, s.replica("B").log = nil, nil
	}})
	s.read(1, 0, 8*kib)
	s.answer("A")
	s.expect("A: read 0+8K", "B: read 0+8K")
	s.answer("B")
	s.expectAmong("done 1 'w'", "A: hash 0+1M", "B: hash 0+1M")
	s.answer("A B")
	s.expect("B: read 4K+4K resync") // the bad block only
	s.answer("B")
	s.expect("A: write 'w' 4K+4K resync", "B: write 'w' 4K+4K resync")
	s.answer("A B")
	s.expect("repaired 4K of A at 4K: checksum mismatch")
	s.read(2, 0, 8*kib)
	s.answer("A")
	s.expect("A: read 0+8K", "done 2 'w'")
}

// Each copy has another block damaged: together they have everything.
func TestReadOfCopiesDamagedInDifferentPlaces(t *testing.T) {
	s := beginServing(t, scene{members: "A B", before: func(s *script) {
		s.replica("A").plant('w', 0, 8*kib)
		s.replica("B").plant('w', 0, 8*kib)
		s.replica("A").bad[0] = true
		s.replica("B").bad[1] = true
		s.replica("A").log, s.replica("B").log = nil, nil
	}})
	s.read(1, 0, 8*kib)
	s.settle()
	s.expectAmong("repaired 4K of A at 0: checksum mismatch", "repaired 4K of B at 4K: checksum mismatch", "done 1 'w'")
}

// Rule 19: lost everywhere.
func TestReadThatNoMemberCanServe(t *testing.T) {
	s := beginServing(t, scene{members: "A B", before: func(s *script) {
		s.replica("A").bad[0] = true
		s.replica("B").bad[0] = true
	}})
	s.read(1, 0, 4*kib)
	s.settle()
	s.expectAmong("unreadable A at 0", "unreadable B at 0", "done 1: input/output error")
	s.read(2, 4*kib, 4*kib) // its neighbour is well
	s.settle()
	s.expectAmong("done 2 '.'")
	s.write(3, 'w', 0, 4*kib) // and an overwrite heals
	s.read(4, 0, 4*kib)
	s.settle()
	s.expectAmong("done 3", "done 4 'w'")
}

func TestReadOfADamagedLoneMember(t *testing.T) {
	s := beginServing(t, scene{members: "A", before: func(s *script) { s.replica("A").bad[0] = true }})
	s.read(1, 0, 4*kib)
	s.answer("A")
	s.expect("A: read 0+4K", "unreadable A at 0", "done 1: input/output error")
}

// Replicas that differ with good checksums are reported, never repaired
// silently (rule 30).
func TestReadRepairReportsCopiesThatDiffer(t *testing.T) {
	s := beginServing(t, scene{members: "A B", before: func(s *script) {
		s.replica("A").plant('a', 64*kib, 4*kib)
		s.replica("B").plant('b', 64*kib, 4*kib)
		s.replica("A").log, s.replica("B").log = nil, nil
		s.replica("A").bad[0] = true
	}})
	s.read(1, 0, 4*kib)
	s.settle()
	s.expectAmong("done 1 '.'", "differ B at 64K", "repaired 4K of A at 0: checksum mismatch")
	if s.content("A", 64*kib, 4*kib) != "'a'" || s.content("B", 64*kib, 4*kib) != "'b'" {
		t.Error("a difference was repaired silently")
	}
}

// A member that answers a read with too few bytes breaks the protocol.
func TestReadWithAWrongLength(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.read(1, 0, 8*kib)
	s.drop()
	req := s.waiting[0][0]
	s.waiting[0] = nil
	s.step(Event{Kind: EventReply, Replica: replicaID(0), Reply: block.Reply{
		Op: req.Op, Epoch: req.Epoch, Session: req.Session, Seq: req.Seq, Buf: s.buffers.take(4096),
	}})
	if got := strings.Join(s.lines, "; "); !strings.Contains(got, "A: close") || !strings.Contains(got, "propose remove A") {
		t.Errorf("effects: %s", got)
	}
}
