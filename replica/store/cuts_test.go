package store

import (
	"bytes"
	"errors"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

func snapshotID(n byte) block.SnapshotID { return block.SnapshotID{ID: block.ID{0: n, 1: 1, 15: n}} }

func (g *rig) update(r *Replica, u *block.Update) {
	g.t.Helper()
	g.must(r, &Op{Kind: Update, Meta: u})
}

func (g *rig) cut(r *Replica, n byte) {
	g.t.Helper()
	g.update(r, &block.Update{Cuts: []block.CutRequest{{Snapshot: snapshotID(n), Epoch: 1}}})
}

func (g *rig) dropCut(r *Replica, n byte) {
	g.t.Helper()
	g.update(r, &block.Update{DropCuts: []block.SnapshotID{snapshotID(n)}})
}

func (g *rig) readCut(r *Replica, n byte, offset, length int64) ([]byte, error) {
	g.t.Helper()
	op := &Op{Kind: Read, Snapshot: snapshotID(n), Offset: offset, Length: length, Buf: block.NewBuffer(int(length))}
	for i := range op.Buf.Data {
		op.Buf.Data[i] = 0xee
	}
	err := g.do(r, op)
	return op.Buf.Data, err
}

func (g *rig) expectCut(r *Replica, n byte, offset int64, want []byte) {
	g.t.Helper()
	got, err := g.readCut(r, n, offset, int64(len(want)))
	if err != nil {
		g.t.Fatal(err)
	}
	for i := range got {
		if got[i] != want[i] {
			g.t.Fatalf("cut %d: byte %d of [%d, +%d) is %#x, want %#x", n, i, offset, len(want), got[i], want[i])
		}
	}
}

func (g *rig) check() {
	g.t.Helper()
	if err := g.store.Check(); err != nil {
		g.t.Fatal(err)
	}
}

func concat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// TestCut reads a head and its cuts as they were, through writes of each kind, and
// frees with a cut exactly what nothing else needs.
func TestCut(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(64<<10, 1))
	g.write(r, 64<<10, fill(8<<10, 2))
	g.flush(r)
	used := r.Used()
	g.cut(r, 1)
	g.flush(r)
	if r.Used() != used {
		t.Fatalf("a cut takes %d bytes", r.Used()-used)
	}
	g.write(r, 4<<10, fill(4<<10, 3))
	g.write(r, 12<<10+512, fill(512, 4))
	g.zero(r, 64<<10, 4<<10)
	g.zero(r, 68<<10+1024, 1024)
	g.write(r, 1<<20, fill(4<<10, 5))
	old := concat(fill(64<<10, 1), fill(8<<10, 2), make([]byte, 56<<10))
	now := bytes.Clone(old)
	copy(now[4<<10:], fill(4<<10, 3))
	copy(now[12<<10+512:], fill(512, 4))
	clear(now[64<<10 : 68<<10])
	clear(now[68<<10+1024 : 68<<10+2048])
	look := func() {
		t.Helper()
		g.expect(r, 0, now)
		g.expectCut(r, 1, 0, old)
		g.expectCut(r, 1, 1<<20, make([]byte, 4<<10))
	}
	look()
	g.flush(r)
	look()
	g.check()
	if want := used + 3*4<<10 + 64<<10; r.Used() != want {
		t.Fatalf("%d bytes used, want %d", r.Used(), want)
	}
	g.kill()
	r = g.replica(1)
	look()
	g.powerLoss()
	r = g.replica(1)
	look()
	g.check()
	g.dropCut(r, 1)
	g.flush(r)
	g.expect(r, 0, now)
	g.check()
	if _, err := g.readCut(r, 1, 0, 4096); !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("read of a dropped cut: %v", err)
	}
	// The first extent but for two blocks, and the new one; three blocks in slots.
	if want := int64(2*64<<10 + 3*4<<10); r.Used() != want {
		t.Fatalf("%d bytes used after the drop, want %d", r.Used(), want)
	}
	g.zero(r, 0, testSize)
	g.flush(r)
	if r.Used() != 0 || g.store.Space().Used != 0 {
		t.Fatalf("%d bytes used by nothing, %d on the disk", r.Used(), g.store.Space().Used)
	}
	g.check()
}

// TestCutBesideWrites takes a cut while writes are under way. What has begun to
// write belongs to the cut, what is asked for later to the head alone, and neither
// is torn.
func TestCutBesideWrites(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(64<<10, 1))
	g.flush(r)
	g.read(r, 128<<10, block.BlockSize) // a write whose map is not in memory does not begin at once
	done := 0
	submit := func(op *Op) {
		op.Done = func(op *Op) {
			if op.Err != nil {
				t.Error(op.Err)
			}
			done++
		}
		r.Submit(op)
	}
	submit(writeOp(0, fill(8<<10, 2)))
	submit(writeOp(128<<10, fill(8<<10, 2)))
	submit(&Op{Kind: Update, Meta: &block.Update{Cuts: []block.CutRequest{{Snapshot: snapshotID(1), Epoch: 1}}}})
	submit(writeOp(4<<10, fill(8<<10, 3)))
	submit(&Op{Kind: Zero, Offset: 128 << 10, Length: 4 << 10})
	g.settle()
	if done != 5 {
		t.Fatalf("%d of 5 requests have ended", done)
	}
	g.expectCut(r, 1, 0, concat(fill(8<<10, 2), fill(56<<10, 1)))
	g.expectCut(r, 1, 128<<10, fill(8<<10, 2))
	g.expect(r, 0, concat(fill(4<<10, 2), fill(8<<10, 3), fill(52<<10, 1)))
	g.expect(r, 128<<10, concat(make([]byte, 4<<10), fill(4<<10, 2)))
	g.flush(r)
	g.check()
}

