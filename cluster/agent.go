package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

// ReplicaSpec is a replica to be made.
type ReplicaSpec struct {
	Disk    block.DiskID
	Replica block.ReplicaID
	Volume  block.VolumeID
	// Size is that of the volume, in bytes.
	Size int64
}

// HeldReplica is a replica found on a disk.
type HeldReplica struct {
	Disk    block.DiskID
	Replica block.ReplicaID
	Volume  block.VolumeID
}

// ReplicaHost makes and deletes replicas on this node's disks.
type ReplicaHost interface {
	// Create makes an empty replica durably. One that is there already is left as
	// it is. block.ErrNotFound if the disk is not open here.
	Create(ctx context.Context, spec ReplicaSpec) (block.Incarnation, error)
	// Delete deletes a replica durably; one that is not there is deleted already.
	// block.ErrNotFound if the disk is not open here.
	Delete(ctx context.Context, disk block.DiskID, replica block.ReplicaID) error
	// Replicas are those on the open disks.
	Replicas() []HeldReplica
	// Quarantine keeps a replica from being opened, or allows it again.
	Quarantine(replica block.ReplicaID, on bool)
}

// AddedDisk is a disk as its node opened it.
type AddedDisk struct {
	ID       block.DiskID
	Path     string
	Capacity int64
}

// DiskHost formats, opens and watches this node's disks.
type DiskHost interface {
	// AddDisk formats a directory for a cluster, or opens it if it is a disk of
	// that cluster already. One of another cluster is block.ErrForeign, a damaged
	// one block.ErrCorrupt.
	AddDisk(ctx context.Context, cluster block.ClusterID, path string) (AddedDisk, error)
	// Disks reports on all disks.
	Disks() []DiskReport
}

// replicaTimeout bounds the making or deleting of one replica.
const replicaTimeout = time.Minute

// runAgent makes this node's disks match the state, each time it has changed, and
// again after a while as long as something failed.
func (c *Cluster) runAgent(ctx context.Context) error {
	quarantined := map[block.ReplicaID]bool{}
	for {
		changed := c.Changes()
		settled := c.reconcile(ctx, quarantined)
		var retry <-chan time.Time
		timer := time.NewTimer(c.options.Timing.AgentRetry)
		if !settled {
			retry = timer.C
		}
		select {
		case <-changed:
		case <-retry:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// reconcile does what the state asks of this node and reports whether nothing is
// left to do. quarantined are the replicas that the state did not know last time.
func (c *Cluster) reconcile(ctx context.Context, quarantined map[block.ReplicaID]bool) bool {
	if w := c.agentWork(quarantined); len(w.tasks)+len(w.unknown)+len(w.known) == 0 {
		return !w.blocked
	}
	// After a restart the local state may be an old one. Nothing is made, deleted
	// or called unknown on its word.
	if err := c.Sync(ctx); err != nil {
		return false
	}
	w := c.agentWork(quarantined)
	for _, id := range w.known {
		delete(quarantined, id)
		c.options.Replicas.Quarantine(id, false)
	}
	for _, r := range w.unknown {
		quarantined[r.Replica] = true
		c.options.Replicas.Quarantine(r.Replica, true)
		c.logger.Warn("a replica unknown to the cluster is left alone", "replica", r.Replica, "disk", r.Disk, "volume", r.Volume)
	}
	settled := !w.blocked
	for _, t := range w.tasks {
		if err := c.perform(ctx, t); err != nil {
			settled = false
			if ctx.Err() != nil {
				break
			}
			c.logger.Warn("a replica cannot be brought in line with the cluster's state", "replica", t.spec.Replica, "volume", t.spec.Volume, "delete", t.remove, "error", err)
		}
	}
	return settled
}

// agentTask is a replica to be made, or deleted.
type agentTask struct {
	spec   ReplicaSpec
	remove bool
}

// agentWork is what a comparison of state and disks comes to.
type agentWork struct {
	tasks []agentTask
	// unknown are replicas that the state does not know and that are not quarantined;
	// known are quarantined ones that it knows now.
	unknown []HeldReplica
	known   []block.ReplicaID
	// blocked: there is more to do on disks that are not open, or have failed.
	blocked bool
}

// agentWork compares the state with the disks of this node.
func (c *Cluster) agentWork(quarantined map[block.ReplicaID]bool) (w agentWork) {
	s, own := c.State(), c.NodeID()
	if s.Cluster().IsZero() {
		return w
	}
	working := map[block.DiskID]bool{}
	for _, d := range c.options.Disks.Disks() {
		working[d.ID] = d.Failure == ""
	}
	for v := range s.Volumes() {
		for _, m := range v.View.Replicas {
			if m.Node != own {
				continue
			}
			switch f := fateOf(s, m.ID); {
			case f == keepReplica:
			case !working[m.Disk]:
				w.blocked = true
			default:
				spec := ReplicaSpec{Disk: m.Disk, Replica: m.ID, Volume: v.ID, Size: v.View.Size}
				w.tasks = append(w.tasks, agentTask{spec: spec, remove: f == deleteReplica})
			}
		}
	}
	for _, r := range c.options.Replicas.Replicas() {
		switch unknown := fateOf(s, r.Replica) == quarantineReplica; {
		case unknown && !quarantined[r.Replica]:
			w.unknown = append(w.unknown, r)
		case !unknown && quarantined[r.Replica]:
			w.known = append(w.known, r.Replica)
		}
	}
	return w
}

// fate is what the cluster's state wants of a replica.
type fate uint8

const (
	keepReplica fate = iota
	makeReplica
	deleteReplica
	quarantineReplica
)

// fateOf says what becomes of a replica.
//
// Rule 1 (identity): a replica is deleted on its tombstone alone, which is the record
// of a volume that is being deleted; one that the state does not know is left alone,
// served to nobody and never deleted. IDs are never reused: the state refuses one
// that it knows, a host refuses two disks with the same, and a node that lost its
// Raft state joins under a new one.
func fateOf(s *state.State, id block.ReplicaID) fate {
	switch v, known := s.VolumeOf(id); {
	case !known:
		return quarantineReplica
	case v.Deleting:
		return deleteReplica
	case v.IsPending(id):
		return makeReplica
	default:
		return keepReplica
	}
}

func (c *Cluster) perform(ctx context.Context, t agentTask) error {
	ctx, cancel := context.WithTimeout(ctx, replicaTimeout)
	defer cancel()
	if t.remove {
		if err := c.options.Replicas.Delete(ctx, t.spec.Disk, t.spec.Replica); err != nil {
			return fmt.Errorf("delete replica %s: %w", t.spec.Replica, err)
		}
		_, err := c.do(ctx, state.ReplicaGone{Replica: t.spec.Replica})
		return err
	}
	incarnation, err := c.options.Replicas.Create(ctx, t.spec)
	if err != nil {
		return fmt.Errorf("create replica %s: %w", t.spec.Replica, err)
	}
	_, err = c.do(ctx, state.ReplicaReady{Replica: t.spec.Replica, Incarnation: incarnation})
	return err
}
