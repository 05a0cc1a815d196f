package core

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// layersOf begins with A in sync, which holds S1 ('o') below its head ('n') at 0, and
// with B absent.
func layersOf(t testing.TB, change func(*script)) *script {
	t.Helper()
	s := beginServing(t, scene{members: "A", absent: "B", size: 2 * mib, before: func(s *script) {
		a := s.replica("A")
		a.plant('o', 0, 4*kib)
		a.take(snapshotID(1), 4, false)
		a.cuts[0].Valid = true
		a.plant('n', 0, 4*kib)
		a.log = nil
		s.view.Snapshots = []block.Snapshot{{ID: snapshotID(1), Size: mib}}
		dirtyFor("B", "A")(s)
		if change != nil {
			change(s)
		}
	}})
	s.wake("B")
	return s
}

// valid looks that a replica holds exactly the snapshots of the view, as valid.
func (s *script) valid(n string) {
	s.t.Helper()
	r := s.replica(n)
	if len(r.cuts) != len(s.view.Snapshots) {
		s.t.Errorf("%s holds %d cuts of %d snapshots", n, len(r.cuts), len(s.view.Snapshots))
	}
	for _, o := range s.view.Snapshots {
		if c := r.cut(o.ID); c == nil || !c.Valid {
			s.t.Errorf("%s holds %+v", n, c)
		}
	}
}

// A target that missed a cut takes it from its own head, is compared with it first and
// with the head then, and holds it as valid from the takeover on. The layer ends with
// the size that the volume had.
func TestTargetIsComparedLayerByLayer(t *testing.T) {
	s := layersOf(t, nil)
	s.answer("B")
	s.expect("B: store cut S1 as target")
	s.answer("B")
	s.expect("resync B 2M", "A: hash 0+1M of S1", "B: hash 0+1M of S1", "A: hash 1M+1M", "B: hash 1M+1M")
	s.answer("A B")
	s.expect("A: read 0+64K of S1 resync")
	s.settle()
	s.expectAmong("B: write 'o.' 0+64K of S1 resync", "A: hash 0+1M since S1", "B: hash 0+1M since S1", "A: read 0+64K resync",
		"B: write 'n.' 0+64K resync", "B: flush 1", "A: store clean B{0}", "B: store valid S1", "propose admit B",
		"A: store view 21 drop B forget head")
	s.valid("B")
	if layer, head := s.cutContent("B", 1, 0, 4*kib), s.content("B", 0, 4*kib); layer != "'o'" || head != "'n'" {
		t.Errorf("B holds %s below %s", layer, head)
	}
}

// A write that misses the target after its layers were compared changes the head alone:
// a busy chunk is not compared in every layer again and again.
func TestMissedWriteHasTheHeadComparedAlone(t *testing.T) {
	s := layersOf(t, nil)
	for !hasLine(s, "B: hash 0+1M since S1") {
		s.settleOnce()
	}
	s.drop()
	s.core.missed(1, block.Span{Length: 4 * kib})
	s.settle()
	s.expectAmong("A: hash 0+1M", "admitted B, 128K copied")
	s.valid("B")
	s = layersOf(t, nil)
	for !hasLine(s, "B: hash 0+1M since S1") {
		s.settleOnce()
	}
	s.core.missed(1, block.Span{Length: 4 * kib})
	s.drop()
	for !hasLine(s, "A: flush 1") {
		s.settleOnce()
	}
	s.expectNone("A: hash 0+1M of S1")
}

// A layer that is valid does not change any more.
func TestValidLayersAreNotCompared(t *testing.T) {
	s := layersOf(t, func(s *script) {
		b := s.replica("B")
		b.cuts = nil
		b.plant('o', 0, 4*kib)
		b.take(snapshotID(1), 4, false)
		b.cuts[0].Valid = true
		b.take(block.KeptHead, 4, true)
		b.log = nil
	})
	s.settle()
	s.expectNone("B: hash 0+1M of S1")
	s.valid("B")
}

