package core

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

func (s *script) scrub(asked *Scrub) {
	s.t.Helper()
	s.step(Event{Kind: EventScrub, Scrub: asked})
}

// live lets time go by while everybody answers at once.
func (s *script) live(d time.Duration) {
	s.t.Helper()
	for end := s.now + block.Instant(d); s.now < end; {
		s.settle()
		s.pass(100 * time.Millisecond)
	}
	s.settle()
}

// A scrub hashes chunk after chunk on every member, and takes no range.
func TestScrubWalksTheVolume(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: 2*mib + 512})
	s.scrub(&Scrub{})
	s.expect("A: hash 0+1M", "B: hash 0+1M")
	if got := s.core.Status().Scrub; !got.Active || got.Offset != 0 || got.End != 2*mib+512 {
		t.Errorf("status %+v", got)
	}
	s.write(1, 'w', 0, 4*kib)
	s.expect("A: write 'w' 0+4K", "B: write 'w' 0+4K")
	s.answer("A B")
	s.expect("scrubbed to 1M A B", "A: hash 1M+1M", "B: hash 1M+1M")
	s.answer("A B A B")
	s.settle()
	s.pass(time.Second)
	s.settle()
	s.expectAmong("done 1", "scrubbed to 2M A B", "scrub done at 2097664 A B")
	if got := s.core.Status().Scrub; got != (ScrubStatus{}) {
		t.Errorf("status %+v after the end", got)
	}
}

// A volume that grows during the last step is walked to its new end, from the beginning of
// the extent that has become longer: replicas hash nothing less.
func TestScrubOfAVolumeThatGrows(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: mib + 68*kib})
	s.scrub(&Scrub{From: mib})
	s.expect("A: hash 1M+68K", "B: hash 1M+68K")
	s.answer("A")
	s.grow(3 * mib)
	s.expect("A: store grow 3M", "B: store grow 3M")
	s.settleOnly("A")
	s.waiting[1] = append(s.waiting[1][1:], s.waiting[1][0])
	s.answer("B")
	s.expect("propose size 3M")
	s.commit()
	s.settle()
	s.expectAmong("resized 3M", "A: hash 1088K+960K", "B: hash 1088K+960K", "A: hash 2M+1M", "scrub done at 3M")
}

// Damage is repaired from a peer and told place by place, with the disk.
func TestScrubRepairsDamage(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: mib})
	s.replica("A").plant('w', 0, mib)
	s.replica("B").plant('w', 0, mib)
	for _, b := range []int64{3, 4, 9, 100} {
		s.replica("B").bad[b] = true
	}
	s.replica("A").bad[10] = true
	s.scrub(&Scrub{})
	s.expect("A: hash 0+1M", "B: hash 0+1M")
	s.answer("A B")
	s.expect("A: hash 0+64K", "B: hash 0+64K")
	s.settle()
	s.expectAmong("A: write 'w' 12K+8K resync", "repaired 8K of B at 12K: checksum mismatch",
		"repaired 4K of A at 40K: checksum mismatch", "repaired 4K of B at 36K: checksum mismatch",
		"A: hash 384K+64K", "repaired 4K of B at 400K: checksum mismatch", "scrub done at 1M A B")
	if n := len(s.replica("A").bad) + len(s.replica("B").bad); n != 0 {
		t.Errorf("%d blocks are damaged", n)
	}
}

// Rule 30: what differs though it verifies is reported, and left as it is.
func TestScrubReportsDifferences(t *testing.T) {
	s := beginServing(t, scene{members: "A B C", size: mib})
	s.replica("C").plant('x', 128*kib, 4*kib)
	s.scrub(&Scrub{})
	s.settle()
	s.expectAmong("differ C at 128K", "scrub done at 1M A B C")
	if got := s.content("C", 128*kib, 8*kib); got != "'x.'" {
		t.Errorf("C has %s", got)
	}
	if got := s.content("A", 128*kib, 8*kib); got != "'.'" {
		t.Errorf("A has %s", got)
	}
}

