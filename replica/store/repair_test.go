package store

import (
	"errors"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

func repairOp(n byte, offset int64, data []byte) *Op {
	return &Op{Kind: Repair, Flags: block.FlagResync | block.FlagRepair, Snapshot: snapshotID(n), Offset: offset, Length: int64(len(data)), Buf: buffer(data)}
}

// placeOf is where a block of a cut lies in the data file, in bytes.
func (g *rig) placeOf(r *Replica, n byte, b int64) int64 {
	g.t.Helper()
	c := findCut(r.durable.cuts, snapshotID(n))
	states, err := g.store.statesAt(r, c.layer, []uint32{uint32(b / block.BlocksPerExtent)})
	if err != nil || states[0] == nil {
		g.t.Fatalf("state of block %d: %v, %v", b, states, err)
	}
	return states[0].at(int(b%block.BlocksPerExtent)) * block.BlockSize
}

// rotten is a replica with cuts 1 and 2 of two extents, the first of which they share
// with the head and with a clone, replica 2. Blocks 3 and 4 of it have rotted, and block
// 17, which cut 1 alone has.
func rotten(t *testing.T) (g *rig, r *Replica) {
	t.Helper()
	g = newRig(t)
	r = g.create(1, testSize)
	g.write(r, 0, fill(2*block.ExtentSize, 1))
	g.cut(r, 1)
	g.write(r, block.ExtentSize, fill(block.ExtentSize, 2))
	g.cut(r, 2)
	g.flush(r)
	g.write(r, block.ExtentSize, fill(block.BlockSize, 3))
	if err := g.store.Clone(CloneSpec{ReplicaSpec: ReplicaSpec{Replica: replicaID(2), Volume: block.VolumeID{ID: testID(102)}, Size: testSize},
		Source: r.ID(), Snapshot: snapshotID(2)}); err != nil {
		t.Fatal(err)
	}
	g.flush(r)
	for _, b := range []int64{3, 4, 17} {
		g.device.Flip(g.placeOf(r, 1, b)+77, 5)
	}
	for n := byte(1); n <= 2; n++ {
		if _, err := g.readCut(r, n, 3*block.BlockSize, 4096); !errors.Is(err, block.ErrChecksum) {
			t.Fatalf("a rotten block of cut %d: %v", n, err)
		}
	}
	return g, r
}

// TestRepairCut: whoever shows a block of a cut that has rotted has it back, durably and
// at no other place.
func TestRepairCut(t *testing.T) {
	g, r := rotten(t)
	used := r.Used()
	g.must(r, repairOp(2, 0, fill(block.ExtentSize, 1)))
	g.must(r, repairOp(1, 17*block.BlockSize, fill(block.BlockSize, 1)))
	if r.Used() != used || r.Log().Has(3) {
		t.Errorf("the replica takes %d bytes, %d before", r.Used(), used)
	}
	g.powerLoss()
	r = g.replica(1)
	g.check()
	want := concat(fill(block.ExtentSize, 1), fill(block.ExtentSize, 1))
	g.expectCut(r, 1, 0, want)
	copy(want[block.ExtentSize:], fill(block.ExtentSize, 2))
	g.expectCut(r, 2, 0, want)
	g.expect(g.replica(2), 0, want)
	copy(want[block.ExtentSize:], fill(block.BlockSize, 3))
	g.expect(r, 0, want)
}

// TestRepairRefusesOtherBytes: what a repair brings is the cut's, or nothing changes. A
// block that verifies is not written, whatever the others are.
func TestRepairRefusesOtherBytes(t *testing.T) {
	g, r := rotten(t)
	other := fill(block.ExtentSize, 1)
	other[5*block.BlockSize] = 9
	g.cut(r, 3) // not flushed
	for name, c := range map[string]struct {
		op   *Op
		want error
	}{
		"other bytes":            {repairOp(1, 3*block.BlockSize, fill(block.BlockSize, 7)), block.ErrChecksum},
		"other bytes beside":     {repairOp(1, 0, other), block.ErrChecksum},
		"bytes of a younger cut": {repairOp(1, 17*block.BlockSize, fill(block.BlockSize, 2)), block.ErrChecksum},
		"zeros for nothing":      {repairOp(1, 2*block.ExtentSize, fill(block.BlockSize, 0)), block.ErrInvalid},
		"a part of a block":      {repairOp(1, 3*block.BlockSize, fill(block.SectorSize, 1)), block.ErrInvalid},
		"not valid":              {repairOp(3, 3*block.BlockSize, fill(block.BlockSize, 1)), block.ErrInvalid},
		"the head":               {&Op{Kind: Repair, Length: block.BlockSize, Buf: buffer(fill(block.BlockSize, 1))}, block.ErrInvalid},
		"not there":              {repairOp(9, 0, fill(block.BlockSize, 1)), block.ErrNotFound},
	} {
		if err := g.do(r, c.op); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := g.readCut(r, 1, 3*block.BlockSize, 4096); !errors.Is(err, block.ErrChecksum) {
		t.Errorf("the block after refused repairs: %v", err)
	}
	g.expectCut(r, 1, 0, fill(3*block.BlockSize, 1))
	g.check()
}

// TestRepairWritesDamageOnly sees what a repair does to the disk: what verifies is not
// written, and what is written is synced before the answer.
func TestRepairWritesDamageOnly(t *testing.T) {
	g, r := rotten(t)
	first := g.placeOf(r, 1, 3)
	syncs := g.device.Syncs()
	op := repairOp(1, 0, fill(block.ExtentSize, 1))
	ended := false
	op.Done = func(*Op) { ended = true }
	r.Submit(op)
	written := int64(0)
	for !ended && g.steps.Pending() > 0 {
		g.steps.Step(0)
		for _, w := range g.device.Unsynced() {
			if w.Offset != first || w.Length != 2*block.BlockSize {
				t.Fatalf("written: %+v", w)
			}
			written = w.Length
		}
	}
	if op.Err != nil || written != 2*block.BlockSize || g.device.Syncs() == syncs {
		t.Fatalf("%v, %d bytes written, %d syncs", op.Err, written, g.device.Syncs()-syncs)
	}
	syncs = g.device.Syncs()
	g.must(r, repairOp(1, 0, fill(block.ExtentSize, 1)))
	if len(g.device.Unsynced()) != 0 || g.device.Syncs() != syncs {
		t.Error("a repair of nothing writes")
	}
}

// TestCrashDuringRepair takes the power away after each step of a repair, with each
// sector of what was not synced written or not: the block is damaged or the cut's.
func TestCrashDuringRepair(t *testing.T) {
	for steps := range 12 {
		for sectors := range 3 {
			g, r := rotten(t)
			op := repairOp(1, 3*block.BlockSize, fill(2*block.BlockSize, 1))
			op.Done = func(*Op) {}
			r.Submit(op)
			for range steps {
				if g.steps.Pending() > 0 {
					g.steps.Step(0)
				}
			}
			g.restart(g.dir.CrashClone(pebblevfs.CrashCloneCfg{}), func(e *vfs.StepExecutor) *vfs.MemDevice {
				return g.device.Crash(e, func(_ int, _ vfs.UnsyncedWrite, sector int) bool { return sector%3 == sectors })
			})
			r = g.replica(1)
			g.check()
			for _, n := range []byte{1, 2} {
				got, err := g.readCut(r, n, 3*block.BlockSize, 2*block.BlockSize)
				if err == nil && (got[0] != 1 || got[2*block.BlockSize-1] != 1) || err != nil && !errors.Is(err, block.ErrChecksum) {
					t.Fatalf("after %d steps cut %d reads %x, %v", steps, n, got[0], err)
				}
			}
			g.expectCut(r, 1, 0, fill(3*block.BlockSize, 1))
			g.must(r, repairOp(1, 3*block.BlockSize, fill(2*block.BlockSize, 1)))
			g.expectCut(r, 2, 0, fill(block.ExtentSize, 1))
		}
	}
}

// TestRepairOfAFailedDisk: a disk that takes no writes is not called repaired.
func TestRepairOfAFailedDisk(t *testing.T) {
	for name, fails := range map[string]vfs.IOKind{"write": vfs.Write, "sync": vfs.Sync} {
		g, r := rotten(t)
		g.device.Inject(func(io *vfs.IO) error {
			if io.Kind == fails {
				return block.ErrDiskFailed
			}
			return nil
		})
		if err := g.do(r, repairOp(1, 3*block.BlockSize, fill(block.BlockSize, 1))); !errors.Is(err, block.ErrDiskFailed) {
			t.Errorf("%s: %v", name, err)
		}
		if err := g.do(r, repairOp(1, 3*block.BlockSize, fill(block.BlockSize, 1))); !errors.Is(err, block.ErrDiskFailed) {
			t.Errorf("after a failed %s: %v", name, err)
		}
	}
}

// walk hashes the valid cuts of a line and its head as a scrub does: the oldest cut as
// a whole, then only those that Next names, without what the one before has. Each place
// of each of them must come by.
func (m *lines) walk(l *line, r *Replica) {
	m.t.Helper()
	var cuts []cut
	for _, c := range r.durable.cuts {
		if c.Valid && !c.dropping {
			cuts = append(cuts, c)
		}
	}
	if len(cuts) == 0 {
		return
	}
	span := block.Span{Length: cuts[0].Size}
	seen := map[int64]bool{}
	since, at := block.SnapshotID{}, cuts[0].Snapshot
	var before uint32
	for visits := 0; ; visits++ {
		layer := wholeHead
		if !at.IsZero() {
			layer = findCut(r.durable.cuts, at).layer
		}
		for _, c := range cuts {
			if before != 0 && c.layer > before && c.layer < layer {
				m.looksAlike(r, before, c.layer, span)
			}
		}
		op := &Op{Kind: Hash, Snapshot: at, Since: since, Length: span.Length}
		m.must(r, op)
		m.notePlaces(r, layer, op.Hashes, seen)
		if at.IsZero() {
			break
		}
		since, at, before = at, op.Next, layer
	}
	for _, c := range append(cuts, cut{layer: wholeHead}) {
		m.eachState(r, c.layer, span, func(x int, e *entryState) {
			for b := range block.BlocksPerExtent {
				if p := e.at(b); p != 0 && !seen[p] {
					m.t.Fatalf("replica %d: block %d of extent %d at layer %d lies at %d, which a walk has not seen", l.n, b, x, c.layer, p)
				}
			}
		})
	}
}

func (m *lines) eachState(r *Replica, layer uint32, span block.Span, f func(x int, e *entryState)) {
	m.t.Helper()
	var extents []uint32
	for x := int64(0); x*block.ExtentSize < span.End(); x++ {
		extents = append(extents, uint32(x))
	}
	states, err := m.store.statesAt(r, layer, extents)
	if err != nil {
		m.t.Fatal(err)
	}
	for x, e := range states {
		if e != nil {
			f(x, e)
		}
	}
}

// looksAlike wants a cut that a walk leaves out to have what the one before has.
func (m *lines) looksAlike(r *Replica, layer, other uint32, span block.Span) {
	m.t.Helper()
	places := map[int][block.BlocksPerExtent]int64{}
	list := func(e *entryState) (p [block.BlocksPerExtent]int64) {
		for b := range p {
			p[b] = e.at(b)
		}
		return p
	}
	m.eachState(r, layer, span, func(x int, e *entryState) { places[x] = list(e) })
	m.eachState(r, other, span, func(x int, e *entryState) {
		if places[x] != list(e) {
			m.t.Fatalf("a walk passes over layer %d, of which extent %d is another than at layer %d", other, x, layer)
		}
	})
}

// notePlaces notes what a hash has read.
func (m *lines) notePlaces(r *Replica, layer uint32, hashes []block.ExtentHash, seen map[int64]bool) {
	m.t.Helper()
	m.eachState(r, layer, block.Span{Length: int64(len(hashes)) * block.ExtentSize}, func(x int, e *entryState) {
		if hashes[x].Sum == ([32]byte{}) {
			return
		}
		for b := range block.BlocksPerExtent {
			seen[e.at(b)] = true
		}
	})
}
