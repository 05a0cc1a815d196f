package core

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

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
