package core

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

func (s *script) cut(n byte) {
	s.t.Helper()
	s.step(Event{Kind: EventCut, Snapshot: block.Snapshot{ID: snapshotID(n), Created: 7}})
}

// cutFlushed asks for a cut, and lets replicas finish the flush that goes before it.
func (s *script) cutFlushed(n byte, names string) {
	s.t.Helper()
	s.cut(n)
	for _, name := range strings.Fields(names) {
		i := s.index(name)
		s.reply(i, slices.IndexFunc(s.waiting[i], func(req block.Request) bool { return req.Op == block.OpFlush }))
	}
}

// cutContent is what a replica's cut holds at an offset.
func (s *script) cutContent(n string, id byte, offset, length int64) string {
	c := s.replica(n).cut(snapshotID(id))
	if c == nil {
		return "nothing"
	}
	data := make([]byte, length)
	copyBlocks(c.blocks, block.Span{Offset: offset, Length: length}, data)
	return letters(data)
}

// showView lets Raft change the view and show it.
func (s *script) showView(change func(*block.View)) {
	s.t.Helper()
	s.view = s.view.Clone()
	s.view.Revision++
	change(&s.view)
	s.step(Event{Kind: EventView, View: s.view.Clone()})
}

func dropSnapshots(v *block.View) { v.Snapshots = nil }

// Clients go on during the flush that goes before a cut: it is there so that the members
// have little to write out while nobody may.
func TestCutWaitsForAFlush(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.cut(1)
	s.expect("A: flush 1", "B: flush 1")
	s.answer("A")
	s.write(1, 'a', 0, 4*kib)
	s.expect("A: write 'a' 0+4K", "B: write 'a' 0+4K")
	s.reply(0, 0)
	s.reply(1, 1)
	s.expect("done 1")
	s.answer("B")
	s.expect("A: store cut S1", "B: store cut S1")
	s.write(2, 'b', 0, 4*kib)
	s.expect()
	s.settle()
	s.expectAmong("done 2", "cut S1")
	if got := s.cutContent("B", 1, 0, 4*kib); got != "'a'" {
		t.Errorf("B holds %s", got)
	}
}

// A write that is under way ends first, one that comes meanwhile waits, and goes on as
// soon as every member has the cut.
func TestCutHoldsWritesUntilEveryMemberHasIt(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'a', 0, 4*kib)
	s.answer("A")
	s.cutFlushed(1, "A B")
	s.drop()
	s.write(2, 'b', 0, 4*kib)
	s.write(3, 'c', mib, 4*kib)
	s.read(4, 2*mib, 4*kib) // reads go on
	s.expect("A: read 2M+4K")
	s.answer("A")
	s.expect("done 4 '.'")
	s.answer("B")
	s.expect("done 1", "A: store cut S1", "B: store cut S1")
	s.answer("A")
	s.expect()
	s.answer("B")
	s.expectAmong("A: flush 2", "A: write 'b' 0+4K", "A: write 'c' 1M+4K")
	s.settle()
	s.expectAmong("propose snapshot S1", "done 2", "A: store view 21", "B: store view 21", "cut S1")
	for _, n := range []string{"A", "B"} {
		if got := s.cutContent(n, 1, 0, 4*kib) + s.cutContent(n, 1, mib, 4*kib); got != "'a''.'" || !s.replica(n).cut(snapshotID(1)).Valid {
			t.Errorf("%s holds %s", n, got)
		}
	}
	if got := s.view.Snapshots[0]; got != (block.Snapshot{ID: snapshotID(1), Size: 64 * mib, Created: 7}) {
		t.Errorf("committed %+v", got)
	}
	s.cut(1)
	s.expect("cut S1") // it is there
}

// The flush that the proposal waits for begins after the last member's answer.
func TestCutIsProposedAfterAFlushThatBeganLater(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'a', 0, 4*kib)
	s.settle()
	s.flush(2)
	s.drop()
	s.cut(1)
	s.answer("A B") // the flush that was under way
	s.expect("done 2", "A: flush 2", "B: flush 2")
	s.answer("A B") // that of the cut
	s.expect("A: store cut S1", "B: store cut S1")
	s.flush(3)
	s.drop()
	s.answer("A B")
	s.expect()
	s.answer("A B") // the flush that was under way
	s.expect("done 3", "A: flush 4", "B: flush 4")
	s.answer("A")
	s.expect()
	s.answer("B")
	s.expect("propose snapshot S1")
}

