package core

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

func TestAttach(t *testing.T) {
	s := beginAttach(t, scene{members: "A B C"})
	s.expect("A: open session 1", "B: open session 1", "C: open session 1")
	s.read(1, 0, 4*kib)
	s.answer("A B")
	s.expect() // not before all have acknowledged the epoch (rule 5)
	s.answer("C")
	s.expect("A: store view 20", "B: store view 20", "C: store view 20")
	s.answer("A C")
	s.expect()
	s.answer("B")
	s.expect("serving", "A: read 0+4K")
}

func TestAttachWaitsForAnAbsentMemberAndRemovesIt(t *testing.T) {
	s := beginAttach(t, scene{members: "A B"})
	s.silent = bit(1)
	s.settle()
	s.expect("A: open session 1", "B: open session 1")
	s.pass(1900 * time.Millisecond)
	s.expect()
	s.pass(200 * time.Millisecond)
	s.expect("propose remove B")
	s.commit()
	// The removal is a mark to be waited out, from the moment at which A
	// acknowledged the epoch (rule 7).
	s.expect("B: close", "lost B: unavailable")
	s.pass(300 * time.Millisecond)
	s.expectNone("propose")
	s.pass(200 * time.Millisecond)
	s.expectAmong("propose waited out")
	s.settle()
	s.expectAmong("A: store view 22 dirty B{}", "serving")
}

// The grace of the others begins when the first is here: if that takes long, all
// of them may be on their way.
func TestAttachGraceBeginsWithTheFirstMember(t *testing.T) {
	s := beginAttach(t, scene{members: "A B"})
	s.pass(3 * time.Second)
	s.answer("A")
	s.expectNone("propose")
	s.pass(time.Second)
	s.answer("B")
	s.expectNone("propose")
}

func TestAttachGoesOnAsSoonAsTheLastMemberIsHere(t *testing.T) {
	s := beginAttach(t, scene{members: "A B"})
	s.answer("A")
	s.step(Event{Kind: EventLost, Replica: replicaID(1), Session: 1, Err: block.ErrUnavailable})
	s.drop()
	s.pass(time.Second)
	s.expect("B: open session 2")
	s.answer("B")
	s.expect("A: store view 20", "B: store view 20")
}

func TestAttachWithoutAMemberWaitsForOne(t *testing.T) {
	s := beginAttach(t, scene{members: "A B"})
	s.silent = bit(0) | bit(1)
	s.pass(4 * time.Second)
	s.expectNone("frozen")
	s.pass(2 * time.Second)
	s.expectAmong("frozen: unavailable")
	s.pass(time.Minute)
	s.expectNone("propose")
	s.wake("A")
	s.pass(time.Second)
	s.settle()
	s.expectAmong("propose remove B", "thawed")
}

func TestAttachWaitsOutOlderLeases(t *testing.T) {
	s := beginAttach(t, scene{members: "A B", before: func(s *script) { s.view.NotWaitedOut = true }})
	s.answer("A")
	s.pass(time.Second)
	s.answer("B")
	s.drop()
	// Lease and margin run from A's acknowledgement, the first.
	s.pass(1499 * time.Millisecond)
	s.expect()
	s.pass(time.Millisecond)
	s.expect("propose waited out")
	s.commit()
	s.expect("A: store view 21", "B: store view 21")
	s.answer("A B")
	s.expect("serving")
}

func TestAttachRemovesAMemberThatLostItsMemory(t *testing.T) {
	s := beginAttach(t, scene{members: "A B C", before: func(s *script) {
		s.replica("A").log.Add(2)
		s.replica("B").log.Add(3)
		s.replica("B").incarnation.DiskSequence++
	}})
	s.answer("A B C")
	s.expectAmong("propose remove B")
	s.commit()
	s.expect("B: close", "lost B: unavailable")
	s.pass(2500 * time.Millisecond)
	s.settle()
	// What B may lack is what the others' logs name.
	s.expectAmong("propose waited out", "A: store view 22 dirty B{2}", "C: store view 22 dirty B{2}", "serving")
}

func TestAttachRecordsTheIncarnationOfAMemberThatLostNothing(t *testing.T) {
	s := beginAttach(t, scene{members: "A B", before: func(s *script) {
		s.replica("B").incarnation.DiskSequence++ // its log is empty
	}})
	s.answer("A B")
	s.expectAmong("propose incarnation B")
	s.commit()
	s.expect("A: store view 21", "B: store view 21")
}

// Rule 17: those that can be reached stay, the attachment ends, in one commit.
func TestAttachWithoutAHealthyMemberEndsTheAttachment(t *testing.T) {
	s := beginAttach(t, scene{members: "A B C", before: func(s *script) {
		for _, n := range []string{"A", "B"} {
			s.replica(n).log.Add(2)
			s.replica(n).incarnation.DiskSequence++
		}
	}})
	s.silent = bit(2)
	s.settle()
	s.expectNone("propose")
	s.write(1, 'w', 0, 4*kib)
	s.pass(5 * time.Second)
	s.expect("propose remove C incarnation A incarnation B end attachment")
	s.commit()
	s.expectAmong("done 1: attachment ended", "stopped: attachment ended")
}

