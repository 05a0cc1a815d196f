package state

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Check verifies the invariants of the package comment and names the first that
// does not hold.
func (s *State) Check() error {
	if s.collected > s.index {
		return fmt.Errorf("a volume was dropped at index %d, after %d", s.collected, s.index)
	}
	for d := range s.Disks() {
		if _, ok := s.Node(d.Node); !ok {
			return fmt.Errorf("disk %s: node %s does not exist", d.ID, d.Node)
		}
	}
	replicas, names := 0, 0
	for v := range s.Volumes() {
		if err := s.checkVolume(&v); err != nil {
			return fmt.Errorf("volume %s: %w", v.ID, err)
		}
		replicas += len(v.View.Replicas)
		if !v.Deleting {
			names++
		}
	}
	if s.replicas.count != replicas || s.names.count != names {
		return fmt.Errorf("%d replicas and %d names are indexed, %d and %d exist", s.replicas.count, s.names.count, replicas, names)
	}
	return nil
}

func (s *State) checkVolume(v *Volume) error {
	if v.ID != v.View.Volume {
		return fmt.Errorf("the view is of volume %s", v.View.Volume)
	}
	if v.View.Size <= 0 || v.View.Size > block.MaxVolumeSize || v.View.Size%block.BlockSize != 0 {
		return fmt.Errorf("size %d", v.View.Size)
	}
	if !v.Deleting {
		if id, ok := s.names.get(nameKey(v.Name)); !ok || id != v.ID {
			return fmt.Errorf("name %q is held by volume %s", v.Name, id)
		}
		if len(v.View.Replicas) != v.Parameters.Replicas {
			return fmt.Errorf("%d replicas of %d", len(v.View.Replicas), v.Parameters.Replicas)
		}
	}
	if err := checkAttachment(v); err != nil {
		return err
	}
	return s.checkReplicas(v)
}

func checkAttachment(v *Volume) error {
	view := &v.View
	switch {
	case view.Owner.IsZero() != view.Start.IsZero():
		return fmt.Errorf("owner %s with start %s", view.Owner, view.Start)
	case view.Owner.IsZero() && !view.Attachment.IsZero():
		return fmt.Errorf("attachment %s without an owner", view.Attachment)
	case !view.Owner.IsZero() && view.Owner != v.Published:
		return fmt.Errorf("owner %s, published to %s", view.Owner, v.Published)
	case !view.Owner.IsZero() && view.Epoch == 0:
		return fmt.Errorf("owner %s without an epoch", view.Owner)
	case !v.Published.IsZero() && !v.Ready():
		return fmt.Errorf("published to %s before it is ready or after it was deleted", v.Published)
	}
	return nil
}

func (s *State) checkReplicas(v *Volume) error {
	for i := range v.View.Replicas {
		m := &v.View.Replicas[i]
		if volume, ok := s.replicas.get(m.ID.ID); !ok || volume != v.ID {
			return fmt.Errorf("replica %s is indexed for volume %s", m.ID, volume)
		}
		if d, ok := s.Disk(m.Disk); !ok || d.Node != m.Node {
			return fmt.Errorf("replica %s: disk %s is not on node %s", m.ID, m.Disk, m.Node)
		}
		if m.Removed > v.View.Revision || m.InSync && (m.Removed != 0 || v.IsPending(m.ID)) {
			return fmt.Errorf("replica %s: in sync %t, removed at %d, revision %d", m.ID, m.InSync, m.Removed, v.View.Revision)
		}
		for _, o := range v.View.Replicas[:i] {
			if o.ID == m.ID || o.Node == m.Node {
				return fmt.Errorf("replicas %s and %s are on one node or the same", o.ID, m.ID)
			}
		}
	}
	for _, id := range v.Pending {
		if v.View.Member(id) == nil {
			return fmt.Errorf("pending replica %s is not one of the volume", id)
		}
	}
	if v.Ready() && v.View.InSync() == 0 {
		return fmt.Errorf("the in-sync set is empty")
	}
	return nil
}
