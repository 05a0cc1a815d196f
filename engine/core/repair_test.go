package core

import (
	"testing"
	"time"
)

// Rule 18: no read of a divergent block is answered before all members hold the
// same bytes, those of one fixed source.
func TestDivergentChunkIsRepairedBeforeItIsRead(t *testing.T) {
	s := divergentAttached(t, func(c *Config) { c.Limits.Copies = 1 })
	s.expect("serving", "A: hash 16M+1M", "B: hash 16M+1M") // in the background
	s.read(1, 17*mib, 4*kib)
	s.read(2, 0, 4*kib)
	s.expect("A: read 0+4K")
	s.answer("A B A")
	s.expectAmong("A: hash 17M+1M", "B: hash 17M+1M", "done 2 '.'") // on demand, next
	s.answer("A B")
	s.expect("A: read 17M+64K resync")
	s.answer("A")
	s.expect("A: zero 17M+64K resync", "B: zero 17M+64K resync")
	s.answer("A")
	s.expect()
	s.answer("B")
	s.expectAmong("repaired 64K of B at 17M", "A: read 17M+4K")
	s.settle()
	s.expectAmong("done 1 '.'")
	if n := s.core.Status().Divergent; n != 0 {
		t.Errorf("%d bytes are divergent", n)
	}
}

// divergentAttached stops when the core begins to serve.
func divergentAttached(t testing.TB, config func(*Config)) *script {
	t.Helper()
	s := beginAttach(t, scene{members: "A B", size: 32 * mib, config: config, before: func(s *script) {
		s.replica("B").plant('w', 17*mib, 4*kib)
	}})
	s.answer("A B")
	s.drop()
	s.answer("A B")
	return s
}

func TestWriteToADivergentChunkWaitsForItsRepair(t *testing.T) {
	s := divergentAttached(t, nil)
	s.write(1, 'x', 17*mib+8*kib, 4*kib)
	s.expectNone("A: write")
	s.settle()
	s.expectAmong("repaired 64K of B at 17M", "A: write 'x' 17416K+4K", "done 1")
	if a, b := s.content("A", 17*mib, 64*kib), s.content("B", 17*mib, 64*kib); a != b || a != "'.x.'" {
		t.Errorf("A has %s, B has %s", a, b)
	}
}

// A block that verifies on another member wins over one that does not.
func TestDivergentBlockThatVerifiesOnlyElsewhere(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: mib, before: func(s *script) {
		s.replica("A").plant('a', 0, 16*kib)
		s.replica("B").plant('b', 0, 16*kib)
		s.replica("A").bad[1] = true
		s.replica("A").suspect[2] = true
	}})
	if a, b := s.content("A", 0, 16*kib), s.content("B", 0, 16*kib); a != b || a != "'aba'" {
		t.Errorf("A has %s, B has %s", a, b)
	}
}

// Nobody has checksums of the block: the bytes of the source are accepted,
// because nobody knows better.
func TestDivergentBlockThatIsSuspectEverywhere(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: mib, before: func(s *script) {
		s.replica("A").plant('a', 0, 8*kib)
		s.replica("B").plant('b', 0, 8*kib)
		s.replica("A").suspect[1] = true
		s.replica("B").suspect[1] = true
	}})
	s.read(1, 0, 8*kib)
	s.settle()
	s.expectAmong("done 1 'a'")
	if got := s.content("B", 0, 8*kib); got != "'a'" {
		t.Errorf("B has %s", got)
	}
}

// repair-flip: the source dies in the middle of a repair. What a read returned
// stays; the rest comes from the next source.
func TestRepairWhoseSourceDies(t *testing.T) {
	s := beginAttach(t, scene{members: "A B C", size: mib, before: func(s *script) {
		s.replica("A").plant('a', 0, 4*kib)
		s.replica("B").plant('b', 128*kib, 4*kib)
	}})
	s.answer("A B C")
	s.answer("A B C")
	s.drop()
	s.answer("A B C A")
	s.expect("A: read 0+64K resync", "A: write 'a.' 0+64K resync", "B: write 'a.' 0+64K resync", "C: write 'a.' 0+64K resync")
	s.answer("A B")
	s.silent = bit(0)
	s.lose("A")
	s.settle()
	s.expectAmong("propose remove A", "C: hash 0+1M", "repaired 64K of B at 0", "repaired 128K of C at 0")
	b, c := s.content("B", 0, mib), s.content("C", 0, mib)
	if b != c || b != "'a.b.'" {
		t.Errorf("B has %s, C has %s", b, c)
	}
}