func TestCutWaitsForDivergentChunks(t *testing.T) {
	s := beginAttach(t, scene{members: "A B", size: mib, before: func(s *script) {
		s.replica("A").plant('a', 0, 4*kib)
		s.replica("B").plant('b', 0, 4*kib)
	}})
	s.cut(1)
	s.answer("A B A B")
	s.expectNone("A: store cut")
	s.settle()
	s.expectAmong("A: write 'a.' 0+64K resync", "A: store cut S1", "cut S1")
	if a, b := s.cutContent("A", 1, 0, 4*kib), s.cutContent("B", 1, 0, 4*kib); a != "'a'" || b != "'a'" {
		t.Errorf("the cuts hold %s and %s", a, b)
	}
}

func TestMemberThatFailsDuringACutIsRemovedFirst(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.cut(1)
	s.silent = bit(1)
	s.lose("B")
	s.settle()
	s.expectAmong("propose remove B", "A: store view 21 dirty B{}", "propose snapshot S1", "cut S1")
}

func TestCutIsGivenUpWhenItHoldsForTooLong(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'a', 0, 4*kib)
	s.answer("A B")
	s.cutFlushed(1, "A B")
	s.drop()
	s.answer("A")
	s.write(2, 'b', 0, 4*kib)
	s.expectNone("A: write")
	s.pass(900 * time.Millisecond)
	s.expect()
	s.pass(100 * time.Millisecond)
	s.expect("cut S1: unavailable", "A: write 'b' 0+4K", "B: write 'b' 0+4K")
	s.settle() // B answers after all
	s.expectAmong("A: store forget S1", "B: store forget S1", "done 2")
	if len(s.replica("A").cuts)+len(s.replica("B").cuts) != 0 {
		t.Error("the cut was left behind")
	}
	s.cut(2)
	s.settle()
	s.expectAmong("cut S2")
}

// A member that was opened again between the cut and the flush may have lost what the
// cut needs. What it takes late, by the update that is sent again, goes, too.
func TestMemberThatIsBackBeforeTheFlushEndsTheCut(t *testing.T) {
	s := beginServing(t, scene{members: "A"})
	s.cutFlushed(1, "A")
	s.expect("A: flush 1", "A: store cut S1")
	s.lose("A")
	s.pass(time.Second)
	s.settle()
	s.expectAmong("A: open session 2", "cut S1: unavailable", "A: store forget S1")
	if len(s.replica("A").cuts) != 0 {
		t.Error("the cut was left behind")
	}
}

func TestUnknownOutcomeOfACut(t *testing.T) {
	for _, landed := range []bool{false, true} {
		s := beginServing(t, scene{members: "A B"})
		s.cut(1)
		s.answer("A B A B A B")
		s.expectAmong("propose snapshot S1")
		if landed {
			s.land()
			s.step(Event{Kind: EventOutcome, Verdict: block.Unknown, Proposal: block.Proposal{Revision: 20, Epoch: 5}})
		} else {
			s.outcome(block.Unknown)
		}
		s.pass(10 * time.Second)
		s.expectNone("cut S1")
		p := s.proposals[0]
		s.proposals = nil
		verdict := block.Conflict
		if commit(&s.view, &p) {
			verdict = block.Committed
		}
		s.step(Event{Kind: EventOutcome, Proposal: p, Verdict: verdict, View: s.view.Clone()})
		if landed {
			s.expectNone("propose")
		} else {
			s.expectAmong("propose snapshot S1") // on the new revision
		}
		s.settle()
		s.expectAmong("cut S1")
		if n := len(s.view.Snapshots); n != 1 {
			t.Errorf("landed %v: %d snapshots", landed, n)
		}
	}
}

// A snapshot that was deleted before it was taken.
func TestRefusedCutIsForgotten(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.cut(1)
	s.answer("A B A B A B")
	s.drop()
	s.outcome(block.Conflict)
	s.expect("cut S1: revision conflict", "A: store forget S1", "B: store forget S1")
}

func TestCutsThatCannotBeginAreRefused(t *testing.T) {
	s := beginServing(t, scene{members: "A", before: func(s *script) { s.replica("A").take(snapshotID(9), 4, false) }})
	for _, id := range []block.SnapshotID{block.KeptHead, {}} {
		s.step(Event{Kind: EventCut, Snapshot: block.Snapshot{ID: id}})
	}
	s.expect("cut head: invalid argument", "cut S0: invalid argument")
	s.cut(1)
	s.cut(1)
	s.cut(2)
	s.expectAmong("cut S2: unavailable")
	s.core.peers[0].addCut(snapshotID(3), 5, 0)
	s.settle()
	s.expectAmong("cut S1")
	s.core.peers[0].addCut(snapshotID(3), 5, 0)
	s.cut(3)
	s.expect("cut S3: revision conflict") // an ID is used once
	s.write(1, 'w', 0, 4*kib)
	s.cut(4)
	s.detach()
	s.expectAmong("cut S4: attachment ended")
	s.cut(5)
	s.expect("cut S5: attachment ended")
}

