package state

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

func wantErr(t *testing.T, r Result, want error) {
	t.Helper()
	if !errors.Is(r.Err, want) {
		t.Fatalf("error %v, want %v", r.Err, want)
	}
}

func TestBootstrapOnce(t *testing.T) {
	m := &machine{t: t, State: &State{}}
	wantErr(t, m.apply(SetNode{Node: Node{ID: nodeID(1)}}), block.ErrUnavailable)
	wantErr(t, m.apply(Bootstrap{}), block.ErrInvalid)
	first := Bootstrap{Cluster: block.ClusterID{ID: id('c', 1)}, Incarnation: 1}
	m.must(first)
	m.must(first)
	wantErr(t, m.apply(Bootstrap{Cluster: block.ClusterID{ID: id('c', 2)}, Incarnation: 1}), block.ErrForeign)
}

func TestDisks(t *testing.T) {
	m := newMachine(t)
	m.ready(1)
	m.must(SetNode{Node: Node{ID: nodeID(4)}})
	disk := Disk{ID: diskID(1), Node: nodeID(4), Path: "/new", Class: "hdd", Capacity: 5}

	wantErr(t, m.apply(AddDisk{Disk: Disk{ID: diskID(9), Node: nodeID(9)}}), block.ErrNotFound)
	wantErr(t, m.apply(AddDisk{Disk: disk}), block.ErrExists)
	wantErr(t, m.apply(AddDisk{Disk: disk, From: nodeID(2)}), block.ErrExists)
	other := disk
	other.Node = nodeID(2)
	wantErr(t, m.apply(AddDisk{Disk: other, From: nodeID(1)}), block.ErrInUse)

	before, _ := m.Volume(volumeID(1))
	r := m.must(AddDisk{Disk: disk, From: nodeID(1)})
	if r.Disk.Class != "ssd" || r.Disk.Path != "/new" || r.Disk.Node != nodeID(4) {
		t.Fatalf("disk taken back as %+v", r.Disk)
	}
	after, _ := m.Volume(volumeID(1))
	if after.View.Replicas[0].Node != nodeID(4) || after.View.Revision != before.View.Revision+1 {
		t.Fatalf("view after the move: %+v", after.View)
	}
	if before.View.Replicas[0].Node != nodeID(1) {
		t.Fatal("an earlier state changed")
	}
}

func TestCreateVolume(t *testing.T) {
	m := newMachine(t)
	for name, c := range map[string]struct {
		change func(*CreateVolume)
		want   error
	}{
		"no name":        {func(c *CreateVolume) { c.Name = "" }, block.ErrInvalid},
		"no size":        {func(c *CreateVolume) { c.Size = 0 }, block.ErrInvalid},
		"odd size":       {func(c *CreateVolume) { c.Size = 5000 }, block.ErrInvalid},
		"too large":      {func(c *CreateVolume) { c.Size = block.MaxVolumeSize + block.BlockSize }, block.ErrInvalid},
		"too few placed": {func(c *CreateVolume) { c.Replicas = c.Replicas[1:] }, block.ErrInvalid},
		"min in sync":    {func(c *CreateVolume) { c.Parameters.MinInSync = 4 }, block.ErrInvalid},
		"one node twice": {func(c *CreateVolume) {
			c.Replicas[1].Node, c.Replicas[1].Disk = nodeID(1), diskID(1)
		}, block.ErrInvalid},
		"replica twice":  {func(c *CreateVolume) { c.Replicas[1].Replica = c.Replicas[0].Replica }, block.ErrInvalid},
		"disk elsewhere": {func(c *CreateVolume) { c.Replicas[1].Disk = diskID(1) }, block.ErrNotFound},
		"no such disk":   {func(c *CreateVolume) { c.Replicas[1].Disk = diskID(8) }, block.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			command := m.creation(1)
			c.change(&command)
			wantErr(t, m.apply(command), c.want)
			if m.VolumeCount() != 0 {
				t.Fatal("a refused command made a volume")
			}
		})
	}

	made := m.must(m.creation(1))
	again := m.creation(1)
	again.Volume = volumeID(2)
	if r := m.must(again); r.Volume.ID != made.Volume.ID {
		t.Fatalf("the second create made volume %s", r.Volume.ID)
	}
	again.Size *= 2
	wantErr(t, m.apply(again), block.ErrExists)
	reused := m.creation(2)
	reused.Volume = volumeID(1)
	wantErr(t, m.apply(reused), block.ErrExists)
	reused = m.creation(2)
	reused.Replicas[0].Replica = replicaID(11)
	wantErr(t, m.apply(reused), block.ErrExists)
}

