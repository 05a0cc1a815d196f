package state

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

func replaceExamples() []Command {
	return []Command{
		ReplaceReplica{Volume: volumeID(1), Old: replicaID(11), New: Placement{Replica: replicaID(14), Node: nodeID(1), Disk: diskID(4)}, DecidedAt: 9},
		AbandonReplacement{Volume: volumeID(1), Replica: replicaID(14)},
		DrainDisk{Disk: diskID(1), Successor: diskID(4)},
		DrainDisk{Disk: diskID(1)},
		RemoveDisk{Disk: diskID(1), Lost: true},
		SetSettings{MovesMax: number(2)},
		StartEngine{Volume: volumeID(1), Node: nodeID(1), Start: startID(1), Epoch: 5, NewAttachment: attachmentID(2), Borrow: true, Yield: true},
	}
}

func TestReplaceFormat(t *testing.T) {
	checkCommands(t, "replace_commands.jsonl", replaceExamples())
	m := newMachine(t)
	m.fourth()
	m.replace(1, 12, 14)
	m.must(AbandonReplacement{Volume: volumeID(1), Replica: replicaID(14)})
	m.replace(1, 13, 15)
	m.must(DrainDisk{Disk: diskID(1), Successor: diskID(4)})
	m.must(SetSettings{MovesMax: number(2)})
	m.must(StartEngine{Volume: volumeID(1), Node: nodeID(1), Start: startID(1), NewAttachment: attachmentID(1), Borrow: true, Yield: true})
	checkState(t, "snapshot_replacing.json", m.State)
	var all bytes.Buffer
	v, _ := m.Volume(volumeID(1))
	d, _ := m.Disk(diskID(1))
	data, err := EncodeResult(Result{Volume: &v, Disk: &d})
	if err != nil {
		t.Fatal(err)
	}
	all.Write(data)
	golden(t, "result_replacing.json", all.Bytes())
	if back, err := DecodeResult(data); err != nil || !reflect.DeepEqual(*back.Volume, v) || !reflect.DeepEqual(*back.Disk, d) {
		t.Fatalf("decoded %+v, %v", back, err)
	}
}

// fourth makes volume 1, and gives the cluster a fourth node with a disk.
func (m *machine) fourth() {
	m.t.Helper()
	m.ready(1)
	m.must(SetNode{Node: Node{ID: nodeID(4), Name: "node"}})
	m.must(AddDisk{Disk: Disk{ID: diskID(4), Node: nodeID(4), Path: "/disk", Capacity: 1 << 40}})
}

// replace begins to replace a replica of a volume by one on disk 4.
func (m *machine) replace(volume, old, next uint64) Volume {
	m.t.Helper()
	r := m.must(ReplaceReplica{Volume: volumeID(volume), Old: replicaID(old),
		New: Placement{Replica: replicaID(next), Node: nodeID(4), Disk: diskID(4)}, DecidedAt: m.Index()})
	return *r.Volume
}

// propose is what the engine of volume 1 proposes.
func (m *machine) propose(p block.Proposal) Volume {
	m.t.Helper()
	v, _ := m.Volume(volumeID(1))
	p.Volume, p.Epoch, p.Revision = v.ID, v.View.Epoch, v.View.Revision
	r := m.must(Propose{Proposal: p})
	if r.Verdict != block.Committed {
		m.t.Fatalf("proposal %+v: %+v", p, r)
	}
	return *r.Volume
}

func ids(v Volume) (list []block.ReplicaID) {
	for _, m := range v.View.Replicas {
		list = append(list, m.ID)
	}
	return list
}

