package store

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

const testSize = 48 << 20

func TestWriteReadZero(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.expect(r, 0, make([]byte, 8192))
	want := make([]byte, 300<<10)
	put := func(offset int, data []byte) {
		copy(want[offset:], data)
		g.write(r, int64(offset), data)
	}
	put(0, fill(4096, 1))
	put(512, fill(512, 2))
	put(8192+512, fill(1024, 3))
	put(64<<10-512, fill(1024, 4))
	put(100<<10, fill(150<<10, 5))
	put(3584, fill(1024, 6))
	put(20480+1536, fill(70<<10, 7))
	g.expect(r, 0, want)
	for _, span := range [][2]int{{1024, 512}, {64 << 10, 64 << 10}, {3584, 9000 - 9000%512}, {130<<10 + 512, 2048}, {63 << 10, 130 << 10}} {
		clear(want[span[0] : span[0]+span[1]])
		g.zero(r, int64(span[0]), int64(span[1]))
		g.expect(r, 0, want)
	}
	g.expect(r, 1536, want[1536:1536+512])
	g.flush(r)
	g.powerLoss()
	g.expect(g.replica(1), 0, want)
	g.kill()
	g.expect(g.replica(1), 0, want)
}

func TestKillKeepsAcknowledged(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(4096, 1))
	g.write(r, 1<<20, fill(65536, 2))
	g.write(r, 512, fill(512, 3))
	g.zero(r, 1<<20, 32768)
	g.kill()
	r = g.replica(1)
	op := &Op{Kind: Read, Offset: 0, Length: 4096, Buf: block.NewBuffer(4096), Flags: block.FlagAcceptSuspect}
	g.must(r, op)
	if want := append(append(fill(512, 1), fill(512, 3)...), fill(3072, 1)...); !bytes.Equal(op.Buf.Data, want) {
		t.Fatal("first block lost")
	}
	g.expect(r, 1<<20, append(make([]byte, 32768), fill(32768, 2)...))
}

func TestPowerLossDropsUnflushed(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(4096, 1))
	g.flush(r)
	g.write(r, 4096, fill(4096, 2))
	g.zero(r, 0, 4096)
	g.powerLoss()
	r = g.replica(1)
	g.expect(r, 0, append(fill(4096, 1), make([]byte, 4096)...))
	if !r.Log().Has(0) || r.Log().Count() != 1 {
		t.Fatalf("log %v", r.Log())
	}
}

func TestUpdateAndFence(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(512, 1))
	g.write(r, 17<<20, fill(512, 1))
	view := block.View{Volume: r.Volume(), Epoch: 3, Revision: 7, Size: testSize, Replicas: []block.Member{{ID: replicaID(1), InSync: true}}}
	g.must(r, &Op{Kind: Fence, NewFence: block.Fence{Epoch: 3, Session: 1}})
	g.must(r, &Op{Kind: Flush, FlushNumber: block.FlushNumber{Epoch: 3, N: 9}, Confirmed: []block.Confirmed{{Replica: replicaID(1), Flush: block.FlushNumber{Epoch: 3, N: 8}}}})
	g.must(r, &Op{Kind: Update, Meta: &block.Update{
		View:     &view,
		SetDirty: []block.DirtySet{{Replica: replicaID(2), Removal: 7, Regions: block.RegionsOf(0)}},
		AddDirty: []block.DirtySet{{Replica: replicaID(2), Removal: 7, Regions: block.RegionsOf(1)}},
		ClearLog: block.RegionsOf(0),
	}})
	if err := g.do(r, &Op{Kind: Fence, NewFence: block.Fence{Epoch: 2}}); !errors.Is(err, block.ErrStaleEpoch) {
		t.Fatalf("lower fence: %v", err)
	}
	bad := &block.Update{AddDirty: []block.DirtySet{{Replica: replicaID(2), Removal: 8}}, DropDirty: []block.ReplicaID{replicaID(2)}}
	if err := g.do(r, &Op{Kind: Update, Meta: bad}); !errors.Is(err, block.ErrConflict) {
		t.Fatalf("foreign removal: %v", err)
	}
	older := view.Clone()
	older.Revision = 6
	g.must(r, &Op{Kind: Update, Meta: &block.Update{View: &older}})
	for range 2 {
		sets := r.DirtySets()
		if len(sets) != 1 || sets[0].Removal != 7 || !slices.Equal(sets[0].Regions, block.RegionsOf(0, 1)) {
			t.Fatalf("dirty sets %v", sets)
		}
		if v := r.View(); v.Revision != 7 || len(v.Replicas) != 1 {
			t.Fatalf("view %v", v)
		}
		if f := r.Fence(); f != (block.Fence{Epoch: 3, Session: 1}) {
			t.Fatalf("fence %v", f)
		}
		if n := r.FlushNumber(); n != (block.FlushNumber{Epoch: 3, N: 9}) {
			t.Fatalf("flush %v", n)
		}
		if c := r.Confirmed(); len(c) != 1 || c[0].Flush.N != 8 {
			t.Fatalf("confirmed %v", c)
		}
		if log := r.Log(); log.Has(0) || !log.Has(1) {
			t.Fatalf("log %v", log)
		}
		g.powerLoss()
		r = g.replica(1)
	}
}