// The one that is alone with what it has is told, also if it is the source of repairs.
func TestScrubTellsWhoIsAlone(t *testing.T) {
	s := beginServing(t, scene{members: "A B C", size: mib})
	s.replica("A").plant('x', 0, 4*kib)
	s.replica("B").plant('y', 64*kib, 4*kib)
	s.replica("C").bad[17] = true
	s.scrub(&Scrub{})
	s.settle()
	s.expectAmong("differ A at 0", "differ B at 64K", "repaired 4K of C at 68K: checksum mismatch", "scrub done at 1M A B C")
}

// A lone member has its checksums, and nobody to take a block from.
func TestScrubOfALoneMember(t *testing.T) {
	s := beginServing(t, scene{members: "A", size: mib + 512})
	s.replica("A").plant('w', 0, mib)
	for _, b := range []int64{1, 2, 20, 256} {
		s.replica("A").bad[b] = true
	}
	s.scrub(&Scrub{})
	s.settle()
	s.expect("A: hash 0+1M", "A: hash 0+64K", "unreadable A at 4K", "A: hash 64K+64K", "unreadable A at 80K",
		"scrubbed to 1M A", "A: hash 1M+512", "A: hash 1M+512", "unreadable A at 1M", "scrub done at 1049088 A")
}

// A write between two hashes makes them differ: the extent is hashed again with its
// range held, and a write waits for no more than that.
func TestScrubConfirmsWhatChangedMeanwhile(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: mib})
	s.scrub(&Scrub{})
	s.answer("A")
	s.write(1, 'w', 64*kib, 4*kib)
	s.answer("A")
	s.reply(1, 1) // B takes the write before it hashes
	s.drop()
	s.answer("B")
	s.expect("A: hash 64K+64K", "B: hash 64K+64K")
	s.write(2, 'x', 64*kib, 4*kib)
	s.expect()
	s.write(3, 'y', 0, 4*kib)
	s.expect("A: write 'y' 0+4K", "B: write 'y' 0+4K")
	s.answer("A B")
	s.expectAmong("scrub done at 1M A B", "A: write 'x' 64K+4K")
	s.settle()
	s.expectNone("differ")
}

// While clients are at work a step is one extent.
func TestScrubStepsAreSmallBesideClients(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: mib})
	for range usualRequests {
		s.write(1, 'w', 0, 4*kib)
		s.now += block.Instant(millisecond)
		s.settle()
	}
	s.write(1, 'w', 0, 4*kib)
	s.drop()
	s.scrub(&Scrub{})
	s.pass(time.Duration(restMax))
	s.expect("A: hash 0+64K", "B: hash 0+64K")
	s.settle()
	s.pass(time.Second)
	s.settle()
	s.expectAmong("done 1", "scrub done at 1M A B")
}

// Repairs that somebody waits for, and resyncs, come first.
func TestScrubComesLast(t *testing.T) {
	s := beginServing(t, scene{members: "A C", absent: "B", size: 2 * mib, before: func(s *script) {
		dirtyFor("B", "A", "C")(s)
		for _, r := range s.replicas {
			r.log = nil
		}
	}})
	s.wake("B")
	s.answer("B")
	s.scrub(&Scrub{})
	s.expectAmong("A: hash 0+1M", "B: hash 0+1M", "A: hash 1M+1M", "B: hash 1M+1M")
	s.answer("A B")
	s.expectNone("C: hash")
	s.settle()
	s.pass(time.Second)
	s.settle()
	// B was not there for all of it.
	s.expectAmong("scrub done at 2M A C")
}

// The divergent chunks of a new engine are made equal, not scrubbed.
func TestScrubWaitsForDivergentChunks(t *testing.T) {
	s := divergentAttached(t, nil)
	s.scrub(&Scrub{})
	s.settle()
	s.expectAmong("repaired 64K of B at 17M", "scrub done at 32M A B")
}

