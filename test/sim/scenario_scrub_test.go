package sim

import (
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// TestScenarioScrubs plays scrubs beside what could mislead them, by name.
func TestScenarioScrubs(t *testing.T) {
	for _, sc := range []struct {
		name string
		play func(s *scene)
	}{
		{"scrub-finds", scrubFinds},
		{"scrub-differ", scrubDiffer},
		{"scrub-beside-write", scrubBesideWrite},
		{"scrub-rot-beside-write", scrubRotBesideWrite},
		{"scrub-moves", scrubMoves},
		{"scrub-absent", scrubAbsent},
		{"scrub-grows", scrubGrows},
		{"scrub-layers", scrubLayers},
		{"scrub-layer-repairs", scrubLayerRepairs},
	} {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 3; seed++ {
				sc.play(newScene(t, seed))
			}
		})
	}
}

// scrub walks through the volume to the end, and returns where somebody was told to
// have had damage repaired, and where to differ.
func (s *scene) scrub(asked *core.Scrub) (repaired, differ []int64) {
	s.t.Helper()
	s.options.Plant.effect = func(_ *host, ef *core.Effect) bool {
		switch n := &ef.Notice; {
		case ef.Kind != core.EffectNotice:
		case n.Kind == core.NoticeRepaired && n.Err != nil:
			repaired = append(repaired, n.Offset)
		case n.Kind == core.NoticeDiffer && n.Err == nil:
			differ = append(differ, n.Offset)
		}
		return true
	}
	h := s.v.current
	h.scrub(asked)
	s.until("the end of a scrub", func() bool { return h.scrubbed.Done })
	return repaired, differ
}

// scrubFinds: bits have flipped on every disk, in places that nobody reads.
func scrubFinds(s *scene) {
	s.write(0, 2*block.ExtentSize)
	s.write(2*block.RegionSize+2*block.ChunkSize, 8*block.ExtentSize)
	s.flush()
	s.wait(4 * second) // the logs are cleared
	places := []int64{block.BlockSize, 2*block.RegionSize + 2*block.ChunkSize, 2*block.RegionSize + 2*block.ChunkSize + 5*block.ExtentSize}
	for node, at := range places {
		s.rot(node, uint64(at)/block.SectorSize)
	}
	repaired, differ := s.scrub(&core.Scrub{})
	if !slices.Equal(repaired, places) || differ != nil {
		s.t.Fatalf("repaired at %v, differing at %v, want repairs at %v", repaired, differ, places)
	}
	if n := len(s.v.current.scrubbed.Covered); n != 3 {
		s.t.Fatalf("%d replicas are covered", n)
	}
	for node, at := range places {
		if _, err := s.readReplica(s.v.replicas[node], block.SnapshotID{}, at, block.BlockSize); err != nil {
			s.t.Fatalf("replica %d at %d: %v", node, at, err)
		}
	}
	s.rest()
}

// scrubDiffer: B holds other bytes than A and C, and all verify. That is told, and
// nobody's copy is chosen.
func scrubDiffer(s *scene) {
	s.write(0, 2*block.ExtentSize)
	s.flush()
	s.wait(4 * second)
	other := s.scribble(1, block.ExtentSize)
	repaired, differ := s.scrub(&core.Scrub{})
	if repaired != nil || !slices.Equal(differ, []int64{block.ExtentSize}) {
		s.t.Fatalf("repaired at %v, differing at %v", repaired, differ)
	}
	got, err := s.readReplica(s.v.replicas[1], block.SnapshotID{}, block.ExtentSize, block.SectorSize)
	if err != nil || string(got) != string(other) {
		s.t.Fatalf("a copy that differed was made equal: %v", err)
	}
	s.write(block.ExtentSize, block.BlockSize)
	s.rest()
}

// scrubGrows: the volume becomes larger, by no whole extents, while its last part is
// hashed. The walk goes on to the new end, and nobody leaves for it.
func scrubGrows(s *scene) {
	s.growBy(growthStep)
	hashed := false
	release := s.hold(func(_ *conn, req *block.Request) bool {
		last := req.Op == block.OpHash && req.Span().End() == s.v.size
		hashed = hashed || last
		return last
	})
	h := s.v.current
	h.scrub(&core.Scrub{})
	s.until("the last part", func() bool { return hashed })
	s.growBy(growthStep)
	release()
	s.until("the end of a scrub", func() bool { return h.scrubbed.Done })
	if h.scrubbed.Offset != s.v.size || len(h.scrubbed.Covered) != 3 || s.paths.counts["view: removal"] > 0 {
		s.t.Fatalf("%+v of %d bytes, %d removals", h.scrubbed, s.v.size, s.paths.counts["view: removal"])
	}
	s.rest()
}

