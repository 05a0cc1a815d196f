package server

import (
	"github.com/holdfast-io/holdfast/internal/block"
)

// ReplicaStatus describes one replica for people.
type ReplicaStatus struct {
	Disk    block.DiskID
	Replica block.ReplicaID
	Volume  block.VolumeID
	// Size is the size of the volume, Used what the replica takes on its disk,
	// in bytes.
	Size int64
	Used int64
	// Fence is the highest one that the replica's door has let in.
	Fence block.Fence
	// Open: an engine has a session now. Running and Queued are its requests.
	Open    bool
	Running int
	Queued  int
	// Quarantined: the cluster does not know the replica.
	Quarantined bool
	// Log is the size of the intent log, in regions.
	Log int
	// Dirty are the dirty sets kept for other replicas.
	Dirty []DirtyStatus
	Flush block.FlushNumber
	View  block.View
}

// DirtyStatus is the size of a dirty set, in regions.
type DirtyStatus struct {
	Replica block.ReplicaID
	Removal block.Revision
	Regions int
}

// Replicas describes every replica on the disks in service, in the order of
// their IDs.
func (h *Host) Replicas() []ReplicaStatus {
	doors := h.allDoors()
	all := make([]ReplicaStatus, 0, len(doors))
	for _, d := range doors {
		s := d.status()
		h.mu.Lock()
		s.Quarantined = h.quarantined[s.Replica]
		h.mu.Unlock()
		all = append(all, s)
	}
	return all
}

// status describes the door and what is behind it.
func (d *door) status() ReplicaStatus {
	r := d.replica
	s := ReplicaStatus{
		Disk: d.disk.ID(), Replica: r.ID(), Volume: r.Volume(), Size: r.Size(), Used: r.Used(),
		Log: r.Log().Count(), Flush: r.FlushNumber(), View: r.View(),
	}
	for _, set := range r.DirtySets() {
		s.Dirty = append(s.Dirty, DirtyStatus{Replica: set.Replica, Removal: set.Removal, Regions: set.Regions.Count()})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Fence = d.fence
	s.Open = d.isOpen
	s.Running = d.running
	for c := d.queue.first; c != nil; c = c.next {
		s.Queued++
	}
	return s
}
