package state

import (
	"fmt"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

func (m *machine) volume(n uint64) Volume {
	m.t.Helper()
	v, ok := m.Volume(volumeID(n))
	if !ok {
		m.t.Fatalf("volume %d is gone", n)
	}
	return v
}

func TestSnapshotLife(t *testing.T) {
	m := newMachine(t)
	m.ready(1)
	m.ready(2)
	create := CreateSnapshot{Snapshot: snapshotID(1), Name: "monday", Volume: volumeID(1), Created: 77, DecidedAt: m.Index()}
	for name, c := range map[string]struct {
		change func(*CreateSnapshot)
		want   error
	}{
		"no name":   {func(c *CreateSnapshot) { c.Name = "" }, block.ErrInvalid},
		"no ID":     {func(c *CreateSnapshot) { c.Snapshot = block.SnapshotID{} }, block.ErrInvalid},
		"kept head": {func(c *CreateSnapshot) { c.Snapshot = block.KeptHead }, block.ErrInvalid},
		"no volume": {func(c *CreateSnapshot) { c.Volume = volumeID(9) }, block.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			refused := create
			c.change(&refused)
			wantErr(t, m.apply(refused), c.want)
		})
	}
	before := m.volume(1).View.Revision
	if r := m.must(create); r.Snapshot.Ready() || m.volume(1).View.Revision != before {
		t.Fatalf("reserved: %+v, revision %d, was %d", r.Snapshot, m.volume(1).View.Revision, before)
	}
	again := create
	again.Snapshot = snapshotID(2)
	if r := m.must(again); r.Snapshot.ID != create.Snapshot {
		t.Fatalf("the same name made snapshot %s", r.Snapshot.ID)
	}
	again.Volume = volumeID(2)
	wantErr(t, m.apply(again), block.ErrExists)
	again.Name, again.Snapshot = "tuesday", create.Snapshot
	wantErr(t, m.apply(again), block.ErrExists)

	view := m.start()
	p := block.Proposal{Volume: view.Volume, Epoch: view.Epoch, Revision: view.Revision, Snapshot: &block.Snapshot{ID: create.Snapshot, Size: view.Size, Created: 77}}
	for name, change := range map[string]func(*block.Snapshot){
		"not reserved": func(s *block.Snapshot) { s.ID, s.Created = snapshotID(8), 0 },
		"too large":    func(s *block.Snapshot) { s.Size += block.BlockSize },
		"no size":      func(s *block.Snapshot) { s.Size = 0 },
		"other time":   func(s *block.Snapshot) { s.Created++ },
	} {
		refused, o := p, *p.Snapshot
		change(&o)
		refused.Snapshot = &o
		if r := m.apply(Propose{Proposal: refused}); r.Verdict != block.Conflict || r.Err == nil || len(r.View().Snapshots) != 0 {
			t.Fatalf("%s: %+v", name, r)
		}
	}
	r := m.must(Propose{Proposal: p})
	if got := r.View(); r.Verdict != block.Committed || len(got.Snapshots) != 1 || got.Snapshots[0] != *p.Snapshot {
		t.Fatalf("taken: %+v", r)
	}
	if s, _ := m.SnapshotByName("monday"); !s.Ready() || s.Size != view.Size {
		t.Fatalf("taken: %+v", s)
	}
	p.Revision++
	if r := m.apply(Propose{Proposal: p}); r.Verdict != block.Conflict || r.Err == nil {
		t.Fatalf("taken twice: %+v", r)
	}

	m.must(DeleteSnapshot{Snapshot: create.Snapshot, Untaken: true})
	if s, ok := m.Snapshot(create.Snapshot); !ok || !s.Ready() {
		t.Fatal("what was taken was taken back")
	}
	m.must(DeleteSnapshot{Snapshot: create.Snapshot})
	m.must(DeleteSnapshot{Snapshot: create.Snapshot})
	if v := m.volume(1); len(v.View.Snapshots) != 0 || v.View.Revision != p.Revision+1 {
		t.Fatalf("after the deletion: %+v", v.View)
	}
	// The creation, delivered late, must not bring the ID back.
	wantErr(t, m.apply(create), block.ErrConflict)
	p.Revision++
	wantErr(t, m.apply(Propose{Proposal: p}), block.ErrInvalid)
}

