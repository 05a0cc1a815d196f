package server

import (
	"errors"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

func TestOpenIsChecked(t *testing.T) {
	b := newBench(t, DefaultLimits())
	good := block.Open{
		Cluster: b.host.cluster, Volume: b.replica.volume, Replica: b.replica.id, Fence: fence(1, 1), Size: testSize,
	}
	for name, c := range map[string]struct {
		change func(*block.Open)
		want   error
	}{
		"cluster": {func(o *block.Open) { o.Cluster = block.ClusterID{ID: b.id()} }, block.ErrForeign},
		"replica": {func(o *block.Open) { o.Replica = block.ReplicaID{ID: b.id()} }, block.ErrNotFound},
		"volume":  {func(o *block.Open) { o.Volume = block.VolumeID{ID: b.id()} }, block.ErrInvalid},
		"size":    {func(o *block.Open) { o.Size = 0 }, block.ErrInvalid},
		"epoch":   {func(o *block.Open) { o.Fence.Epoch = 9 }, block.ErrInvalid},
		"session": {func(o *block.Open) { o.Fence.Session = 9 }, block.ErrInvalid},
	} {
		cl := b.connect(fence(1, 1))
		open := good
		c.change(&open)
		rep := cl.answer(cl.send(block.Request{Op: block.OpOpen, Open: &open}))
		if !errors.Is(rep.Err, c.want) || rep.Opened != nil {
			t.Errorf("%s: %+v", name, rep)
		}
	}
	cl := b.connect(block.Fence{})
	open := good
	open.Fence = block.Fence{}
	wantErr(t, cl.answer(cl.send(block.Request{Op: block.OpOpen, Open: &open})), block.ErrInvalid)
	wantErr(t, cl.answer(cl.send(block.Request{Op: block.OpOpen})), block.ErrProtocol)
	wantErr(t, cl.answer(cl.send(block.Request{Op: block.OpPing})), block.ErrProtocol)
	if b.replica.waiting() != 0 {
		t.Fatal("a refused open reached the store")
	}
	// None of them kept the right one out.
	c := b.opened(fence(1, 1))
	wantErr(t, c.answer(c.open()), block.ErrProtocol)
}

func TestRequestBeforeOpened(t *testing.T) {
	b := newBench(t, DefaultLimits())
	c := b.connect(fence(1, 1))
	open := c.open()
	wantErr(t, c.answer(c.write(0, pattern(512, 1))), block.ErrProtocol)
	b.replica.drain()
	wantErr(t, c.answer(open), nil)
}

// TestTwinDisks: of two disks with one ID neither is served, and a third does
// not change that.
func TestTwinDisks(t *testing.T) {
	b := newBench(t, DefaultLimits())
	c := b.opened(fence(1, 1))
	running := c.write(0, pattern(512, 1))
	twin := &steppedDisk{id: b.disk.id, cluster: b.disk.cluster}
	if err := b.host.AddDisk(twin); !errors.Is(err, block.ErrExists) {
		t.Fatalf("second disk: %v", err)
	}
	wantErr(t, c.answer(c.write(0, pattern(512, 1))), block.ErrUnavailable)
	if got := b.host.Replicas(); len(got) != 0 {
		t.Fatalf("served: %+v", got)
	}
	if err := b.host.AddDisk(b.disk); !errors.Is(err, block.ErrExists) {
		t.Fatalf("third disk: %v", err)
	}
	again := b.connect(fence(1, 2))
	wantErr(t, again.answer(again.open()), block.ErrNotFound)
	b.replica.drain()
	c.answer(running)
	// Its bytes are there: nobody may be told that it is gone.
	if err := b.host.DeleteReplica(b.disk.id, b.replica.id); !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("deleted from a disk that is not served: %v", err)
	}
}

func TestDisksAreChecked(t *testing.T) {
	b := newBench(t, DefaultLimits())
	foreign := &steppedDisk{id: block.DiskID{ID: b.id()}, cluster: block.ClusterID{ID: b.id()}}
	if err := b.host.AddDisk(foreign); !errors.Is(err, block.ErrForeign) {
		t.Fatalf("foreign disk: %v", err)
	}
	copied := &steppedDisk{id: block.DiskID{ID: b.id()}, cluster: b.disk.cluster, replicas: b.disk.replicas}
	if err := b.host.AddDisk(copied); !errors.Is(err, block.ErrExists) {
		t.Fatalf("disk with a replica of another: %v", err)
	}
	b.opened(fence(1, 1))
	if _, err := NewHost(b.host.cluster, Limits{}); !errors.Is(err, block.ErrInvalid) {
		t.Fatalf("no limits: %v", err)
	}
}

