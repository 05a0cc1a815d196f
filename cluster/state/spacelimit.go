package state

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// SpaceLimit bounds what the snapshots of a volume may hold, either in bytes or in
// percent of the volume's size, with which it grows. The zero value does not.
type SpaceLimit struct {
	Bytes   int64 `json:",omitempty"`
	Percent int   `json:",omitempty"`
}

// PercentMax bounds SpaceLimit.Percent.
const PercentMax = 1000

// Validate refuses what is no limit with block.ErrInvalid.
func (l SpaceLimit) Validate() error {
	if l.Bytes < 0 || l.Percent < 0 || l.Percent > PercentMax || l.Bytes > 0 && l.Percent > 0 {
		return fmt.Errorf("%d bytes or %d percent for snapshots: either bytes, or 1 to %d percent are possible: %w", l.Bytes, l.Percent, PercentMax, block.ErrInvalid)
	}
	return nil
}

// SetVolume changes what may be changed of a volume: what is set. Parameters stay what
// was asked for at the creation, so that a creation can be repeated.
type SetVolume struct {
	Volume        block.VolumeID
	SnapshotSpace *SpaceLimit `json:",omitempty"`
}

// Kind implements Command.
func (SetVolume) Kind() string { return "set-volume" }

// SnapshotSpaceLimit is the limit that holds now.
func (v *Volume) SnapshotSpaceLimit() SpaceLimit {
	if v.SnapshotSpace != nil {
		return *v.SnapshotSpace
	}
	return v.Parameters.SnapshotSpace
}

// SnapshotBytesMax is how much the snapshots of the volume may hold, in bytes, 0 for
// any.
func (v *Volume) SnapshotBytesMax() int64 {
	l := v.SnapshotSpaceLimit()
	if l.Percent > 0 {
		return v.View.Size / 100 * int64(l.Percent)
	}
	return l.Bytes
}

func (s *State) setVolume(c SetVolume) (*State, Result) {
	v, ok := s.Volume(c.Volume)
	switch {
	case !ok || v.Deleting:
		return s.refuse(fmt.Errorf("set volume %s: %w", c.Volume, block.ErrNotFound))
	case c.SnapshotSpace == nil, *c.SnapshotSpace == v.SnapshotSpaceLimit():
		return s, volumeResult(v)
	}
	if err := c.SnapshotSpace.Validate(); err != nil {
		return s.refuse(fmt.Errorf("set volume %s: %w", c.Volume, err))
	}
	v = v.clone()
	v.SnapshotSpace = c.SnapshotSpace
	return s.commit(&v), volumeResult(v)
}
