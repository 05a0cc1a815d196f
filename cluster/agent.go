package cluster

import (
	"context"
	"fmt"
	"slices"
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
	// Source, unless zero, is the replica on the same disk that it shares the bytes of
	// Snapshot with; else it is empty.
	Source   block.ReplicaID
	Snapshot block.SnapshotID
}

// HeldReplica is a replica found on a disk.
type HeldReplica struct {
	Disk    block.DiskID
	Replica block.ReplicaID
	Volume  block.VolumeID
}

// HeldCuts are the cuts of a replica.
type HeldCuts struct {
	Cuts []block.Cut
	// Epoch and Revision are those of the view that the replica has stored.
	Epoch    block.Epoch
	Revision block.Revision
}

// ReplicaHost makes and deletes replicas on this node's disks.
type ReplicaHost interface {
	// Create makes a replica durably. One that is there already is left as it is.
	// block.ErrNotFound if the disk is not open here, or does not hold the source.
	Create(ctx context.Context, spec ReplicaSpec) (block.Incarnation, error)
	// Delete deletes a replica durably; one that is not there is deleted already.
	// block.ErrNotFound if the disk is not open here.
	Delete(ctx context.Context, disk block.DiskID, replica block.ReplicaID) error
	// Cuts are those that a replica holds; none if it is not here.
	Cuts(replica block.ReplicaID) HeldCuts
	// DropCuts forgets cuts of a replica durably; what it does not hold is passed over.
	DropCuts(ctx context.Context, replica block.ReplicaID, cuts []block.SnapshotID) error
	// Replicas are those on the open disks.
	Replicas() []HeldReplica
	// Quarantine keeps a replica from being opened, or allows it again.
	Quarantine(replica block.ReplicaID, on bool)
}

// replicaTimeout bounds the making or deleting of one replica.
const replicaTimeout = time.Minute

