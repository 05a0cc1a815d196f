package server

import (
	"bytes"
	"fmt"
	"slices"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/wire"
)

// Limits bound what one replica takes on.
type Limits struct {
	// Running is the number of operations of one replica in its store at once.
	Running int
	// InFlight is the number of unanswered requests of one session.
	InFlight int
}

// DefaultLimits fit a node of production.
func DefaultLimits() Limits { return Limits{Running: 128, InFlight: 4096} }

// Validate checks the limits.
func (l Limits) Validate() error {
	if l.Running < 1 || l.InFlight < 1 {
		return fmt.Errorf("server limits %+v: must be positive: %w", l, block.ErrInvalid)
	}
	return nil
}

// Host serves the replicas on the disks of one node. It implements
// wire.Acceptor.
type Host struct {
	cluster block.ClusterID
	limits  Limits

	mu sync.Mutex
	// disks are those in service.
	disks map[block.DiskID]Disk
	// twins are IDs that were seen on two disks: neither is served until the
	// process starts again without one of them (rule 1).
	twins map[block.DiskID]bool
	doors map[block.ReplicaID]*door
	// quarantined are replicas that Raft does not know (rule 1).
	quarantined map[block.ReplicaID]bool
	// elsewhere may be nil.
	elsewhere Elsewhere
}

var _ wire.Acceptor = (*Host)(nil)

// NewHost makes a host without disks.
func NewHost(cluster block.ClusterID, limits Limits) (*Host, error) {
	if err := limits.Validate(); err != nil {
		return nil, err
	}
	return &Host{
		cluster:     cluster,
		limits:      limits,
		disks:       make(map[block.DiskID]Disk),
		twins:       make(map[block.DiskID]bool),
		doors:       make(map[block.ReplicaID]*door),
		quarantined: make(map[block.ReplicaID]bool),
	}, nil
}

// Accept implements wire.Acceptor.
func (h *Host) Accept(reply wire.Reply) wire.Session {
	return &session{host: h, reply: reply}
}

// AddDisk puts a disk into service. A second disk of the same ID takes the
// first one out as well, with block.ErrExists; both stay out (rule 1). A disk
// that holds a replica of which another disk has a copy is refused whole.
func (h *Host) AddDisk(disk Disk) error {
	id := disk.ID()
	if disk.Cluster() != h.cluster {
		return fmt.Errorf("disk %s is of cluster %s, not %s: %w", id, disk.Cluster(), h.cluster, block.ErrForeign)
	}
	replicas := disk.Replicas()
	h.mu.Lock()
	if _, served := h.disks[id]; served || h.twins[id] {
		h.twins[id] = true
		doors := h.withdraw(id)
		h.mu.Unlock()
		closeAll(doors, fmt.Errorf("two disks with ID %s: %w", id, block.ErrUnavailable))
		return fmt.Errorf("two disks with ID %s, neither is served: %w", id, block.ErrExists)
	}
	defer h.mu.Unlock()
	for _, r := range replicas {
		if _, twice := h.doors[r.ID()]; twice {
			return fmt.Errorf("disk %s: replica %s is on another disk already: %w", id, r.ID(), block.ErrExists)
		}
	}
	h.disks[id] = disk
	for _, r := range replicas {
		h.doors[r.ID()] = newDoor(disk, r, h.limits)
	}
	return nil
}

// RemoveDisk takes a disk out of service. What runs on it ends by itself; the
// caller closes the store, which waits for that.
func (h *Host) RemoveDisk(id block.DiskID) {
	h.mu.Lock()
	doors := h.withdraw(id)
	h.mu.Unlock()
	closeAll(doors, fmt.Errorf("disk %s is out of service: %w", id, block.ErrUnavailable))
}

// CreateReplica makes an empty replica on a disk, durably. It waits for the
// disk. Creating one that exists does nothing; it may be smaller, for the volume may
// have grown before Raft heard of it, and the engine grows it (rule 27).
func (h *Host) CreateReplica(disk block.DiskID, id block.ReplicaID, volume block.VolumeID, size int64) error {
	if id.IsZero() || volume.IsZero() || size <= 0 || size > block.MaxVolumeSize || size%block.BlockSize != 0 {
		return fmt.Errorf("create replica %s of volume %s with %d bytes: %w", id, volume, size, block.ErrInvalid)
	}
	h.mu.Lock()
	existing := h.doors[id]
	h.mu.Unlock()
	if existing != nil {
		r := existing.replica
		if existing.disk.ID() == disk && r.Volume() == volume && r.Size() <= size {
			return nil
		}
		return fmt.Errorf("create replica %s on disk %s: %w", id, disk, block.ErrExists)
	}
	err := h.makeReplica(disk, id, func(target Disk) (Replica, error) { return target.Create(id, volume, size) })
	if err != nil {
		return fmt.Errorf("create replica %s on disk %s: %w", id, disk, err)
	}
	return nil
}

