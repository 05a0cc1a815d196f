package core

import (
	"slices"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// counting goes on to where B counts, and its flush is under way.
func counting(t testing.TB) *script {
	t.Helper()
	s := resyncing(t, nil)
	s.answer("A B A B A")
	s.expect("A: flush 1", "B: flush 1", "A: store clean B{0}", "A: flush 2", "B: flush 2")
	if !s.core.Status().Targets[0].Counts {
		t.Fatal("the target does not count")
	}
	return s
}

// A target that counts is waited for, from then on.
func TestTargetThatCountsIsNeededForAcknowledgements(t *testing.T) {
	s := counting(t)
	s.write(1, 'w', 0, 4*kib)
	s.expect("A: write 'w' 0+4K", "B: write 'w' 0+4K")
	s.reply(0, 1)
	s.expect()
	s.reply(1, 1)
	s.expect("done 1")
}

// Every write from before it counted is delivered before the flush of rule 6.
func TestTargetThatCountsCatchesUpFirst(t *testing.T) {
	s := resyncing(t, nil)
	s.answer("A B A B") // the clearing is under way
	s.write(1, 'w', 0, 4*kib)
	s.drop()
	s.reply(0, 1)
	s.expect("done 1")
	s.answer("A")
	s.expect() // it counts, but has yet to take the write
	s.answer("B")
	s.expect("A: flush 2", "B: flush 2")
}

// A target that counts takes over what the members keep for others, and their
// logs (rule 23, takeover-logs), and gets what is added later.
func TestTargetTakesOverTheDirtySetsOfOthers(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B C", size: 32 * mib, before: func(s *script) {
		dirtyFor("B", "A")(s)
		dirtyFor("C", "A")(s)
		dirtyFor("A", "B")(s) // what B kept for A is of the past
	}})
	s.write(1, 'w', 16*mib, 4*kib)
	s.settle()
	s.wake("B")
	s.drop()
	for !slices.ContainsFunc(s.lines, func(l string) bool { return l[:2] == "pr" }) {
		if !s.settleOnce() {
			t.Fatal("B was not proposed")
		}
	}
	s.expectAmong("B: store dirty C{0 1} drop A", "propose admit B")
	// While the admission is open, C opens and its own log is recorded.
	s.replica("C").log.Add(0)
	s.wake("C")
	s.drop()
	s.commit()
	s.settle()
	s.expectAmong("admitted B, 64K copied")
}

// A member fails while a target counts: it stops counting, and the removal goes
// first (rule 6).
func TestTargetStopsCountingWhenAMemberFails(t *testing.T) {
	s := beginServing(t, scene{members: "A C", absent: "B", size: mib, before: dirtyFor("B", "A", "C")})
	s.wake("B")
	for !s.counts(1) {
		s.settleOnce()
	}
	s.write(1, 'w', 0, 4*kib)
	s.silent = bit(2)
	s.drop()
	s.lose("C")
	s.expect("propose remove C", "frozen: unavailable")
	if s.counts(1) {
		t.Error("the target still counts")
	}
	s.settle()
	s.expectAmong("lost C: unavailable", "A: store view 21 dirty C{0}", "done 1", "B: store dirty C{0}", "propose admit B waited out", "admitted B, 0 copied")
}

func (s *script) counts(i int) bool { return s.core.counting == i }

func TestTargetDiesWhileCounting(t *testing.T) {
	s := counting(t)
	s.write(1, 'w', 0, 4*kib)
	s.reply(0, 1)
	s.drop()
	s.lose("B")
	// What it may lack is dirty again, from the members' logs (rule 16).
	s.expect("done 1", "A: store add dirty B{0}")
	s.settle()
	s.pass(time.Second)
	s.settle()
	s.expectAmong("B: open session 2", "resync B 1M", "admitted B, 64K copied")
}

// The target dies while its admission is proposed: until the outcome is known
// it is needed, then it is removed like any member.
func TestTargetDiesWhileItsAdmissionIsProposed(t *testing.T) {
	s := counting(t)
	s.answer("A B B")
	s.expectAmong("propose admit B")
	s.write(1, 'w', 0, 4*kib)
	s.answer("A")
	s.lose("B")
	s.outcome(block.Unknown)
	s.pass(500 * time.Millisecond)
	s.expectNone("done")
	s.outcome(block.Conflict) // the no-op finds that nothing has landed
	s.expect()
	s.pass(500 * time.Millisecond)
	s.expect("propose nothing")
	s.commit()
	s.settle()
	s.expectAmong("done 1", "A: store view 21", "A: store add dirty B{0}")
}

func TestTargetDiesAndItsAdmissionLands(t *testing.T) {
	s := counting(t)
	s.answer("A B B")
	s.write(1, 'w', 0, 4*kib)
	s.answer("A")
	s.drop()
	s.silent = bit(1)
	s.lose("B")
	s.commit()
	s.expect("admitted B, 0 copied", "propose remove B", "A: store view 21 drop B forget head", "frozen: unavailable")
	s.settle()
	s.expectAmong("lost B: unavailable", "A: store view 22 dirty B{0}", "done 1")
}

// Raft refuses the admission for what it asks, and the target has died: it is
// let go, and resynced anew.
func TestTargetDiesAndItsAdmissionIsRefused(t *testing.T) {
	s := counting(t)
	s.answer("A B B")
	s.expectAmong("propose admit B")
	s.lose("B")
	s.outcome(block.Conflict)
	s.drop()
	s.write(1, 'w', 0, 4*kib)
	s.settle()
	s.expectAmong("done 1")
	s.pass(10 * time.Second)
	s.settle()
	s.expectAmong("resync B 1M", "admitted B, 64K copied")
}

// A target whose disk is full while it counts: what it refuses may be a write
// that was acknowledged long ago, and nobody would send it again.
func TestTargetThatCountsHasNoSpaceForAnOlderWrite(t *testing.T) {
	s := resyncing(t, nil)
	s.answer("A B A B")
	s.write(1, 'w', 0, 4*kib)
	s.reply(0, 1)
	s.expectAmong("done 1")
	s.answer("A")
	if !s.counts(1) {
		t.Fatal("the target does not count")
	}
	s.refuse("B", block.ErrNoSpace)
	s.settle()
	s.pass(10 * time.Second)
	s.settle()
	s.expectAmong("B: close", "A: store add dirty B{0}", "admitted B, 64K copied")
	if s.content("B", 0, 4*kib) != "'w'" {
		t.Error("the target was admitted without an acknowledged write")
	}
}
