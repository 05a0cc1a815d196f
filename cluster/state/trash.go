package state

import (
	"fmt"
	"iter"
	"math"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Trashed is when a volume was put into the trash and when it is to be deleted for
// good, in milliseconds since 1970 (UTC), as the nodes that say so read their clocks.
// Both are zero for a volume that is not there.
//
// The trash keeps a volume as it is: its replicas and its snapshots stay, and count.
// But it has given its name back, nobody may stage it, and no snapshot of it is taken.
// It can be borrowed, so that what was intended before is finished. Until is fixed when
// the volume comes there: a change of the settings is for what comes later.
type Trashed struct {
	Since, Until int64
}

// TrashKeepMax bounds Settings.TrashKeep, in seconds: ten years.
const TrashKeepMax = 10 * 366 * day

// day has so many seconds.
const day = 24 * 60 * 60

// RestoreVolume takes a volume out of the trash, under Name or, if that is empty, under
// the name it had. Another volume of that name is block.ErrExists. One that is not in
// the trash is block.ErrNotFound, unless it has the name that is asked for.
type RestoreVolume struct {
	Volume block.VolumeID
	Name   string `json:",omitempty"`
}

// PurgeVolume makes a volume in the trash a tombstone; one that is elsewhere is
// block.ErrNotFound. Expired, unless 0, is the time at which it was found that its own
// was up, in milliseconds since 1970 (UTC): if it was not, the volume stays.
type PurgeVolume struct {
	Volume  block.VolumeID
	Expired int64 `json:",omitempty"`
}

// Kind implements Command.
func (RestoreVolume) Kind() string { return "restore-volume" }

// Kind implements Command.
func (PurgeVolume) Kind() string { return "purge-volume" }

// InTrash reports whether the volume is in the trash.
func (v *Volume) InTrash() bool { return v.Trashed != Trashed{} }

// Named reports whether the volume holds its name.
func (v *Volume) Named() bool { return !v.Deleting && !v.InTrash() }

// usable refuses a volume in the trash.
func (v *Volume) usable() error {
	if v.InTrash() {
		return fmt.Errorf("it is in the trash, holdfast trash restore takes it out: %w", block.ErrNotFound)
	}
	return nil
}

// Trash yields the volumes in the trash, by rising ID.
func (s *State) Trash() iter.Seq[Volume] {
	return func(yield func(Volume) bool) {
		for v := range s.UnsettledVolumes() {
			if v.InTrash() && !yield(v) {
				return
			}
		}
	}
}

// deleteVolume puts a volume into the trash, or makes it a tombstone if there is no
// trash. What was not finished has nothing in it that could be missed.
func (s *State) deleteVolume(index uint64, c DeleteVolume) (*State, Result) {
	v, ok := s.Volume(c.Volume)
	switch {
	case !ok:
		return s.refuse(fmt.Errorf("delete volume %s: %w", c.Volume, block.ErrNotFound))
	case v.Deleting, v.InTrash() && !c.Purge:
		return s, volumeResult(v)
	}
	// The count and the deletion are one step: nobody takes a snapshot in between.
	if n := s.countSnapshots(&v); c.OnlyWithoutSnapshots && n > 0 {
		return s.refuse(fmt.Errorf("delete volume %s: its snapshots would be lost, of which it has %d; delete them first: %w", c.Volume, n, block.ErrInUse))
	}
	if err := s.mayDelete(&v); err != nil {
		return s.refuse(fmt.Errorf("delete volume %s: %w", c.Volume, err))
	}
	keep := s.Settings().TrashKeep
	if keep == 0 || c.Purge || len(v.Pending) > 0 {
		return s.entomb(index, v)
	}
	switch {
	case c.At == 0:
		return s.refuse(fmt.Errorf("delete volume %s: the trash was turned on just now, ask again: %w", c.Volume, block.ErrUnavailable))
	case c.At < 0 || c.At > math.MaxInt64-keep*1000:
		return s.refuse(fmt.Errorf("delete volume %s at %d: %w", c.Volume, c.At, block.ErrInvalid))
	}
	next, v := s, v.clone()
	if v.Reverting() && !v.RevertBegun() {
		// Nothing of it was changed, and no snapshot is taken of it there.
		next, v = s.withoutIntent(index, v)
	}
	v.Trashed = Trashed{Since: c.At, Until: c.At + keep*1000}
	detach(&v.View)
	return next.commit(&v), volumeResult(v)
}

// mayDelete says why a volume may not be deleted, nil if it may.
func (s *State) mayDelete(v *Volume) error {
	switch {
	case !v.Published.IsZero():
		return fmt.Errorf("it is published to node %s: %w", v.Published, block.ErrInUse)
	case v.Borrowed() && !v.Yields && !v.Reverting():
		// That is not for long. A revert is: in the trash it goes on, a tombstone ends it.
		return fmt.Errorf("node %s has borrowed it: %w", v.View.Owner, block.ErrUnavailable)
	}
	if o, ok := s.maker(func(p *Source) bool { return p.Volume == v.ID }); ok {
		return fmt.Errorf("volume %s is being made from it: %w", o, block.ErrInUse)
	}
	return nil
}

// entomb makes a volume a tombstone.
func (s *State) entomb(index uint64, v Volume) (*State, Result) {
	unmade := len(v.Pending) > 0
	next := s.withoutSnapshotsOf(&v)
	v = v.clone()
	v.Deleting = true
	v.Trashed = Trashed{}
	v.Pending, v.Absent, v.GrowTo, v.Revert = nil, nil, 0, nil
	v.abandonAll()
	detach(&v.View)
	v.View.Snapshots = nil
	next = next.commit(&v)
	next.scrubs = next.scrubs.without(v.ID.ID)
	if unmade {
		next = next.dropMeans(index, &v)
	}
	return next, volumeResult(v)
}

func (s *State) restoreVolume(c RestoreVolume) (*State, Result) {
	v, ok := s.Volume(c.Volume)
	switch {
	case !ok || v.Deleting:
		return s.refuse(fmt.Errorf("restore volume %s: %w", c.Volume, block.ErrNotFound))
	case !v.InTrash() && (c.Name == "" || c.Name == v.Name):
		return s, volumeResult(v)
	case !v.InTrash():
		return s.refuse(fmt.Errorf("restore volume %s as %q: it is not in the trash, but has the name %q: %w", c.Volume, c.Name, v.Name, block.ErrNotFound))
	}
	v = v.clone()
	v.Trashed = Trashed{}
	if c.Name != "" {
		v.Name = c.Name
	}
	if o, taken := s.VolumeByName(v.Name); taken {
		return s.refuse(fmt.Errorf("restore volume %s: its name %q was taken by volume %s meanwhile, restore it under another one: %w", c.Volume, v.Name, o.ID, block.ErrExists))
	}
	return s.commit(&v), volumeResult(v)
}

func (s *State) purgeVolume(index uint64, c PurgeVolume) (*State, Result) {
	v, ok := s.Volume(c.Volume)
	switch {
	case !ok:
		return s.refuse(fmt.Errorf("purge volume %s: %w", c.Volume, block.ErrNotFound))
	case v.Deleting, v.InTrash() && c.Expired != 0 && c.Expired < v.Trashed.Until:
		return s, volumeResult(v)
	case !v.InTrash():
		return s.refuse(fmt.Errorf("purge volume %s: it is not in the trash: %w", c.Volume, block.ErrNotFound))
	}
	if err := s.mayDelete(&v); err != nil {
		return s.refuse(fmt.Errorf("purge volume %s: %w", c.Volume, err))
	}
	return s.entomb(index, v)
}

// checkTrashed wants a volume in the trash to be whole, and nobody's.
func checkTrashed(v *Volume) error {
	if v.InTrash() && (!v.Ready() || !v.Published.IsZero() || v.Trashed.Since <= 0 || v.Trashed.Until < v.Trashed.Since) {
		return fmt.Errorf("in the trash %+v: %d replicas are being made, deleted %t, published to %s", v.Trashed, len(v.Pending), v.Deleting, v.Published)
	}
	return nil
}
