package core

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

func TestMemberThatLosesItsLinkIsRemoved(t *testing.T) {
	s := beginServing(t, scene{members: "A B C"})
	s.write(1, 'w', 0, 4*kib)
	s.answer("A C")
	s.drop()
	s.lose("B")
	s.expect("propose remove B", "frozen: unavailable")
	s.commit()
	s.expect("lost B: unavailable", "A: store view 21 dirty B{0}", "C: store view 21 dirty B{0}", "thawed")
	s.answer("A C")
	s.expect("done 1")
	s.pass(500 * time.Millisecond)
	s.expect("B: open session 2") // it may come back, as a target
}

func TestMemberThatAnswersWithAnErrorIsRemoved(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.flush(1)
	s.drop()
	s.refuse("B", block.ErrDiskFailed)
	s.expect("B: close", "propose remove B", "frozen: unavailable")
	s.silent = bit(1)
	s.settle()
	s.expectAmong("lost B: disk failed", "done 1")
}

func TestMemberThatIsSilentIsRemovedAtTheDeadline(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.silent = bit(1)
	s.write(1, 'w', 0, 4*kib)
	s.answer("A")
	s.pass(2900 * time.Millisecond)
	s.expectNone("propose")
	s.pass(200 * time.Millisecond)
	s.expect("B: close", "propose remove B", "frozen: unavailable")
}

// A disk may take longer over a request than a network over a ping.
func TestMemberWithASlowDiskIsKeptForLonger(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.answer("A")
	s.pass(7900 * time.Millisecond)
	s.expectNone("propose")
	s.pass(600 * time.Millisecond)
	s.expectAmong("propose remove B")
}

// A process that was stopped finds the answers waiting when it goes on.
func TestPauseOfTheEngineIsNobodysSilence(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.silent = bit(1)
	s.pass(time.Second)
	s.now += block.Instant(20 * time.Second)
	s.step(Event{Kind: EventTick})
	s.expectNone("propose")
	s.pass(time.Second)
	s.expectAmong("propose remove B")
}

// Silence is noticed with nothing but pings under way, too.
func TestIdleMemberThatIsSilentIsRemovedAtTheDeadline(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.silent = bit(1)
	s.pass(10 * time.Second)
	s.expect("B: close", "propose remove B", "frozen: unavailable")
}

// Rule 9: what the last member owes waits for it, and is sent again.
func TestLastMemberIsNeverRemoved(t *testing.T) {
	s := beginServing(t, scene{members: "A"})
	s.write(1, 'w', 0, 4*kib)
	s.drop()
	s.lose("A")
	s.expect("frozen: unavailable")
	s.silent = bit(0)
	s.pass(time.Hour)
	s.expectNone("propose")
	s.wake("A")
	s.pass(10 * time.Second)
	s.settle()
	s.expectAmong("done 1")
	if s.content("A", 0, 4*kib) != "'w'" {
		t.Error("the write is not there")
	}
}

// The last member comes back in another incarnation, with a log: it may have
// lost what was acknowledged (rule 17).
func TestLastMemberThatLostItsMemoryEndsTheAttachment(t *testing.T) {
	s := beginServing(t, scene{members: "A"})
	s.write(1, 'w', 0, 4*kib)
	s.settle()
	s.lose("A")
	s.replica("A").incarnation.DiskSequence++
	s.write(2, 'x', mib, 4*kib)
	s.flush(3)
	s.drop()
	s.pass(500 * time.Millisecond)
	s.answer("A")
	s.expect("A: open session 2", "propose incarnation A end attachment")
	s.commit()
	s.expectAmong("done 2: attachment ended", "done 3: attachment ended", "stopped: attachment ended")
}

func TestMemberThatLostItsMemoryIsRemoved(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.settle()
	s.lose("B")
	s.drop()
	s.replica("B").incarnation.DiskSequence++
	s.commit()
	s.settle()
	s.pass(500 * time.Millisecond)
	s.settle()
	s.expectAmong("lost B: unavailable", "A: store view 21 dirty B{0}", "resync B 16M", "admitted B, 0 copied")
}