func TestNoSpace(t *testing.T) {
	g := newRig(t)
	r := g.create(1, 1<<30)
	var err error
	written := int64(0)
	for ; err == nil; written += 1 << 20 {
		err = g.do(r, writeOp(written, fill(1<<20, byte(written>>20))))
	}
	if !errors.Is(err, block.ErrNoSpace) {
		t.Fatalf("full disk: %v", err)
	}
	if f := g.store.Space().Free; f >= 1<<20 {
		t.Fatalf("%d bytes free when full", f)
	}
	g.write(r, 0, fill(4096, 77))
	g.zero(r, 1<<20, 4<<20)
	g.write(r, 300<<20, fill(1<<20, 9))
	g.expect(r, 300<<20, fill(1<<20, 9))
	g.expect(r, 0, append(fill(4096, 77), make([]byte, 4096)...))
	used := g.store.Space().Used
	if err := g.store.Delete(r.ID()); err != nil {
		t.Fatal(err)
	}
	g.settle()
	if now := g.store.Space().Used; now != 0 {
		t.Fatalf("%d of %d bytes used after the deletion", now, used)
	}
	r = g.create(1, 1<<30)
	g.expect(r, 0, make([]byte, 4096))
}

// TestNoSpaceDuringRound wants an extent of a full disk while a flush round runs
// that frees none: the write fails instead of waiting for one round after the
// other.
func TestNoSpaceDuringRound(t *testing.T) {
	g := newRig(t)
	r := g.create(1, 1<<30)
	g.device.SetCapacity(g.device.Size())
	last := int64(0)
	for g.do(r, writeOp(last, fill(block.ExtentSize, 1))) == nil {
		last += block.ExtentSize
	}
	g.write(r, 0, fill(block.ExtentSize, 2))
	flush := &Op{Kind: Flush, Done: func(*Op) {}}
	r.Submit(flush)
	if g.store.round == nil {
		t.Fatal("no round is running")
	}
	if err := g.do(r, writeOp(last, fill(block.ExtentSize, 3))); !errors.Is(err, block.ErrNoSpace) {
		t.Fatalf("write to a full disk: %v", err)
	}
}

// TestZeroDuringRound empties an extent while a flush round that names it waits
// for its sync: until a later round forgets it, nobody else may have the extent.
func TestZeroDuringRound(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(block.ExtentSize, 1))
	flush := &Op{Kind: Flush, Done: func(*Op) {}}
	r.Submit(flush)
	if g.steps.Pending() != 1 {
		t.Fatalf("%d jobs are pending, want the sync alone", g.steps.Pending())
	}
	for _, op := range []*Op{{Kind: Zero, Length: block.ExtentSize}, writeOp(block.ExtentSize, fill(block.ExtentSize, 2))} {
		done := false
		op.Done = func(*Op) { done = true }
		r.Submit(op)
		g.store.space.next = firstExtent
		for !done {
			g.steps.Step(1)
		}
	}
	g.settle()
	g.flush(r)
	if err := g.store.Check(); err != nil {
		t.Fatal(err)
	}
	g.powerLoss()
	r = g.replica(1)
	if err := g.store.Check(); err != nil {
		t.Fatal(err)
	}
	g.expect(r, 0, make([]byte, block.ExtentSize))
	g.expect(r, block.ExtentSize, fill(block.ExtentSize, 2))
}

// TestFlushNumberShownIsKept kills the process between the write of a flush number
// and its sync. If the number is shown afterwards, a loss of power must not take it
// back: a number that goes back means a disk that was put back (rule 10).
func TestFlushNumberShownIsKept(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(4096, 1))
	g.flush(r)
	number := block.FlushNumber{Epoch: 1, N: 5}
	r.Submit(&Op{Kind: Flush, FlushNumber: number, Done: func(*Op) {}})
	g.steps.Step(0)
	g.kill()
	if shown := g.replica(1).FlushNumber(); shown != number {
		t.Fatalf("flush number %v, want %v, which was written", shown, number)
	}
	g.powerLoss()
	if kept := g.replica(1).FlushNumber(); kept != number {
		t.Fatalf("flush number %v, want %v, which was shown", kept, number)
	}
}

