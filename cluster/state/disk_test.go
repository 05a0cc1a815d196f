package state

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

func TestDiskCommandFormat(t *testing.T) {
	var all bytes.Buffer
	for _, c := range []Command{CordonDisk{Disk: diskID(1), Cordoned: true}, RemoveDisk{Disk: diskID(1)}} {
		data, err := Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(append(data, '\n'))
		if back, err := Decode(data); err != nil || !reflect.DeepEqual(back, c) {
			t.Fatalf("decoded %+v, %v, want %+v", back, err, c)
		}
	}
	golden(t, "disk_commands.jsonl", all.Bytes())
}

func TestCordonDisk(t *testing.T) {
	m := newMachine(t)
	for _, on := range []bool{true, true, false} {
		r := m.must(CordonDisk{Disk: diskID(2), Cordoned: on})
		if d, _ := m.Disk(diskID(2)); d.Cordoned != on || r.Disk.Cordoned != on || d.Class != "ssd" {
			t.Fatalf("disk %+v, result %+v, want cordoned %t", d, r.Disk, on)
		}
	}
	m.must(CordonDisk{Disk: diskID(2), Cordoned: true})
	// Its node takes it back, or another one does.
	m.must(AddDisk{Disk: Disk{ID: diskID(2), Node: nodeID(2), Path: "/elsewhere"}})
	m.must(SetNode{Node: Node{ID: nodeID(4)}})
	m.must(AddDisk{Disk: Disk{ID: diskID(2), Node: nodeID(4), Path: "/moved"}, From: nodeID(2)})
	if d, _ := m.Disk(diskID(2)); !d.Cordoned || d.Node != nodeID(4) {
		t.Fatalf("after the moves: %+v", d)
	}
	if r := m.apply(CordonDisk{Disk: diskID(9)}); !errors.Is(r.Err, block.ErrNotFound) {
		t.Fatalf("unknown disk: %v", r.Err)
	}
}

func TestRemoveDisk(t *testing.T) {
	m := newMachine(t)
	m.ready(1)
	view := m.start()
	m.must(Propose{Proposal: block.Proposal{Volume: view.Volume, Epoch: view.Epoch, Revision: view.Revision, Remove: []block.ReplicaID{replicaID(12)}}})
	for disk, want := range map[uint64]string{
		1: `volume "volume-b" (in sync, as are 1 others)`,
		2: `volume "volume-b" (not in sync, 2 others are)`,
	} {
		r := m.apply(RemoveDisk{Disk: diskID(disk)})
		if !errors.Is(r.Err, block.ErrInUse) || !strings.Contains(r.Err.Error(), want) {
			t.Errorf("disk %d: %v, want one that says %s", disk, r.Err, want)
		}
	}
	m.must(Unpublish{Volume: volumeID(1), Node: nodeID(1), EndAttachment: true})
	m.must(DeleteVolume{Volume: volumeID(1)})
	if r := m.apply(RemoveDisk{Disk: diskID(3)}); !errors.Is(r.Err, block.ErrInUse) || !strings.Contains(r.Err.Error(), "being deleted") {
		t.Fatalf("with a replica that is being deleted: %v", r.Err)
	}
	m.must(ReplicaGone{Replica: replicaID(13)})
	if r := m.must(RemoveDisk{Disk: diskID(3)}); r.Disk.Node != nodeID(3) {
		t.Fatalf("result %+v", r.Disk)
	}
	if _, ok := m.Disk(diskID(3)); ok {
		t.Fatal("it is there")
	}
	if r := m.apply(RemoveDisk{Disk: diskID(3)}); !errors.Is(r.Err, block.ErrNotFound) {
		t.Fatalf("again: %v", r.Err)
	}
	// A volume that was placed before that and is made after it finds no disk.
	c := CreateVolume{Volume: volumeID(2), Name: "late", Size: 1 << 30, Parameters: Parameters{Replicas: 1, MinInSync: 1},
		Replicas: []Placement{{Replica: replicaID(21), Node: nodeID(3), Disk: diskID(3)}}, DecidedAt: m.Index()}
	if r := m.apply(c); !errors.Is(r.Err, block.ErrNotFound) {
		t.Fatalf("created on a removed disk: %v", r.Err)
	}
}

func TestRemoveTheOnlyCopy(t *testing.T) {
	m := newMachine(t)
	m.must(CreateVolume{Volume: volumeID(1), Name: "single", Size: 1 << 30, Parameters: Parameters{Replicas: 1, MinInSync: 1},
		Replicas: []Placement{{Replica: replicaID(11), Node: nodeID(1), Disk: diskID(1)}}, DecidedAt: m.Index()})
	m.must(ReplicaReady{Replica: replicaID(11)})
	if r := m.apply(RemoveDisk{Disk: diskID(1)}); !errors.Is(r.Err, block.ErrInUse) || !strings.Contains(r.Err.Error(), "the only one in sync") {
		t.Fatalf("removed: %v", r.Err)
	}
}
