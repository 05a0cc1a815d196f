package server

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/replica/store"
)

// storeBench is a host with one disk in memory that has a real store.
type storeBench struct {
	t      *testing.T
	host   *Host
	disk   block.DiskID
	store  *store.Store
	device *vfs.MemDevice
	next   byte
}

func (b *storeBench) id() block.ID {
	b.next++
	return block.ID{b.next, 15: 1}
}

func newStoreBench(t *testing.T) *storeBench {
	t.Helper()
	b := &storeBench{t: t}
	b.disk = block.DiskID{ID: b.id()}
	identity := store.Identity{Cluster: block.ClusterID{ID: b.id()}, Node: block.NodeID{ID: b.id()}, Disk: b.disk}
	executor := vfs.NewGoExecutor(4)
	t.Cleanup(executor.Close)
	dir := pebblevfs.NewMem()
	if err := dir.MkdirAll("disk", 0o700); err != nil {
		t.Fatal(err)
	}
	b.device = vfs.NewMemDevice(executor, 1<<28)
	options := store.Options{
		Dir: dir, Path: "disk", Device: b.device, Executor: executor,
		Incarnation: block.Incarnation{Boot: b.id()}, Logger: slog.New(slog.DiscardHandler), Cluster: identity.Cluster,
		Reserve: 1 << 20, GrowStep: 16 << 20, MemTableSize: 256 << 10,
	}
	if err := store.Format(options, identity); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.store, err = store.Open(options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.store.Close(); err != nil {
			t.Error(err)
		}
	})
	if b.host, err = NewHost(identity.Cluster, DefaultLimits()); err != nil {
		t.Fatal(err)
	}
	if err := b.host.AddDisk(StoreDisk(b.store)); err != nil {
		t.Fatal(err)
	}
	return b
}

// do submits an operation to a replica's store and waits for it.
func (b *storeBench) do(id block.ReplicaID, op store.Op) error {
	b.t.Helper()
	r, err := b.store.Replica(id)
	if err != nil {
		b.t.Fatal(err)
	}
	done := make(chan error, 1)
	op.Done = func(op *store.Op) { done <- op.Err }
	r.Submit(&op)
	return <-done
}

// fill writes one extent.
func (b *storeBench) fill(id block.ReplicaID, with byte) {
	b.t.Helper()
	buf := block.NewBuffer(block.ExtentSize)
	defer buf.Release()
	copy(buf.Data, bytes.Repeat([]byte{with}, len(buf.Data)))
	if err := b.do(id, store.Op{Kind: store.Write, Length: block.ExtentSize, Buf: buf}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *storeBench) first(id block.ReplicaID) byte {
	b.t.Helper()
	buf := block.NewBuffer(block.ExtentSize)
	defer buf.Release()
	if err := b.do(id, store.Op{Kind: store.Read, Length: block.ExtentSize, Buf: buf}); err != nil {
		b.t.Fatal(err)
	}
	return buf.Data[0]
}

// cut takes a cut and makes it valid.
func (b *storeBench) cut(id block.ReplicaID, snapshot block.SnapshotID) {
	b.t.Helper()
	meta := &block.Update{Cuts: []block.CutRequest{{Snapshot: snapshot, Epoch: 1}}}
	err := errors.Join(b.do(id, store.Op{Kind: store.Update, Meta: meta}), b.do(id, store.Op{Kind: store.Flush, FlushNumber: block.FlushNumber{Epoch: 1, N: 1}}))
	if err != nil {
		b.t.Fatal(err)
	}
}

func TestCloneReplica(t *testing.T) {
	b := newStoreBench(t)
	volume, source := block.VolumeID{ID: b.id()}, block.ReplicaID{ID: b.id()}
	snapshot := block.SnapshotID{ID: b.id()}
	if err := b.host.CreateReplica(b.disk, source, volume, testSize); err != nil {
		t.Fatal(err)
	}
	b.fill(source, 1)
	spec := store.CloneSpec{
		ReplicaSpec: store.ReplicaSpec{Replica: block.ReplicaID{ID: b.id()}, Volume: block.VolumeID{ID: b.id()}, Size: 2 * testSize},
		Source:      source, Snapshot: snapshot,
	}
	if err := b.host.CloneReplica(b.disk, spec); !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("a cut that is not there: %v", err)
	}
	b.cut(source, snapshot)
	b.fill(source, 2)
	for range 2 {
		if err := b.host.CloneReplica(b.disk, spec); err != nil {
			t.Fatal(err)
		}
	}
	if b.first(spec.Replica) != 1 || b.first(source) != 2 {
		t.Fatalf("the clone begins with %d, its source with %d", b.first(spec.Replica), b.first(source))
	}
	if got := b.host.Replicas(); len(got) != 2 {
		t.Fatalf("served: %+v", got)
	}
	other := spec
	other.Source = spec.Replica
	if err := b.host.CloneReplica(b.disk, other); !errors.Is(err, block.ErrExists) {
		t.Errorf("another source for the same replica: %v", err)
	}
	if err := b.host.CloneReplica(block.DiskID{ID: b.id()}, spec); !errors.Is(err, block.ErrExists) {
		t.Errorf("on another disk: %v", err)
	}
	other.Replica = block.ReplicaID{ID: b.id()}
	if err := b.host.CloneReplica(block.DiskID{ID: b.id()}, other); !errors.Is(err, block.ErrNotFound) {
		t.Errorf("on an unknown disk: %v", err)
	}
}

func TestDropCuts(t *testing.T) {
	b := newStoreBench(t)
	replica := block.ReplicaID{ID: b.id()}
	if err := b.host.CreateReplica(b.disk, replica, block.VolumeID{ID: b.id()}, testSize); err != nil {
		t.Fatal(err)
	}
	kept, dropped := block.SnapshotID{ID: b.id()}, block.SnapshotID{ID: b.id()}
	b.cut(replica, kept)
	b.cut(replica, dropped)
	for range 2 {
		if err := b.host.DropCuts(t.Context(), replica, []block.SnapshotID{dropped}); err != nil {
			t.Fatal(err)
		}
	}
	r, err := b.store.Replica(replica)
	if err != nil {
		t.Fatal(err)
	}
	if cuts := r.Cuts(); len(cuts) != 1 || cuts[0].Snapshot != kept {
		t.Fatalf("cuts %+v", cuts)
	}
	if err := b.host.DropCuts(t.Context(), block.ReplicaID{ID: b.id()}, nil); !errors.Is(err, block.ErrNotFound) {
		t.Errorf("of an unknown replica: %v", err)
	}
	if err := b.host.DeleteReplica(b.disk, replica); err != nil {
		t.Fatal(err)
	}
	if err := b.host.DropCuts(t.Context(), replica, []block.SnapshotID{kept}); !errors.Is(err, block.ErrNotFound) {
		t.Errorf("of a deleted replica: %v", err)
	}
}