func TestSnapshotLimit(t *testing.T) {
	m := newMachine(t)
	c := m.creation(1)
	c.Parameters.SnapshotsMax = 2
	m.must(c)
	for r := uint64(11); r <= 13; r++ {
		wantErr(t, m.apply(CreateSnapshot{Snapshot: snapshotID(9), Name: "early", Volume: volumeID(1), DecidedAt: m.Index()}), block.ErrUnavailable)
		m.must(ReplicaReady{Replica: replicaID(r)})
	}
	m.ready(2)
	take := func(volume, n uint64) Result {
		return m.apply(CreateSnapshot{Snapshot: snapshotID(n), Name: fmt.Sprint(n), Volume: volumeID(volume), DecidedAt: m.Index()})
	}
	for n := uint64(1); n <= 2; n++ {
		wantErr(t, take(1, n), nil)
	}
	wantErr(t, take(1, 3), block.ErrNoCapacity)
	m.must(DeleteSnapshot{Snapshot: snapshotID(1), Untaken: true})
	wantErr(t, take(1, 3), nil)
	for n := range uint64(SnapshotsDefault) {
		wantErr(t, take(2, 10+n), nil)
	}
	wantErr(t, take(2, 1000), block.ErrNoCapacity)
}

func TestDeletedVolumeTakesSnapshotsAlong(t *testing.T) {
	m := newMachine(t)
	m.ready(1)
	m.start()
	m.take(1, 1)
	m.must(CreateSnapshot{Snapshot: snapshotID(2), Name: "pending", Volume: volumeID(1), DecidedAt: m.Index()})
	m.must(Unpublish{Volume: volumeID(1), Node: nodeID(1), EndAttachment: true})
	m.must(DeleteVolume{Volume: volumeID(1)})
	for n := uint64(1); n <= 2; n++ {
		if s, ok := m.Snapshot(snapshotID(n)); ok {
			t.Fatalf("%+v outlived its volume", s)
		}
	}
}

func TestGrowth(t *testing.T) {
	m := newMachine(t)
	m.ready(1)
	size := m.volume(1).View.Size
	grow := func(to int64) Result { return m.apply(GrowVolume{Volume: volumeID(1), Size: to}) }
	wantErr(t, grow(size-block.BlockSize), block.ErrInvalid)
	wantErr(t, grow(size+1), block.ErrInvalid)
	wantErr(t, grow(block.MaxVolumeSize+block.BlockSize), block.ErrInvalid)
	wantErr(t, m.apply(GrowVolume{Volume: volumeID(9), Size: size}), block.ErrNotFound)
	if m.must(GrowVolume{Volume: volumeID(1), Size: size}); m.volume(1).GrowTo != 0 {
		t.Fatalf("asking for what it has: %+v", m.volume(1))
	}
	view := m.start()
	propose := func(to int64) Result {
		v := m.volume(1)
		return m.apply(Propose{Proposal: block.Proposal{Volume: v.ID, Epoch: view.Epoch, Revision: v.View.Revision, Size: to}})
	}
	wantErr(t, propose(2*size), block.ErrInvalid)
	wantErr(t, grow(2*size), nil)
	wantErr(t, grow(3*size), nil)
	wantErr(t, grow(2*size), nil)
	if got := m.volume(1).GrowTo; got != 3*size {
		t.Fatalf("growing to %d", got)
	}
	// An engine that began with the first intent finishes that.
	if r := propose(2 * size); r.Verdict != block.Committed || r.Volume.View.Size != 2*size || r.Volume.GrowTo != 3*size {
		t.Fatalf("grown: %+v", r)
	}
	wantErr(t, propose(2*size), block.ErrInvalid)
	wantErr(t, propose(4*size), block.ErrInvalid)
	if r := propose(3 * size); r.Verdict != block.Committed || r.Volume.View.Size != 3*size || r.Volume.GrowTo != 0 {
		t.Fatalf("grown: %+v", r)
	}
	wantErr(t, grow(size), block.ErrInvalid)
}

func TestBorrow(t *testing.T) {
	m := newMachine(t)
	m.ready(1)
	borrow := StartEngine{Volume: volumeID(1), Node: nodeID(2), Start: startID(1), NewAttachment: attachmentID(1), Borrow: true}
	again := borrow
	again.Attachment, again.NewAttachment = attachmentID(1), block.AttachmentID{}
	wantErr(t, m.apply(again), block.ErrDetached)
	r := m.must(borrow)
	if r.Volume.View.Owner != nodeID(2) || r.Volume.View.Epoch != 1 || !r.Volume.Borrowed() {
		t.Fatalf("borrowed: %+v", r.Volume)
	}
	m.must(borrow)
	// While it lives nobody else gets the volume, nor an engine of the same node.
	wantErr(t, m.apply(Publish{Volume: volumeID(1), Node: nodeID(2)}), block.ErrUnavailable)
	wantErr(t, m.apply(DeleteVolume{Volume: volumeID(1)}), block.ErrUnavailable)
	second := borrow
	second.Start, second.NewAttachment, second.Epoch = startID(2), attachmentID(2), 1
	wantErr(t, m.apply(second), block.ErrInUse)
	second.Borrow = false
	wantErr(t, m.apply(second), block.ErrInUse)
	m.must(Unpublish{Volume: volumeID(1), Node: nodeID(2), EndAttachment: true})
	if m.take(1, 1).Attachment != attachmentID(1) {
		t.Fatalf("the borrower was thrown out: %+v", m.volume(1))
	}
	m.must(EndAttachment{Volume: volumeID(1), Attachment: attachmentID(1)})
	m.must(Publish{Volume: volumeID(1), Node: nodeID(1)})
	second.Borrow = true
	wantErr(t, m.apply(second), block.ErrInUse)
	// A late second delivery of the first start does not bring it back.
	wantErr(t, m.apply(borrow), block.ErrInUse)
}