// makeReplica makes a replica on a disk and lets engines in.
func (h *Host) makeReplica(disk block.DiskID, id block.ReplicaID, by func(Disk) (Replica, error)) error {
	h.mu.Lock()
	target := h.disks[disk]
	h.mu.Unlock()
	if target == nil {
		return fmt.Errorf("disk: %w", block.ErrNotFound)
	}
	replica, err := by(target)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.disks[disk] != target {
		return fmt.Errorf("disk was removed: %w", block.ErrUnavailable)
	}
	if h.doors[id] == nil {
		h.doors[id] = newDoor(target, replica, h.limits)
	}
	return nil
}

// DeleteReplica destroys a replica, durably. It is called on the replica's
// tombstone in Raft and for nothing else (rule 1). While the store still runs
// something for the replica it fails with block.ErrUnavailable, having shut out
// all sessions: the same call succeeds later. Deleting what is not there does
// nothing; on a disk that is not in service nobody can say what is there, and it
// fails with block.ErrNotFound.
func (h *Host) DeleteReplica(disk block.DiskID, id block.ReplicaID) error {
	h.mu.Lock()
	d, served := h.doors[id], h.disks[disk] != nil
	h.mu.Unlock()
	switch {
	case d == nil && !served:
		return fmt.Errorf("delete replica %s on disk %s: disk: %w", id, disk, block.ErrNotFound)
	case d == nil:
		return nil
	}
	if d.close(fmt.Errorf("replica was deleted: %w", block.ErrNotFound)) {
		return fmt.Errorf("delete replica %s: its last operations still run: %w", id, block.ErrUnavailable)
	}
	if err := d.disk.Delete(id); err != nil {
		return fmt.Errorf("delete replica %s: %w", id, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.doors[id] == d {
		delete(h.doors, id)
		delete(h.quarantined, id)
	}
	return nil
}

// Quarantine keeps a replica that Raft does not know: no engine opens it, and
// nothing deletes it (rule 1). Raft may know it later, so this can be undone;
// an open session is not ended by it.
func (h *Host) Quarantine(id block.ReplicaID, on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if on {
		h.quarantined[id] = true
	} else {
		delete(h.quarantined, id)
	}
}

// withdraw takes a disk's doors off the host; the lock is held.
func (h *Host) withdraw(id block.DiskID) []*door {
	delete(h.disks, id)
	var doors []*door
	for replica, d := range h.doors {
		if d.disk.ID() == id {
			delete(h.doors, replica)
			doors = append(doors, d)
		}
	}
	sortDoors(doors)
	return doors
}

// allDoors are those of all disks in service, in order.
func (h *Host) allDoors() []*door {
	h.mu.Lock()
	doors := make([]*door, 0, len(h.doors))
	for _, d := range h.doors {
		doors = append(doors, d)
	}
	h.mu.Unlock()
	sortDoors(doors)
	return doors
}

// closeAll shuts doors for good.
func closeAll(doors []*door, why error) {
	for _, d := range doors {
		d.close(why)
	}
}

// sortDoors puts doors in the order of their replicas' IDs, so that a run on
// one goroutine is deterministic.
func sortDoors(doors []*door) {
	slices.SortFunc(doors, func(a, b *door) int {
		x, y := a.replica.ID(), b.replica.ID()
		return bytes.Compare(x.ID[:], y.ID[:])
	})
}

// admissible finds the door that an OpOpen asks for, and checks all of the
// message but its fence.
func (h *Host) admissible(req *block.Request) (*door, error) {
	o := req.Open
	if o.Cluster != h.cluster {
		return nil, fmt.Errorf("engine of cluster %s at a node of cluster %s: %w", o.Cluster, h.cluster, block.ErrForeign)
	}
	if req.Epoch != o.Fence.Epoch || req.Session != o.Fence.Session || o.Fence.Epoch == 0 {
		return nil, fmt.Errorf("fence %+v in a message of epoch %d session %d: %w", o.Fence, req.Epoch, req.Session, block.ErrInvalid)
	}
	h.mu.Lock()
	d := h.doors[o.Replica]
	quarantined := h.quarantined[o.Replica]
	h.mu.Unlock()
	switch {
	case d == nil:
		return nil, block.ErrNotFound
	case quarantined:
		return nil, fmt.Errorf("quarantined, the cluster does not know it: %w", block.ErrNotFound)
	case d.replica.Volume() != o.Volume:
		return nil, fmt.Errorf("it is of volume %s, not %s: %w", d.replica.Volume(), o.Volume, block.ErrInvalid)
	case o.Size <= 0 || o.Size > block.MaxVolumeSize:
		return nil, fmt.Errorf("the volume has %d bytes: %w", o.Size, block.ErrInvalid)
	}
	return d, nil
}