func TestEndOfTheCoreEndsTheCut(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.cut(1)
	s.drop()
	s.step(Event{Kind: EventAbort})
	s.expectAmong("cut S1: attachment ended", "stopped: attachment ended")
}

// What an earlier engine cut and did not commit goes with the view, on every member.
func TestNewEngineDropsStrayCuts(t *testing.T) {
	s := beginAttach(t, scene{members: "A B", before: func(s *script) {
		s.view.Snapshots = []block.Snapshot{{ID: snapshotID(1), Size: 64 * mib}}
		for _, r := range s.replicas {
			r.take(snapshotID(1), 3, false)
			r.cuts[0].Valid = true
		}
		s.replica("A").take(snapshotID(2), 4, false)
		s.replica("B").take(block.KeptHead, 3, true)
	}})
	s.settle()
	s.expectAmong("A: store view 20 forget S2 forget head", "B: store view 20 forget S2 forget head", "serving")
}

// lacking is a scene in which B lacks a snapshot, or holds it as not valid.
func lacking(valid bool, names ...string) scene {
	return scene{members: "A B", size: mib, before: func(s *script) {
		s.view.Snapshots = []block.Snapshot{{ID: snapshotID(1), Size: mib}}
		for _, r := range s.replicas {
			r.take(snapshotID(1), 3, false)
			r.cuts[0].Valid = true
		}
		for _, n := range names {
			if r := s.replica(n); valid {
				r.cuts = nil
			} else {
				r.cuts[0].Valid = false
			}
		}
	}}
}

func TestMemberWithoutASnapshotLeavesWithEverythingDirty(t *testing.T) {
	for _, valid := range []bool{false, true} {
		s := beginAttach(t, lacking(valid, "B"))
		s.settle()
		s.pass(3 * time.Second) // the mark of rule 7
		s.settle()
		s.expectAmong("propose remove B", "A: store view 22 dirty B{0}", "serving")
		s.pass(time.Second)
		s.settle()
		if s.view.InSync() != 2 || !s.replica("B").cut(snapshotID(1)).Valid {
			t.Errorf("B is not back: %+v", s.view)
		}
	}
}

func TestMembersWithoutASnapshotStayIfNobodyHasIt(t *testing.T) {
	s := beginAttach(t, lacking(true, "A", "B"))
	s.settle()
	s.expectAmong("serving")
	if s.view.InSync() != 2 {
		t.Error("the last copies were removed")
	}
}

// While the one that has it is on its way, the one that lacks it does not lead on.
func TestMemberWithEverySnapshotIsWaitedFor(t *testing.T) {
	s := beginAttach(t, lacking(true, "B"))
	s.silent = bit(0)
	s.settle()
	s.pass(time.Duration(s.cfg.Timing.AttachGrace + s.cfg.Timing.AttachGrace/2))
	s.expectNone("propose")
	s.wake("A")
	s.settle()
	s.expectAmong("propose remove B")
}

// A deletion, or a no-op, changes nothing that an acknowledgement relies on: the gate
// stays open while the view is stored.
func TestViewWithTheSameMembersStallsNobody(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.cut(1)
	s.settle()
	s.write(1, 'w', 0, 4*kib)
	s.drop()
	s.showView(dropSnapshots)
	s.expect("A: store view 22 forget S1", "B: store view 22 forget S1")
	s.write(2, 'x', mib, 4*kib)
	s.expect("A: write 'x' 1M+4K", "B: write 'x' 1M+4K")
	s.answer("A B")
	s.expect("done 1")
	s.reply(0, 1)
	s.reply(1, 1)
	s.expect("done 2")
	s.detach()
	s.expectNone("stopped") // nor does the core end before the view is stored
	s.settle()
	s.expectAmong("stopped")
}

// The mark of rule 7 and the in-sync set do matter.
func TestViewWithAnotherMarkShutsTheGate(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.showView(func(v *block.View) { v.NotWaitedOut = true })
	s.drop()
	s.write(1, 'w', 0, 4*kib)
	s.expect()
	s.answer("A B")
	s.expect("A: write 'w' 0+4K", "B: write 'w' 0+4K")
}

func TestCutOfAnUnreachableVolumeIsRefusedAtItsEnd(t *testing.T) {
	s := beginAttach(t, scene{members: "A"})
	s.cut(1)
	s.detach()
	s.expectAmong("cut S1: attachment ended", "stopped")
}
