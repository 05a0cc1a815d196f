package main

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// DrainDisk drains a disk with a replica of each of two volumes.
func (d *cannedDaemon) DrainDisk(_ context.Context, req *holdfastv1.DrainDiskRequest) (*holdfastv1.Disk, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, disk := range d.disks {
		if disk.Id != req.DiskId {
			continue
		}
		if disk.Draining = true; !disk.Cordoned {
			disk.Moves = []*holdfastv1.ReplicaMove{
				{VolumeName: "db", VolumeId: id("v", 1), ReplicaId: id("r", 1), SizeBytes: 1 << 30, RemainingBytes: 1 << 28,
					State: holdfastv1.ReplicaMove_COPYING, NewReplicaId: id("r", 7), NewDiskId: d.disks[0].Id},
				{VolumeName: "web", VolumeId: id("v", 2), ReplicaId: id("r", 2), SizeBytes: 2 << 30, RemainingBytes: -1,
					State: holdfastv1.ReplicaMove_WAITING, Reason: "no room"},
			}
		}
		disk.Cordoned, disk.SuccessorId, disk.ReplicaCount = true, req.SuccessorId, int32(len(disk.Moves))
		return disk, nil
	}
	return nil, status.Error(codes.NotFound, "drain disk: not found")
}

// moves carries each move of a disk that is drained one step on, and says what the disk
// does with what was deleted on it: whether its node is away.
func (c *cannedCluster) moves(away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, disk := range c.disks {
		for _, m := range disk.GetMoves() {
			m.Reason = ""
			m.State = min(m.State+1, holdfastv1.ReplicaMove_DELETING)
			if m.State == holdfastv1.ReplicaMove_DELETING && away {
				m.Reason = "node n2 is not reachable"
			}
		}
		if !away {
			disk.Moves = slices.DeleteFunc(disk.Moves, func(m *holdfastv1.ReplicaMove) bool { return m.State == holdfastv1.ReplicaMove_DELETING })
		}
		if disk.GetDraining() {
			disk.ReplicaCount = int32(len(disk.Moves))
		}
	}
}