func TestReplacement(t *testing.T) {
	m := newMachine(t)
	m.fourth()
	m.start()
	v := m.replace(1, 12, 14)
	if len(v.View.Replicas) != 3 || !v.Ready() || len(v.Unmade()) != 1 {
		t.Fatalf("before the new replica was made: %+v", v)
	}
	m.must(ReplicaReady{Replica: replicaID(14), Incarnation: incarnation(4)})
	v = *m.must(ReplicaReady{Replica: replicaID(14), Incarnation: incarnation(4)}).Volume
	next := v.View.Member(replicaID(14))
	if next == nil || next.InSync || next.Removed != v.View.Revision || next.Incarnation != incarnation(4) {
		t.Fatalf("once it was made: %+v in revision %d", next, v.View.Revision)
	}
	if _, leaves := v.Retiring(); leaves {
		t.Fatal("the old replica is to leave before the new one is in sync")
	}
	v = m.propose(block.Proposal{Admit: []block.ReplicaID{replicaID(14)}})
	if r, leaves := v.Retiring(); !leaves || r.Old != replicaID(12) || v.View.InSync() != 4 {
		t.Fatalf("once the new one is in sync: %+v, %t", r, leaves)
	}
	v = m.propose(block.Proposal{Remove: []block.ReplicaID{replicaID(12)}})
	want := []block.ReplicaID{replicaID(11), replicaID(13), replicaID(14)}
	if !slices.Equal(ids(v), want) || v.View.InSync() != 3 || !v.IsRetired(replicaID(12)) || len(v.Replacing) != 0 {
		t.Fatalf("in the end: %+v", v)
	}
	// The tombstone is deleted on its disk, which can then be removed.
	if r := m.apply(RemoveDisk{Disk: diskID(2)}); !errors.Is(r.Err, block.ErrInUse) {
		t.Fatalf("disk with a tombstone: %v", r.Err)
	}
	m.must(ReplicaGone{Replica: replicaID(12)})
	m.must(RemoveDisk{Disk: diskID(2)})
	if _, known := m.VolumeOf(replicaID(12)); known {
		t.Error("the old replica is still known")
	}
}

// A replica that has left by itself leaves the view with the admission of the one that
// takes its place.
func TestOldReplicaFailsMeanwhile(t *testing.T) {
	m := newMachine(t)
	m.fourth()
	m.start()
	m.replace(1, 12, 14)
	m.must(ReplicaReady{Replica: replicaID(14)})
	v := m.propose(block.Proposal{Remove: []block.ReplicaID{replicaID(12)}})
	if v.View.Member(replicaID(12)) == nil || v.IsRetired(replicaID(12)) {
		t.Fatalf("it was dropped before anything took its place: %+v", v)
	}
	v = m.propose(block.Proposal{Admit: []block.ReplicaID{replicaID(14)}})
	if v.View.Member(replicaID(12)) != nil || !v.IsRetired(replicaID(12)) {
		t.Fatalf("its place is taken: %+v", v)
	}
	// Its disk never comes back.
	if r := m.apply(RemoveDisk{Disk: diskID(3), Lost: true}); !errors.Is(r.Err, block.ErrInUse) {
		t.Fatalf("a disk with a replica was given up: %v", r.Err)
	}
	decided := m.Index()
	m.must(RemoveDisk{Disk: diskID(2), Lost: true})
	if v, _ := m.Volume(volumeID(1)); len(v.Retired) != 0 {
		t.Fatalf("the tombstone is still there: %+v", v)
	}
	// An old decision does not bring its ID back.
	r := m.apply(ReplaceReplica{Volume: volumeID(1), Old: replicaID(11),
		New: Placement{Replica: replicaID(12), Node: nodeID(1), Disk: diskID(1)}, DecidedAt: decided})
	if !errors.Is(r.Err, block.ErrConflict) {
		t.Fatalf("an ID that was used: %v", r.Err)
	}
}

func TestNewReplicaIsAbandoned(t *testing.T) {
	for _, made := range []bool{false, true} {
		m := newMachine(t)
		m.fourth()
		m.start()
		m.replace(1, 12, 14)
		if made {
			m.must(ReplicaReady{Replica: replicaID(14)})
		}
		m.must(AbandonReplacement{Volume: volumeID(1), Replica: replicaID(14)})
		v := *m.must(AbandonReplacement{Volume: volumeID(1), Replica: replicaID(14)}).Volume
		if len(v.View.Replicas) != 3 || !v.IsRetired(replicaID(14)) || len(v.Replacing) != 0 {
			t.Fatalf("made %t: %+v", made, v)
		}
		if r := m.apply(ReplicaReady{Replica: replicaID(14)}); !errors.Is(r.Err, block.ErrNotFound) {
			t.Fatalf("made %t: it is ready too late: %v", made, r.Err)
		}
		m.must(ReplicaGone{Replica: replicaID(14)})
		m.replace(1, 12, 15)
		m.must(ReplicaReady{Replica: replicaID(15)})
		m.propose(block.Proposal{Admit: []block.ReplicaID{replicaID(15)}})
		if r := m.apply(AbandonReplacement{Volume: volumeID(1), Replica: replicaID(15)}); !errors.Is(r.Err, block.ErrInUse) {
			t.Fatalf("a replica in sync was given up: %v", r.Err)
		}
		// It fails before the old one has left.
		m.propose(block.Proposal{Remove: []block.ReplicaID{replicaID(15)}})
		m.must(AbandonReplacement{Volume: volumeID(1), Replica: replicaID(15)})
		if v, _ := m.Volume(volumeID(1)); v.View.InSync() != 3 || v.View.Member(replicaID(12)) == nil {
			t.Fatalf("the old replica is gone: %+v", v)
		}
	}
}

