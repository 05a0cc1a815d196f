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
	replicas, names, taken, borrowed, making, reverting, unsettled := 0, 0, 0, 0, 0, 0, 0
	for v := range s.Volumes() {
		if err := s.checkVolume(&v); err != nil {
			return fmt.Errorf("volume %s: %w", v.ID, err)
		}
		replicas += len(v.View.Replicas) + len(v.Elsewhere())
		taken += len(v.View.Snapshots)
		if v.Borrowed() {
			borrowed++
		}
		if v.making() {
			making++
		}
		if s.borrowed.has(v.ID.ID) != v.Borrowed() || s.making.has(v.ID.ID) != v.making() {
			return fmt.Errorf("volume %s: borrowed %t, being made %t, which the index does not say", v.ID, v.Borrowed(), v.making())
		}
		if v.Reverting() {
			reverting++
		}
		if !v.settled() {
			unsettled++
		}
		if s.unsettled.has(v.ID.ID) == v.settled() {
			return fmt.Errorf("volume %s: settled %t, which the index does not say", v.ID, v.settled())
		}
		if v.Named() {
			names++
		}
	}
	if s.replicas.count != replicas || s.names.count != names {
		return fmt.Errorf("%d replicas and %d names are indexed, %d and %d exist", s.replicas.count, s.names.count, replicas, names)
	}
	if s.borrowed.count != borrowed || s.making.count != making {
		return fmt.Errorf("%d volumes are indexed as borrowed and %d as being made, %d and %d are", s.borrowed.count, s.making.count, borrowed, making)
	}
	if s.reverting.count != reverting || s.unsettled.count != unsettled {
		return fmt.Errorf("%d volumes are indexed as being reverted and %d as unsettled, %d and %d are", s.reverting.count, s.unsettled.count, reverting, unsettled)
	}
	if err := s.checkScrubs(); err != nil {
		return err
	}
	return s.checkSnapshots(taken)
}

// checkSnapshots wants the records to be those of the views, and of volumes that
// exist; taken is how many the views have.
func (s *State) checkSnapshots(taken int) error {
	reserved := 0
	for r := range s.Snapshots() {
		if !r.Ready() {
			reserved++
		}
		if s.reserved.has(r.ID.ID) == r.Ready() {
			return fmt.Errorf("snapshot %s: ready %t, which the index does not say", r.ID, r.Ready())
		}
		v, ok := s.Volume(r.Volume)
		if !ok || v.Deleting {
			return fmt.Errorf("snapshot %s: volume %s does not exist", r.ID, r.Volume)
		}
		if id, ok := s.snapshotNames.get(nameKey(r.Name)); !ok || id != r.ID {
			return fmt.Errorf("snapshot %s: name %q is held by snapshot %s", r.ID, r.Name, id)
		}
		o := v.View.Snapshot(r.ID)
		if (o != nil) != r.Ready() || o != nil && (o.Size != r.Size || o.Created != r.Created || o.Size > v.View.Size) {
			return fmt.Errorf("snapshot %s of %d bytes, created at %d: the view has %v", r.ID, r.Size, r.Created, o)
		}
		if o != nil {
			taken--
		}
	}
	if s.reserved.count != reserved {
		return fmt.Errorf("%d snapshots are indexed as reserved, %d are", s.reserved.count, reserved)
	}
	if taken != 0 || s.snapshotNames.count != s.snapshots.count {
		return fmt.Errorf("%d snapshots of views have no record or appear twice, %d names are indexed for %d snapshots", taken, s.snapshotNames.count, s.snapshots.count)
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
	if v.Named() {
		if id, ok := s.names.get(nameKey(v.Name)); !ok || id != v.ID {
			return fmt.Errorf("name %q is held by volume %s", v.Name, id)
		}
	}
	if !v.Deleting {
		if added := len(v.Replacing) - len(v.Unmade()); len(v.View.Replicas) != v.Parameters.Replicas+added {
			return fmt.Errorf("%d replicas of %d, %d being added", len(v.View.Replicas), v.Parameters.Replicas, added)
		}
	}
	if v.GrowTo != 0 && (v.GrowTo <= v.View.Size || v.GrowTo > block.MaxVolumeSize || v.GrowTo%block.BlockSize != 0 || !v.Ready()) {
		return fmt.Errorf("growing from %d to %d", v.View.Size, v.GrowTo)
	}
	if err := checkAttachment(v); err != nil {
		return err
	}
	if err := checkTrashed(v); err != nil {
		return err
	}
	if err := s.checkMaking(v); err != nil {
		return err
	}
	if err := s.checkRevert(v); err != nil {
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
	case !view.Owner.IsZero() && view.Owner != v.Published && !v.Borrowed():
		return fmt.Errorf("owner %s, published to %s", view.Owner, v.Published)
	case !view.Owner.IsZero() && view.Epoch == 0:
		return fmt.Errorf("owner %s without an epoch", view.Owner)
	case (v.Borrowed() || !v.Published.IsZero()) && !v.Ready():
		return fmt.Errorf("published to %s, owned by %s before it is ready or after it was deleted", v.Published, view.Owner)
	case v.Yields && !v.Borrowed():
		return fmt.Errorf("it is yielded by nobody")
	}
	return nil
}

// checkMaking wants the source of a volume that is being made to be there.
func (s *State) checkMaking(v *Volume) error {
	for _, id := range v.Absent {
		if m := v.View.Member(id); m == nil || m.InSync || v.Source == nil || len(v.Pending) == 0 {
			return fmt.Errorf("replica %s is absent from the making", id)
		}
	}
	if v.Source == nil || len(v.Pending) == 0 {
		return nil
	}
	r, ok := s.Snapshot(v.Source.Snapshot)
	if !ok || !r.Ready() || r.Volume != v.Source.Volume || r.Size > v.View.Size {
		return fmt.Errorf("it is being made from snapshot %s of volume %s, which is %+v", v.Source.Snapshot, v.Source.Volume, r)
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
	}
	if err := s.checkReplacing(v); err != nil {
		return err
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