func TestAttachWaitsForAMemberThatLostNothing(t *testing.T) {
	s := beginAttach(t, scene{members: "A B", before: func(s *script) {
		s.replica("A").log.Add(2)
		s.replica("A").incarnation.DiskSequence++
	}})
	s.answer("A")
	s.pass(4 * time.Second)
	s.expectNone("propose")
	s.answer("B")
	s.expect("propose remove A")
}

// Rule 10: B's disk is behind a flush that A knows it to have confirmed.
func TestAttachRemovesAMemberThatWasRolledBack(t *testing.T) {
	s := beginAttach(t, scene{members: "A B", size: 32 * mib, before: func(s *script) {
		s.replica("A").confirmed[replicaID(1)] = block.FlushNumber{Epoch: 4, N: 9}
		s.replica("B").flush = block.FlushNumber{Epoch: 4, N: 8}
	}})
	s.answer("A B")
	s.expectAmong("propose remove B")
	s.settle()
	s.pass(2500 * time.Millisecond)
	s.settle()
	s.expectAmong("A: store view 22 dirty B{0 1}", "serving")
}

// A disk that was rolled back is kept only if there is nothing better; the
// attachment ends with it.
func TestAttachWithOnlyARolledBackMember(t *testing.T) {
	s := beginAttach(t, scene{members: "A", before: func(s *script) {
		s.replica("A").confirmed[replicaID(0)] = block.FlushNumber{Epoch: 4, N: 9}
		s.replica("A").flush = block.FlushNumber{Epoch: 4, N: 8}
	}})
	s.answer("A")
	s.expectAmong("propose end attachment")
	s.commit()
	s.expect("A: flush 1")
	s.answer("A")
	s.expectAmong("stopped: attachment ended")
	if got, want := s.replica("A").flush, (block.FlushNumber{Epoch: s.view.Epoch, N: 1}); got != want {
		t.Errorf("A has flush %v, not %v: the next engine would end its attachment, too", got, want)
	}
}

// It does not answer: the core ends all the same.
func TestEndOfAttachmentWaitsNotForEver(t *testing.T) {
	for name, trouble := range map[string]func(s *script){
		"lost":   func(s *script) { s.lose("A") },
		"silent": func(s *script) { s.pass(10 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			s := beginAttach(t, scene{members: "A", before: func(s *script) {
				s.replica("A").confirmed[replicaID(0)] = block.FlushNumber{Epoch: 4, N: 9}
				s.replica("A").flush = block.FlushNumber{Epoch: 4, N: 8}
			}})
			s.write(1, 'w', 0, 4*kib)
			s.answer("A")
			s.commit()
			s.expectAmong("A: flush 1")
			trouble(s)
			s.expectAmong("done 1: attachment ended", "stopped: attachment ended")
		})
	}
}

func TestAttachRefusesAViewAboveRaft(t *testing.T) {
	s := beginAttach(t, scene{members: "A B", before: func(s *script) {
		s.replica("B").view = s.view.Clone()
		s.replica("B").view.Revision++
	}})
	s.answer("A B")
	s.expectAmong("stopped: stale epoch")
}

func TestAttachEqualisesDirtySets(t *testing.T) {
	s := beginAttach(t, scene{members: "A B", absent: "C D", size: 64 * mib, before: func(s *script) {
		set := func(n string, of int, removal block.Revision, r ...block.Region) {
			d := block.DirtySet{Replica: replicaID(of), Removal: removal}
			for _, g := range r {
				d.Regions.Add(g)
			}
			s.replica(n).dirty = append(s.replica(n).dirty, d)
		}
		// Of C each knows something, under the right name. Of D one set bears
		// the name of an earlier absence: that is no knowledge (rule 22).
		set("A", 2, 10, 1)
		set("B", 2, 10, 2)
		set("A", 3, 10, 1)
		set("B", 3, 7, 1)
	}})
	s.answer("A B")
	s.expectAmong("A: store view 20 dirty C{1 2} dirty D{0 1 2 3}")
}

// A set for a member is what an engine left that ended between the commit of an
// admission and the update that belongs to it.
func TestAttachDropsDirtySetsOfMembers(t *testing.T) {
	s := beginAttach(t, scene{members: "A B", before: func(s *script) {
		s.replica("A").dirty = []block.DirtySet{{Replica: replicaID(1), Removal: 9}}
	}})
	s.answer("A B")
	s.expectAmong("A: store view 20 drop B", "B: store view 20 drop B")
}

// A member that goes while the view is being stored gets time to come back.
func TestAttachMemberLostWhileStoring(t *testing.T) {
	s := beginAttach(t, scene{members: "A B"})
	s.pass(2 * time.Second)
	s.answer("A B")
	s.answer("A")
	s.lose("B")
	s.drop()
	s.pass(time.Second)
	s.answer("B")
	s.expect("B: open session 2", "B: store view 20")
	s.answer("B")
	s.expect("serving")
}

func TestAttachMemberLostForGoodWhileStoring(t *testing.T) {
	s := beginAttach(t, scene{members: "A B"})
	s.answer("A B")
	s.answer("A")
	s.pass(6 * time.Second)
	s.lose("B")
	s.drop()
	s.silent = bit(1)
	s.pass(1900 * time.Millisecond)
	s.expectNone("propose")
	s.pass(200 * time.Millisecond)
	s.expect("propose remove B")
	s.settle()
	s.expectAmong("lost B: unavailable", "propose waited out", "A: store view 22 dirty B{}", "serving")
}