func TestReplacementIsRefused(t *testing.T) {
	m := newMachine(t)
	m.fourth()
	good := ReplaceReplica{Volume: volumeID(1), Old: replicaID(12), New: Placement{Replica: replicaID(14), Node: nodeID(4), Disk: diskID(4)}}
	for name, c := range map[string]struct {
		change func(*ReplaceReplica)
		want   error
	}{
		"volume":     {func(c *ReplaceReplica) { c.Volume = volumeID(9) }, block.ErrNotFound},
		"old":        {func(c *ReplaceReplica) { c.Old = replicaID(99) }, block.ErrNotFound},
		"new":        {func(c *ReplaceReplica) { c.New.Replica = replicaID(11) }, block.ErrExists},
		"disk":       {func(c *ReplaceReplica) { c.New.Disk = diskID(9) }, block.ErrNotFound},
		"other node": {func(c *ReplaceReplica) { c.New.Node = nodeID(1) }, block.ErrNotFound},
		"same disk":  {func(c *ReplaceReplica) { c.New.Node, c.New.Disk = nodeID(2), diskID(2) }, block.ErrNotFound},
		"peer":       {func(c *ReplaceReplica) { c.New.Node, c.New.Disk = nodeID(3), diskID(3) }, block.ErrConflict},
	} {
		command := good
		command.DecidedAt = m.Index()
		c.change(&command)
		if r := m.apply(command); !errors.Is(r.Err, c.want) {
			t.Errorf("%s: %v, want %v", name, r.Err, c.want)
		}
	}
	// A second one: for the same replica, as the replacement of a replacement, and onto
	// the node that the first one goes to.
	m.replace(1, 12, 14)
	m.must(AddDisk{Disk: Disk{ID: diskID(5), Node: nodeID(4), Path: "/other", Capacity: 1 << 40}})
	for old, want := range map[uint64]error{12: block.ErrInUse, 14: block.ErrNotFound, 11: block.ErrConflict} {
		r := m.apply(ReplaceReplica{Volume: volumeID(1), Old: replicaID(old), New: Placement{Replica: replicaID(15), Node: nodeID(4), Disk: diskID(5)}, DecidedAt: m.Index()})
		if !errors.Is(r.Err, want) {
			t.Errorf("replica %d: %v, want %v", old, r.Err, want)
		}
	}
	// On its own node the new one may be beside the old one.
	m.must(AddDisk{Disk: Disk{ID: diskID(6), Node: nodeID(1), Path: "/other", Capacity: 1 << 40}})
	m.must(ReplaceReplica{Volume: volumeID(1), Old: replicaID(11), New: Placement{Replica: replicaID(15), Node: nodeID(1), Disk: diskID(6)}, DecidedAt: m.Index()})
	m.must(ReplicaReady{Replica: replicaID(15)})
}

// What is made from a volume needs its replicas where they are, and is not made of one
// that is to go.
func TestCopiesPinReplicas(t *testing.T) {
	m := newMachine(t)
	m.fourth()
	m.start()
	m.take(1, 1)
	copying := func() CreateVolume {
		c := m.creation(2)
		c.Source = &Source{Snapshot: snapshotID(1), Volume: volumeID(1)}
		return c
	}
	m.replace(1, 12, 14)
	if r := m.apply(copying()); !errors.Is(r.Err, block.ErrConflict) {
		t.Fatalf("a copy of a replica that is being replaced: %v", r.Err)
	}
	m.must(AbandonReplacement{Volume: volumeID(1), Replica: replicaID(14)})
	m.must(copying())
	r := m.apply(ReplaceReplica{Volume: volumeID(1), Old: replicaID(12), New: Placement{Replica: replicaID(15), Node: nodeID(4), Disk: diskID(4)}, DecidedAt: m.Index()})
	if !errors.Is(r.Err, block.ErrInUse) {
		t.Fatalf("a replica that is being copied is replaced: %v", r.Err)
	}
}

