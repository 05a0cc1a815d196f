package server

import (
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/store"
)

// Disk is what the server needs of the store of one disk. Its methods return
// at once, but for Create and Delete, which may wait for the disk.
type Disk interface {
	ID() block.DiskID
	// Cluster is the cluster that formatted the disk.
	Cluster() block.ClusterID
	Incarnation() block.Incarnation
	// Free is the free space in bytes.
	Free() int64
	// Replicas lists what is on the disk.
	Replicas() []Replica
	// Create makes an empty replica, durably.
	Create(id block.ReplicaID, volume block.VolumeID, size int64) (Replica, error)
	// Delete destroys a replica, durably. Nobody submits to it any more.
	Delete(id block.ReplicaID) error
}

// Replica is what the server needs of one replica. The values returned are the
// caller's own.
type Replica interface {
	ID() block.ReplicaID
	Volume() block.VolumeID
	// Size is the size of the volume, Used what the replica takes on the disk,
	// in bytes.
	Size() int64
	Used() int64
	Submit(op *store.Op)
	Fence() block.Fence
	View() block.View
	Log() block.Regions
	DirtySets() []block.DirtySet
	FlushNumber() block.FlushNumber
	Confirmed() []block.Confirmed
	// Cuts are those that the replica holds, oldest first.
	Cuts() []block.Cut
}