func TestVolumeLife(t *testing.T) {
	m := newMachine(t)
	m.must(m.creation(1))
	wantErr(t, m.apply(Publish{Volume: volumeID(1), Node: nodeID(1)}), block.ErrUnavailable)
	wantErr(t, m.apply(ReplicaReady{Replica: replicaID(99)}), block.ErrNotFound)
	for r := uint64(11); r <= 13; r++ {
		if v, _ := m.Volume(volumeID(1)); v.View.InSync() != 0 {
			t.Fatalf("in sync before all are ready: %+v", v.View)
		}
		m.must(ReplicaReady{Replica: replicaID(r), Incarnation: incarnation(r)})
	}
	v, _ := m.Volume(volumeID(1))
	if !v.Ready() || v.View.InSync() != 3 || v.View.Replicas[2].Incarnation != incarnation(13) || v.View.Epoch != 0 {
		t.Fatalf("ready volume: %+v", v)
	}
	m.must(ReplicaReady{Replica: replicaID(11), Incarnation: incarnation(50)})
	if w, _ := m.Volume(volumeID(1)); !reflect.DeepEqual(v, w) {
		t.Fatalf("a repeated report changed the volume: %+v", w)
	}

	wantErr(t, m.apply(Publish{Volume: volumeID(1), Node: nodeID(9)}), block.ErrNotFound)
	m.start()
	wantErr(t, m.apply(Publish{Volume: volumeID(1), Node: nodeID(2)}), block.ErrInUse)
	wantErr(t, m.apply(DeleteVolume{Volume: volumeID(1)}), block.ErrInUse)
	wantErr(t, m.apply(ReplicaGone{Replica: replicaID(11)}), block.ErrInUse)
	wantErr(t, m.apply(Unpublish{Volume: volumeID(1), Node: nodeID(1)}), block.ErrInUse)
	m.must(Unpublish{Volume: volumeID(1), Node: nodeID(2), EndAttachment: true})
	if v, _ := m.Volume(volumeID(1)); v.Published != nodeID(1) || v.View.Owner != nodeID(1) {
		t.Fatalf("unpublishing from another node changed %+v", v)
	}
	m.must(Unpublish{Volume: volumeID(1), Node: nodeID(1), EndAttachment: true})

	stale := m.creation(1)
	m.must(DeleteVolume{Volume: volumeID(1)})
	m.must(DeleteVolume{Volume: volumeID(1)})
	if _, ok := m.VolumeByName(stale.Name); ok {
		t.Fatal("a deleted volume holds its name")
	}
	wantErr(t, m.apply(ReplicaReady{Replica: replicaID(11)}), block.ErrNotFound)
	wantErr(t, m.apply(Publish{Volume: volumeID(1), Node: nodeID(1)}), block.ErrNotFound)
	for r := uint64(11); r <= 13; r++ {
		m.must(ReplicaGone{Replica: replicaID(r)})
		m.must(ReplicaGone{Replica: replicaID(r)})
	}
	if m.VolumeCount() != 0 {
		t.Fatal("the record outlives its replicas")
	}
	wantErr(t, m.apply(DeleteVolume{Volume: volumeID(1)}), block.ErrNotFound)
	wantErr(t, m.apply(stale), block.ErrConflict)
}