// TestCutBecomesValid follows a cut of a member, of a target, and of a member that
// lost its power before a flush.
func TestCutBecomesValid(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(64<<10, 1))
	g.cut(r, 1)
	g.update(r, &block.Update{KeepHead: true, Grow: testSize + 4096, Cuts: []block.CutRequest{{Snapshot: snapshotID(2), Epoch: 3, Target: true}}})
	want := func(valid ...bool) {
		t.Helper()
		cuts := r.Cuts()
		if len(cuts) != len(valid) {
			t.Fatalf("cuts %+v", cuts)
		}
		for i, v := range valid {
			if cuts[i].Valid != v {
				t.Fatalf("cut %d of %+v: valid is not %v", i, cuts, v)
			}
		}
	}
	want(false, false, false)
	if c := r.Cuts(); c[0].Size != testSize || !c[1].Kept || c[1].Snapshot != block.KeptHead || c[2].Size != testSize || c[2].Epoch != 3 || r.Size() != testSize+4096 {
		t.Fatalf("cuts %+v, size %d", c, r.Size())
	}
	g.flush(r)
	want(true, false, false)
	g.update(r, &block.Update{KeepHead: true, ValidCuts: []block.SnapshotID{snapshotID(2), snapshotID(99)}, DropCuts: []block.SnapshotID{block.KeptHead}})
	want(true, true)
	g.write(r, 4096, fill(4096, 2))
	g.cut(r, 3)
	g.powerLoss()
	r = g.replica(1)
	g.flush(r)
	want(true, true, false)
	g.kill()
	r = g.replica(1)
	g.flush(r)
	want(true, true, false)
	g.expectCut(r, 1, 0, fill(64<<10, 1))
	for _, u := range []*block.Update{
		{Grow: testSize}, {Grow: testSize + 4097}, {Cuts: make([]block.CutRequest, 1)}, {Cuts: make([]block.CutRequest, maxCuts)},
	} {
		if err := g.do(r, &Op{Kind: Update, Meta: u}); !errors.Is(err, block.ErrInvalid) {
			t.Errorf("update %+v: %v", u, err)
		}
	}
	g.check()
}

// TestSuspectAboveCut: after a crash checksums are stale in what the head has changed
// since the last valid cut, and nowhere else.
func TestSuspectAboveCut(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(128<<10, 1))
	g.flush(r)
	g.write(r, 0, fill(4<<10, 2))
	g.write(r, 64<<10, fill(4<<10, 2))
	g.cut(r, 1)
	g.flush(r)
	g.write(r, 64<<10, fill(4<<10, 3))
	g.flush(r)
	g.write(r, 64<<10, fill(4<<10, 4))
	places := [2]int64{r.pages[0].entries[0].at(0), r.pages[1/pageExtents].entries[1%pageExtents].at(0)}
	g.powerLoss()
	r = g.replica(1)
	if !r.Log().Has(0) {
		t.Fatal("the region is not in the log")
	}
	g.expectCut(r, 1, 0, fill(4<<10, 2))
	g.expectCut(r, 1, 64<<10, fill(4<<10, 2))
	for i, suspect := range []bool{false, true} {
		g.device.Flip(places[i]*block.BlockSize+9, 1)
		hash := &Op{Kind: Hash, Offset: int64(i) * block.ExtentSize, Length: block.ExtentSize}
		g.must(r, hash)
		if h := hash.Hashes[0]; suspect != (h.Suspect == 1) || suspect == (h.Bad == 1) {
			t.Errorf("extent %d: %+v, want suspect %v", i, h, suspect)
		}
	}
	hash := &Op{Kind: Hash, Snapshot: snapshotID(1), Length: block.ExtentSize}
	g.must(r, hash)
	if h := hash.Hashes[0]; h.Bad != 1 || h.Suspect != 0 {
		t.Errorf("cut: %+v", h)
	}
}

