package core

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

func (s *script) grow(size int64) {
	s.t.Helper()
	s.step(Event{Kind: EventGrow, Size: size})
}

// Every member has the size before it is proposed, and it is told when it is committed
// and stored.
func TestGrow(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: mib + 4*kib})
	s.grow(40 * mib)
	s.expect("A: store grow 40M", "B: store grow 40M")
	s.answer("A")
	s.expect()
	s.answer("B")
	s.expect("propose size 40M")
	s.write(1, 'w', 39*mib, 4*kib)
	s.expect("done 1: invalid argument")
	s.commit()
	s.expect("A: store view 21", "B: store view 21")
	s.answer("A B")
	s.expect("resized 40M")
	s.write(2, 'w', 39*mib, 4*kib)
	s.zero(3, 0, 40*mib)
	s.settle()
	s.expectAmong("done 2", "done 3")
	s.grow(40 * mib)
	s.expect("resized 40M")
	s.grow(block.MaxVolumeSize + mib)
	s.grow(40*mib + 1)
	s.expect()
}

// A target that gets writes grows with the members, one that comes later before it is
// sent any, whether the size is committed or only about to be.
func TestTargetsGrowBeforeTheyGetAWrite(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B C", size: mib, before: func(s *script) {
		dirtyFor("B", "A")(s)
		dirtyFor("C", "A")(s)
	}})
	s.wake("B")
	s.answer("B")
	s.drop()
	s.grow(2 * mib)
	s.expect("A: store grow 2M", "B: store grow 2M")
	s.wake("C")
	for len(s.proposals) == 0 {
		s.settleOnce()
	}
	s.settleOnly("C")
	s.expectAmong("propose size 2M", "C: store grow 2M", "resync C 1M")
	s.settle()
	s.expectAmong("resized 2M")
	s.write(1, 'w', mib, 4*kib)
	s.pass(time.Second)
	s.settle()
	if s.view.InSync() != 3 {
		t.Fatalf("in sync are %d", s.view.InSync())
	}
	for _, n := range []string{"A", "B", "C"} {
		if s.replica(n).size != 2*mib || s.content(n, mib, 4*kib) != "'w'" {
			t.Errorf("%s has %d bytes and %s", n, s.replica(n).size, s.content(n, mib, 4*kib))
		}
	}
}

// An engine that finds replicas larger than the volume goes on with the small size
// until it is told of the intent; then nobody has to grow.
func TestGrowthThatAnEarlierEngineBegan(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: mib, before: func(s *script) {
		s.replica("A").size, s.replica("B").size = 2*mib, 2*mib
	}})
	s.grow(2 * mib)
	s.expect("propose size 2M")
	s.outcome(block.Unknown)
	s.pass(time.Second)
	s.settle()
	s.expectAmong("propose nothing", "propose size 2M", "resized 2M")
}

func TestGrowthThatRaftDoesNotWant(t *testing.T) {
	s := beginServing(t, scene{members: "A", size: mib})
	s.grow(2 * mib)
	s.answer("A")
	s.drop()
	s.outcome(block.Conflict)
	s.pass(10 * time.Second)
	s.expectNone("propose")
	s.cut(1)
	s.settle()
	s.expectNone("A: store cut") // the replica has another size than the volume
	s.grow(3 * mib)
	s.settle()
	s.expectAmong("A: store grow 3M", "resized 3M", "cut S1")
}

// Growing and a cut keep out of each other's way: a cut has one size.
func TestCutWaitsForGrowth(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: mib})
	s.grow(2 * mib)
	s.cut(1)
	s.settle()
	s.expectAmong("propose size 2M", "resized 2M", "A: store cut S1", "cut S1")
	s.cutFlushed(2, "A B")
	s.grow(3 * mib)
	s.settle()
	s.expectAmong("A: store cut S2", "cut S2", "A: store grow 3M", "resized 3M")
	if got := s.view.Snapshots[1].Size; got != 2*mib {
		t.Errorf("the snapshot has %d bytes", got)
	}
}

// A member that fails while it grows is removed first.
func TestMemberThatFailsWhileItGrows(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: mib})
	s.grow(2 * mib)
	s.silent = bit(1)
	s.lose("B")
	s.settle()
	s.expectAmong("A: store grow 2M", "propose remove B", "propose size 2M", "resized 2M")
}

// A member smaller than the volume was put back, or grew nowhere but in Raft.
func TestMemberOfAnOlderSizeLeaves(t *testing.T) {
	s := beginAttach(t, scene{members: "A B", size: 2 * mib, before: func(s *script) { s.replica("B").size = mib }})
	s.settle()
	s.pass(3 * time.Second)
	s.settle()
	s.expectAmong("propose remove B", "serving")
	s.pass(time.Second)
	s.settle()
	if s.view.InSync() != 2 || s.replica("B").size != 2*mib {
		t.Errorf("B has %d bytes, %d are in sync", s.replica("B").size, s.view.InSync())
	}
}