func TestStartEngine(t *testing.T) {
	m := newMachine(t)
	m.ready(1)
	fresh := StartEngine{Volume: volumeID(1), Node: nodeID(1), Start: startID(1), NewAttachment: attachmentID(1)}
	wantErr(t, m.apply(fresh), block.ErrDetached)
	view := m.start()
	if view.Epoch != 1 || view.Owner != nodeID(1) || view.Start != startID(1) || view.Attachment != attachmentID(1) {
		t.Fatalf("first start: %+v", view)
	}
	if again := m.must(fresh); !reflect.DeepEqual(again.View(), view) {
		t.Fatalf("a repeated start made %+v", again.View())
	}

	second := fresh
	second.Start, second.NewAttachment, second.Epoch = startID(2), attachmentID(2), 1
	wantErr(t, m.apply(second), block.ErrInUse)
	elsewhere := second
	elsewhere.Node = nodeID(2)
	wantErr(t, m.apply(elsewhere), block.ErrInUse)
	both := second
	both.Attachment = attachmentID(1)
	wantErr(t, m.apply(both), block.ErrInvalid)

	restart := StartEngine{Volume: volumeID(1), Node: nodeID(1), Start: startID(2), Attachment: attachmentID(1)}
	if r := m.apply(restart); !errors.Is(r.Err, block.ErrConflict) || r.View().Epoch != 1 {
		t.Fatalf("start on a stale epoch: %+v", r)
	}
	restart.Epoch = 1
	if r := m.must(restart); r.View().Epoch != 2 || r.View().Revision != view.Revision+1 || r.View().Attachment != attachmentID(1) {
		t.Fatalf("restart: %+v", r.View())
	}
	// The first start, delivered late, must not fence the second.
	wantErr(t, m.apply(fresh), block.ErrInUse)

	m.must(EndAttachment{Volume: volumeID(1), Attachment: attachmentID(1)})
	m.must(EndAttachment{Volume: volumeID(1), Attachment: attachmentID(1)})
	restart.Start, restart.Epoch = startID(3), 2
	wantErr(t, m.apply(restart), block.ErrDetached)
	// Nor may it bring its attachment back.
	wantErr(t, m.apply(fresh), block.ErrConflict)

	// Nor does it start again once a later attachment is there.
	later := fresh
	later.Start, later.NewAttachment, later.Epoch = startID(4), attachmentID(2), 2
	m.must(later)
	restart.Start, restart.Epoch = startID(5), 3
	wantErr(t, m.apply(restart), block.ErrDetached)
}

