package state

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

func (s *State) createVolume(c CreateVolume) (*State, Result) {
	c.Parameters.DiskTags = normalTags(c.Parameters.DiskTags)
	c.Parameters.NodeTags = normalTags(c.Parameters.NodeTags)
	if v, ok := s.VolumeByName(c.Name); ok {
		if v.View.Size != c.Size || !v.Parameters.Equal(c.Parameters) || !v.Source.asks(c.Source) {
			return s.refuse(fmt.Errorf("the name is held by volume %s with other size, parameters or source: %w", v.ID, block.ErrExists))
		}
		return s, volumeResult(v)
	}
	if err := s.checkCreate(c); err != nil {
		return s.refuse(err)
	}
	v := Volume{
		ID: c.Volume, Name: c.Name, Parameters: c.Parameters, Source: c.Source,
		View: block.View{Volume: c.Volume, Generation: 1, Size: c.Size},
	}
	for _, p := range c.Replicas {
		v.View.Replicas = append(v.View.Replicas, block.Member{ID: p.Replica, Node: p.Node, Disk: p.Disk})
		v.Pending = append(v.Pending, p.Replica)
		if p.Absent {
			v.Absent = append(v.Absent, p.Replica)
		}
	}
	return s.commit(&v), volumeResult(v)
}

func (s *State) checkCreate(c CreateVolume) error {
	switch p := c.Parameters; {
	case c.Volume.IsZero() || c.Name == "":
		return fmt.Errorf("ID and name must be set: %w", block.ErrInvalid)
	case c.Size <= 0 || c.Size > block.MaxVolumeSize || c.Size%block.BlockSize != 0:
		return fmt.Errorf("size %d: %w", c.Size, block.ErrInvalid)
	case p.Replicas < 1 || p.Replicas != len(c.Replicas) || p.MinInSync < 1 || p.MinInSync > p.Replicas:
		return fmt.Errorf("%d replicas placed of %d, %d needed in sync: %w", len(c.Replicas), p.Replicas, p.MinInSync, block.ErrInvalid)
	case c.Parameters.SnapshotSpace.Validate() != nil:
		return c.Parameters.SnapshotSpace.Validate()
	case s.volumes.has(c.Volume.ID):
		return fmt.Errorf("volume %s: %w", c.Volume, block.ErrExists)
	case c.DecidedAt < s.collected:
		return fmt.Errorf("decided at index %d, a volume was dropped at %d: %w", c.DecidedAt, s.collected, block.ErrConflict)
	}
	for i, p := range c.Replicas {
		if p.Replica.IsZero() || s.replicas.has(p.Replica.ID) {
			return fmt.Errorf("replica %s: %w", p.Replica, block.ErrExists)
		}
		if d, ok := s.Disk(p.Disk); !ok || d.Node != p.Node {
			return fmt.Errorf("disk %s on node %s: %w", p.Disk, p.Node, block.ErrNotFound)
		}
		for _, q := range c.Replicas[:i] {
			if p.Replica == q.Replica || p.Node == q.Node {
				return fmt.Errorf("replicas %s and %s are on one node or the same: %w", p.Replica, q.Replica, block.ErrInvalid)
			}
		}
	}
	return s.checkSource(c)
}

// checkSource wants a source that the replicas can share.
//
// From this commit until the last replica is made the snapshot is pinned (rule 26):
// it cannot be deleted. Only replicas on the disks of members, which hold it valid,
// become members themselves.
func (s *State) checkSource(c CreateVolume) error {
	absent := func(p Placement) bool { return p.Absent }
	if c.Source == nil {
		if slices.ContainsFunc(c.Replicas, absent) {
			return fmt.Errorf("absent replicas without a source: %w", block.ErrInvalid)
		}
		return nil
	}
	r, ok := s.Snapshot(c.Source.Snapshot)
	switch {
	case !ok || r.Volume != c.Source.Volume:
		return fmt.Errorf("snapshot %s of volume %s: %w", c.Source.Snapshot, c.Source.Volume, block.ErrNotFound)
	case !r.Ready():
		return fmt.Errorf("snapshot %s is not taken yet: %w", r.ID, block.ErrUnavailable)
	case c.Size < r.Size:
		return fmt.Errorf("size %d, that of snapshot %s is %d: %w", c.Size, r.ID, r.Size, block.ErrInvalid)
	}
	source, _ := s.Volume(r.Volume)
	shares := 0
	for _, p := range c.Replicas {
		if p.Absent {
			continue
		}
		if !slices.ContainsFunc(source.View.Replicas, func(m block.Member) bool { return m.Disk == p.Disk && source.Lends(&m) }) {
			return fmt.Errorf("disk %s has no in-sync replica of volume %s: %w", p.Disk, source.ID, block.ErrConflict)
		}
		shares++
	}
	if shares == 0 {
		return fmt.Errorf("every replica is absent: %w", block.ErrInvalid)
	}
	return nil
}

