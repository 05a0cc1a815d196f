package state

import (
	"fmt"
	"iter"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Revert is the intent to give a volume the content of one of its snapshots (rule 26).
// While it is under way nobody publishes the volume, and its snapshots To and Keep stay.
type Revert struct {
	To block.SnapshotID
	// Keep is the name of the snapshot that keeps what the volume was before; empty if
	// that is to be lost. Nothing is changed before it is taken.
	Keep string `json:",omitempty"`
	// Kept is that snapshot, zero until it is taken.
	Kept block.SnapshotID `json:",omitzero"`
	// Done is the epoch of the engine that has finished it; 0 while it is under way.
	// The record stays until another engine is started: until then the volume is what
	// the snapshot was.
	Done block.Epoch `json:",omitempty"`
}

// RevertVolume is the intent to give a volume the content of a snapshot of its own,
// which an engine then does. Repeated, also after the end, it changes nothing as long as
// no other engine was started. Refused with block.ErrInUse while the volume is published
// or is being reverted to another snapshot, unless Snapshot keeps what it was before
// that; with block.ErrExists if Keep is the name of a snapshot, or is to be; with
// block.ErrNoCapacity if there is no room for one more.
type RevertVolume struct {
	Volume   block.VolumeID
	Snapshot block.SnapshotID
	Keep     string `json:",omitempty"`
}

// EndRevert says that the engine of an epoch has made the volume what the snapshot was,
// durably; one of another epoch, or that serves no longer, is refused with
// block.ErrConflict. With GiveUp it takes back an intent that was not begun, and the
// reservation with it; once begun, that is refused with block.ErrInUse. If no revert to
// that snapshot is under way nothing changes.
type EndRevert struct {
	Volume   block.VolumeID
	Snapshot block.SnapshotID
	Epoch    block.Epoch `json:",omitempty"`
	GiveUp   bool        `json:",omitempty"`
}

// Kind implements Command.
func (RevertVolume) Kind() string { return "revert-volume" }

// Kind implements Command.
func (EndRevert) Kind() string { return "end-revert" }

// Reverting reports whether a revert is under way.
func (v *Volume) Reverting() bool { return v.Revert != nil && v.Revert.Done == 0 }

// RevertingVolumes yields those of which a revert is under way, by rising ID.
func (s *State) RevertingVolumes() iter.Seq[Volume] { return s.indexed(s.reverting) }

// RevertBegun reports whether a revert is under way and may change the head: what that
// was is kept, or nobody wants it.
func (v *Volume) RevertBegun() bool {
	return v.Reverting() && (v.Revert.Keep == "" || !v.Revert.Kept.IsZero())
}

// keep notes that a snapshot of the volume was taken, if it is the one that a revert
// waits for.
func (v *Volume) keep(r *Snapshot) {
	if v.Reverting() && v.Revert.Keep == r.Name && v.Revert.Kept.IsZero() {
		v.Revert = &Revert{To: v.Revert.To, Keep: r.Name, Kept: r.ID}
	}
}

func (s *State) revertVolume(c RevertVolume) (*State, Result) {
	v, ok := s.Volume(c.Volume)
	if !ok || v.Deleting {
		return s.refuse(fmt.Errorf("revert volume %s: %w", c.Volume, block.ErrNotFound))
	}
	if err := v.usable(); err != nil {
		return s.refuse(fmt.Errorf("revert volume %s: %w", c.Volume, err))
	}
	r, ok := s.Snapshot(c.Snapshot)
	keep := c.Keep
	switch {
	case v.Revert != nil && v.Revert.To == c.Snapshot && (v.Revert.Done == 0 || v.Revert.Done == v.View.Epoch):
		return s, volumeResult(v)
	case !ok:
		return s.refuse(fmt.Errorf("revert volume %s: snapshot %s: %w", v.ID, c.Snapshot, block.ErrNotFound))
	case v.Reverting():
		if v.Revert.Kept != r.ID {
			return s.refuse(fmt.Errorf("revert volume %s to snapshot %s: it is being reverted to snapshot %s: wait for the end of that, or revert to what was kept of it: %w",
				v.ID, r.ID, v.Revert.To, block.ErrInUse))
		}
		// Back: what is half reverted is worth no snapshot.
		keep = ""
	default:
		if err := s.mayRevert(&v, &r, keep); err != nil {
			return s.refuse(fmt.Errorf("revert volume %s to snapshot %s: %w", v.ID, r.ID, err))
		}
	}
	v = v.clone()
	v.Revert = &Revert{To: r.ID, Keep: keep}
	return s.commit(&v), volumeResult(v)
}

func (s *State) mayRevert(v *Volume, r *Snapshot, keep string) error {
	switch {
	case r.Volume != v.ID:
		return fmt.Errorf("it is one of volume %s: %w", r.Volume, block.ErrInvalid)
	case !r.Ready():
		return fmt.Errorf("it is not taken yet: %w", block.ErrUnavailable)
	case !v.Published.IsZero():
		return fmt.Errorf("the volume is published to node %s: unpublish it first: %w", v.Published, block.ErrInUse)
	case !v.Ready():
		return fmt.Errorf("%d replicas are still being made: %w", len(v.Pending), block.ErrUnavailable)
	case keep == "":
		return nil
	}
	if _, taken := s.SnapshotByName(keep); taken {
		return fmt.Errorf("snapshot %q: %w", keep, block.ErrExists)
	}
	for o := range s.RevertingVolumes() {
		if o.Revert.Keep == keep {
			return fmt.Errorf("snapshot %q is to be one of volume %s: %w", keep, o.ID, block.ErrExists)
		}
	}
	if n, limit := s.countSnapshots(v), v.Parameters.SnapshotLimit(); n >= limit {
		return fmt.Errorf("what it is now cannot be kept, it has %d snapshots of %d: %w", n, limit, block.ErrNoCapacity)
	}
	return nil
}

func (s *State) endRevert(index uint64, c EndRevert) (*State, Result) {
	v, ok := s.Volume(c.Volume)
	if !ok || v.Deleting {
		return s.refuse(fmt.Errorf("end the revert of volume %s: %w", c.Volume, block.ErrNotFound))
	}
	refuse := func(why string, err error) (*State, Result) {
		result := volumeResult(v)
		result.Err = fmt.Errorf("end the revert of volume %s to snapshot %s: %s: %w", v.ID, c.Snapshot, why, err)
		return s, result
	}
	begun := v.RevertBegun()
	switch {
	case !v.Reverting() || v.Revert.To != c.Snapshot:
		return s, volumeResult(v)
	case c.GiveUp && begun:
		return refuse("it has begun", block.ErrInUse)
	case c.GiveUp:
		next, v := s.withoutIntent(index, v.clone())
		return next.commit(&v), volumeResult(v)
	case !begun:
		return refuse("it has not begun", block.ErrConflict)
	case !v.Borrowed() || v.View.Epoch != c.Epoch:
		return refuse(fmt.Sprintf("the engine of epoch %d is gone", c.Epoch), block.ErrConflict)
	}
	v = v.clone()
	v.Revert = &Revert{To: v.Revert.To, Keep: v.Revert.Keep, Kept: v.Revert.Kept, Done: c.Epoch}
	return s.commit(&v), volumeResult(v)
}

// withoutIntent is the state without the reservation for a revert that has not begun,
// and its volume, which is still to be committed, without the intent.
func (s *State) withoutIntent(index uint64, v Volume) (*State, Volume) {
	next := s
	if r, ok := s.SnapshotByName(v.Revert.Keep); ok && r.Volume == v.ID {
		next = s.withoutSnapshot(r)
		v.Dropped = index
	}
	v.Revert = nil
	return next, v
}

// pinnedBy says which revert needs a snapshot, nil if none does.
func (s *State) pinnedBy(r *Snapshot) error {
	v, ok := s.Volume(r.Volume)
	switch {
	case !ok || !v.Reverting():
		return nil
	case v.Revert.To == r.ID:
		return fmt.Errorf("volume %s is being reverted to it: %w", v.ID, block.ErrInUse)
	case v.Revert.Kept == r.ID:
		return fmt.Errorf("volume %s is being reverted, and it keeps what that was before: %w", v.ID, block.ErrInUse)
	}
	return nil
}

// mayTake says why no snapshot of that name is to be taken of a volume, nil if it may:
// one that is half reverted is nothing that anybody has written.
func (v *Volume) mayTake(name string) error {
	if v.Reverting() && (v.Revert.Keep != name || !v.Revert.Kept.IsZero()) {
		return fmt.Errorf("it is being reverted to snapshot %s: %w", v.Revert.To, block.ErrUnavailable)
	}
	return nil
}

// checkRevert wants what a revert needs to be there, and nobody else at the volume.
func (s *State) checkRevert(v *Volume) error {
	switch {
	case v.Revert == nil:
		return nil
	case !v.Reverting():
		if v.Revert.Done != v.View.Epoch {
			return fmt.Errorf("it was reverted in epoch %d, and has epoch %d", v.Revert.Done, v.View.Epoch)
		}
		return nil
	case !v.Ready() || !v.Published.IsZero():
		return fmt.Errorf("it is being reverted, and ready %t, published to %s", v.Ready(), v.Published)
	}
	if r, ok := s.Snapshot(v.Revert.To); !ok || !r.Ready() || r.Volume != v.ID {
		return fmt.Errorf("it is being reverted to snapshot %s, which is %+v", v.Revert.To, r)
	}
	return nil
}