func TestPropose(t *testing.T) {
	m := newMachine(t)
	m.ready(1)
	view := m.start()
	at := func(view block.View) block.Proposal {
		return block.Proposal{Volume: view.Volume, Epoch: view.Epoch, Revision: view.Revision}
	}
	committed := func(p block.Proposal) block.View {
		t.Helper()
		r := m.must(Propose{Proposal: p})
		if r.Verdict != block.Committed || r.View().Revision != p.Revision+1 {
			t.Fatalf("proposal %+v: %+v", p, r)
		}
		return r.View()
	}
	invalid := func(change func(*block.Proposal)) {
		t.Helper()
		p := at(view)
		change(&p)
		r := m.apply(Propose{Proposal: p})
		wantErr(t, r, block.ErrInvalid)
		if r.Verdict != block.Conflict || !reflect.DeepEqual(r.View(), view) {
			t.Fatalf("refused proposal: %+v", r)
		}
	}
	ids := func(n ...uint64) (list []block.ReplicaID) {
		for _, n := range n {
			list = append(list, replicaID(n))
		}
		return list
	}

	invalid(func(p *block.Proposal) { p.Remove = ids(11, 12, 13) })
	invalid(func(p *block.Proposal) { p.Remove = ids(11, 11) })
	invalid(func(p *block.Proposal) { p.Remove = ids(99) })
	invalid(func(p *block.Proposal) { p.Admit = ids(11) })
	invalid(func(p *block.Proposal) { p.Admit = ids(99) })
	invalid(func(p *block.Proposal) { p.Incarnations = []block.MemberIncarnation{{Replica: replicaID(99)}} })

	p := at(view)
	p.Remove = ids(12)
	removed := committed(p)
	if o := removed.Member(replicaID(12)); o.InSync || o.Removed != removed.Revision || !removed.NotWaitedOut {
		t.Fatalf("after a removal: %+v", removed)
	}
	if r := m.must(Propose{Proposal: p}); r.Verdict != block.Conflict || !reflect.DeepEqual(r.View(), removed) {
		t.Fatalf("a repeated proposal: %+v", r)
	}
	view = removed
	invalid(func(p *block.Proposal) { p.Remove = ids(12) })

	p = at(view)
	p.Admit, p.Incarnations, p.WaitedOut = ids(12), []block.MemberIncarnation{{Replica: replicaID(12), Incarnation: incarnation(77)}}, true
	view = committed(p)
	if o := view.Member(replicaID(12)); !o.InSync || o.Removed != 0 || o.Incarnation != incarnation(77) || view.NotWaitedOut {
		t.Fatalf("after an admission: %+v", view)
	}
	p = at(view)
	p.Remove, p.WaitedOut = ids(13), true
	if view = committed(p); view.NotWaitedOut {
		t.Fatal("a removal already waited out left the mark")
	}
	view = committed(at(view))

	wrongEpoch := at(view)
	wrongEpoch.Epoch++
	if r := m.must(Propose{Proposal: wrongEpoch}); r.Verdict != block.Conflict {
		t.Fatalf("a proposal of another epoch: %+v", r)
	}
	p = at(view)
	p.EndAttachment = true
	view = committed(p)
	if !view.Attachment.IsZero() || !view.Owner.IsZero() || view.Epoch != 1 {
		t.Fatalf("after the end of the attachment: %+v", view)
	}
	if r := m.must(Propose{Proposal: at(view)}); r.Verdict != block.Conflict {
		t.Fatalf("a proposal after the end of the attachment: %+v", r)
	}
	wantErr(t, m.apply(Propose{Proposal: block.Proposal{Volume: volumeID(9)}}), block.ErrNotFound)
}

func TestStatesAreImmutable(t *testing.T) {
	m := newMachine(t)
	m.ready(1)
	var states []*State
	var snapshots [][]byte
	keep := func() {
		data, err := m.Save()
		if err != nil {
			t.Fatal(err)
		}
		states, snapshots = append(states, m.State), append(snapshots, data)
	}
	keep()
	view := m.start()
	keep()
	m.must(Propose{Proposal: block.Proposal{Volume: view.Volume, Epoch: view.Epoch, Revision: view.Revision, Remove: []block.ReplicaID{replicaID(11)}}})
	keep()
	m.must(Unpublish{Volume: volumeID(1), Node: nodeID(1), EndAttachment: true})
	m.must(DeleteVolume{Volume: volumeID(1)})
	keep()
	m.must(ReplicaGone{Replica: replicaID(11)})
	for i, s := range states {
		if data, _ := s.Save(); !slices.Equal(data, snapshots[i]) {
			t.Fatalf("state %d changed from\n%s\nto\n%s", i, snapshots[i], data)
		}
	}
}

