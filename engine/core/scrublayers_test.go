package core

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// layThree gives a replica S1 ('o' at 0 and at 128K), S2 (which has nothing of its own),
// S3 ('p' at 0, 'q' at 1M) and a head ('n' at 0).
func layThree(r *replica) {
	take := func(n byte) {
		r.take(snapshotID(n), 4, false)
		r.cuts[len(r.cuts)-1].Valid = true
	}
	r.plant('o', 0, 4*kib)
	r.plant('o', 128*kib, 4*kib)
	take(1)
	take(2)
	r.plant('p', 0, 4*kib)
	r.plant('q', mib, 4*kib)
	take(3)
	r.plant('n', 0, 4*kib)
	r.log = nil
}

// layered begins with members of that history; S1 and S2 are of the first MiB of two.
func layered(t testing.TB, members string, change func(*script)) *script {
	t.Helper()
	return beginServing(t, scene{members: members, size: 2 * mib, before: func(s *script) {
		for _, r := range s.replicas {
			layThree(r)
			r.cuts[0].Size, r.cuts[1].Size = mib, mib
		}
		s.view.Snapshots = []block.Snapshot{{ID: snapshotID(1), Size: mib}, {ID: snapshotID(2), Size: mib}, {ID: snapshotID(3), Size: 2 * mib}}
		if change != nil {
			change(s)
		}
	}})
}

// A scrub goes chunk by chunk, in each from the oldest snapshot to the head, and leaves
// out the layers that have nothing of their own there.
func TestScrubWalksThroughTheLayers(t *testing.T) {
	s := layered(t, "A B", nil)
	s.scrub(&Scrub{})
	s.expect("A: hash 0+1M of S1", "B: hash 0+1M of S1")
	s.answer("A B")
	s.expect("A: hash 0+1M of S3 since S1", "B: hash 0+1M of S3 since S1")
	s.answer("A B")
	s.expect("A: hash 0+1M since S3", "B: hash 0+1M since S3")
	s.answer("A B")
	s.expect("scrubbed to 1M A B", "A: hash 1M+1M of S3", "B: hash 1M+1M of S3")
	s.answer("A B")
	s.expect("A: hash 1M+1M since S3", "B: hash 1M+1M since S3")
	s.settle()
	s.expect("scrub done at 2M A B")
}

// Damage of a layer is repaired there from a peer, with the range held, and told with
// the snapshot. The head, which shows the block, has it back with it.
func TestScrubRepairsALayer(t *testing.T) {
	s := layered(t, "A B C", nil)
	b := s.replica("B")
	for _, o := range b.cuts {
		o.bad[32] = true
	}
	b.bad[32] = true
	s.replica("C").cut(snapshotID(3)).bad[0] = true
	s.scrub(&Scrub{})
	for !hasLine(s, "A: hash 128K+64K of S1") {
		s.settleOnce()
	}
	s.write(1, 'w', 192*kib, 4*kib)
	s.write(2, 'w', 132*kib, 4*kib)
	s.expectAmong("A: hash 128K+64K of S1", "B: hash 128K+64K of S1", "C: hash 128K+64K of S1", "A: write 'w' 192K+4K")
	s.settle()
	s.expectAmong("A: read 128K+4K of S1 resync", "B: write 'o' 128K+4K of S1 repair resync",
		"repaired 4K of B at 128K of S1: checksum mismatch", "A: write 'w' 132K+4K",
		"C: write 'p' 0+4K of S3 repair resync", "repaired 4K of C at 0 of S3: checksum mismatch", "scrub done at 2M A B C")
	s.expectNone("repaired 4K of B at 128K: checksum mismatch")
	if len(b.bad) > 0 || len(b.cut(snapshotID(2)).bad) > 0 || len(s.replica("C").cut(snapshotID(3)).bad) > 0 {
		t.Error("damage is left")
	}
	if len(b.log) > 0 && b.log.Has(1) {
		t.Error("a repair of a layer has logged a region")
	}
}

