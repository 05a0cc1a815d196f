package core

import (
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// dirtyFor lets members hold a dirty set with region 0, under the name of the
// replica's removal.
func dirtyFor(absent string, members ...string) func(*script) {
	return func(s *script) {
		for _, n := range members {
			s.replica(n).dirty = append(s.replica(n).dirty, block.DirtySet{
				Replica: replicaID(s.index(absent)), Removal: 10, Regions: block.RegionsOf(0),
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
	s.expect("admitted B, 192K copied", "A: store view 21 drop B forget head", "B: store view 21 drop B forget head")
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

// A chunk that is copied in small steps and sees more writes meanwhile than the window
// holds is copied as a whole the next time: else it would never be done.
func TestTargetHurriesAChunkThatOutrunsItsCopy(t *testing.T) {
	s := resyncing(t, func(c *Config) { c.Limits.TargetWindow = 2 })
	s.core.throttle.usual, s.core.throttle.last = millisecond, s.core.now
	s.core.throttle.restAt = s.core.now + block.Instant(second)
	for tag := range uint64(3) {
		s.write(tag, 'w', int64(tag)*4*kib, 4*kib)
	}
	s.expect("A: write 'w' 0+4K", "A: write 'w' 4K+4K", "A: write 'w' 8K+4K")
	s.answer("A A A A B")
	s.expectAmong("done 2", "B: write 'w' 0+4K", "B: write 'w' 4K+4K")
	s.answer("B B")
	s.expect("A: hash 0+1M", "B: hash 0+1M")
	s.settle()
	s.expectAmong("admitted B, 64K copied")
	if s.content("B", 0, 12*kib) != "'w'" {
		t.Error("a write is lost")
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