// The new incarnation of a member that lost nothing is recorded, so that a later
// one is compared with it.
func TestMemberThatReopensWithNothingLost(t *testing.T) {
	s := beginServing(t, scene{members: "A"})
	s.lose("A")
	s.replica("A").incarnation.DiskSequence++
	s.drop()
	s.pass(500 * time.Millisecond)
	s.answer("A")
	s.expectAmong("thawed")
	s.commit()
	if got := s.view.Replicas[0].Incarnation; got != s.replica("A").incarnation {
		t.Errorf("recorded incarnation %+v", got)
	}
}

// Rule 6: an unknown outcome is ended only by another compare-and-set on the
// same revision.
func TestUnknownOutcomeIsSettledByANoOp(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.answer("A")
	s.lose("B")
	s.expectAmong("propose remove B")
	s.outcome(block.Unknown)
	s.expect()
	s.pass(500 * time.Millisecond)
	s.expect("propose nothing")
	s.outcome(block.Unknown)
	s.pass(500 * time.Millisecond)
	s.expect("propose nothing")
	s.commit() // now the removal never can
	s.expect("propose remove B", "A: store view 21")
	s.commit()
	s.settle()
	s.expectAmong("lost B: unavailable", "A: store view 22 dirty B{0}", "done 1")
}

func TestUnknownOutcomeThatHasLanded(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.answer("A")
	s.lose("B")
	p := s.land()
	s.step(Event{Kind: EventOutcome, Proposal: p, Verdict: block.Unknown})
	s.expectNone("done")
	s.pass(500 * time.Millisecond)
	s.expect("propose nothing")
	s.outcome(block.Conflict) // and the view shows what happened
	s.expectAmong("lost B: unavailable", "A: store view 21 dirty B{0}")
	s.answer("A")
	s.expect("done 1")
}

// The hint that Raft shows a new view may come before the outcome.
func TestViewArrivesBeforeTheOutcome(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.answer("A")
	s.lose("B")
	p := s.land()
	s.drop()
	s.step(Event{Kind: EventView, View: s.view.Clone()})
	s.expect("lost B: unavailable", "A: store view 21 dirty B{0}", "thawed")
	s.step(Event{Kind: EventOutcome, Proposal: p, Verdict: block.Committed, View: s.view.Clone()})
	s.expect()
	s.answer("A")
	s.expect("done 1")
}

// Somebody else has changed the volume (a resize, a snapshot): the proposal is
// made again on the new revision.
func TestConflictWithAnotherRevision(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.lose("B")
	s.view.Revision++
	s.drop()
	s.outcome(block.Conflict)
	s.expect("propose remove B", "A: store view 21")
	s.commit()
	s.expectAmong("lost B: unavailable")
}

// Raft refused it for what it asks: it is made again after a while.
func TestConflictWithTheSameRevision(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.lose("B")
	s.drop()
	s.outcome(block.Conflict)
	s.expect()
	s.pass(500 * time.Millisecond)
	s.expectAmong("propose remove B")
}

// A member that fails while a proposal is open is removed by the next one.
func TestSecondMemberFailsBeforeTheCommit(t *testing.T) {
	s := beginServing(t, scene{members: "A B C"})
	s.write(1, 'w', 0, 4*kib)
	s.answer("A")
	s.lose("B")
	s.expectAmong("propose remove B")
	s.lose("C")
	s.expect()
	s.commit()
	s.expect("lost B: unavailable", "propose remove C", "A: store view 21 dirty B{0}")
	s.answer("A")
	s.expect() // C is a member of the last known view
	s.commit()
	s.expect("lost C: unavailable", "A: store view 22 dirty B{0} dirty C{0}", "thawed")
	s.answer("A")
	s.expect("done 1")
}

