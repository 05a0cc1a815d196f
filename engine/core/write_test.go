package core

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

func TestWriteIsAcknowledgedWhenAllMembersHaveIt(t *testing.T) {
	s := beginServing(t, scene{members: "A B C"})
	s.write(1, 'w', 8*kib, 4*kib)
	s.expect("A: write 'w' 8K+4K", "B: write 'w' 8K+4K", "C: write 'w' 8K+4K")
	s.answer("A C")
	s.expect()
	s.answer("B")
	s.expect("done 1")
}

// A removal has committed; until the view and B's dirty set are stored on the
// survivors, no write is sent and none is acknowledged (rules 3 and 16).
func TestWriteWaitsWhileTheViewIsNotStored(t *testing.T) {
	s := beginServing(t, scene{members: "A B C"})
	s.write(1, 'w', 0, 4*kib)
	s.answer("A C")
	s.lose("B")
	s.commit()
	s.expectAmong("A: store view 21 dirty B{0}", "C: store view 21 dirty B{0}")
	s.write(2, 'x', mib, 4*kib)
	s.answer("A")
	s.expect()
	s.answer("C")
	s.expect("done 1", "A: write 'x' 1M+4K", "C: write 'x' 1M+4K")
}

// A durable write is flushed if it takes a region into the logs, when the last flush
// number is old, or when the others do not know of it yet; else each replica makes it
// durable by itself (ADR 0010).
func TestWriteWithForceUnitAccess(t *testing.T) {
	s := beginServing(t, scene{members: "A B", config: func(cfg *Config) { cfg.Timing.NumberGap = second }})
	write := func(tag uint64, value byte, offset int64) {
		s.request(Request{
			Tag: tag, Kind: WriteRequest, ForceUnitAccess: true, Offset: offset, Length: 4 * kib, Buf: s.letter(value, 4*kib),
		})
	}
	flushed := func(done string, number int) {
		t.Helper()
		s.answer("A B")
		s.expect(fmt.Sprintf("A: flush %d", number), fmt.Sprintf("B: flush %d", number))
		s.answer("A")
		s.expect()
		s.answer("B")
		s.expect(done)
	}
	write(1, 'v', 0)
	s.expect("A: write 'v' 0+4K", "B: write 'v' 0+4K")
	flushed("done 1", 1)
	write(2, 'w', 0)
	s.expect("A: write 'w' 0+4K", "B: write 'w' 0+4K")
	flushed("done 2", 1)
	write(3, 'w', 0)
	s.expect("A: write 'w' 0+4K durably", "B: write 'w' 0+4K durably")
	s.answer("A")
	s.expect()
	s.answer("B")
	s.expect("done 3")
	write(4, 'x', 16*mib)
	s.expect("A: write 'x' 16M+4K durably", "B: write 'x' 16M+4K durably")
	write(5, 'y', 8*kib)
	s.expect("A: write 'y' 8K+4K", "B: write 'y' 8K+4K")
	s.answer("A B A B")
	s.expect("A: flush 2", "B: flush 2")
	s.answer("A B")
	s.expect("done 4", "A: flush 2", "B: flush 2")
	s.answer("A B")
	s.expect("done 5")
	s.now += block.Instant(s.core.cfg.Timing.NumberGap)
	write(6, 'z', 0)
	s.expect("A: write 'z' 0+4K", "B: write 'z' 0+4K")
	flushed("done 6", 3)
}

// Who is asked to make a write durable and cannot leaves like one that cannot flush.
func TestDurableWriteWaitsForTheRemovalOfWhoFailed(t *testing.T) {
	s := beginServing(t, scene{members: "A B", config: func(cfg *Config) { cfg.Timing.NumberGap = second }})
	s.write(1, 'v', 0, 4*kib)
	s.answer("A B")
	s.flush(2)
	s.answer("A B")
	s.flush(3)
	s.answer("A B")
	s.drop()
	s.request(Request{Tag: 4, Kind: WriteRequest, ForceUnitAccess: true, Length: 4 * kib, Buf: s.letter('w', 4*kib)})
	s.expect("A: write 'w' 0+4K durably", "B: write 'w' 0+4K durably")
	s.answer("A")
	s.lose("B")
	s.expectAmong("propose remove B")
	s.expectNone("done 4")
	s.commit()
	s.expectAmong("A: store view 21 dirty B{0}")
	s.answer("A")
	s.expectAmong("done 4")
}