func TestChecksum(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(65536, 1))
	g.flush(r)
	loc := r.pages[0].entries[0].at(3)
	g.device.Flip(loc*block.BlockSize+5, 2)
	op := &Op{Kind: Read, Offset: 8192, Length: 8192, Buf: block.NewBuffer(8192)}
	if err := g.do(r, op); !errors.Is(err, block.ErrChecksum) || op.Bad != 4096*3 {
		t.Fatalf("flipped bit: %v, bad %d", err, op.Bad)
	}
	if err := g.do(r, writeOp(4096*3+512, fill(512, 2))); !errors.Is(err, block.ErrChecksum) {
		t.Fatalf("partial write over a bad block: %v", err)
	}
	hash := &Op{Kind: Hash, Offset: 0, Length: 131072}
	g.must(r, hash)
	if hash.Hashes[0].Bad != 1<<3 || hash.Hashes[0].Suspect != 0 || hash.Hashes[1].Sum != sum(make([]byte, 65536)) {
		t.Fatalf("hashes %v", hash.Hashes)
	}
	g.powerLoss()
	r = g.replica(1)
	hash = &Op{Kind: Hash, Offset: 0, Length: 65536}
	g.must(r, hash)
	if hash.Hashes[0].Bad != 0 || hash.Hashes[0].Suspect != 1<<3 {
		t.Fatalf("hashes after a crash %v", hash.Hashes)
	}
	op = &Op{Kind: Read, Offset: 4096 * 3, Length: 4096, Buf: block.NewBuffer(4096)}
	if err := g.do(r, op); !errors.Is(err, block.ErrChecksum) {
		t.Fatalf("suspect block: %v", err)
	}
	for _, op := range []*Op{writeOp(4096*3+512, fill(512, 2)), {Kind: Zero, Offset: 4096 * 3, Length: 512}} {
		if err := g.do(r, op); !errors.Is(err, block.ErrChecksum) || op.Bad != 4096*3 {
			t.Fatalf("%s of a part of a suspect block: %v, bad %d", op.Kind, err, op.Bad)
		}
	}
	op = &Op{Kind: Read, Offset: 4096 * 3, Length: 4096, Buf: block.NewBuffer(4096), Flags: block.FlagAcceptSuspect}
	g.must(r, op)
	g.must(r, &Op{Kind: Update, Meta: &block.Update{ClearLog: block.RegionsOf(0)}})
	g.powerLoss()
	want := fill(4096, 1)
	want[5] ^= 4
	g.expect(g.replica(1), 4096*3, want)
}

// TestChecksumsComeWithTheWrite: a block that is damaged in memory, after whoever sent it
// had summed it, does not verify, whatever part of which extents is written.
func TestChecksumsComeWithTheWrite(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	const offset = block.ExtentSize - 2*block.BlockSize
	op := writeOp(offset, fill(5*block.BlockSize, 1))
	op.Buf.Sum()
	op.Buf.Data[4*block.BlockSize+7] ^= 1
	g.must(r, op)
	g.expect(r, offset, fill(4*block.BlockSize, 1))
	read := &Op{Kind: Read, Offset: offset, Length: 5 * block.BlockSize, Buf: block.NewBuffer(5 * block.BlockSize)}
	if err := g.do(r, read); !errors.Is(err, block.ErrChecksum) || read.Bad != offset+4*block.BlockSize {
		t.Errorf("read of a block that was damaged on the way: %v, bad %d", err, read.Bad)
	}
	// Sums that do not belong to blocks of the volume are no use.
	op = writeOp(offset+block.SectorSize, fill(2*block.BlockSize, 2))
	op.Buf.Sum()
	g.must(r, op)
	g.expect(r, offset+block.SectorSize, fill(2*block.BlockSize, 2))
}

// TestClearLogAfterKill takes a region out of the log whose data the process
// before had written without a sync.
func TestClearLogAfterKill(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(65536, 1))
	g.flush(r)
	g.write(r, 0, fill(4096, 2))
	g.kill()
	r = g.replica(1)
	g.must(r, &Op{Kind: Read, Length: 4096, Buf: block.NewBuffer(4096), Flags: block.FlagAcceptSuspect})
	g.must(r, &Op{Kind: Update, Meta: &block.Update{ClearLog: block.RegionsOf(0)}})
	g.powerLoss()
	r = g.replica(1)
	if !r.Log().Empty() {
		t.Fatalf("log %v", r.Log())
	}
	g.expect(r, 0, append(fill(4096, 2), fill(61440, 1)...))
}

// TestSimulatedStoreGoesOn commits more than a database without compactions
// would take by default.
func TestSimulatedStoreGoesOn(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	set := block.DirtySet{Replica: replicaID(2), Removal: 1, Regions: block.AllRegions(testSize)}
	for range 40_000 {
		g.must(r, &Op{Kind: Update, Meta: &block.Update{SetDirty: []block.DirtySet{set}}})
		set.Removal++
	}
	if n := r.DirtySets()[0].Removal; n != set.Removal-1 {
		t.Fatalf("removal %d", n)
	}
}

// TestMeasureSpace: what others take or give back on the file system is reported
// before the data file grows.
func TestMeasureSpace(t *testing.T) {
	g := newRig(t)
	before := g.store.Space()
	const more = 32 << 20
	g.device.SetCapacity(64<<20 + more)
	if err := g.store.MeasureSpace(); err != nil {
		t.Fatal(err)
	}
	after := g.store.Space()
	if after.Capacity != before.Capacity+more || after.Free != before.Free+more || after.Used != before.Used {
		t.Errorf("%d bytes more turn %+v into %+v", int64(more), before, after)
	}
	g.device.SetCapacity(g.device.Size())
	if err := g.store.MeasureSpace(); err != nil {
		t.Fatal(err)
	}
	if full := g.store.Space(); full.Capacity >= before.Capacity || full.Used != before.Used {
		t.Errorf("a full file system turns %+v into %+v", before, full)
	}
}
