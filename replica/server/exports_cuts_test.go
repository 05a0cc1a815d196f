package server

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/replica/store"
)

// write fills a span of the head.
func (b *storeBench) write(id block.ReplicaID, offset, length int64, with byte) {
	b.t.Helper()
	buf := block.NewBuffer(int(length))
	defer buf.Release()
	copy(buf.Data, bytes.Repeat([]byte{with}, int(length)))
	if err := b.do(id, store.Op{Kind: store.Write, Offset: offset, Length: length, Buf: buf}); err != nil {
		b.t.Fatal(err)
	}
}

// commit tells a replica which snapshots its volume has.
func (b *storeBench) commit(id block.ReplicaID, volume block.VolumeID, revision block.Revision, snapshots ...block.SnapshotID) {
	b.t.Helper()
	view := block.View{Volume: volume, Epoch: 1, Revision: revision, Size: testSize}
	for _, s := range snapshots {
		view.Snapshots = append(view.Snapshots, block.Snapshot{ID: s, Size: testSize})
	}
	if err := b.do(id, store.Op{Kind: store.Update, Meta: &block.Update{View: &view}}); err != nil {
		b.t.Fatal(err)
	}
}

// content reads a whole export.
func content(t *testing.T, c *nbd.Client) []byte {
	t.Helper()
	got := make([]byte, c.Info().Size)
	if _, err := c.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	return got
}

// flagged has a byte for each of an export: whether its state has the flag.
func flagged(t *testing.T, c *nbd.Client, name string, flag uint32) []bool {
	t.Helper()
	var list []bool
	for size := c.Info().Size; int64(len(list)) < size; {
		status, err := c.BlockStatus(block.Span{Offset: int64(len(list)), Length: size - int64(len(list))})
		if err != nil || len(status[name]) == 0 {
			t.Fatalf("%s: %v, %v", name, status, err)
		}
		for _, e := range status[name] {
			list = append(list, slices.Repeat([]bool{e.Flags&flag != 0}, int(e.Length))...)
		}
	}
	return list
}

// TestSnapshotExports reads snapshots with an ordinary client while the head goes
// on, and compares what the map of changes says with the bytes.
func TestSnapshotExports(t *testing.T) {
	b := newStoreBench(t)
	volume, replica := block.VolumeID{ID: b.id()}, block.ReplicaID{ID: b.id()}
	older, younger, uncommitted := block.SnapshotID{ID: b.id()}, block.SnapshotID{ID: b.id()}, block.SnapshotID{ID: b.id()}
	if err := b.host.CreateReplica(b.disk, replica, volume, testSize); err != nil {
		t.Fatal(err)
	}
	b.write(replica, 0, 128<<10, 1)
	b.cut(replica, older)
	b.write(replica, 8<<10, 4<<10, 2)
	if err := b.do(replica, store.Op{Kind: store.Zero, Offset: 64 << 10, Length: 4 << 10}); err != nil {
		t.Fatal(err)
	}
	b.write(replica, 192<<10, 8<<10, 3)
	b.cut(replica, younger)
	b.write(replica, 0, 4<<10, 4)
	b.cut(replica, uncommitted)
	b.commit(replica, volume, 1, older, younger)

	names := b.host.Exports().List(context.Background())
	want := []string{snapshotPrefix + older.String(), snapshotPrefix + younger.String(), replicaPrefix + replica.String()}
	if !slices.Equal(names, want) {
		t.Fatalf("exports %v, want %v", names, want)
	}
	addr := listen(t, b.host)
	first, err := connectNBD(t, addr, want[0])
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	changed := ContextChanged + older.String()
	second, err := connectNBD(t, addr, want[1], changed)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()

	before, after := content(t, first), content(t, second)
	if before[0] != 1 || before[8<<10] != 1 || after[8<<10] != 2 || after[64<<10] != 0 || after[192<<10] != 3 || after[0] != 1 {
		t.Fatal("a snapshot shows what it should not")
	}
	differs, data := flagged(t, second, changed, StateChanged), flagged(t, second, nbd.ContextAllocation, nbd.StateHole)
	count := 0
	for i := range after {
		if before[i] != after[i] && !differs[i] {
			t.Fatalf("byte %d changed and is not said to", i)
		}
		if after[i] != 0 && data[i] {
			t.Fatalf("byte %d is not zero and said to be a hole", i)
		}
		if differs[i] {
			count++
		}
	}
	if count != 16<<10 {
		t.Errorf("%d bytes are said to have changed, 16384 have", count)
	}
	if _, err := second.WriteAt(make([]byte, 512), 0); err == nil {
		t.Error("a snapshot was written")
	}
}

// TestHiddenSnapshots: what is not committed, not whole, or gone is not shown.
func TestHiddenSnapshots(t *testing.T) {
	b := newStoreBench(t)
	volume, replica := block.VolumeID{ID: b.id()}, block.ReplicaID{ID: b.id()}
	uncommitted, partial, dropped := block.SnapshotID{ID: b.id()}, block.SnapshotID{ID: b.id()}, block.SnapshotID{ID: b.id()}
	if err := b.host.CreateReplica(b.disk, replica, volume, testSize); err != nil {
		t.Fatal(err)
	}
	b.cut(replica, uncommitted)
	b.cut(replica, dropped)
	meta := &block.Update{Cuts: []block.CutRequest{{Snapshot: partial, Epoch: 1, Target: true}}, DropCuts: []block.SnapshotID{dropped}, KeepHead: true}
	if err := b.do(replica, store.Op{Kind: store.Update, Meta: meta}); err != nil {
		t.Fatal(err)
	}
	b.commit(replica, volume, 1, partial, dropped)
	exports := b.host.Exports()
	b.commit(replica, volume, 2, uncommitted)
	if _, err := exports.Open(context.Background(), snapshotPrefix+uncommitted.String()); err != nil {
		t.Errorf("a committed one: %v", err)
	}
	b.host.Quarantine(replica, true)
	if names := exports.List(context.Background()); len(names) != 1 {
		t.Errorf("exports %v", names)
	}
	for _, id := range []block.SnapshotID{uncommitted, partial, dropped, block.KeptHead} {
		if _, err := exports.Open(context.Background(), snapshotPrefix+id.String()); !errors.Is(err, block.ErrNotFound) {
			t.Errorf("snapshot %s: %v", id, err)
		}
	}
}