// scrubBesideWrite: a write has reached A and C, and not B, when all of them are hashed.
func scrubBesideWrite(s *scene) {
	s.write(0, 2*block.ExtentSize)
	s.flush()
	release := s.hold(func(c *conn, req *block.Request) bool { return c.to.index == 1 && req.Op == block.OpWrite })
	w := s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(50 * millisecond)
	told := false
	s.options.Plant.effect = func(_ *host, ef *core.Effect) bool {
		told = told || ef.Kind == core.EffectNotice && ef.Notice.Kind == core.NoticeDiffer
		return true
	}
	h := s.v.current
	h.scrub(&core.Scrub{})
	s.wait(100 * millisecond)
	release()
	s.end(w)
	s.until("the end of a scrub", func() bool { return h.scrubbed.Done })
	if told {
		s.t.Fatal("a write under way passed for a difference")
	}
	s.want(s.read(0), value(w.id))
	s.rest()
}

// scrubRotBesideWrite: A has rot in an extent that a scrub repairs while a client
// writes into it. The repair must not bring back what the write replaces.
func scrubRotBesideWrite(s *scene) {
	s.write(0, block.ExtentSize)
	s.flush()
	s.wait(4 * second)
	s.rot(0, 0)
	// What the scrub reads from a peer is held until the write is under way.
	var w *operation
	release := s.hold(func(_ *conn, req *block.Request) bool {
		return req.Op == block.OpWrite && req.Flags&block.FlagResync != 0
	})
	h := s.v.current
	h.scrub(&core.Scrub{})
	s.wait(50 * millisecond)
	w = s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(50 * millisecond)
	release()
	s.end(w)
	s.until("the end of a scrub", func() bool { return h.scrubbed.Done })
	s.want(s.read(0), value(w.id))
	s.rest()
	s.want(s.read(0), value(w.id))
}

// scrubMoves: the next engine goes on where the last one was, and what lies before is
// not read again.
func scrubMoves(s *scene) {
	s.write(0, block.ExtentSize)
	s.write(2*block.RegionSize+block.ChunkSize, block.ExtentSize)
	s.flush()
	s.wait(4 * second)
	h := s.v.current
	h.scrub(&core.Scrub{Rate: block.RegionSize})
	s.until("half of a scrub", func() bool { return h.scrubbed.Offset > block.RegionSize })
	at := h.scrubbed
	s.killEngine(1)
	s.serving()
	s.rot(0, 0)
	s.rot(0, uint64(2*block.RegionSize+block.ChunkSize)/block.SectorSize)
	repaired, _ := s.scrub(&core.Scrub{From: at.Offset, Covered: at.Covered})
	if !slices.Equal(repaired, []int64{2*block.RegionSize + block.ChunkSize}) {
		s.t.Fatalf("repaired at %v, beginning at %d", repaired, at.Offset)
	}
	if n := len(s.v.current.scrubbed.Covered); n != 3 {
		s.t.Fatalf("%d replicas are covered", n)
	}
	s.read(0)
	s.rest()
}

// scrubAbsent: C is away for a part of the walk, and is not said to be verified.
func scrubAbsent(s *scene) {
	s.write(0, block.ExtentSize)
	s.flush()
	h := s.v.current
	h.scrub(&core.Scrub{Rate: block.RegionSize})
	s.until("a third of a scrub", func() bool { return h.scrubbed.Offset > block.ChunkSize })
	s.kill(2)
	s.inSync(0, 1)
	s.wait(200 * millisecond)
	s.restart(2)
	s.until("the end of a scrub", func() bool { return h.scrubbed.Done })
	if got := h.scrubbed.Covered; len(got) != 2 || slices.Contains(got, s.v.replicas[2]) {
		s.t.Fatalf("covered are %v", got)
	}
	s.rest()
}

// layers writes three snapshots: the first and the second share a block, the second and
// the third have one each of their own at the beginning of the volume.
func (s *scene) layers() (shots []*shot) {
	s.t.Helper()
	s.write(0, 2*block.ExtentSize)
	for range 3 {
		shots = append(shots, s.snapshot())
		s.wait(50 * millisecond) // every member has stored it
		s.write(0, block.BlockSize)
	}
	s.flush()
	s.wait(4 * second)
	return shots
}