// A zeroing goes a region at a time, so that it never holds more than one.
func TestZeroGoesRegionByRegion(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.zero(1, 15*mib, 18*mib)
	s.expect("A: zero 15M+1M", "B: zero 15M+1M")
	s.answer("A B")
	s.expect("A: zero 16M+16M", "B: zero 16M+16M")
	s.answer("A B")
	s.expect("A: zero 32M+1M", "B: zero 32M+1M")
	s.answer("A B")
	s.expect("done 1")
}

// Two requests overlap when they touch the same block (rule 11).
func TestWritesToOneBlockGoOneAfterTheOther(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'v', 0, 512)
	s.write(2, 'w', 512, 512)
	s.expect("A: write 'v' 0+512", "B: write 'v' 0+512")
	s.answer("A B")
	s.expect("done 1", "A: write 'w' 512+512", "B: write 'w' 512+512")
	s.write(3, 'x', 4*kib, 512)
	s.expect("A: write 'x' 4K+512", "B: write 'x' 4K+512")
}

func TestWriteWaitsForEnoughMembers(t *testing.T) {
	s := beginServing(t, scene{members: "A B", config: func(c *Config) { c.MinInSync = 2 }})
	s.write(1, 'w', 0, 4*kib)
	s.answer("A")
	s.lose("B")
	s.silent = bit(1)
	s.settle()
	s.expectNone("done")
	s.write(2, 'x', mib, 4*kib)
	s.flush(3)
	s.settle()
	s.expectNone("done")
	s.read(4, 0, 4*kib)
	s.settle() // reads of what no write holds go on
	s.read(5, 2*mib, 4*kib)
	s.settle()
	s.expectAmong("done 5 '.'")

	// B comes back, is made equal, and everything that waited is acknowledged.
	s.wake("B")
	s.pass(10 * time.Second)
	for range 20 {
		s.settle()
		s.pass(time.Second)
	}
	s.expectAmong("admitted B, 64K copied", "done 1")
	if got := s.core.Status().InFlight; got != 0 {
		t.Errorf("%d requests are still in flight", got)
	}
	if s.content("B", 0, 4*kib) != "'w'" || s.content("B", mib, 4*kib) != "'x'" {
		t.Error("B lacks a write")
	}
}

func TestInvalidRequestsAreRefused(t *testing.T) {
	s := beginServing(t, scene{members: "A", size: 64 * mib})
	for tag, q := range []Request{
		{Kind: ReadRequest, Offset: 64 * mib, Length: 512},
		{Kind: ReadRequest, Offset: 0, Length: 0},
		{Kind: ReadRequest, Offset: 100, Length: 512},
		{Kind: ReadRequest, Offset: 0, Length: 2 * mib},
		{Kind: ZeroRequest, Offset: -512, Length: 1024},
		{Kind: WriteRequest, Offset: 0, Length: 512},
		{Kind: WriteRequest, Offset: 0, Length: 1024, Buf: s.letter('w', 512)},
		{Kind: 99, Length: 512},
	} {
		q.Tag = uint64(tag)
		s.request(q)
		s.expect("done " + size(int64(tag)) + ": invalid argument")
	}
}

// Rule 31: a full disk removes its member only if another one took the write and
// reports free space.
func TestFullDiskOfOneMemberRemovesIt(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.drop()
	s.refuse("B", block.ErrNoSpace)
	s.expect("frozen: no space on disk")
	s.answer("A")
	s.expectAmong("B: close", "propose remove B")
	s.silent = bit(1)
	s.settle()
	s.expectAmong("lost B: no space on disk", "done 1")
}

func TestFullDisksOfAllMembersMakeTheWriteWait(t *testing.T) {
	s := beginServing(t, scene{members: "A B"})
	s.write(1, 'w', 0, 4*kib)
	s.drop()
	s.refuse("A", block.ErrNoSpace)
	s.refuse("B", block.ErrNoSpace)
	s.expect("frozen: no space on disk")
	s.pass(time.Second)
	s.expect("A: write 'w' 0+4K", "B: write 'w' 0+4K")
	s.zero(2, mib, 4*kib) // trims pass
	s.drop()
	s.refuse("A", block.ErrNoSpace)
	s.refuse("B", block.ErrNoSpace)
	s.answer("A B")
	s.expect("done 2")
	s.pass(time.Second)
	s.drop()
	s.answer("A B")
	s.expect("done 1", "thawed")
}