func TestDeletedWhileReplaced(t *testing.T) {
	m := newMachine(t)
	m.fourth()
	m.replace(1, 12, 14)
	m.must(DeleteVolume{Volume: volumeID(1)})
	for _, n := range []uint64{11, 12, 13, 14} {
		if _, known := m.VolumeOf(replicaID(n)); !known {
			t.Fatalf("replica %d is forgotten before it is gone", n)
		}
		m.must(ReplicaGone{Replica: replicaID(n)})
	}
	if m.VolumeCount() != 0 {
		t.Fatal("the record is still there")
	}
}

// A publication, and a deletion, end what is borrowed by one who yields, and wait for
// anybody else.
func TestYield(t *testing.T) {
	for _, yields := range []bool{true, false} {
		for _, c := range []Command{Publish{Volume: volumeID(1), Node: nodeID(2)}, DeleteVolume{Volume: volumeID(1)}} {
			m := newMachine(t)
			m.ready(1)
			m.must(StartEngine{Volume: volumeID(1), Node: nodeID(1), Start: startID(1), NewAttachment: attachmentID(1), Borrow: true, Yield: yields})
			r := m.apply(c)
			if got := r.Err == nil; got != yields {
				t.Fatalf("%s, yields %t: %v", c.Kind(), yields, r.Err)
			}
			if v, _ := m.Volume(volumeID(1)); v.Borrowed() == yields {
				t.Fatalf("%s, yields %t: borrowed %t", c.Kind(), yields, v.Borrowed())
			}
		}
	}
}

func TestDrainDisk(t *testing.T) {
	m := newMachine(t)
	if n := m.Settings().Moves(); n != MovesDefault {
		t.Errorf("%d moves at a time", n)
	}
	m.must(SetSettings{MovesMax: number(7)})
	if n := m.Settings().Moves(); n != 7 {
		t.Errorf("%d moves at a time", n)
	}
	for name, c := range map[string]DrainDisk{
		"unknown":           {Disk: diskID(9)},
		"unknown successor": {Disk: diskID(1), Successor: diskID(9)},
		"itself":            {Disk: diskID(1), Successor: diskID(1)},
	} {
		if r := m.apply(c); r.Err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
	m.must(DrainDisk{Disk: diskID(1), Successor: diskID(2)})
	if r := m.apply(DrainDisk{Disk: diskID(3), Successor: diskID(1)}); !errors.Is(r.Err, block.ErrInvalid) {
		t.Errorf("onto a disk that is drained: %v", r.Err)
	}
	m.must(AddDisk{Disk: Disk{ID: diskID(1), Node: nodeID(1), Path: "/again"}})
	if d, _ := m.Disk(diskID(1)); !d.Cordoned || !d.Draining || d.Successor != diskID(2) {
		t.Fatalf("drained: %+v", d)
	}
	m.must(CordonDisk{Disk: diskID(1)})
	if d, _ := m.Disk(diskID(1)); d.Cordoned || d.Draining || !d.Successor.IsZero() {
		t.Fatalf("put back: %+v", d)
	}
}

// A disk moves with its replicas, those that were to go or come included.
func TestDiskMovesWhileReplaced(t *testing.T) {
	m := newMachine(t)
	m.fourth()
	m.must(SetNode{Node: Node{ID: nodeID(5), Name: "node"}})
	m.replace(1, 12, 14)
	m.must(AddDisk{Disk: Disk{ID: diskID(4), Node: nodeID(5), Path: "/moved"}, From: nodeID(4)})
	v, _ := m.Volume(volumeID(1))
	if v.Replacing[0].New.Node != nodeID(5) {
		t.Fatalf("%+v", v.Replacing)
	}
	r := m.apply(AddDisk{Disk: Disk{ID: diskID(4), Node: nodeID(1), Path: "/moved"}, From: nodeID(5)})
	if !errors.Is(r.Err, block.ErrInUse) {
		t.Fatalf("onto a node with another replica: %v", r.Err)
	}
}