// repair-target: a target that has copied the chunk already gets the repair,
// too; and no chunk is copied before it is repaired.
func TestTargetGetsRepairs(t *testing.T) {
	s := beginServing(t, scene{members: "A C", absent: "B", size: mib, before: func(s *script) {
		dirtyFor("B", "A", "C")(s)
		s.replica("A").plant('w', 0, 4*kib)
		s.replica("C").plant('w', 0, 4*kib)
		s.replica("B").plant('w', 0, 4*kib)
		for _, r := range s.replicas {
			r.log = nil
		}
	}})
	s.wake("B")
	s.answer("B A B") // compared
	s.replica("A").bad[0] = true
	s.read(1, 0, 4*kib)
	s.settle()
	s.pass(time.Second)
	s.settle()
	s.expectAmong("repaired 4K of A at 0: checksum mismatch", "admitted B, 0 copied")
}

func TestDivergentChunkIsRepairedBeforeItIsCopied(t *testing.T) {
	s := beginAttach(t, scene{members: "A C", absent: "B", size: mib, before: func(s *script) {
		dirtyFor("B", "A", "C")(s)
		s.replica("C").plant('w', 0, 4*kib)
	}})
	s.settle()
	s.expectAmong("A: hash 0+1M", "C: hash 0+1M", "repaired 64K of C at 0", "A: hash 0+1M", "B: hash 0+1M")
}

// A copy that verified when it was hashed fails when it is read: the repair
// begins again, a few times.
func TestRepairFromACopyThatGoesBad(t *testing.T) {
	s := divergentAttached(t, nil)
	for range 3 {
		s.answerAllBut("A: read")
		s.replica("A").bad[17*mib/(4*kib)] = true
		s.settleOnce()
	}
	s.settle()
	s.expectAmong("repaired 4K of A at 17M: checksum mismatch", "repaired 60K of B at 17412K")
	if got := s.content("A", 17*mib, 4*kib); got != "'w'" {
		t.Errorf("A has %s, want what verifies on B", got)
	}
}

// answerAllBut settles until the last effect begins like this.
func (s *script) answerAllBut(prefix string) {
	for s.settleOnce() {
		if n := len(s.lines); n > 0 && len(s.lines[n-1]) >= len(prefix) && s.lines[n-1][:len(prefix)] == prefix {
			return
		}
	}
}

// While clients are at work, the background has a quarter of the slots.
func TestBackgroundRepairsYieldToClients(t *testing.T) {
	s := divergentAttached(t, func(c *Config) { c.Limits.Copies = 8 })
	if n := jobsUsed(s.core); n != 8 {
		t.Errorf("%d repairs at once, want 8", n)
	}
	s.write(1, 'w', 0, 4*kib)
	for range 7 { // one of these chunks differs, and goes on
		s.answer("A B")
	}
	if n := jobsUsed(s.core); n != 2 {
		t.Errorf("%d repairs at once while a client waits, want 2", n)
	}
}

func jobsUsed(c *Core) int {
	n := 0
	for i := range c.jobs {
		if c.jobs[i].used {
			n++
		}
	}
	return n
}

// A repair waits for a chunk that a frozen write holds, while a replica that the
// view did not have before is added and admitted.
func TestRepairOutlivesTheAdmissionOfANewReplica(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: mib, config: func(c *Config) { c.MinInSync = 3 }, before: func(s *script) {
		s.replica("A").bad[1] = true
	}})
	s.write(1, 'w', 0, 4*kib) // waits for a third member
	s.read(2, 4*kib, 4*kib)
	s.settle()
	s.expectAmong("A: read 4K+4K", "B: read 4K+4K", "done 2 '.'")
	s.silent = bit(0)
	s.lose("A")
	s.settle()
	s.add()
	s.settle()
	s.expectAmong("lost A: unavailable", "admitted C, 0 copied")
	s.wake("A")
	s.pass(10 * time.Second)
	s.settle()
	s.pass(10 * time.Second)
	s.settle()
	s.expectAmong("admitted A, 0 copied", "done 1", "B: hash 0+1M", "C: hash 0+1M")
}