func (s *State) replicaReady(index uint64, c ReplicaReady) (*State, Result) {
	v, ok := s.VolumeOf(c.Replica)
	if !ok || v.Deleting {
		return s.refuse(fmt.Errorf("replica %s is ready: %w", c.Replica, block.ErrNotFound))
	}
	if v.IsRetired(c.Replica) {
		return s.refuse(fmt.Errorf("replica %s is ready: it is not wanted any more: %w", c.Replica, block.ErrNotFound))
	}
	if made := slices.IndexFunc(v.Unmade(), func(p Placement) bool { return p.Replica == c.Replica }); made >= 0 {
		return s.joined(v, v.Unmade()[made], c.Incarnation)
	}
	i := slices.Index(v.Pending, c.Replica)
	if i < 0 {
		return s, volumeResult(v)
	}
	v = v.clone()
	v.Pending = slices.Delete(v.Pending, i, i+1)
	v.View.Member(c.Replica).Incarnation = c.Incarnation
	if len(v.Pending) > 0 {
		return s.commit(&v), volumeResult(v)
	}
	// All replicas are empty, or show one snapshot, and so are equal: the first in-sync
	// set is all of them. Absent ones have everything dirty, because no dirty set bears
	// the name of this revision.
	v.Pending = nil
	for i := range v.View.Replicas {
		m := &v.View.Replicas[i]
		if m.InSync = !slices.Contains(v.Absent, m.ID); !m.InSync {
			m.Removed = v.View.Revision + 1
		}
	}
	v.Absent = nil
	return s.commit(&v).dropMeans(index, &v), volumeResult(v)
}

// dropMeans is the state without the snapshot that was the means of making v.
func (s *State) dropMeans(index uint64, v *Volume) *State {
	if v.Source == nil || !v.Source.Clone {
		return s
	}
	r, ok := s.Snapshot(v.Source.Snapshot)
	if _, needed := s.maker(func(o *Source) bool { return o.Snapshot == r.ID }); !ok || needed || s.pinnedBy(&r) != nil {
		return s
	}
	return s.dropSnapshot(index, r)
}

func (s *State) growVolume(c GrowVolume) (*State, Result) {
	v, ok := s.Volume(c.Volume)
	switch {
	case !ok || v.Deleting:
		return s.refuse(block.ErrNotFound)
	case v.InTrash():
		return s.refuse(v.usable())
	case c.Size < v.View.Size || c.Size > block.MaxVolumeSize || c.Size%block.BlockSize != 0:
		return s.refuse(fmt.Errorf("from %d to %d bytes: %w", v.View.Size, c.Size, block.ErrInvalid))
	case c.Size <= max(v.View.Size, v.GrowTo):
		return s, volumeResult(v)
	case !v.Ready():
		return s.refuse(fmt.Errorf("%d replicas are still being made: %w", len(v.Pending), block.ErrUnavailable))
	}
	v = v.clone()
	v.GrowTo = c.Size
	return s.commit(&v), volumeResult(v)
}

func (s *State) replicaGone(index uint64, c ReplicaGone) (*State, Result) {
	v, ok := s.VolumeOf(c.Replica)
	if !ok {
		return s, Result{}
	}
	if !v.Deleting && !v.IsRetired(c.Replica) {
		return s.refuse(fmt.Errorf("replica %s is gone: neither it nor volume %s is deleted: %w", c.Replica, v.ID, block.ErrInUse))
	}
	return s.bury(index, v, c.Replica)
}

func (s *State) publish(c Publish) (*State, Result) {
	v, ok := s.Volume(c.Volume)
	switch {
	case !ok || v.Deleting:
		return s.refuse(fmt.Errorf("publish volume %s: %w", c.Volume, block.ErrNotFound))
	case v.InTrash():
		return s.refuse(fmt.Errorf("publish volume %s: %w", c.Volume, v.usable()))
	case v.Published == c.Node:
		return s, volumeResult(v)
	case !v.Published.IsZero():
		return s.refuse(fmt.Errorf("publish volume %s to node %s: it is published to node %s: %w", c.Volume, c.Node, v.Published, block.ErrInUse))
	case !v.Ready():
		return s.refuse(fmt.Errorf("publish volume %s: %d replicas are still being made: %w", c.Volume, len(v.Pending), block.ErrUnavailable))
	case v.Reverting():
		r := volumeResult(v)
		r.Err = fmt.Errorf("publish volume %s: it is being reverted to snapshot %s: %w", c.Volume, v.Revert.To, block.ErrUnavailable)
		return s, r
	case v.Borrowed() && !v.Yields:
		r := volumeResult(v)
		r.Err = fmt.Errorf("publish volume %s: node %s has borrowed it: %w", c.Volume, v.View.Owner, block.ErrUnavailable)
		return s, r
	}
	if _, ok := s.Node(c.Node); !ok {
		return s.refuse(fmt.Errorf("publish volume %s: node %s: %w", c.Volume, c.Node, block.ErrNotFound))
	}
	v = v.clone()
	detach(&v.View)
	v.Published = c.Node
	return s.commit(&v), volumeResult(v)
}

func (s *State) unpublish(c Unpublish) (*State, Result) {
	v, ok := s.Volume(c.Volume)
	switch {
	case !ok:
		return s.refuse(fmt.Errorf("unpublish volume %s: %w", c.Volume, block.ErrNotFound))
	case v.Published != c.Node || c.Node.IsZero():
		return s, volumeResult(v)
	case !v.View.Owner.IsZero() && !c.EndAttachment:
		return s.refuse(fmt.Errorf("unpublish volume %s: node %s has it attached: %w", c.Volume, v.View.Owner, block.ErrInUse))
	}
	v = v.clone()
	v.Published = block.NodeID{}
	detach(&v.View)
	return s.commit(&v), volumeResult(v)
}
