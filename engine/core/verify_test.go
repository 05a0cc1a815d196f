package core

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// A lone member comes back from a kill: it lacks nothing, but has no checksums
// of its latest overwrites. They are taken as found before the region leaves
// the log, after which they would count as damage.
func TestLoneMemberIsVerified(t *testing.T) {
	s := beginAttach(t, scene{members: "A", size: mib, before: func(s *script) {
		s.replica("A").plant('w', 0, 4*kib)
		s.replica("A").suspect[0] = true
	}})
	s.answer("A A")
	s.expectAmong("serving", "A: hash 0+1M accepting")
	s.read(1, 0, 4*kib)
	s.expect("A: read 0+4K accepting")
	s.pass(5 * time.Second)
	s.expectNone("A: store clear")
	s.answer("A")
	s.expect("A: read 0+64K accepting resync")
	s.settle()
	s.expectAmong("done 1 'w'")
	s.await("A: flush", time.Minute)
	s.settle()
	s.expectAmong("A: store clear log{0}")
	s.read(2, 0, 4*kib)
	s.settle()
	s.expectAmong("A: read 0+4K", "done 2 'w'")
}

// A lone member that is killed while the core serves.
func TestLoneMemberIsVerifiedAfterEachOpening(t *testing.T) {
	s := beginServing(t, scene{members: "A", size: mib})
	s.write(1, 'w', 0, 4*kib)
	s.settle()
	s.lose("A")
	s.replica("A").suspect[0] = true
	s.pass(500 * time.Millisecond)
	s.answer("A A")
	s.expectAmong("A: hash 0+1M accepting", "A: read 0+64K accepting resync")
	s.lose("A") // in the middle of it
	s.pass(500 * time.Millisecond)
	s.settle()
	s.expectAmong("A: hash 0+1M accepting", "A: read 0+64K accepting resync")
	if s.replica("A").suspect[0] {
		t.Error("a block was not verified")
	}
}

// Two members were killed, one after the other: what is verified of the first
// says nothing about the second.
func TestBothMembersAreVerified(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: mib})
	s.write(1, 'w', 0, 4*kib)
	s.settle()
	s.silent = bit(0) | bit(1)
	s.pass(10 * time.Second)
	s.lose("A")
	s.lose("B")
	s.replica("A").suspect[0] = true
	s.replica("B").suspect[0] = true
	s.wake("A")
	s.drop()
	s.pass(time.Second)
	s.answer("A") // opened
	s.expectAmong("A: open session 3")
	s.wake("B")
	s.settle()
	s.pass(5 * time.Second)
	s.settle()
	if s.replica("A").suspect[0] || s.replica("B").suspect[0] {
		t.Error("a block was not verified")
	}
}

// A disk that fails a read of the last member's says nothing about its writes: they
// go on, and the chunk is verified later.
func TestLoneMemberThatCannotBeReadIsVerifiedLater(t *testing.T) {
	s := beginAttach(t, scene{members: "A", size: mib, before: func(s *script) {
		s.replica("A").plant('w', 0, 4*kib)
		s.replica("A").suspect[0] = true
	}})
	s.answer("A A")
	s.expectAmong("serving", "A: hash 0+1M accepting")
	s.refuse("A", block.ErrDiskFailed)
	s.write(1, 'x', 64*kib, 4*kib)
	s.answer("A")
	s.expectAmong("A: write 'x' 64K+4K", "done 1")
	s.await("A: hash 0+1M accepting", time.Minute)
	s.answer("A")
	s.expectAmong("A: read 0+64K accepting resync")
	s.refuse("A", block.ErrDiskFailed)
	s.await("A: hash 0+1M accepting", time.Minute)
	s.settle()
	if s.replica("A").suspect[0] {
		t.Error("a block was not verified")
	}
}

// Both members were killed at once. What one of them has intact wins over what the
// other cannot vouch for, in reads and in writes of a part of a block; what neither
// can is taken as found, and is the same on both in the end.
func TestIntactCopyWinsOverSuspectOne(t *testing.T) {
	s := reopened(t, func(a, b *replica) {
		a.plant('r', 0, 8*kib) // rotten
		a.suspect[0], a.suspect[1], a.suspect[2] = true, true, true
		b.plant('b', 8*kib, 4*kib)
		b.suspect[2] = true
	})
	s.write(2, 'w', 0, 512)
	s.read(3, 4*kib, 4*kib)
	s.write(4, 'x', 8*kib, 512)
	s.settle()
	s.expectAmong("done 3 'o'", "done 4")
	if a, b := s.content("A", 0, 12*kib), s.content("B", 0, 12*kib); a != b || a != "'woxo'" {
		t.Errorf("A has %s, B has %s", a, b)
	}
	s.pass(5 * time.Second)
	s.settle()
	if n := s.core.unsure.count; n != 0 {
		t.Errorf("%d chunks are unsure", n)
	}
}

// Without the requests of a client, too, members are compared.
func TestSuspectBlocksOfSeveralMembersAreCompared(t *testing.T) {
	s := reopened(t, func(a, b *replica) {
		a.plant('r', 0, 8*kib)
		a.suspect[0], a.suspect[1] = true, true
	})
	s.settle()
	if a := s.content("A", 0, 12*kib); a != "'o'" {
		t.Errorf("A has %s", a)
	}
	if a := s.replica("A"); a.suspect[0] || a.suspect[1] {
		t.Error("a block was not verified")
	}
}

// reopened has two members that were killed at once and have come back.
func reopened(t testing.TB, crash func(a, b *replica)) *script {
	s := beginServing(t, scene{members: "A B", size: mib})
	s.write(1, 'o', 0, 12*kib)
	s.settle()
	s.silent = bit(0) | bit(1)
	s.pass(10 * time.Second)
	s.lose("A")
	s.lose("B")
	crash(s.replica("A"), s.replica("B"))
	s.wake("A")
	s.wake("B")
	s.drop()
	s.pass(time.Second)
	return s
}

// After the members were compared, what does not verify is damage, whatever the
// store says of its region.
func TestRotIsNotTakenForSuspect(t *testing.T) {
	s := reopened(t, func(*replica, *replica) {})
	s.settle()
	s.replica("A").suspect[1], s.replica("B").suspect[1] = true, true
	s.drop()
	s.read(2, 4*kib, 4*kib)
	s.write(3, 'w', 4*kib, 512)
	s.settle()
	s.expectAmong("done 2: input/output error", "done 3: input/output error")
}