// The last member takes no more writes: they wait, reads go on.
func TestFailedDiskOfTheLastMember(t *testing.T) {
	s := beginServing(t, scene{members: "A"})
	s.write(1, 'w', 0, 4*kib)
	s.drop()
	s.refuse("A", block.ErrDiskFailed)
	s.expect("frozen: disk failed")
	s.read(2, mib, 4*kib)
	s.answer("A")
	s.expect("A: read 1M+4K", "done 2 '.'")
	s.read(3, mib, 4*kib)
	s.refuse("A", block.ErrDiskFailed)
	s.expect("A: read 1M+4K", "unreadable A at 1M", "done 3: input/output error")
	for range 3 {
		s.pass(time.Second)
		s.expect("A: write 'w' 0+4K")
		s.refuse("A", block.ErrDiskFailed)
		s.expect()
	}
	// The disk was replaced under it: a new session takes the write.
	s.lose("A")
	s.pass(time.Second)
	s.settle()
	s.expectAmong("A: open session 2", "A: write 'w' 0+4K", "done 1")
}

// A disk that failed once, for instance a read for a write of a part of a block, takes
// the write when it is asked again.
func TestDiskOfTheLastMemberFailsOnce(t *testing.T) {
	s := beginServing(t, scene{members: "A"})
	s.write(1, 'w', 0, 4*kib)
	s.drop()
	s.refuse("A", block.ErrDiskFailed)
	s.expect("frozen: disk failed")
	s.flush(2)
	s.pass(time.Second)
	s.answer("A")
	s.expectAmong("A: write 'w' 0+4K", "done 1", "thawed")
	s.settle()
	s.expectAmong("done 2")
}

// A part of a block cannot be written where the other part does not verify. The
// only member fails the write, as it would fail a read (rule 19).
func TestPartialWriteToADamagedBlockOfALoneMember(t *testing.T) {
	s := beginServing(t, scene{members: "A", before: func(s *script) { s.replica("A").bad[0] = true }})
	s.write(1, 'w', 0, 512)
	s.answer("A A")
	s.expect("A: write 'w' 0+512", "A: read 0+4K", "unreadable A at 0", "done 1: input/output error")
	s.write(2, 'x', 0, 4*kib) // all of it can
	s.write(3, 'y', 512, 512)
	s.settle()
	s.expectAmong("done 2", "done 3")
}

// Any other member gets the block from one that has it, and then the write again.
func TestPartialWriteToADamagedBlockOfOneMember(t *testing.T) {
	s := beginServing(t, scene{members: "A B C", before: func(s *script) {
		for _, r := range s.replicas {
			r.plant('o', 0, 12*kib)
			r.log = nil
		}
		s.replica("A").bad[0] = true
		s.replica("A").bad[2] = true
	}})
	s.write(1, 'w', 512, 11*kib)
	s.drop()
	s.answer("A B")
	s.expect("B: read 0+4K")
	s.answer("B A")
	s.expect("A: write 'ow' 0+4K", "repaired 4K of A at 0: checksum mismatch", "B: read 8K+4K") // B has the write by then
	s.answer("B A")
	s.expect("A: write 'wo' 8K+4K", "repaired 4K of A at 8K: checksum mismatch", "A: write 'w' 512+11K")
	s.answer("A")
	s.expect()
	s.answer("C")
	s.expect("done 1")
	for _, n := range []string{"A", "B", "C"} {
		if got := s.content(n, 0, 16*kib); got != "'owo.'" {
			t.Errorf("%s has %s", n, got)
		}
	}
}