// All members are lost at once: nobody is removed until one is back, and the
// others get AttachWait to come back, too.
func TestAllMembersAreLostAndComeBack(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.reply(0, 0)
	s.drop()
	s.silent = bit(0) | bit(1)
	s.lose("A")
	s.expect("propose remove A", "frozen: unavailable")
	s.lose("B")
	s.commit() // it is B now that cannot be removed
	s.expectAmong("lost A: unavailable")
	s.pass(time.Minute)
	s.expectNone("propose")
	s.wake("B")
	s.pass(time.Second)
	s.settle()
	s.expectAmong("B: write 'w' 0+4K", "B: store view 21 dirty A{0}", "thawed", "done 1")
}

func TestAllMembersAreSilentAndOneComesBack(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.silent = bit(0) | bit(1)
	s.pass(10 * time.Second) // both are given up at the same tick
	s.expectNone("propose")
	s.pass(time.Minute)
	s.expectNone("propose")
	s.lose("A")
	s.wake("A")
	s.pass(time.Second)
	s.settle()
	// B had its time to come back while nobody was there.
	s.expectAmong("A: write 'w' 0+4K", "propose remove B", "lost B: unavailable", "done 1")
}

func TestAllMembersAreLostAndBothComeBack(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.silent = bit(0) | bit(1)
	s.pass(4 * time.Second)
	s.lose("A")
	s.lose("B")
	s.drop()
	s.wake("A")
	s.wake("B")
	s.pass(600 * time.Millisecond)
	s.settle()
	s.expectNone("propose")
	if s.core.Status().InFlight != 0 || s.core.Status().Frozen != nil {
		t.Errorf("status %+v", s.core.Status())
	}
}

// The first to come back has lost its memory: it waits for one that did not.
func TestAllMembersAreLostAndTheFirstToComeBackLostItsMemory(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.settle()
	s.silent = bit(0) | bit(1)
	s.pass(4 * time.Second)
	s.lose("A")
	s.lose("B")
	s.drop()
	s.replica("A").incarnation.DiskSequence++
	s.wake("A")
	s.pass(time.Second)
	s.settle()
	s.expectNone("propose")
	s.wake("B")
	s.pass(time.Second)
	s.settle()
	s.expectAmong("propose remove A", "lost A: unavailable")
}

// Rule 10: a disk that comes back behind a flush that it had confirmed.
func TestMemberThatWasRolledBackHasEverythingDirty(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: 32 * mib})
	s.flush(1)
	s.settle()
	s.lose("B")
	s.replica("B").flush = block.FlushNumber{}
	s.drop()
	s.commit()
	s.settle()
	s.pass(500 * time.Millisecond)
	s.settle()
	s.expectAmong("A: store view 21 dirty B{}", "A: store add dirty B{0 1}", "resync B 32M", "admitted B, 0 copied")
}

// The attachment ended in Raft, for whatever reason.
func TestAttachmentEndsInRaft(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.view.Revision++
	s.view.Attachment, s.view.Start = block.AttachmentID{}, block.StartID{}
	s.drop()
	s.step(Event{Kind: EventView, View: s.view.Clone()})
	s.expect("done 1: attachment ended", "A: close", "B: close", "stopped: attachment ended")
}

// A replica that is new in the view is a target with everything dirty; one that
// is gone from it is let go.
func TestReplicaIsReplaced(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: 32 * mib})
	s.add()
	s.expect("A: store view 21 dirty C{0 1}", "B: store view 21 dirty C{0 1}")
	s.settle()
	s.expectAmong("C: open session 1", "resync C 32M", "admitted C, 0 copied")

	s.view = s.view.Clone()
	s.view.Revision++
	s.view.Replicas = s.view.Replicas[1:]
	s.step(Event{Kind: EventView, View: s.view.Clone()})
	s.settle()
	s.expectAmong("A: close", "lost A: unavailable", "B: store view 23 drop A")
	s.read(1, 0, 4*kib)
	s.settle()
	s.expectAmong("B: read 0+4K", "done 1 '.'")
}