// rotLayer flips a bit of a block of a layer on a node's disk.
func (s *scene) rotLayer(node int, layer block.SnapshotID, offset int64) {
	s.t.Helper()
	s.rotten = true
	got, err := s.readReplica(s.v.replicas[node], layer, offset, block.SectorSize)
	if err != nil {
		s.t.Fatal(err)
	}
	want, d := headerValue(got), s.nodes[node].storage
	buf := block.NewBuffer(block.BlockSize)
	defer buf.Release()
	for at := int64(dataStart); at < d.device.Size(); at += block.BlockSize {
		if vfs.Do(d.device, &vfs.IO{Kind: vfs.Read, Offset: at, Length: block.BlockSize, Data: buf.Data}) != nil {
			continue
		}
		x, ok := d.rot.spotOf(buf.Data[:block.SectorSize])
		if ok && x.volume == s.v && int64(x.sector)*block.SectorSize == offset && headerValue(buf.Data) == want {
			d.device.Flip(at+100, 3)
			return
		}
	}
	s.t.Fatalf("the block at %d of %s was not found", offset, layer.Short())
}

// scrubLayers: bits have flipped in snapshots, on every disk: in a block that only one
// of them has, and in one that all of them and the head show. A walk finds each once, and
// the snapshots are what they were.
func scrubLayers(s *scene) {
	shots := s.layers()
	s.rotLayer(0, shots[1].id, 0)
	s.rotLayer(1, shots[2].id, 0)
	s.rotLayer(2, shots[2].id, block.ExtentSize)
	told := map[block.SnapshotID]int{}
	h := s.v.current
	s.options.Plant.effect = func(_ *host, ef *core.Effect) bool {
		if n := &ef.Notice; ef.Kind == core.EffectNotice && n.Kind == core.NoticeRepaired {
			told[n.Snapshot]++
		}
		return true
	}
	h.scrub(&core.Scrub{})
	s.until("the end of a scrub", func() bool { return h.scrubbed.Done })
	if len(told) != 3 || told[shots[0].id] != 1 || told[shots[1].id] != 1 || told[shots[2].id] != 1 {
		s.t.Fatalf("repaired: %v", told)
	}
	if n := len(h.scrubbed.Covered); n != 3 {
		s.t.Fatalf("%d replicas are covered", n)
	}
	for _, id := range s.v.replicas {
		for _, shot := range append(shots, &shot{}) {
			if _, err := s.readReplica(id, shot.id, 0, 2*block.ExtentSize); err != nil {
				s.t.Fatalf("%s of %s: %v", shot.id.Short(), s.replicaName(id), err)
			}
		}
	}
	s.rest()
}

// scrubLayerRepairs: a snapshot is repaired while the head is written, the snapshot
// before it deleted, another one taken, and the member with the damage killed just then.
func scrubLayerRepairs(s *scene) {
	shots := s.layers()
	s.rotLayer(1, shots[1].id, 0)
	s.rotLayer(1, shots[1].id, block.ExtentSize)
	release := s.hold(func(_ *conn, req *block.Request) bool { return req.Flags&block.FlagRepair != 0 })
	h := s.v.current
	h.scrub(&core.Scrub{})
	w := s.begin(core.WriteRequest, 0, block.BlockSize)
	s.wait(100 * millisecond)
	s.keepSnapshots(2)
	s.kill(1)
	s.end(w)
	release()
	s.inSync(0, 2)
	s.restart(1)
	s.inSync(0, 1, 2)
	s.until("the end of a scrub", func() bool { return h.scrubbed.Done })
	s.wait(100 * millisecond) // the engine has heard who is in sync
	_, differ := s.scrub(&core.Scrub{})
	if n := len(h.scrubbed.Covered); differ != nil || n != 3 {
		s.t.Fatalf("differing at %v, %d replicas are covered", differ, n)
	}
	s.snapshot()
	for _, o := range []block.SnapshotID{shots[1].id, shots[2].id, {}} {
		if _, err := s.readReplica(s.v.replicas[1], o, 0, 2*block.ExtentSize); err != nil {
			s.t.Fatalf("%s: %v", o.Short(), err)
		}
	}
	s.rest()
}