// TestCutOfAKilledProcess: the checksum of an overwritten block is lost with the
// process, whatever cut holds the block by then. A later flush does not make that cut
// valid: the block would pass for damaged.
func TestCutOfAKilledProcess(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(64<<10, 1))
	g.flush(r)
	g.write(r, 0, fill(4<<10, 2))
	g.cut(r, 1)
	g.kill()
	r = g.replica(1)
	g.flush(r)
	if c := r.Cuts(); len(c) != 1 || c[0].Valid {
		t.Errorf("cuts %+v", c)
	}
	hash := &Op{Kind: Hash, Length: block.ExtentSize}
	g.must(r, hash)
	if h := hash.Hashes[0]; h.Bad != 0 || h.Suspect != 1 {
		t.Errorf("%+v, want a suspect block", h)
	}
	read := &Op{Kind: Read, Length: 4 << 10, Buf: block.NewBuffer(4 << 10), Flags: block.FlagAcceptSuspect}
	defer read.Buf.Release()
	g.must(r, read)
	g.cut(r, 2)
	g.flush(r)
	g.kill()
	r = g.replica(1)
	g.expectCut(r, 2, 0, fill(4<<10, 2))
	g.check()
}

func TestCloneErrors(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(4096, 1))
	g.cut(r, 1)
	spec := func(change func(*CloneSpec)) CloneSpec {
		c := CloneSpec{Source: replicaID(1), Snapshot: snapshotID(1)}
		c.ReplicaSpec = ReplicaSpec{Replica: replicaID(2), Volume: block.VolumeID{ID: testID(9)}, Size: testSize}
		change(&c)
		return c
	}
	if err := g.store.Clone(spec(func(*CloneSpec) {})); !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("clone of a cut that is not valid: %v", err)
	}
	g.flush(r)
	for name, c := range map[string]struct {
		change func(*CloneSpec)
		want   error
	}{
		"no source":        {func(c *CloneSpec) { c.Source = block.ReplicaID{} }, block.ErrInvalid},
		"no snapshot":      {func(c *CloneSpec) { c.Snapshot = block.SnapshotID{} }, block.ErrInvalid},
		"unknown source":   {func(c *CloneSpec) { c.Source = replicaID(7) }, block.ErrNotFound},
		"unknown snapshot": {func(c *CloneSpec) { c.Snapshot = snapshotID(7) }, block.ErrNotFound},
		"too small":        {func(c *CloneSpec) { c.Size -= 4096 }, block.ErrInvalid},
		"name taken":       {func(c *CloneSpec) { c.Replica = replicaID(1) }, block.ErrExists},
	} {
		if err := g.store.Clone(spec(c.change)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := g.store.Clone(spec(func(*CloneSpec) {})); err != nil {
		t.Fatal(err)
	}
	if err := g.store.Create(ReplicaSpec{Replica: replicaID(2), Volume: block.VolumeID{ID: testID(9)}, Size: testSize}); !errors.Is(err, block.ErrExists) {
		t.Errorf("create in the place of a clone: %v", err)
	}
	clone := g.replica(2)
	g.expect(clone, 0, fill(4096, 1))
	if clone.Used() != 0 {
		t.Errorf("a clone takes %d bytes", clone.Used())
	}
	if u, err := r.Usage(snapshotID(1)); err != nil || u != (Usage{}) {
		t.Errorf("usage of what a clone shows: %+v, %v", u, err)
	}
}

// TestSlots: 4 KiB above a cut take 4 KiB, a whole extent takes one, and an entry
// with four places of its own gets one for what it writes next.
func TestSlots(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	g.write(r, 0, fill(192<<10, 1))
	g.cut(r, 1)
	g.flush(r)
	used := r.Used()
	grown := func(want int64) {
		t.Helper()
		g.flush(r)
		if got := r.Used() - used; got != want {
			t.Fatalf("%d bytes taken, want %d", got, want)
		}
		used = r.Used()
		g.check()
	}
	for b := range int64(4) {
		g.write(r, 12<<10*b, fill(4<<10, 2))
	}
	grown(16 << 10)
	g.write(r, 56<<10, fill(4<<10, 3))
	grown(64 << 10)
	g.write(r, 60<<10, fill(4<<10, 3))
	g.write(r, 0, fill(4<<10, 4))
	grown(0)
	g.write(r, 64<<10, fill(64<<10, 5))
	grown(64 << 10)
	g.write(r, 128<<10, fill(60<<10, 6))
	grown(60 << 10)
	g.zero(r, 132<<10, 8<<10)
	grown(-8 << 10)
	g.expectCut(r, 1, 0, fill(192<<10, 1))
}

// TestSnapshotSpace: what the head has does not count, what two snapshots have counts
// once, and a kept head is none.
func TestSnapshotSpace(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	expect := func(want int64) {
		t.Helper()
		if got, err := r.SnapshotSpace(); err != nil || got != want {
			t.Fatalf("snapshots hold %d bytes, %v, want %d", got, err, want)
		}
	}
	expect(0)
	g.write(r, 0, fill(192<<10, 1))
	g.cut(r, 1)
	g.flush(r)
	g.cut(r, 2)
	g.flush(r)
	expect(0)
	g.write(r, 4096, fill(8<<10, 2))
	expect(8 << 10)
	g.flush(r)
	expect(8 << 10)
	g.cut(r, 3)
	g.flush(r)
	g.write(r, 0, fill(64<<10, 3))
	expect(72 << 10)
	g.dropCut(r, 2)
	g.update(r, &block.Update{KeepHead: true})
	g.write(r, 64<<10, fill(64<<10, 4))
	expect(136 << 10)
}
