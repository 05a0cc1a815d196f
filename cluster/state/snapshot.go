package state

import (
	"fmt"
	"iter"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Snapshot is the record of a snapshot of a volume.
type Snapshot struct {
	ID     block.SnapshotID
	Name   string
	Volume block.VolumeID
	// Created is when it was asked for, in milliseconds since 1970 (UTC).
	Created int64
	// Size is that of the volume when it was taken, in bytes; 0 until then.
	Size int64 `json:",omitempty"`
}

// Ready reports whether the snapshot was taken: it is in the view of its volume.
func (r *Snapshot) Ready() bool { return r.Size > 0 }

// Snapshot finds a snapshot.
func (s *State) Snapshot(id block.SnapshotID) (Snapshot, bool) { return s.snapshots.get(id.ID) }

// SnapshotByName finds the snapshot that holds a name.
func (s *State) SnapshotByName(name string) (Snapshot, bool) {
	id, ok := s.snapshotNames.get(nameKey(name))
	if !ok {
		return Snapshot{}, false
	}
	return s.snapshots.get(id.ID)
}

// Snapshots yields all snapshots by rising ID.
func (s *State) Snapshots() iter.Seq[Snapshot] { return s.snapshots.all() }

// SnapshotsAfter yields the snapshots whose IDs are above id, by rising ID.
func (s *State) SnapshotsAfter(id block.SnapshotID) iter.Seq[Snapshot] {
	return s.snapshots.after(id.ID)
}

// withSnapshot is the state in which r is recorded and indexed.
func (s *State) withSnapshot(r Snapshot) *State {
	next := *s
	next.snapshots = s.snapshots.with(r.ID.ID, r)
	next.snapshotNames = s.snapshotNames.with(nameKey(r.Name), r.ID)
	next.reserved = s.reserved.mark(r.ID.ID, r.ID, !r.Ready())
	return &next
}

func (s *State) withoutSnapshot(r Snapshot) *State {
	next := *s
	next.snapshots = s.snapshots.without(r.ID.ID)
	next.snapshotNames = s.snapshotNames.without(nameKey(r.Name))
	next.reserved = s.reserved.without(r.ID.ID)
	return &next
}

// withoutSnapshotsOf is the state without the records of a volume's snapshots.
func (s *State) withoutSnapshotsOf(v *Volume) *State {
	next := s
	for _, o := range v.View.Snapshots {
		if r, ok := s.Snapshot(o.ID); ok {
			next = next.withoutSnapshot(r)
		}
	}
	for id := range s.reserved.all() {
		if r, ok := s.Snapshot(id); ok && r.Volume == v.ID {
			next = next.withoutSnapshot(r)
		}
	}
	return next
}

// countSnapshots is how many snapshots a volume has, taken or not.
func (s *State) countSnapshots(v *Volume) int {
	n := len(v.View.Snapshots)
	for id := range s.reserved.all() {
		if r, ok := s.Snapshot(id); ok && r.Volume == v.ID {
			n++
		}
	}
	return n
}

// maker finds a volume that is being made from a snapshot that the test holds for.
func (s *State) maker(of func(*Source) bool) (block.VolumeID, bool) {
	for id := range s.making.all() {
		if v, ok := s.Volume(id); ok && of(v.Source) {
			return id, true
		}
	}
	return block.VolumeID{}, false
}

func (s *State) createSnapshot(c CreateSnapshot) (*State, Result) {
	if r, ok := s.SnapshotByName(c.Name); ok {
		if r.Volume != c.Volume {
			return s.refuse(fmt.Errorf("the name is held by a snapshot of volume %s: %w", r.Volume, block.ErrExists))
		}
		return s, Result{Snapshot: &r}
	}
	if err := s.checkSnapshot(c); err != nil {
		return s.refuse(fmt.Errorf("volume %s: %w", c.Volume, err))
	}
	r := Snapshot{ID: c.Snapshot, Name: c.Name, Volume: c.Volume, Created: c.Created}
	return s.withSnapshot(r), Result{Snapshot: &r}
}

func (s *State) checkSnapshot(c CreateSnapshot) error {
	v, ok := s.Volume(c.Volume)
	switch {
	case c.Snapshot.IsZero() || c.Snapshot == block.KeptHead || c.Name == "":
		return fmt.Errorf("ID and name must be set: %w", block.ErrInvalid)
	case s.snapshots.has(c.Snapshot.ID):
		return fmt.Errorf("snapshot %s: %w", c.Snapshot, block.ErrExists)
	case !ok || v.Deleting:
		return block.ErrNotFound
	case v.InTrash():
		return v.usable()
	case !v.Ready():
		return fmt.Errorf("%d replicas are still being made: %w", len(v.Pending), block.ErrUnavailable)
	case c.DecidedAt < v.Dropped:
		return fmt.Errorf("decided at index %d, a snapshot was dropped at %d: %w", c.DecidedAt, v.Dropped, block.ErrConflict)
	}
	if err := v.mayTake(c.Name); err != nil {
		return err
	}
	if n, limit := s.countSnapshots(&v), v.Parameters.SnapshotLimit(); n >= limit {
		return fmt.Errorf("the volume has %d snapshots of %d: %w", n, limit, block.ErrNoCapacity)
	}
	return nil
}

func (s *State) deleteSnapshot(index uint64, c DeleteSnapshot) (*State, Result) {
	r, ok := s.Snapshot(c.Snapshot)
	if !ok {
		return s, Result{}
	}
	if c.Untaken && r.Ready() {
		return s, Result{Snapshot: &r}
	}
	if v, ok := s.maker(func(o *Source) bool { return o.Snapshot == r.ID }); ok {
		return s.refuse(fmt.Errorf("delete snapshot %s: volume %s is being made from it: %w", r.ID, v, block.ErrInUse))
	}
	if err := s.pinnedBy(&r); err != nil {
		return s.refuse(fmt.Errorf("delete snapshot %s: %w", r.ID, err))
	}
	return s.dropSnapshot(index, r), Result{Snapshot: &r}
}

// dropSnapshot is the state without a snapshot. Its volume changes even if it was
// not taken: a proposal of it that is under way fails.
func (s *State) dropSnapshot(index uint64, r Snapshot) *State {
	next := s.withoutSnapshot(r)
	v, ok := s.Volume(r.Volume)
	if !ok {
		return next
	}
	v = v.clone()
	v.Dropped = index
	v.View.Snapshots = slices.DeleteFunc(v.View.Snapshots, func(o block.Snapshot) bool { return o.ID == r.ID })
	if len(v.View.Snapshots) == 0 {
		v.View.Snapshots = nil
	}
	return next.commit(&v)
}

// checkTaken wants a snapshot that was reserved for the volume and not taken yet.
//
// The commit follows the cuts (rule 24), which every member has by then, and is
// compared-and-set like any change of the view. One whose record went meanwhile is
// refused for ever: its ID is not used again.
func (s *State) checkTaken(v *Volume, p *block.Snapshot) error {
	if p == nil {
		return nil
	}
	r, ok := s.Snapshot(p.ID)
	switch {
	case !ok || r.Volume != v.ID:
		return fmt.Errorf("add snapshot %s, which is not reserved: %w", p.ID, block.ErrInvalid)
	case r.Ready():
		return fmt.Errorf("add snapshot %s, which was added before: %w", p.ID, block.ErrInvalid)
	case p.Created != r.Created || p.Size <= 0 || p.Size > v.View.Size || p.Size%block.BlockSize != 0:
		return fmt.Errorf("add snapshot %s of %d bytes, created at %d: %w", p.ID, p.Size, p.Created, block.ErrInvalid)
	}
	if v.mayTake(r.Name) != nil {
		return fmt.Errorf("add snapshot %s of a volume that is being reverted: %w", p.ID, block.ErrInvalid)
	}
	return nil
}

// taken is the state in which the record of a snapshot says that it is in the view of v.
func (s *State) taken(v *Volume, p *block.Snapshot) *State {
	if p == nil {
		return s
	}
	r, _ := s.Snapshot(p.ID)
	v.keep(&r)
	r.Size = p.Size
	return s.withSnapshot(r)
}
