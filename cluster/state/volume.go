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
		if v.View.Size != c.Size || !v.Parameters.Equal(c.Parameters) {
			return s.refuse(fmt.Errorf("create volume %q: the name is held by volume %s with other size or parameters: %w", c.Name, v.ID, block.ErrExists))
		}
		return s, volumeResult(v)
	}
	if err := s.checkCreate(c); err != nil {
		return s.refuse(fmt.Errorf("create volume %q: %w", c.Name, err))
	}
	v := Volume{
		ID: c.Volume, Name: c.Name, Parameters: c.Parameters,
		View: block.View{Volume: c.Volume, Generation: 1, Size: c.Size},
	}
	for _, p := range c.Replicas {
		v.View.Replicas = append(v.View.Replicas, block.Member{ID: p.Replica, Node: p.Node, Disk: p.Disk})
		v.Pending = append(v.Pending, p.Replica)
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
	return nil
}

func (s *State) replicaReady(c ReplicaReady) (*State, Result) {
	v, ok := s.VolumeOf(c.Replica)
	if !ok || v.Deleting {
		return s.refuse(fmt.Errorf("replica %s is ready: %w", c.Replica, block.ErrNotFound))
	}
	i := slices.Index(v.Pending, c.Replica)
	if i < 0 {
		return s, volumeResult(v)
	}
	v = v.clone()
	v.Pending = slices.Delete(v.Pending, i, i+1)
	v.View.Member(c.Replica).Incarnation = c.Incarnation
	if len(v.Pending) == 0 {
		// All replicas are empty and so equal: the first in-sync set is all of
		// them.
		v.Pending = nil
		for i := range v.View.Replicas {
			v.View.Replicas[i].InSync = true
		}
	}
	return s.commit(&v), volumeResult(v)
}

func (s *State) deleteVolume(c DeleteVolume) (*State, Result) {
	v, ok := s.Volume(c.Volume)
	switch {
	case !ok:
		return s.refuse(fmt.Errorf("delete volume %s: %w", c.Volume, block.ErrNotFound))
	case v.Deleting:
		return s, volumeResult(v)
	case !v.Published.IsZero():
		return s.refuse(fmt.Errorf("delete volume %s: it is published to node %s: %w", c.Volume, v.Published, block.ErrInUse))
	case !v.View.Owner.IsZero():
		return s.refuse(fmt.Errorf("delete volume %s: node %s has it attached: %w", c.Volume, v.View.Owner, block.ErrInUse))
	}
	v = v.clone()
	v.Deleting = true
	v.Pending = nil
	return s.commit(&v), volumeResult(v)
}

func (s *State) replicaGone(index uint64, c ReplicaGone) (*State, Result) {
	v, ok := s.VolumeOf(c.Replica)
	if !ok {
		return s, Result{}
	}
	if !v.Deleting {
		return s.refuse(fmt.Errorf("replica %s is gone: volume %s is not deleted: %w", c.Replica, v.ID, block.ErrInUse))
	}
	v = v.clone()
	v.View.Replicas = slices.DeleteFunc(v.View.Replicas, func(m block.Member) bool { return m.ID == c.Replica })
	next := s.commit(&v)
	next.replicas = next.replicas.without(c.Replica.ID)
	if len(v.View.Replicas) == 0 {
		next.volumes = next.volumes.without(v.ID.ID)
		next.collected = index
	}
	return next, volumeResult(v)
}

func (s *State) publish(c Publish) (*State, Result) {
	v, ok := s.Volume(c.Volume)
	switch {
	case !ok || v.Deleting:
		return s.refuse(fmt.Errorf("publish volume %s: %w", c.Volume, block.ErrNotFound))
	case v.Published == c.Node:
		return s, volumeResult(v)
	case !v.Published.IsZero():
		return s.refuse(fmt.Errorf("publish volume %s to node %s: it is published to node %s: %w", c.Volume, c.Node, v.Published, block.ErrInUse))
	case !v.Ready():
		return s.refuse(fmt.Errorf("publish volume %s: %d replicas are still being made: %w", c.Volume, len(v.Pending), block.ErrUnavailable))
	}
	if _, ok := s.Node(c.Node); !ok {
		return s.refuse(fmt.Errorf("publish volume %s: node %s: %w", c.Volume, c.Node, block.ErrNotFound))
	}
	v = v.clone()
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
