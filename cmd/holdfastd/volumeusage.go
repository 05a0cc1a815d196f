package main

import (
	"fmt"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/replica/store"
)

// volumeUsage is what a volume takes on a replica here.
func (d *disks) volumeUsage(id block.ReplicaID) (*holdfastv1.VolumeUsage, error) {
	held := d.replica(id)
	if held == nil {
		return nil, fmt.Errorf("usage of replica %s: it is not on a disk of this node: %w", id, block.ErrNotFound)
	}
	snapshots, err := held.SnapshotSpace()
	if err != nil {
		return nil, err
	}
	return &holdfastv1.VolumeUsage{UsedBytes: held.Used(), SnapshotBytes: snapshots}, nil
}

// nameTrash adds to the warning of a disk that is filling up what there is in the trash,
// which is the first place to look for room. The mutex is held.
func (d *disks) nameTrash(k *openDisk, warning string) string {
	if how, _ := judgeSpace(k.store.Space()); how == works || warning == "" || d.member == nil {
		return warning
	}
	return warning + trashHint(d.member.State(), k.store.Replicas())
}

// trashHint says what the volumes in the trash take, of these replicas; empty if there
// is none.
func trashHint(s *state.State, replicas []*store.Replica) string {
	count, bytes := 0, int64(0)
	for _, r := range replicas {
		if v, ok := s.Volume(r.Volume()); ok && v.InTrash() {
			count++
			bytes += r.Used()
		}
	}
	if count == 0 {
		return ""
	}
	return fmt.Sprintf("; the trash takes %d MiB of the disk (volumes: %d), see holdfast trash list", bytes>>20, count)
}