// Who leaves is not covered, though it comes back.
func TestScrubWhileAMemberLeaves(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: 3 * mib})
	for _, n := range []string{"A", "B"} {
		s.replica(n).plant('w', 0, 3*mib)
	}
	s.scrub(&Scrub{Rate: mib / 4})
	s.answer("A B")
	s.expectAmong("scrubbed to 1M A B")
	s.silent = bit(1)
	s.lose("B")
	s.live(5 * time.Second)
	s.expectAmong("lost B: unavailable", "scrubbed to 2M A")
	s.wake("B")
	s.live(10 * time.Second)
	s.expectAmong("admitted B, 0 copied", "scrub done at 3M A")
}

// The next engine goes on where the last one was.
func TestScrubGoesOn(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: 4 * mib})
	s.scrub(&Scrub{From: mib + 4*kib, To: 2*mib + 1, Covered: []block.ReplicaID{s.replica("A").id, {ID: block.ID{0: 99}}}})
	s.settle()
	s.expect("A: hash 1M+1M", "B: hash 1M+1M", "scrubbed to 2M A", "A: hash 2M+1M", "B: hash 2M+1M", "scrub done at 3M A")
	s.scrub(&Scrub{From: 5 * mib})
	s.expect("scrub done at 5M")
}

// The rate bounds data; what was never written costs little.
func TestScrubKeepsToItsRate(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: 8 * mib})
	for _, n := range []string{"A", "B"} {
		s.replica(n).plant('w', 0, 4*mib)
	}
	s.scrub(&Scrub{Rate: mib})
	s.settle()
	s.expectAmong("scrubbed to 1M A B")
	s.expectNone("A: hash")
	s.pass(999 * time.Millisecond)
	s.settle()
	s.expectNone("A: hash")
	s.pass(time.Millisecond)
	s.settle()
	s.expectAmong("A: hash 1M+1M", "scrubbed to 2M A B")
	for range 2 {
		s.pass(time.Second)
		s.settle()
	}
	s.expectAmong("scrubbed to 4M A B")
	for range 5 {
		s.pass(time.Second / sparse)
		s.settle()
	}
	s.expectNone("A: hash 7M")
	for range 16 {
		s.pass(time.Second / sparse)
		s.settle()
	}
	s.expectAmong("scrub done at 8M A B")
}

// One that is called off, or begun anew, leaves nothing of the old one.
func TestScrubIsReplaced(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: 2 * mib})
	s.replica("B").bad[1] = true
	s.scrub(&Scrub{})
	s.answer("A B")
	s.drop() // an extent is being confirmed
	s.scrub(nil)
	s.settle()
	s.expectAmong("repaired 4K of B at 4K: checksum mismatch")
	s.expectNone("scrub")
	s.scrub(&Scrub{})
	s.answer("A")
	s.scrub(&Scrub{From: mib, Covered: []block.ReplicaID{s.replica("A").id, s.replica("B").id}})
	s.answer("B")
	s.settle()
	s.expectAmong("A: hash 1M+1M", "scrub done at 2M A B")
}

// A frozen write keeps its range; a scrub that doubts it does not keep the only slot
// from the copies that would thaw it.
func TestScrubLeavesSlotsToCopies(t *testing.T) {
	s := beginServing(t, scene{members: "A B", size: mib, config: func(c *Config) { c.MinInSync, c.Limits.Copies = 2, 1 }})
	s.replica("B").bad[1] = true
	s.scrub(&Scrub{})
	s.write(1, 'w', 4*kib, 4*kib)
	s.answer("A B")
	s.expectNone("A: hash 0+64K")
	s.silent = bit(1)
	s.lose("B")
	s.settle()
	s.wake("B")
	s.pass(time.Minute)
	s.settle()
	s.expectAmong("admitted B, 64K copied", "done 1", "scrub done at 1M A B")
}

// What cannot be hashed is not verified.
func TestScrubOfADiskThatFails(t *testing.T) {
	s := beginServing(t, scene{members: "A", size: mib})
	s.replica("A").faults = append(s.replica("A").faults, func(r *block.Request) error {
		if r.Op == block.OpHash {
			return block.ErrDiskFailed
		}
		return nil
	})
	s.scrub(&Scrub{})
	s.settle()
	s.expectAmong("scrub done at 1M")
}
