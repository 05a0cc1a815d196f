package core

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

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
	s.expect("B: write 'w' 512K+4K", "no room B 1M")
	s.refuse("B", block.ErrNoSpace)
	s.settle()
	s.expectNone("B: close")
	s.expectNone("admitted")
	if waits := s.core.Status().Targets[0].Waits; !errors.Is(waits, block.ErrNoSpace) {
		t.Errorf("it is said to wait for %v", waits)
	}
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

// What finds no room in a whole turn needs the place of what the target's kept head
// holds: that goes while two members are in sync, and stays while there is one.
func TestTargetWithoutRoomGivesItsKeptHeadUp(t *testing.T) {
	for members, forgets := range map[string]bool{"A": false, "A C": true} {
		s := beginServing(t, scene{members: members, absent: "B", size: mib, before: func(s *script) {
			dirtyFor("B", strings.Fields(members)...)(s)
			s.replica("A").plant('a', 0, 4*kib)
		}})
		s.wake("B")
		for len(s.waiting[1]) == 0 || s.waiting[1][0].Op != block.OpWrite {
			if !s.settleOnce() {
				t.Fatalf("with %s nothing is copied", members)
			}
		}
		s.drop()
		s.refuse("B", block.ErrNoSpace)
		s.settle()
		if got := slices.Contains(s.lines, "B: store view 20 forget head"); got != forgets {
			t.Fatalf("with %s the kept head is given up: %v, want %v:\n%s", members, got, forgets, strings.Join(s.lines, "\n"))
		}
		s.expectAmong("no room B 1M")
		s.pass(2 * time.Second)
		s.settle()
		s.expectAmong("admitted B, 128K copied")
	}
}

// Two targets without room and one member: one gives its head up, and what it has is
// half copied, also when it was opened again. The other waits until that is admitted.
func TestTwoTargetsWithoutRoom(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B C", size: mib, before: func(s *script) {
		dirtyFor("B", "A")(s)
		dirtyFor("C", "A")(s)
		s.replica("A").plant('a', 0, 4*kib)
	}})
	s.wake("B")
	s.wake("C")
	refuseAll := func() {
		for n := ""; ; {
			switch {
			case len(s.waiting[1]) > 0 && s.waiting[1][0].Op == block.OpWrite:
				n = "B"
			case len(s.waiting[2]) > 0 && s.waiting[2][0].Op == block.OpWrite:
				n = "C"
			default:
				n = ""
			}
			if n != "" {
				s.refuse(n, block.ErrNoSpace)
			} else if !s.settleOnce() {
				return
			}
		}
	}
	for range 3 {
		refuseAll()
		s.pass(2 * time.Second)
	}
	s.expectAmong("C: store view 20 forget head")
	s.lose("C")
	for range 3 {
		s.pass(2 * time.Second)
		refuseAll()
	}
	for _, line := range s.lines {
		if strings.HasSuffix(line, "forget head") || strings.HasPrefix(line, "C: store keep head") {
			t.Errorf("with one whole copy besides it: %s", line)
		}
	}
	s.settle()
	s.pass(2 * time.Second)
	s.settle()
	s.expectAmong("admitted B, 448K copied", "admitted C, 256K copied")
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
	s.expectAmong("done 1", "admitted B, 64K copied")
	if s.content("B", 0, 4*kib) != "'w'" {
		t.Error("the target was admitted without an acknowledged write")
	}
}
