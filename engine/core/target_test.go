package core

import (
	"slices"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// dirtyFor lets members hold a dirty set with region 0, under the name of the
// replica's removal.
func dirtyFor(absent string, members ...string) func(*script) {
	return func(s *script) {
		for _, n := range members {
			s.replica(n).dirty = append(s.replica(n).dirty, block.DirtySet{
				Replica: replicaID(s.index(absent)), Removal: 10, Regions: block.Regions{1},
			})
		}
	}
}

// resyncing brings the absent B of a volume of one chunk back, as far as an
// active target whose chunk is being hashed.
func resyncing(t testing.TB, config func(*Config)) *script {
	t.Helper()
	s := beginServing(t, scene{members: "A", absent: "B", size: mib, before: dirtyFor("B", "A"), config: config})
	s.wake("B")
	s.answer("B")
	s.expect("resync B 1M", "A: hash 0+1M", "B: hash 0+1M")
	return s
}

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

func TestTargetIsResyncedCountedAndAdmitted(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B", size: mib, before: func(s *script) {
		dirtyFor("B", "A")(s)
		s.replica("A").plant('a', 128*kib, 4*kib)
		s.replica("A").plant('a', 512*kib, 64*kib)
		s.replica("B").plant('b', 256*kib, 4*kib)
		s.replica("A").log, s.replica("B").log = nil, nil
	}})
	s.wake("B")
	s.answer("B")
	s.expect("resync B 1M", "A: hash 0+1M", "B: hash 0+1M")
	s.answer("A B")
	s.expect("A: read 128K+64K resync") // the extents that differ
	s.answer("A")
	s.expect("B: write 'a.' 128K+64K resync")
	s.answer("B A")
	s.expect("A: read 256K+64K resync", "B: zero 256K+64K resync") // zeros take no space
	s.answer("B A B")
	s.expect("A: read 512K+64K resync", "B: write 'a' 512K+64K resync", "A: flush 1", "B: flush 1")
	s.answer("A B")
	s.expect("A: store clean B{0}")
	s.answer("A")
	s.expect("A: flush 2", "B: flush 2") // it counts; the flush of rule 6
	s.answer("A B")
	s.expect("B: store") // the dirty sets of others: there are none (rule 23)
	s.answer("B")
	s.expect("propose admit B")
	s.commit()
	s.expect("admitted B, 192K copied", "A: store view 21 drop B", "B: store view 21 drop B")
	s.answer("A B")
	s.write(1, 'w', 0, 4*kib)
	s.expect("A: write 'w' 0+4K", "B: write 'w' 0+4K")
}

// What a target may lack is durable on every member before it is active: its
// dirty set, the members' logs, its own log (rules 16 and 22).
func TestTargetIsRecordedFirst(t *testing.T) {
	s := beginServing(t, scene{members: "A C", absent: "B", before: dirtyFor("B", "A", "C")})
	s.write(1, 'w', 16*mib, 4*kib)
	s.settle()
	s.replica("B").log.Add(2)
	s.wake("B")
	s.drop()
	s.answer("B")
	s.expect("A: store add dirty B{1 2}", "C: store add dirty B{1 2}")
	s.write(2, 'x', 48*mib, 4*kib) // not yet to B
	s.expect("A: write 'x' 48M+4K", "C: write 'x' 48M+4K")
	s.answer("A")
	s.expect()
	s.answer("C")
	// The write under way is in the members' logs: it counts as missing, too.
	s.expectAmong("B: write 'x' 48M+4K", "resync B 64M")
}

// A target gets every write, behind the copy of its chunk (rule 22), and is not
// waited for.
func TestTargetGetsWritesBehindTheCopyOfTheirChunk(t *testing.T) {
	s := resyncing(t, nil)
	s.write(1, 'w', 0, 4*kib)
	s.expect("A: write 'w' 0+4K")
	s.answer("A A")
	s.expect("done 1")
	s.answer("B") // both hashes are of before the write: nothing to copy
	s.expect("B: write 'w' 0+4K", "A: flush 1")
	s.settle()
	s.expectAmong("B: flush 1", "admitted B, 0 copied")
	if s.content("B", 0, 8*kib) != "'w.'" {
		t.Error("the target lacks the write")
	}
}

// A copy waits for the writes to its chunk that are under way at the target.
func TestCopyWaitsForWritesUnderWayAtTheTarget(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B", size: 2 * mib, before: dirtyFor("B", "A"), config: func(c *Config) {
		c.Limits.Copies = 1
	}})
	s.wake("B")
	s.answer("B")
	s.write(1, 'w', mib, 4*kib)
	s.expect("resync B 2M", "A: hash 0+1M", "B: hash 0+1M", "A: write 'w' 1M+4K", "B: write 'w' 1M+4K")
	s.answer("A A")
	s.expect("done 1")
	s.answer("B") // the hash: the first chunk is done, the second waits
	s.expect()
	s.answer("B")
	s.expect("A: hash 1M+1M", "B: hash 1M+1M")
}

