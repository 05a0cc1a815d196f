package store

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// TestLargestVolume makes a volume of 64 TiB and works at its last bytes: writes, a
// trim, a snapshot and the differences to it, the intent log, dirty sets; all of it is
// there after a kill and after a loss of power. It takes what was written.
func TestLargestVolume(t *testing.T) {
	g := newRig(t)
	began := time.Now()
	r := g.create(1, block.MaxVolumeSize)
	t.Logf("created in %s", time.Since(began))
	const end = int64(block.MaxVolumeSize)
	last := block.Region(block.RegionCount(end) - 1)
	g.write(r, end-2*block.ExtentSize, fill(2*block.ExtentSize, 1))
	g.write(r, end-block.SectorSize, fill(block.SectorSize, 2))
	if log := r.Log(); !log.Has(last) || log.Count() != 1 {
		t.Errorf("the intent log has %d regions", log.Count())
	}
	if err := g.do(r, writeOp(end-block.SectorSize, fill(2*block.SectorSize, 9))); err == nil {
		t.Error("a write past the end")
	}
	g.cut(r, 1)
	g.zero(r, end-2*block.ExtentSize, block.ExtentSize)
	g.write(r, end-block.BlockSize, fill(block.BlockSize, 3))
	g.flush(r)
	g.update(r, &block.Update{
		SetDirty: []block.DirtySet{{Replica: replicaID(2), Removal: 7, Regions: block.RegionsOf(0, last)}},
	})
	// Sets of regions take memory for what is in them.
	m := g.store.Memory()
	t.Logf("written at its end: %d bytes of memory", m.Replicas)
	if m.Replicas > 16<<10 {
		t.Errorf("%d bytes are kept for a replica that was written at its end", m.Replicas)
	}
	g.update(r, &block.Update{
		SetDirty: []block.DirtySet{{Replica: replicaID(2), Removal: 7, Regions: block.AllRegions(end)}},
	})
	expect := func() {
		t.Helper()
		r = g.replica(1)
		g.expect(r, end-2*block.ExtentSize, concat(fill(block.ExtentSize, 0), fill(block.ExtentSize-block.BlockSize, 1), fill(block.BlockSize, 3)))
		g.expectCut(r, 1, end-block.ExtentSize, concat(fill(block.ExtentSize-block.SectorSize, 1), fill(block.SectorSize, 2)))
		sets := r.DirtySets()
		if len(sets) != 1 || sets[0].Regions.Count() != block.RegionCount(end) || !sets[0].Regions.Has(last) {
			t.Errorf("%d dirty sets", len(sets))
		}
		list, err := r.Changed(snapshotID(1), block.SnapshotID{}, block.Span{Offset: end - block.RegionSize, Length: block.RegionSize})
		changed := int64(0)
		for _, e := range list {
			changed += e.Length
		}
		if err != nil || changed != block.ExtentSize+block.BlockSize {
			t.Errorf("%d bytes differ from the snapshot: %v, %v", changed, list, err)
		}
		if used := r.Used(); used != 2*block.ExtentSize+block.BlockSize {
			t.Errorf("%d bytes are used", used)
		}
		g.check()
	}
	expect()
	g.kill()
	expect()
	g.powerLoss()
	expect()
	g.update(r, &block.Update{ClearDirty: []block.DirtySet{{Replica: replicaID(2), Removal: 7, Regions: block.AllRegions(end - block.RegionSize)}}})
	if sets := r.DirtySets(); sets[0].Regions.Count() != 1 || !sets[0].Regions.Has(last) {
		t.Errorf("%d regions are dirty", sets[0].Regions.Count())
	}
	if err := g.store.Delete(r.ID()); err != nil {
		t.Fatal(err)
	}
	g.settle()
	if used := g.store.Space().Used; used != 0 {
		t.Errorf("%d bytes are used after the deletion", used)
	}
}

// TestThousandReplicas creates a thousand replicas on one disk, writes and flushes each, takes a snapshot of each, and writes again; it opens the disk anew, reads
// everything, and deletes all of them. The space is exact all along.
func TestThousandReplicas(t *testing.T) {
	const replicas = 1000
	g := newRig(t)
	g.device.SetCapacity(1 << 30)
	g.options.Simulated, g.options.MemTableSize = false, 0
	g.kill()
	began := time.Now()
	step := func(what string, used int64) {
		t.Helper()
		t.Logf("%s after %s", what, time.Since(began))
		if got := g.store.Space().Used; got != used {
			t.Errorf("%s: %d bytes are used, want %d", what, got, used)
		}
	}
	name := func(n int) block.ReplicaID {
		id := block.ReplicaID{ID: block.ID{15: 7}}
		binary.BigEndian.PutUint32(id.ID[:], uint32(n+1))
		return id
	}
	each := func(f func(n int, r *Replica)) {
		t.Helper()
		for n := range replicas {
			r, err := g.store.Replica(name(n))
			if err != nil {
				t.Fatal(err)
			}
			f(n, r)
		}
	}
	for n := range replicas {
		if err := g.store.Create(ReplicaSpec{Replica: name(n), Volume: block.VolumeID{ID: name(n).ID}, Size: 1 << 40}); err != nil {
			t.Fatal(err)
		}
	}
	step("created", 0)
	at := func(n int) int64 { return int64(n) << 30 }
	each(func(n int, r *Replica) { g.write(r, at(n), fill(block.BlockSize, byte(n))) })
	each(func(n int, r *Replica) {
		g.must(r, &Op{Kind: Flush, FlushNumber: block.FlushNumber{Epoch: 1, N: uint64(n + 1)}})
	})
	step("written", replicas*block.ExtentSize)
	each(func(_ int, r *Replica) { g.cut(r, 1) })
	each(func(n int, r *Replica) { g.write(r, at(n), fill(block.BlockSize, byte(n+1))) })
	g.flush(g.store.Replicas()[0])
	used := int64(replicas * (block.ExtentSize + block.BlockSize))
	step("snapshots taken", used)
	g.powerLoss()
	if n := len(g.store.Replicas()); n != replicas {
		t.Fatalf("%d replicas", n)
	}
	each(func(n int, r *Replica) {
		g.expect(r, at(n), fill(block.BlockSize, byte(n+1)))
		g.expectCut(r, 1, at(n), fill(block.BlockSize, byte(n)))
		if f := r.FlushNumber(); f.N != uint64(n+1) {
			t.Errorf("replica %d: flush number %v", n, f)
		}
	})
	g.check()
	step("read again", used)
	m := g.store.Memory()
	t.Logf("the replicas take %d KiB of memory, all %d KiB", m.Replicas>>10, m.Total()>>10)
	if m.Total() > m.Limit {
		t.Errorf("%d bytes of memory, at most %d: %+v", m.Total(), m.Limit, m)
	}
	for n := range replicas {
		if err := g.store.Delete(name(n)); err != nil {
			t.Fatal(err)
		}
	}
	g.settle()
	step("deleted", 0)
	g.check()
	g.powerLoss()
	if n := len(g.store.Replicas()); n != 0 {
		t.Errorf("%d replicas after their deletion", n)
	}
	step("opened again", 0)
}
