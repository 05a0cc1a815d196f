package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/cluster"
	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

// TestTrashIsNamed in the warning of a disk with a replica of a volume in the trash.
func TestTrashIsNamed(t *testing.T) {
	d, id, path := newTestDisks(t)
	added, err := d.AddDisk(t.Context(), id, cluster.NewDisk{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	volume, replica, node := block.VolumeID{ID: block.ID{4}}, block.ReplicaID{ID: block.ID{5}}, block.NodeID{ID: block.ID{2}}
	spec := cluster.ReplicaSpec{Disk: added.ID, Replica: replica, Volume: volume, Size: 1 << 30}
	incarnation, err := d.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	keep := int64(60)
	s := applied(t, &state.State{},
		state.Bootstrap{Cluster: id, Incarnation: 1},
		state.SetNode{Node: state.Node{ID: node}},
		state.AddDisk{Disk: state.Disk{ID: added.ID, Node: node, Capacity: 1 << 40}},
		state.CreateVolume{Volume: volume, Name: "db", Size: 1 << 30, Parameters: state.Parameters{Replicas: 1, MinInSync: 1},
			Replicas: []state.Placement{{Replica: replica, Node: node, Disk: added.ID}}},
		state.ReplicaReady{Replica: replica, Incarnation: incarnation},
		state.SetSettings{TrashKeep: &keep})
	replicas := d.at(diskPlace(path)).store.Replicas()
	if hint := trashHint(s, replicas); hint != "" {
		t.Errorf("without a trash the hint is %q", hint)
	}
	s = applied(t, s, state.DeleteVolume{Volume: volume, At: 1})
	if hint := trashHint(s, replicas); !strings.Contains(hint, "the trash takes 0 MiB of the disk (volumes: 1), see holdfast trash list") {
		t.Errorf("the hint is %q", hint)
	}
	if usage, err := d.volumeUsage(replica); err != nil || usage.GetUsedBytes() != 0 || usage.GetSnapshotBytes() != 0 {
		t.Errorf("an empty volume takes %v, %v", usage, err)
	}
	if _, err := d.volumeUsage(block.ReplicaID{ID: block.ID{6}}); !errors.Is(err, block.ErrNotFound) {
		t.Errorf("usage of what is elsewhere: %v", err)
	}
}

// applied is the state after commands.
func applied(t *testing.T, s *state.State, commands ...state.Command) *state.State {
	t.Helper()
	for _, c := range commands {
		next, r := s.Apply(s.Index()+1, c)
		if r.Err != nil {
			t.Fatalf("%s: %v", c.Kind(), r.Err)
		}
		s = next
	}
	return s
}