// runAgent makes this node's disks match the state, each time it has changed, and
// again after a while as long as something failed.
func (c *Cluster) runAgent(ctx context.Context) error {
	memory := newAgentMemory()
	for {
		changed := c.Changes()
		settled := c.reconcile(ctx, memory)
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

// agentMemory is what the agent keeps from one look at the disks to the next.
type agentMemory struct {
	// quarantined are the replicas that the state did not know last time.
	quarantined map[block.ReplicaID]bool
	// clean are the revisions at which replicas held no stray cut. One that nobody
	// serves gets no other cuts at the same revision.
	clean map[block.ReplicaID]block.Revision
}

func newAgentMemory() *agentMemory {
	return &agentMemory{quarantined: map[block.ReplicaID]bool{}, clean: map[block.ReplicaID]block.Revision{}}
}

// reconcile does what the state asks of this node and reports whether nothing is
// left to do.
func (c *Cluster) reconcile(ctx context.Context, memory *agentMemory) bool {
	quarantined := memory.quarantined
	seen, strays := c.agentWork(quarantined), c.strays(memory)
	if seen.Empty() && len(seen.Foreign)+len(strays) == 0 {
		return !seen.Blocked
	}
	// After a restart the local state may be an old one. Nothing is made, deleted
	// or called unknown on its word.
	if err := c.Sync(ctx); err != nil {
		return false
	}
	closed := c.closeDisks(ctx)
	w := c.agentWork(quarantined)
	for _, id := range w.Known {
		delete(quarantined, id)
		c.options.Replicas.Quarantine(id, false)
	}
	for _, r := range w.Unknown {
		quarantined[r.Replica] = true
		c.options.Replicas.Quarantine(r.Replica, true)
		c.logger.Warn("a replica unknown to the cluster is left alone", "replica", r.Replica, "disk", r.Disk, "volume", r.Volume)
	}
	settled := !w.Blocked && closed
	for _, t := range w.Tasks {
		if err := c.perform(ctx, t); err != nil {
			settled = false
			if ctx.Err() != nil {
				break
			}
			c.logger.Warn("a replica cannot be brought in line with the cluster's state", "replica", t.Spec.Replica, "volume", t.Spec.Volume, "delete", t.Remove, "error", err)
		}
	}
	for replica, cuts := range c.strays(memory) {
		// What was not there before the state was brought up to date may be younger.
		cuts = slices.DeleteFunc(cuts, func(id block.SnapshotID) bool { return !slices.Contains(strays[replica], id) })
		if err := c.dropCuts(ctx, replica, cuts); err != nil {
			settled = false
			c.logger.Warn("cuts of a replica cannot be forgotten", "replica", replica, "cuts", len(cuts), "error", err)
		}
	}
	return settled
}

// closeDisks closes the disks that were removed, or that another node has now, and
// reports whether nothing of that is left to do. Their replicas are left as they are.
// A disk that is being added is left alone.
func (c *Cluster) closeDisks(ctx context.Context) (settled bool) {
	select {
	case c.changingDisks <- struct{}{}:
		defer func() { <-c.changingDisks }()
	default:
		return false
	}
	settled = true
	for _, disk := range c.agentWork(nil).Foreign {
		c.logger.Info("a disk is no longer of this node and is closed", "disk", disk)
		if err := c.options.Disks.RemoveDisk(ctx, disk); err != nil {
			settled = false
			c.logger.Warn("a disk that is no longer of this node cannot be closed", "disk", disk, "error", err)
		}
	}
	return settled
}

func (c *Cluster) dropCuts(ctx context.Context, replica block.ReplicaID, cuts []block.SnapshotID) error {
	if len(cuts) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, replicaTimeout)
	defer cancel()
	return c.options.Replicas.DropCuts(ctx, replica, cuts)
}

// strays are the cuts on this node's disks that the state does not list.
func (c *Cluster) strays(memory *agentMemory) map[block.ReplicaID][]block.SnapshotID {
	s, strays := c.State(), map[block.ReplicaID][]block.SnapshotID{}
	for _, r := range c.options.Replicas.Replicas() {
		if cuts := c.straysOf(s, memory, r.Replica); len(cuts) > 0 {
			strays[r.Replica] = cuts
		}
	}
	return strays
}

// straysOf are the cuts of a replica that belong to no snapshot, reserved or taken, if
// nobody serves the volume: an engine forgets them itself, and knows which it still
// needs. If the replica has stored a newer view than the state has, the state is not to
// be believed.
func (c *Cluster) straysOf(s *state.State, memory *agentMemory, id block.ReplicaID) (strays []block.SnapshotID) {
	v, known := s.VolumeOf(id)
	if !known || v.Deleting {
		delete(memory.clean, id)
		return nil
	}
	if fateOf(&v, id) != keepReplica || !v.View.Owner.IsZero() || memory.clean[id] == v.View.Revision {
		return nil
	}
	held := c.options.Replicas.Cuts(id)
	if held.Epoch > v.View.Epoch || held.Epoch == v.View.Epoch && held.Revision > v.View.Revision {
		return nil
	}
	for _, cut := range held.Cuts {
		if _, listed := s.Snapshot(cut.Snapshot); !listed && !cut.Kept {
			strays = append(strays, cut.Snapshot)
		}
	}
	if len(strays) == 0 {
		memory.clean[id] = v.View.Revision
	}
	return strays
}

// agentWork compares the state with the disks of this node.
func (c *Cluster) agentWork(quarantined map[block.ReplicaID]bool) AgentWork {
	return FindAgentWork(c.State(), c.NodeID(), c.options.Disks.Disks(), c.options.Replicas.Replicas(), quarantined)
}

// fate is what the cluster's state wants of a replica.
type fate uint8

const (
	keepReplica fate = iota
	makeReplica
	deleteReplica
)

// fateOf says what becomes of a replica of a volume. That of a settled one is kept.
//
// Rule 1 (identity): a replica is deleted on its tombstone alone, which is the record
// of a volume that is being deleted, or of its own replacement; one that the state does
// not know is left alone, served to nobody and never deleted. IDs are never reused: the
// state refuses one that it knows, a host refuses two disks with the same, and a node
// that lost its Raft state joins under a new one.
func fateOf(v *state.Volume, id block.ReplicaID) fate {
	switch {
	case v.Deleting, v.IsRetired(id):
		return deleteReplica
	case v.IsPending(id), v.View.Member(id) == nil:
		return makeReplica
	default:
		return keepReplica
	}
}

func (c *Cluster) perform(ctx context.Context, t AgentTask) error {
	ctx, cancel := context.WithTimeout(ctx, replicaTimeout)
	defer cancel()
	if t.Remove {
		if err := c.options.Replicas.Delete(ctx, t.Spec.Disk, t.Spec.Replica); err != nil {
			return fmt.Errorf("delete replica %s: %w", t.Spec.Replica, err)
		}
		_, err := c.do(ctx, state.ReplicaGone{Replica: t.Spec.Replica})
		return err
	}
	incarnation, err := c.options.Replicas.Create(ctx, t.Spec)
	if err != nil {
		return fmt.Errorf("create replica %s: %w", t.Spec.Replica, err)
	}
	_, err = c.do(ctx, state.ReplicaReady{Replica: t.Spec.Replica, Incarnation: incarnation})
	return err
}