// Two members have what the third lacks and lack different blocks themselves.
func TestPartialWriteWhoseBlocksAreDamagedAtSeveralMembers(t *testing.T) {
	s := beginServing(t, scene{members: "A B", before: func(s *script) {
		for _, r := range s.replicas {
			r.plant('o', 0, 12*kib)
			r.log = nil
		}
		s.replica("A").bad[0] = true
		s.replica("B").bad[2] = true
	}})
	s.write(1, 'w', 512, 11*kib)
	s.settle()
	s.expectAmong("repaired 4K of A at 0: checksum mismatch", "repaired 4K of B at 8K: checksum mismatch", "done 1")
	if a, b := s.content("A", 0, 16*kib), s.content("B", 0, 16*kib); a != b || a != "'owo.'" {
		t.Errorf("A has %s, B has %s", a, b)
	}
}

// Nobody has the other part of the block. The request fails, as a read of the block
// does; the rest of it is the same everywhere, and everybody remains a member.
func TestPartialWriteToABlockThatNobodyHas(t *testing.T) {
	s := beginServing(t, scene{members: "A B", absent: "C", before: func(s *script) {
		for _, r := range s.replicas {
			r.plant('o', 0, 12*kib)
			r.log = nil
			r.bad[2] = true
		}
	}})
	s.write(1, 'w', 4*kib, 5*kib)
	s.drop()
	s.answer("A B")
	s.expect("B: read 8K+4K")
	s.answer("B")
	s.expect("A: read 8K+4K")
	s.answer("A")
	s.expect("unreadable A at 8K", "unreadable B at 8K", "A: write 'w' 4K+4K", "B: write 'w' 4K+4K")
	s.answer("A B")
	s.expect("done 1: input/output error")
	s.write(2, 'x', 9*kib, kib)
	s.settle()
	s.expectAmong("done 2: input/output error")
	s.write(3, 'y', 8*kib, 4*kib)
	s.write(4, 'z', 9*kib, kib)
	s.settle()
	s.expectAmong("done 3", "done 4")
	if a, b := s.content("A", 0, 16*kib), s.content("B", 0, 16*kib); a != b || a != "'owyzy.'" {
		t.Errorf("A has %s, B has %s", a, b)
	}
}

// The member that gives the block dies: another one does.
func TestPartialWriteWhoseHelperDies(t *testing.T) {
	s := beginServing(t, scene{members: "A B C", before: func(s *script) {
		for _, r := range s.replicas {
			r.plant('o', 0, 4*kib)
			r.log = nil
		}
		s.replica("A").bad[0] = true
	}})
	s.write(1, 'w', 0, 512)
	s.drop()
	s.answer("A")
	s.expect("B: read 0+4K")
	s.silent = bit(1)
	s.lose("B")
	s.settle()
	s.expectAmong("lost B: unavailable", "C: read 0+4K", "A: write 'wo' 0+4K", "done 1")
}

// The member that is mended dies: the write is done without it, and it comes back
// as any other.
func TestPartialWriteWhosePatientDies(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: mib, before: func(s *script) {
		for _, r := range s.replicas {
			r.plant('o', 0, 4*kib)
			r.log = nil
		}
		s.replica("B").bad[0] = true
	}})
	s.write(1, 'w', 0, 512)
	s.drop()
	s.answer("A B A")
	s.expect("A: read 0+4K", "B: write 'wo' 0+4K")
	s.silent = bit(1)
	s.lose("B")
	s.settle()
	s.expectAmong("lost B: unavailable", "done 1")
	s.wake("B")
	s.pass(time.Second)
	s.settle()
	s.expectAmong("resync B 1M", "admitted B, 64K copied")
	if got := s.content("B", 0, 8*kib); got != "'wo.'" {
		t.Errorf("B has %s", got)
	}
}

// A target misses the write: the copy of the chunk brings the block whole.
func TestPartialWriteToADamagedBlockOfATarget(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B", size: 2 * mib, before: dirtyFor("B", "A"), config: func(c *Config) {
		c.Limits.Copies = 1
	}})
	s.replica("B").bad[mib/(4*kib)] = true
	s.wake("B")
	s.answer("B")
	s.write(1, 'w', mib, 512)
	s.settle()
	s.expectAmong("B: write 'w' 1M+512", "done 1", "A: read 1M+64K resync", "admitted B, 64K copied")
	if got := s.content("B", mib, 8*kib); got != "'w.'" {
		t.Errorf("B has %s", got)
	}
}