// Past its window a target misses writes: their chunk is dirty again (rule 21).
func TestTargetQueueOverflowMarksDirty(t *testing.T) {
	s := resyncing(t, func(c *Config) { c.Limits.TargetWindow = 2 })
	s.answer("A B A B") // compared and flushed; the clearing is under way
	s.expectAmong("A: store clean B{0}")
	for tag := range uint64(3) {
		s.write(tag, 'w', int64(tag)*4*kib, 4*kib)
	}
	s.expect(
		"A: write 'w' 0+4K", "B: write 'w' 0+4K",
		"A: write 'w' 4K+4K", "B: write 'w' 4K+4K",
		"A: write 'w' 8K+4K", // no room for this one
	)
	s.answer("A A A A")
	s.expect("done 0", "done 1", "done 2")
	if got := s.core.Status().Targets[0]; got.Remaining != mib || got.Counts {
		t.Errorf("target %+v", got)
	}
	s.settle()
	s.expectAmong("A: hash 0+1M", "B: hash 0+1M", "A: read 0+64K resync", "admitted B, 64K copied")
	if s.content("B", 8*kib, 4*kib) != "'w'" {
		t.Error("the write is lost")
	}
}

// Older writes to the same blocks that are still queued are missed along with a
// newer one: delivered after the copy that brings the newer bytes, they would
// bring their own back.
func TestTargetForgetsOlderQueuedWrites(t *testing.T) {
	s := resyncing(t, func(c *Config) { c.Limits.TargetWindow = 2 })
	s.write(1, 'v', 0, 4*kib) // queued behind the copy
	s.answer("A A")
	s.write(2, 'v', 8*kib, 4*kib)
	s.answer("A")
	s.drop()
	s.write(3, 'w', 0, 4*kib) // no room: missed, and the first forgotten
	s.answer("A")
	s.expect("A: write 'w' 0+4K", "done 3")
	s.answer("B") // what is here at the latest when the copy ends
	s.settle()
	s.expectAmong("B: write 'v' 8K+4K", "A: hash 0+1M", "admitted B, 64K copied")
	if got := s.content("B", 0, 12*kib); got != s.content("A", 0, 12*kib) || got != "'w.v'" {
		t.Errorf("the target has %s", got)
	}
}

// The forgotten write waits behind one that is under way in the chunk before, so
// that nothing but forgetting it keeps it from being delivered after the copy.
func TestTargetForgetsAWriteThatWaitsInAnotherChunk(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B", size: 2 * mib, before: dirtyFor("B", "A"), config: func(c *Config) {
		c.Limits.TargetWindow = 2
	}})
	s.wake("B")
	s.answer("B A A B B") // compared; the flush is under way
	s.expectAmong("resync B 2M", "A: flush 1", "B: flush 1")
	s.write(1, 'u', mib-4*kib, 4*kib)
	s.reply(0, 1)
	s.write(2, 'v', mib-4*kib, 8*kib) // queued behind the first
	s.reply(0, 1)
	s.write(3, 'w', mib, 4*kib) // no room
	s.reply(0, 1)
	s.expectAmong("done 1", "done 2", "done 3")
	for len(s.waiting[0]) > 1 || len(s.waiting[1]) > 2 {
		// Everything but the flush and B's answer to the first write.
		if len(s.waiting[0]) > 1 {
			s.reply(0, 1)
		} else {
			s.reply(1, 2)
		}
	}
	s.settle()
	s.expectAmong("admitted B, 128K copied")
	if a, b := s.content("A", mib-8*kib, 16*kib), s.content("B", mib-8*kib, 16*kib); a != b || a != "'.vw.'" {
		t.Errorf("A has %s, B has %s", a, b)
	}
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
	s.expectAmong("A: store view 21", "done 1", "A: store add dirty B{0}")
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
	s.expect("admitted B, 0 copied", "propose remove B", "A: store view 21 drop B", "frozen: unavailable")
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

// A full disk of a replica that is being resynced: what finds no room waits for the
// next turn, and the rest goes on, because it may be a trim that gives room.
func TestTargetWithoutRoomGoesOn(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B", size: 2 * mib, before: func(s *script) {
		dirtyFor("B", "A")(s)
		s.replica("A").plant('a', 0, 4*kib)
		s.replica("B").plant('b', mib, 4*kib)
	}})
	s.wake("B")
	s.answer("B")
	s.drop()
	s.answer("A B A B")
	s.expect("A: read 0+64K resync", "A: read 1M+64K resync")
	s.write(1, 'w', 512*kib, 4*kib)
	s.answer("A A A")
	s.expectAmong("B: zero 1M+64K resync", "done 1")
	s.refuse("B", block.ErrNoSpace)
	s.answer("B")
	s.expect("B: write 'w' 512K+4K")
	s.refuse("B", block.ErrNoSpace)
	s.settle()
	s.expectNone("B: close")
	s.expectNone("admitted")
	if s.content("B", mib, 4*kib) != "'.'" {
		t.Errorf("the trimmed place holds %s", s.content("B", mib, 4*kib))
	}
	s.pass(2 * time.Second)
	s.settle()
	s.expectAmong("admitted B, 256K copied")
	if s.content("B", 0, 4*kib) != "'a'" || s.content("B", 512*kib, 4*kib) != "'w'" {
		t.Error("the target lacks what found no room")
	}
}