// A replica that took a cut as a member, and lost power before it had flushed it, may
// hold anything there: a flush as a target does not make that valid.
func TestCutTakenAsAMemberIsNotMadeValidByAFlush(t *testing.T) {
	s := layersOf(t, func(s *script) {
		b := s.replica("B")
		b.cuts = nil
		b.plant('x', 0, 4*kib)
		b.take(snapshotID(1), 4, false)
		b.take(block.KeptHead, 4, true)
	})
	s.answer("B")
	s.expect("B: store cut S1 as target")
	for !hasLine(s, "B: hash 0+1M of S1") {
		s.settleOnce()
	}
	s.flush(1)
	s.settle()
	s.expectAmong("B: flush 1", "done 1", "B: write 'o.' 0+64K of S1 resync", "B: store valid S1")
	s.valid("B")
	if got := s.cutContent("B", 1, 0, 4*kib); got != "'o'" {
		t.Errorf("B holds %s", got)
	}
}

// A replica never in sync keeps no head: it has none.
func TestNewReplicaKeepsNoHead(t *testing.T) {
	s := beginServing(t, scene{members: "A", size: mib})
	s.add()
	s.settle()
	s.expectNone("B: store keep head")
	if s.view.InSync() != 2 {
		t.Fatal("it was not admitted")
	}
	s.silent = bit(1)
	s.lose("B")
	s.settle()
	s.wake("B")
	s.pass(time.Second)
	s.settle()
	s.expectAmong("lost B: unavailable", "B: store keep head", "admitted B, 0 copied")
}

// A cut while a target is copied: the target takes it, too, what runs begins again
// with the new layer, and a write waits at the target until it has the cut.
func TestTargetTakesPartInACut(t *testing.T) {
	s := layersOf(t, nil)
	s.answer("B B")
	s.drop()
	s.cutFlushed(2, "A B")
	s.expect("A: flush 1", "B: flush 1", "A: store cut S2", "B: store cut S2 as target")
	s.waiting[1] = s.waiting[1][len(s.waiting[1])-1:] // what was asked before is of no use
	s.waiting[0] = s.waiting[0][len(s.waiting[0])-1:]
	s.answer("A")
	s.drop()
	s.write(1, 'w', 0, 4*kib)
	s.expect("A: write 'w' 0+4K") // not yet at the target
	s.answer("A A")
	s.expectNone("A: hash") // nor a copy
	s.answer("B")
	s.expect("B: write 'w' 0+4K", "A: hash 1M+1M of S2", "B: hash 1M+1M of S2")
	s.settle()
	s.expectAmong("B: write 'n.' 0+64K of S2 resync", "cut S2", "B: store valid S1 valid S2")
	s.valid("A")
	s.valid("B")
	for layer, want := range map[byte]string{1: "'o'", 2: "'n'"} {
		if got := s.cutContent("B", layer, 0, 4*kib); got != want {
			t.Errorf("B holds %s in S%d, want %s", got, layer, want)
		}
	}
	if got := s.content("B", 0, 4*kib); got != "'w'" {
		t.Errorf("B holds %s", got)
	}
}

// What is under way or queued at a target when the cut is taken is in the members' cut
// and may not be in the target's: it is missed, though its region was clean.
func TestWritesQueuedAtATargetAreMissedByItsCut(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B", size: 32 * mib, before: func(s *script) {
		s.replica("A").dirty = []block.DirtySet{{Replica: replicaID(1), Removal: 10, Regions: block.RegionsOf(1)}}
	}})
	s.wake("B")
	s.settleOnly("A")
	s.answer("B")
	s.drop()
	s.write(1, 'w', 0, 4*kib)
	s.settleOnly("A")
	s.write(2, 'x', 0, 4*kib) // behind the first, which B has yet to answer
	s.settleOnly("A")
	s.cut(1)
	s.settle()
	s.expectAmong("A: store cut S1", "B: store cut S1 as target", "cut S1")
	s.pass(time.Second)
	s.settle()
	s.valid("B")
	if got := s.cutContent("B", 1, 0, 4*kib); got != "'x'" {
		t.Errorf("B's cut holds %s", got)
	}
	if got := s.content("B", 0, 4*kib); got != "'x'" {
		t.Errorf("B holds %s", got)
	}
}