// copyOf is the creation of volume n from a snapshot, with its second replica absent.
func (m *machine) copyOf(n, volume, snapshot uint64) CreateVolume {
	c := m.creation(n)
	c.Source, c.Replicas[1].Absent = &Source{Snapshot: snapshotID(snapshot), Volume: volumeID(volume)}, true
	return c
}

func TestVolumeFromSnapshot(t *testing.T) {
	m := newMachine(t)
	m.ready(1)
	m.start()
	m.must(CreateSnapshot{Snapshot: snapshotID(2), Name: "untaken", Volume: volumeID(1), DecidedAt: m.Index()})
	view := m.take(1, 1)
	m.must(Propose{Proposal: block.Proposal{Volume: view.Volume, Epoch: view.Epoch, Revision: view.Revision, Remove: []block.ReplicaID{replicaID(12)}}})

	for name, c := range map[string]struct {
		change func(*CreateVolume)
		want   error
	}{
		"unknown":         {func(c *CreateVolume) { c.Source.Snapshot = snapshotID(9) }, block.ErrNotFound},
		"of another":      {func(c *CreateVolume) { c.Source.Volume = volumeID(2) }, block.ErrNotFound},
		"untaken":         {func(c *CreateVolume) { c.Source.Snapshot = snapshotID(2) }, block.ErrUnavailable},
		"too small":       {func(c *CreateVolume) { c.Size -= block.BlockSize }, block.ErrInvalid},
		"not in sync":     {func(c *CreateVolume) { c.Replicas[1].Absent = false }, block.ErrConflict},
		"all absent":      {func(c *CreateVolume) { c.Replicas[0].Absent, c.Replicas[2].Absent = true, true }, block.ErrInvalid},
		"absent of zeros": {func(c *CreateVolume) { c.Source = nil }, block.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			command := m.copyOf(2, 1, 1)
			c.change(&command)
			wantErr(t, m.apply(command), c.want)
		})
	}
	command := m.copyOf(2, 1, 1)
	command.Size *= 2
	m.must(command)
	other := command
	other.Source = &Source{Snapshot: snapshotID(1), Volume: volumeID(1), Clone: true}
	wantErr(t, m.apply(other), block.ErrExists)
	other.Source = nil
	for i := range other.Replicas {
		other.Replicas[i].Absent = false
	}
	wantErr(t, m.apply(other), block.ErrExists)

	// Pinned until it is made.
	for r := uint64(21); r <= 23; r++ {
		wantErr(t, m.apply(DeleteSnapshot{Snapshot: snapshotID(1)}), block.ErrInUse)
		m.must(ReplicaReady{Replica: replicaID(r)})
	}
	v := m.volume(2)
	absent := v.View.Member(replicaID(22))
	if v.View.InSync() != 2 || absent.InSync || absent.Removed != v.View.Revision || v.Absent != nil || v.View.Size != command.Size {
		t.Fatalf("made from a snapshot: %+v", v)
	}
	m.must(DeleteSnapshot{Snapshot: snapshotID(1)})
	if got := m.volume(2).Source; got == nil || got.Snapshot != snapshotID(1) {
		t.Fatalf("source %+v", got)
	}
}

// TestCloneDropsItsMeans: the snapshot behind the clone of a volume goes with the last
// replica, or with the clone.
func TestCloneDropsItsMeans(t *testing.T) {
	for _, give := range []bool{false, true} {
		m := newMachine(t)
		m.ready(1)
		m.start()
		m.take(1, 1)
		c := m.copyOf(2, 1, 1)
		c.Source.Clone = true
		m.must(c)
		m.must(Unpublish{Volume: volumeID(1), Node: nodeID(1), EndAttachment: true})
		wantErr(t, m.apply(DeleteVolume{Volume: volumeID(1)}), block.ErrInUse)
		m.must(ReplicaReady{Replica: replicaID(21)})
		if give {
			m.must(DeleteVolume{Volume: volumeID(2)})
		} else {
			m.must(ReplicaReady{Replica: replicaID(22)})
			m.must(ReplicaReady{Replica: replicaID(23)})
		}
		if s, ok := m.Snapshot(snapshotID(1)); ok || len(m.volume(1).View.Snapshots) != 0 {
			t.Fatalf("the clone is over, its means are still there: %+v", s)
		}
		m.must(DeleteVolume{Volume: volumeID(1)})
	}
}
