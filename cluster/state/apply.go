package state

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// Apply makes the state that follows s by the command at index, which must be
// above that of s. A refused command changes nothing but the index.
func (s *State) Apply(index uint64, c Command) (*State, Result) {
	invariant.Assert(index > s.index, "command at index %d applied to state %d", index, s.index)
	next, result := s.dispatch(index, c)
	if next == s {
		unchanged := *s
		next = &unchanged
	}
	next.index = index
	return next, result
}

// dispatch returns s itself where nothing changes.
func (s *State) dispatch(index uint64, c Command) (*State, Result) {
	if b, ok := c.(Bootstrap); ok {
		return s.bootstrap(b)
	}
	if s.cluster.IsZero() {
		return s.refuse(fmt.Errorf("%s: the cluster is not bootstrapped: %w", c.Kind(), block.ErrUnavailable))
	}
	switch c := c.(type) {
	case SetNode:
		return s.setNode(c)
	case AddDisk:
		return s.addDisk(c)
	case CordonDisk:
		return s.cordonDisk(c)
	case RemoveDisk:
		return s.removeDisk(index, c)
	case SetSettings:
		return s.setSettings(c)
	case DrainDisk:
		return s.drainDisk(c)
	default:
		return s.dispatchVolume(index, c)
	}
}

// dispatchVolume is dispatch for what is about one volume.
func (s *State) dispatchVolume(index uint64, c Command) (*State, Result) {
	switch c := c.(type) {
	case CreateVolume:
		return s.createVolume(c)
	case ReplicaReady:
		return s.replicaReady(index, c)
	case DeleteVolume:
		return s.deleteVolume(index, c)
	case SetVolume:
		return s.setVolume(c)
	case RestoreVolume:
		return s.restoreVolume(c)
	case PurgeVolume:
		return s.purgeVolume(index, c)
	case ReplicaGone:
		return s.replicaGone(index, c)
	case Publish:
		return s.publish(c)
	case Unpublish:
		return s.unpublish(c)
	case StartEngine:
		return s.startEngine(c)
	case Propose:
		return s.propose(c.Proposal)
	case EndAttachment:
		return s.endAttachment(c)
	case CreateSnapshot:
		return s.createSnapshot(c)
	case DeleteSnapshot:
		return s.deleteSnapshot(index, c)
	case GrowVolume:
		return s.growVolume(c)
	case RevertVolume:
		return s.revertVolume(c)
	case EndRevert:
		return s.endRevert(index, c)
	case RequestScrub:
		return s.requestScrub(c)
	case RecordScrub:
		return s.recordScrub(c)
	case ReplaceReplica:
		return s.replaceReplica(c)
	case AbandonReplacement:
		return s.abandonReplacement(c)
	default:
		return s.refuse(fmt.Errorf("apply %s: %w", c.Kind(), block.ErrVersion))
	}
}

func (s *State) refuse(err error) (*State, Result) { return s, Result{Err: err} }

func (s *State) bootstrap(c Bootstrap) (*State, Result) {
	switch {
	case c.Cluster.IsZero() || c.Incarnation == 0:
		return s.refuse(fmt.Errorf("bootstrap: cluster ID and incarnation must be set: %w", block.ErrInvalid))
	case s.cluster == c.Cluster:
		return s, Result{}
	case !s.cluster.IsZero():
		return s.refuse(fmt.Errorf("bootstrap cluster %s: this is cluster %s: %w", c.Cluster, s.cluster, block.ErrForeign))
	}
	next := *s
	next.cluster, next.incarnation = c.Cluster, c.Incarnation
	return &next, Result{}
}

func (s *State) setNode(c SetNode) (*State, Result) {
	if c.Node.ID.IsZero() {
		return s.refuse(fmt.Errorf("set node %q: the ID must be set: %w", c.Node.Name, block.ErrInvalid))
	}
	c.Node.Tags = normalTags(c.Node.Tags)
	next := *s
	next.nodes = s.nodes.with(c.Node.ID.ID, c.Node)
	return &next, Result{Node: &c.Node}
}

func (s *State) addDisk(c AddDisk) (*State, Result) {
	d := c.Disk
	if d.ID.IsZero() || d.Capacity < 0 {
		return s.refuse(fmt.Errorf("add disk %q: ID and capacity must be set: %w", d.Path, block.ErrInvalid))
	}
	if _, ok := s.Node(d.Node); !ok {
		return s.refuse(fmt.Errorf("add disk %s: node %s: %w", d.ID, d.Node, block.ErrNotFound))
	}
	next := *s
	old, known := s.Disk(d.ID)
	if known {
		if old.Node != d.Node && (c.From.IsZero() || c.From != old.Node) {
			return s.refuse(fmt.Errorf("add disk %s: node %s has a disk of this ID: %w", d.ID, old.Node, block.ErrExists))
		}
		d.Class, d.Tags, d.Cordoned, d.Draining, d.Successor = old.Class, old.Tags, old.Cordoned, old.Draining, old.Successor
		if old.Node != d.Node {
			moved, err := s.moveReplicas(d.ID, d.Node)
			if err != nil {
				return s.refuse(err)
			}
			next = *moved
		}
	}
	d.Tags = normalTags(d.Tags)
	next.disks = next.disks.with(d.ID.ID, d)
	return &next, Result{Disk: &d}
}

// moveReplicas is the state in which the replicas on a disk are on another node.
func (s *State) moveReplicas(disk block.DiskID, node block.NodeID) (*State, error) {
	next := s
	for v := range s.Volumes() {
		v = v.clone()
		if !v.moveDisk(disk, node) {
			continue
		}
		next = next.commit(&v)
		if v.checkSpread() != nil {
			return nil, fmt.Errorf("move disk %s to node %s: it has another replica of volume %q (%s): %w", disk, node, v.Name, v.ID, block.ErrInUse)
		}
	}
	return next, nil
}

// moveDisk puts everything of a volume on a disk, or meant for it, on another node, and
// reports whether there is anything.
func (v *Volume) moveDisk(disk block.DiskID, node block.NodeID) (moved bool) {
	move := func(on block.DiskID, of *block.NodeID) {
		if on == disk {
			*of, moved = node, true
		}
	}
	for i := range v.View.Replicas {
		move(v.View.Replicas[i].Disk, &v.View.Replicas[i].Node)
	}
	for i := range v.Replacing {
		move(v.Replacing[i].New.Disk, &v.Replacing[i].New.Node)
	}
	for i := range v.Retired {
		move(v.Retired[i].Disk, &v.Retired[i].Node)
	}
	return moved
}

// commit raises the revision of v and is the state that holds it.
func (s *State) commit(v *Volume) *State {
	v.View.Revision++
	v.Yields = v.Yields && v.Borrowed()
	v.View.Cluster = s.incarnation
	return s.withVolume(*v)
}

// normalTags is sorted and without repetition, so that lists compare.
func normalTags(tags []string) []string {
	if len(tags) == 0 {
		return nil
	}
	tags = slices.Clone(tags)
	slices.Sort(tags)
	return slices.Compact(tags)
}