// settleOnly lets one replica answer all it has.
func (s *script) settleOnly(n string) {
	s.t.Helper()
	for i := s.index(n); len(s.waiting[i]) > 0; {
		s.reply(i, 0)
	}
}

// What was compared is right in a new layer, too, cleared or not: else a resync beside
// frequent snapshots would begin again with each.
func TestComparedRegionsAreRightInALaterCut(t *testing.T) {
	s := layersOf(t, nil)
	for !hasLine(s, "B: flush 1") {
		s.settleOnce()
	}
	s.drop()
	s.cut(2)
	s.settle()
	s.expectAmong("B: store cut S2 as target", "B: store valid S1 valid S2", "admitted B, 128K copied")
	s.expectNone("A: hash")
	s.valid("B")
}

func hasLine(s *script, want string) bool {
	for _, line := range s.lines {
		if line == want {
			return true
		}
	}
	return false
}

// No target counts from when a cut begins to when its outcome is known.
func TestNoTargetIsAdmittedDuringACut(t *testing.T) {
	s := layersOf(t, nil)
	for s.core.counting < 0 {
		s.settleOnce()
	}
	s.cut(2)
	for s.core.cut.stage == cutWanted && s.settleOnce() {
	}
	if s.core.counting >= 0 {
		t.Fatal("the target counts still")
	}
	for len(s.proposals) == 0 {
		s.settleOnce()
	}
	s.expectAmong("propose snapshot S2")
	s.outcome(block.Unknown)
	s.settleOnly("A")
	s.settleOnly("B")
	s.expectNone("propose admit")
	s.pass(time.Second)
	s.settle()
	s.expectAmong("propose nothing", "propose snapshot S2", "cut S2", "admitted B, 128K copied")
	s.valid("B")
}

// A target that is opened while the outcome of a cut is open waits: whether it has to
// take the cut is not known.
func TestTargetWaitsForTheOutcomeOfACut(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B", size: mib, before: dirtyFor("B", "A")})
	s.cut(1)
	s.answer("A A A")
	s.wake("B")
	s.settleOnly("B")
	s.expectAmong("propose snapshot S1")
	s.outcome(block.Unknown)
	s.settleOnly("A")
	s.expectNone("resync")
	s.pass(time.Second)
	s.settle()
	s.expectAmong("cut S1", "B: store cut S1 as target", "resync B 1M", "B: store valid S1", "admitted B, 0 copied")
	s.valid("B")
}

// Its members may have forgotten a layer before the engine hears that it was deleted.
func TestLayerThatIsDeletedMeanwhile(t *testing.T) {
	for _, n := range []string{"A", "B"} {
		s := layersOf(t, nil)
		s.answer("B B")
		s.replica(n).cuts = nil
		s.settle()
		s.showView(dropSnapshots)
		s.pass(2 * time.Second)
		s.settle()
		s.expectAmong("A: store view 21 forget S1")
		if s.view.InSync() != 2 || s.content("B", 0, 4*kib) != "'n'" {
			t.Errorf("%s forgot the layer, and B is not back with %s", n, s.content("B", 0, 4*kib))
		}
		s.valid("B")
	}
}

// A valid cut is the same on every member, so that any of them may give it.
func TestDamagedLayerIsCopiedFromAnotherMember(t *testing.T) {
	s := beginServing(t, scene{members: "A C", absent: "B", size: mib, before: func(s *script) {
		for _, n := range []string{"A", "C"} {
			r := s.replica(n)
			r.plant('o', 0, 4*kib)
			r.take(snapshotID(1), 4, false)
			r.cuts[0].Valid = true
			r.log = nil
		}
		s.replica("A").cuts[0].bad[0] = true
		s.view.Snapshots = []block.Snapshot{{ID: snapshotID(1), Size: mib}}
		dirtyFor("B", "A", "C")(s)
	}})
	s.wake("B")
	s.settle()
	s.expectAmong("A: hash 0+1M of S1", "C: hash 0+1M of S1", "C: read 0+64K of S1 resync", "admitted B, 64K copied")
	s.valid("B")
}