// TestCheckCatches plants a fault for each clause of Check.
func TestCheckCatches(t *testing.T) {
	for name, plant := range map[string]func(s *State, v *Volume){
		"foreign view":        func(_ *State, v *Volume) { v.View.Volume = volumeID(5) },
		"no size":             func(_ *State, v *Volume) { v.View.Size = 0 },
		"name lost":           func(s *State, v *Volume) { s.names = s.names.without(nameKey(v.Name)) },
		"a replica too few":   func(_ *State, v *Volume) { v.View.Replicas = v.View.Replicas[1:] },
		"owner without start": func(_ *State, v *Volume) { v.View.Start = block.StartID{} },
		"attachment unowned": func(_ *State, v *Volume) {
			v.View.Owner, v.View.Start = block.NodeID{}, block.StartID{}
		},
		"owner unpublished": func(_ *State, v *Volume) { v.Published = nodeID(2) },
		"no epoch":          func(_ *State, v *Volume) { v.View.Epoch = 0 },
		"published pending": func(_ *State, v *Volume) {
			v.View.Replicas[0].InSync, v.Pending = false, []block.ReplicaID{replicaID(11)}
		},
		"pending in sync": func(_ *State, v *Volume) { v.Pending = []block.ReplicaID{replicaID(11)} },
		"unknown pending": func(_ *State, v *Volume) {
			v.Published = block.NodeID{}
			detach(&v.View)
			v.Pending = []block.ReplicaID{replicaID(99)}
		},
		"disk moved":        func(_ *State, v *Volume) { v.View.Replicas[0].Node = nodeID(2) },
		"removed in sync":   func(_ *State, v *Volume) { v.View.Replicas[0].Removed = 1 },
		"removed in future": func(_ *State, v *Volume) { v.View.Replicas[0].InSync, v.View.Replicas[0].Removed = false, 99 },
		"replica twice":     func(_ *State, v *Volume) { v.View.Replicas[1] = v.View.Replicas[0] },
		"not indexed":       func(s *State, v *Volume) { s.replicas = s.replicas.without(replicaID(11).ID) },
		"index too large":   func(s *State, v *Volume) { s.replicas = s.replicas.with(id('x', 1), v.ID) },
		"nobody in sync": func(_ *State, v *Volume) {
			for i := range v.View.Replicas {
				v.View.Replicas[i].InSync = false
			}
		},
		"snapshot without record": func(_ *State, v *Volume) {
			v.View.Snapshots = append(v.View.Snapshots, block.Snapshot{ID: snapshotID(9), Size: 1 << 20})
		},
		"snapshot twice": func(_ *State, v *Volume) { v.View.Snapshots = append(v.View.Snapshots, v.View.Snapshots[0]) },
		"snapshot lost":  func(_ *State, v *Volume) { v.View.Snapshots = nil },
		"snapshot of nothing": func(s *State, _ *Volume) {
			*s = *s.withSnapshot(Snapshot{ID: snapshotID(9), Name: "x", Volume: volumeID(9)})
		},
		"snapshot name taken": func(s *State, v *Volume) {
			*s = *s.withSnapshot(Snapshot{ID: snapshotID(9), Name: "snapshot-1", Volume: v.ID})
		},
		"snapshot too large": func(s *State, v *Volume) {
			v.View.Snapshots[0].Size *= 2
			r, _ := s.Snapshot(snapshotID(1))
			r.Size *= 2
			*s = *s.withSnapshot(r)
		},
		"borrowed unindexed": func(s *State, v *Volume) { s.borrowed = s.borrowed.with(v.ID.ID, v.ID) },
		"making unindexed":   func(s *State, v *Volume) { s.making = s.making.with(v.ID.ID, v.ID) },
		"reserved unindexed": func(s *State, _ *Volume) { s.reserved = s.reserved.with(snapshotID(1).ID, snapshotID(1)) },
		"growing backwards":  func(_ *State, v *Volume) { v.GrowTo = v.View.Size },
		"absent when ready":  func(_ *State, v *Volume) { v.Absent = []block.ReplicaID{replicaID(11)} },
		"made of nothing": func(_ *State, v *Volume) {
			v.Published = block.NodeID{}
			detach(&v.View)
			v.Pending, v.View.Replicas[0].InSync = []block.ReplicaID{replicaID(11)}, false
			v.Source = &Source{Snapshot: snapshotID(9), Volume: volumeID(1)}
		},
		"borrowed pending": func(_ *State, v *Volume) {
			v.Published, v.View.Replicas[0].InSync, v.Pending = block.NodeID{}, false, []block.ReplicaID{replicaID(11)}
		},
		"node lost":         func(s *State, _ *Volume) { s.nodes = s.nodes.without(nodeID(1).ID) },
		"dropped in future": func(s *State, _ *Volume) { s.collected = s.index + 1 },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.ready(1)
			m.start()
			m.take(1, 1)
			broken := *m.State
			v, _ := broken.Volume(volumeID(1))
			v = v.clone()
			plant(&broken, &v)
			broken.volumes = broken.volumes.with(v.ID.ID, v)
			if err := broken.Check(); err == nil {
				t.Fatal("the planted fault was not found")
			}
		})
	}
}