// The same for a write that its admission made wait, and that ends without it
// when the admission does not land.
func TestTargetHasNoSpaceWhileItsAdmissionIsProposed(t *testing.T) {
	s := beginServing(t, scene{members: "A C", absent: "B", size: mib, before: dirtyFor("B", "A", "C")})
	s.wake("B")
	for len(s.proposals) == 0 {
		s.settleOnce()
	}
	s.write(1, 'w', 0, 4*kib)
	s.answer("A C")
	s.refuse("B", block.ErrNoSpace)
	s.outcome(block.Unknown)
	s.pass(500 * time.Millisecond)
	s.commit() // the no-op
	s.silent = bit(2)
	s.lose("C") // so that B stops counting
	s.settle()
	s.expectAmong("done 1")
	s.pass(10 * time.Second)
	s.settle()
	s.expectAmong("admitted B, 64K copied")
	if s.content("B", 0, 4*kib) != "'w'" {
		t.Error("the target was admitted without an acknowledged write")
	}
}

// The source has no intact copy: nothing that does not verify is copied on
// (rule 30); it is tried again, because a client may overwrite it.
func TestCopyFromADamagedSource(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B", size: mib, before: func(s *script) {
		dirtyFor("B", "A")(s)
		s.replica("A").bad[3] = true
	}})
	s.wake("B")
	s.settle()
	s.expectAmong("resync B 1M", "differ A at 0: checksum mismatch")
	s.pass(499 * time.Millisecond)
	s.expect()
	s.write(1, 'w', 12*kib, 4*kib)
	s.settle()
	s.pass(time.Second)
	s.settle()
	s.expectAmong("admitted B, 0 copied")
	if s.content("B", 12*kib, 4*kib) != "'w'" {
		t.Error("the target lacks the write")
	}
}

// Another member has an intact copy: the source is repaired first.
func TestCopyFromADamagedSourceThatCanBeRepaired(t *testing.T) {
	s := beginServing(t, scene{members: "A C", absent: "B", size: mib, before: func(s *script) {
		dirtyFor("B", "A", "C")(s)
		s.replica("A").plant('w', 0, 64*kib)
		s.replica("C").plant('w', 0, 64*kib)
		s.replica("A").log, s.replica("C").log = nil, nil
		s.replica("A").bad[3] = true
	}})
	s.wake("B")
	s.settle()
	s.pass(time.Second)
	s.settle()
	s.expectAmong("resync B 1M", "differ A at 0: checksum mismatch", "repaired 4K of A at 12K: checksum mismatch", "admitted B, 64K copied")
}

// The source dies during a copy: the copy begins again from another member.
func TestCopyWhoseSourceDies(t *testing.T) {
	s := beginServing(t, scene{members: "A C", absent: "B", size: mib, before: dirtyFor("B", "A", "C")})
	s.wake("B")
	s.answer("B")
	s.expect("resync B 1M", "A: hash 0+1M", "B: hash 0+1M")
	s.silent = bit(0)
	s.lose("A")
	s.settle()
	s.expectAmong("propose remove A", "B: hash 0+1M", "C: hash 0+1M", "admitted B, 0 copied")
}

// Progress is reported now and then.
func TestTargetProgress(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B", size: 3 << 30})
	var progress []Notice
	s.silent = 0
	s.answer("B")
	for s.core.iss.count() == 1 {
		for _, e := range s.core.Effects() {
			if e.Kind == EffectNotice && e.Notice.Kind == NoticeResyncProgress {
				progress = append(progress, e.Notice)
			}
		}
		if !s.settleOnce() {
			t.Fatal("the resync does not go on")
		}
	}
	if len(progress) < 3 || progress[0].Bytes >= 3<<30 {
		t.Errorf("progress %+v", progress)
	}
}

// A copy whose source cannot be read waits, as one whose source does not verify.
// The last member goes on.
func TestCopyFromDiskThatCannotBeRead(t *testing.T) {
	s := resyncing(t, nil)
	s.refuse("A", block.ErrDiskFailed)
	s.write(1, 'x', 64*kib, 4*kib)
	s.settle()
	s.expectAmong("differ A at 0: checksum mismatch", "done 1")
	s.await("A: hash 0+1M", time.Minute)
	s.settle()
	s.expectAmong("admitted B, 0 copied")
}