// With nobody who has the layer intact the target waits; the head is not admitted
// without it.
func TestDamagedLayerOfTheLastMember(t *testing.T) {
	s := layersOf(t, func(s *script) { s.replica("A").cuts[0].bad[0] = true })
	s.settle()
	s.pass(3 * time.Second)
	s.settle()
	s.expectAmong("differ A at 0 of S1: checksum mismatch")
	if s.view.InSync() != 1 {
		t.Fatal("B was admitted without its snapshot")
	}
	s.showView(dropSnapshots)
	s.pass(time.Second)
	s.settle()
	s.expectAmong("admitted B, 64K copied")
}

// A cut taken now in place of one that is older than another would hold what was
// written since: everything is compared.
func TestReplicaThatLacksAnOlderSnapshotIsComparedWhole(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B", size: 32 * mib, before: func(s *script) {
		for n := range byte(2) {
			s.view.Snapshots = append(s.view.Snapshots, block.Snapshot{ID: snapshotID(n + 1), Size: 32 * mib})
			s.replica("A").take(snapshotID(n+1), 4, false)
			s.replica("A").cuts[n].Valid = true
		}
		s.replica("B").take(snapshotID(2), 4, false)
		s.replica("B").cuts[1].Valid = true
		dirtyFor("B", "A")(s)
	}})
	s.wake("B")
	s.settle()
	s.expectAmong("A: store add dirty B{0 1}", "B: store cut S1 as target", "resync B 32M")
	s.valid("B")
}

// While the members take a cut, no copy begins to a target that has taken it: they do not
// hold it yet, and nothing is wrong with them.
func TestNoCopyBeginsWhileACutIsTaken(t *testing.T) {
	s := layersOf(t, nil)
	s.answer("B B")
	s.drop()
	s.cutFlushed(2, "A")
	s.silent |= bit(0)
	for range 3 {
		s.settleOnce()
	}
	if !hasLine(s, "B: store cut S2 as target") {
		t.Fatal("B does not take the cut")
	}
	s.expectNone("B: hash 0+1M of S1")
	s.silent = 0
	s.settle()
	s.expectAmong("A: hash 0+1M of S1", "cut S2", "admitted B, 128K copied")
	s.expectNone("differ A at 0 of S2: checksum mismatch")
	s.valid("B")
}

// A replica takes a cut that it lacks from its own head, which may be longer than the
// snapshot: what lies behind its end was never compared in that layer, and is hashed in
// the next one though the replica holds it but once.
func TestWhatLiesBehindALayerIsCompared(t *testing.T) {
	s := beginServing(t, scene{members: "A", absent: "B", size: mib, before: func(s *script) {
		a := s.replica("A")
		a.take(snapshotID(1), 4, false)
		a.cuts[0].Valid = true
		s.replica("B").plant('x', 768*kib, 4*kib)
		s.view.Snapshots = []block.Snapshot{{ID: snapshotID(1), Size: 512 * kib}}
		dirtyFor("B", "A")(s)
	}})
	s.wake("B")
	s.settle()
	s.expectAmong("B: hash 0+512K of S1", "B: hash 0+1M", "admitted B, 64K copied")
	if got := s.content("B", 768*kib, 4*kib); got != "'.'" {
		t.Errorf("B holds %s, which A has zeroed", got)
	}
}

// The layer that the next one is compared with may be forgotten like that itself: the
// next one is compared whole.
func TestLayerBeforeIsDeletedMeanwhile(t *testing.T) {
	for _, n := range []string{"A", "B"} {
		s := layersOf(t, nil)
		for !hasLine(s, "B: hash 0+1M since S1") {
			s.settleOnce()
		}
		s.replica(n).cuts = nil
		s.drop()
		s.showView(dropSnapshots)
		s.pass(2 * time.Second)
		s.settle()
		s.expectAmong("A: hash 0+1M", "B: hash 0+1M", "admitted B, 128K copied")
		if s.view.InSync() != 2 || s.content("B", 0, 4*kib) != "'n'" {
			t.Errorf("%s forgot the layer, and B is not back with %s", n, s.content("B", 0, 4*kib))
		}
		s.valid("B")
	}
}