// A layer that differs though it verifies is told and left, and so is one that nobody
// has, and one whose store says that it had other bytes.
func TestScrubReportsLayers(t *testing.T) {
	s := layered(t, "A B C", func(s *script) {
		s.replica("C").cut(snapshotID(3)).blocks[0] = make([]byte, block.BlockSize)
		for _, r := range s.replicas {
			for _, o := range r.cuts {
				o.bad[32] = true
			}
			r.bad[32] = true
		}
	})
	s.scrub(&Scrub{})
	s.settle()
	s.expectAmong("unreadable A at 128K of S1", "unreadable B at 128K of S1", "unreadable C at 128K of S1", "differ C at 0 of S3",
		"scrub done at 2M A B C")
	s.expectNone("C: write 'p' 0+4K of S3 repair resync")

	s = layered(t, "A B", func(s *script) {
		b := s.replica("B")
		b.cut(snapshotID(1)).blocks[32] = make([]byte, block.BlockSize)
		b.cut(snapshotID(1)).bad[32] = true
	})
	s.scrub(&Scrub{})
	s.settle()
	s.expectAmong("B: write 'o' 128K+4K of S1 repair resync", "differ B at 128K of S1", "scrub done at 2M A")
	s.expectNone("repaired 4K of B at 128K of S1: checksum mismatch")
}

// A snapshot that is deleted during a walk is left out; the part is begun anew. A member
// that has dropped it already is well.
func TestScrubOfADeletedLayer(t *testing.T) {
	for _, deleted := range []byte{1, 3} {
		s := layered(t, "A B", nil)
		s.scrub(&Scrub{})
		s.answer("A")
		s.replica("B").updateCuts(&block.Update{DropCuts: []block.SnapshotID{snapshotID(deleted)}})
		s.answer("B")
		if deleted == 3 {
			s.answer("A B")
		}
		s.drop()
		s.view.Revision++
		s.view = s.view.Clone()
		for i := range s.view.Snapshots {
			if s.view.Snapshots[i].ID == snapshotID(deleted) {
				s.view.Snapshots = append(s.view.Snapshots[:i], s.view.Snapshots[i+1:]...)
				break
			}
		}
		s.step(Event{Kind: EventView, View: s.view.Clone()})
		s.live(2 * time.Second)
		first := map[byte]string{1: "A: hash 0+1M of S2", 3: "A: hash 0+1M of S1"}
		s.expectAmong(first[deleted], "scrub done at 2M A B")
		s.expectNone("lost B")
	}
}

// A replica that holds its cuts in another order does not know what comes next: nothing
// is left out.
func TestScrubOfMisorderedLayers(t *testing.T) {
	s := layered(t, "A B", func(s *script) {
		b := s.replica("B")
		b.cuts[0], b.cuts[1] = b.cuts[1], b.cuts[0]
	})
	s.scrub(&Scrub{})
	s.settle()
	s.expectAmong("A: hash 0+1M of S1", "A: hash 0+1M of S2 since S1", "A: hash 0+1M of S3 since S2", "A: hash 0+1M since S3",
		"scrub done at 2M A B")
}

// A member that leaves during the repair of a layer is not waited for.
func TestMemberLeavesDuringARepairOfALayer(t *testing.T) {
	s := layered(t, "A B C", nil)
	s.replica("B").cut(snapshotID(1)).bad[32] = true
	s.scrub(&Scrub{})
	for !hasLine(s, "B: write 'o' 128K+4K of S1 repair resync") {
		s.settleOnce()
	}
	s.silent |= bit(1)
	s.lose("B")
	s.write(1, 'w', 128*kib, 4*kib)
	s.live(4 * time.Second)
	s.expectAmong("lost B: unavailable", "done 1", "scrub done at 2M A C")
}

// Snapshots that have nothing of their own cost a walk nothing, however many there are.
func TestScrubCostsWhatTheLayersHold(t *testing.T) {
	const snapshots = 250
	s := beginServing(t, scene{members: "A B", size: 2 * mib, before: func(s *script) {
		for _, r := range s.replicas {
			r.plant('o', 0, 4*kib)
		}
		for n := range byte(snapshots) {
			for _, r := range s.replicas {
				if n == 100 {
					r.plant('p', mib, 4*kib)
				}
				r.take(snapshotID(n+1), 4, false)
				r.cuts[n].Valid = true
				r.log = nil
			}
			s.view.Snapshots = append(s.view.Snapshots, block.Snapshot{ID: snapshotID(n + 1), Size: 2 * mib})
		}
	}})
	s.scrub(&Scrub{})
	s.settle()
	s.expect("A: hash 0+1M of S1", "B: hash 0+1M of S1", "A: hash 0+1M since S1", "B: hash 0+1M since S1", "scrubbed to 1M A B",
		"A: hash 1M+1M of S1", "B: hash 1M+1M of S1", "A: hash 1M+1M of S101 since S1", "B: hash 1M+1M of S101 since S1",
		"A: hash 1M+1M since S101", "B: hash 1M+1M since S101", "scrub done at 2M A B")
}