func TestRemoveDisk(t *testing.T) {
	b := newBench(t, Limits{Running: 1, InFlight: 8})
	c := b.opened(fence(1, 1))
	running := c.write(0, pattern(512, 1))
	queued := c.write(512, pattern(512, 2))
	opening := b.connect(fence(1, 2))
	open := opening.open()
	b.host.RemoveDisk(b.disk.id)
	wantErr(t, opening.answer(open), block.ErrUnavailable)
	wantErr(t, c.answer(queued), block.ErrStaleSession)
	b.replica.drain()
	wantErr(t, c.answer(running), block.ErrStaleSession)
	if err := b.host.AddDisk(b.disk); err != nil {
		t.Fatal(err)
	}
	b.opened(fence(1, 3))
}

// TestDeleteWaitsForIO: what the store still runs delays a deletion, and nobody
// gets in meanwhile.
func TestDeleteWaitsForIO(t *testing.T) {
	b := newBench(t, DefaultLimits())
	c := b.opened(fence(1, 1))
	c.write(0, pattern(512, 1))
	if err := b.host.DeleteReplica(b.disk.id, b.replica.id); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("delete with I/O running: %v", err)
	}
	wantErr(t, c.answer(c.write(0, pattern(512, 1))), block.ErrNotFound)
	late := b.connect(fence(2, 1))
	wantErr(t, late.answer(late.open()), block.ErrNotFound)
	if len(b.disk.deleted) != 0 {
		t.Fatal("deleted under I/O")
	}
	b.replica.drain()
	for range 2 {
		if err := b.host.DeleteReplica(b.disk.id, b.replica.id); err != nil {
			t.Fatal(err)
		}
	}
	if len(b.disk.deleted) != 1 || len(b.host.Replicas()) != 0 {
		t.Fatalf("deleted %v", b.disk.deleted)
	}
}

func TestCreateReplica(t *testing.T) {
	b := newBench(t, DefaultLimits())
	id, volume := block.ReplicaID{ID: b.id()}, block.VolumeID{ID: b.id()}
	for _, size := range []int64{testSize, testSize, 2 * testSize} {
		if err := b.host.CreateReplica(b.disk.id, id, volume, size); err != nil {
			t.Fatal(err)
		}
	}
	if len(b.disk.replicas) != 2 {
		t.Fatalf("%d replicas on the disk", len(b.disk.replicas))
	}
	for name, c := range map[string]struct {
		disk   block.DiskID
		id     block.ReplicaID
		volume block.VolumeID
		size   int64
		want   error
	}{
		"smaller":      {b.disk.id, id, volume, testSize / 2, block.ErrExists},
		"other volume": {b.disk.id, id, block.VolumeID{ID: b.id()}, testSize, block.ErrExists},
		"no disk":      {block.DiskID{ID: b.id()}, block.ReplicaID{ID: b.id()}, volume, testSize, block.ErrNotFound},
		"no ID":        {b.disk.id, block.ReplicaID{}, volume, testSize, block.ErrInvalid},
		"no size":      {b.disk.id, block.ReplicaID{ID: b.id()}, volume, 0, block.ErrInvalid},
		"odd size":     {b.disk.id, block.ReplicaID{ID: b.id()}, volume, 5000, block.ErrInvalid},
		"huge":         {b.disk.id, block.ReplicaID{ID: b.id()}, volume, block.MaxVolumeSize + block.BlockSize, block.ErrInvalid},
	} {
		if err := b.host.CreateReplica(c.disk, c.id, c.volume, c.size); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestQuarantine(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.host.Quarantine(b.replica.id, true)
	c := b.connect(fence(1, 1))
	wantErr(t, c.answer(c.open()), block.ErrNotFound)
	if got := b.host.Replicas(); len(got) != 1 || !got[0].Quarantined {
		t.Fatalf("status %+v", got)
	}
	if len(b.disk.deleted) != 0 {
		t.Fatal("a quarantined replica was deleted")
	}
	b.host.Quarantine(b.replica.id, false)
	b.opened(fence(1, 1))
}

func TestStatus(t *testing.T) {
	b := newBench(t, Limits{Running: 1, InFlight: 8})
	c := b.opened(fence(3, 2))
	c.write(0, pattern(512, 1))
	c.write(0, pattern(512, 1))
	got := b.host.Replicas()
	if len(got) != 1 {
		t.Fatalf("%d replicas", len(got))
	}
	s := got[0]
	if s.Replica != b.replica.id || s.Volume != b.replica.volume || s.Disk != b.disk.id || s.Size != testSize ||
		s.Fence != fence(3, 2) || !s.Open || s.Running != 1 || s.Queued != 1 || s.Log != 1 || s.Flush.N != 7 {
		t.Fatalf("status %+v", s)
	}
}
