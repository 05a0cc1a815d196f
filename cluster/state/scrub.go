package state

import (
	"cmp"
	"fmt"
	"iter"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Scrub is the record of how a volume was verified. Times are in milliseconds since
// 1970 (UTC), as the node that reports them reads its clock.
type Scrub struct {
	Volume block.VolumeID
	// Verified is when the last walk ended that read everything on every replica of the
	// volume, its snapshots included, 0 if none has. Ended is when the last one ended, whatever it covered.
	Verified int64 `json:",omitempty"`
	Ended    int64 `json:",omitempty"`
	// Asked is when somebody asked for a walk that has not begun yet, else 0.
	Asked int64 `json:",omitempty"`
	// Began is when the walk under way began, 0 if there is none. Wanted: it was asked
	// for. Everything before Offset is verified, on the replicas in Covered.
	Began   int64             `json:",omitempty"`
	Wanted  bool              `json:",omitempty"`
	Offset  int64             `json:",omitempty"`
	Covered []block.ReplicaID `json:",omitempty"`
	// Found is what the walk under way has found or, if there is none, the last one.
	Found Found `json:",omitzero"`
	// Findings are the newest, oldest first, at most FindingsMax, whoever found them.
	Findings []Finding `json:",omitempty"`
}

// FindingsMax is how many findings of a volume are kept.
const FindingsMax = 16

// Found sums up what a walk has found, in bytes.
type Found struct {
	// Repaired was damaged and is a peer's now, Lost is intact nowhere, and Differing
	// differs between replicas though its checksums are good.
	Repaired, Lost, Differing int64
}

// FindingKind tells what was found.
type FindingKind uint8

const (
	// DamageRepaired: bytes on Disk did not verify and are a peer's now.
	DamageRepaired FindingKind = iota + 1
	// DataLost: bytes on Disk do not verify, and nobody in sync has them intact.
	DataLost
	// ReplicasDiffer: bytes on Disk are not a peer's though both verify.
	ReplicasDiffer
)

// Finding is one place that was not as it should be.
type Finding struct {
	Kind    FindingKind
	At      int64
	Replica block.ReplicaID
	Disk    block.DiskID
	// Snapshot is the oldest that has these bytes, zero for the head. It may be gone.
	Snapshot block.SnapshotID `json:",omitzero"`
	// Offset in the volume, and length, in bytes.
	Offset, Bytes int64
}

// Settings are those of the cluster.
type Settings struct {
	// ScrubInterval is the time from the end of a walk through a volume to the next,
	// in seconds; 0 is never.
	ScrubInterval int64
	// ScrubRate bounds the bytes of a volume that are read in a second; 0 bounds them
	// by nothing but the work of clients.
	ScrubRate int64
	// MovesMax is how many replicas are moved at the same time, and how many detached
	// volumes are resynced; 0 stands for MovesDefault.
	MovesMax int64 `json:",omitempty"`
	// TrashKeep is how long a deleted volume is kept in the trash, in seconds; 0 is not
	// at all.
	TrashKeep int64 `json:",omitempty"`
}

// MovesDefault is how many replicas are moved at the same time unless somebody says.
const MovesDefault = 4

// Moves is how many replicas are moved at the same time.
func (s Settings) Moves() int { return int(cmp.Or(s.MovesMax, MovesDefault)) }

// DefaultSettings are those of a cluster in which nobody has changed them.
func DefaultSettings() Settings {
	return Settings{ScrubInterval: 14 * 24 * 60 * 60, ScrubRate: 64 << 20}
}

// SetSettings changes the settings that are set.
type SetSettings struct {
	ScrubInterval *int64 `json:",omitempty"`
	ScrubRate     *int64 `json:",omitempty"`
	MovesMax      *int64 `json:",omitempty"`
	// TrashKeep is for what is deleted from now on.
	TrashKeep *int64 `json:",omitempty"`
}

// RequestScrub asks for a walk through a volume. One that is asked for or under way
// already is the one that is meant.
type RequestScrub struct {
	Volume block.VolumeID
	// At is now, in milliseconds since 1970 (UTC).
	At int64
}

// RecordScrub reports what the engine of an epoch has verified or found. It is refused
// with block.ErrStaleEpoch when another one has taken its place. Repeated, it changes
// nothing.
type RecordScrub struct {
	Volume block.VolumeID
	Epoch  block.Epoch
	// At is now, in milliseconds since 1970 (UTC).
	At int64
	// Began names the walk that has come to Offset and verified what lies before on
	// Covered; 0 if there is no walk to tell of. Ended: that was its end.
	Began   int64             `json:",omitempty"`
	Offset  int64             `json:",omitempty"`
	Covered []block.ReplicaID `json:",omitempty"`
	Ended   bool              `json:",omitempty"`
	// Found is what that walk has found up to Offset.
	Found Found `json:",omitzero"`
	// Findings are added to those that are kept.
	Findings []Finding `json:",omitempty"`
}

// Kind implements Command.
func (SetSettings) Kind() string { return "set-settings" }

// Kind implements Command.
func (RequestScrub) Kind() string { return "request-scrub" }

// Kind implements Command.
func (RecordScrub) Kind() string { return "record-scrub" }

// Settings are those of the cluster.
func (s *State) Settings() Settings {
	if s.settings == nil {
		return DefaultSettings()
	}
	return *s.settings
}

// Scrub is the record of a volume; of one that nothing is known of it is empty.
func (s *State) Scrub(volume block.VolumeID) Scrub {
	r, ok := s.scrubs.get(volume.ID)
	if !ok {
		return Scrub{Volume: volume}
	}
	return r
}

// Scrubs yields all records by rising ID of the volume.
func (s *State) Scrubs() iter.Seq[Scrub] { return s.scrubs.all() }

// withScrub is the state with a record. It is no part of the view: the engine that
// serves the volume need not hear of it, and its revision stays.
func (s *State) withScrub(r Scrub) *State {
	next := *s
	next.scrubs = s.scrubs.with(r.Volume.ID, r)
	return &next
}

func (s *State) setSettings(c SetSettings) (*State, Result) {
	settings := s.Settings()
	for _, set := range []struct {
		to   *int64
		from *int64
	}{
		{&settings.ScrubInterval, c.ScrubInterval}, {&settings.ScrubRate, c.ScrubRate}, {&settings.MovesMax, c.MovesMax}, {&settings.TrashKeep, c.TrashKeep},
	} {
		if set.from == nil {
			continue
		}
		if *set.from < 0 {
			return s.refuse(fmt.Errorf("set settings: %d is below 0: %w", *set.from, block.ErrInvalid))
		}
		*set.to = *set.from
	}
	if settings.TrashKeep > TrashKeepMax {
		return s.refuse(fmt.Errorf("set settings: %d days in the trash, at most %d are possible: %w", settings.TrashKeep/day, TrashKeepMax/day, block.ErrInvalid))
	}
	next := *s
	next.settings = &settings
	return &next, Result{}
}

// scrubbed finds a volume that can be scrubbed.
func (s *State) scrubbed(id block.VolumeID) (Volume, error) {
	v, ok := s.Volume(id)
	if !ok || v.Deleting {
		return v, fmt.Errorf("scrub volume %s: %w", id, block.ErrNotFound)
	}
	return v, nil
}

func (s *State) requestScrub(c RequestScrub) (*State, Result) {
	v, err := s.scrubbed(c.Volume)
	if err != nil {
		return s.refuse(err)
	}
	if c.At <= 0 {
		return s.refuse(fmt.Errorf("scrub volume %s: the time must be set: %w", c.Volume, block.ErrInvalid))
	}
	r := s.Scrub(c.Volume)
	if r.Began != 0 || r.Asked != 0 {
		return s, volumeResult(v)
	}
	r.Asked = c.At
	return s.withScrub(r), volumeResult(v)
}

func (s *State) recordScrub(c RecordScrub) (*State, Result) {
	v, err := s.scrubbed(c.Volume)
	if err != nil {
		return s.refuse(err)
	}
	if v.View.Owner.IsZero() || v.View.Epoch != c.Epoch {
		return s.refuse(fmt.Errorf("record scrub of volume %s by epoch %d, it is %d: %w", c.Volume, c.Epoch, v.View.Epoch, block.ErrStaleEpoch))
	}
	if c.At <= 0 || c.Began < 0 || c.Offset < 0 || len(c.Findings) > FindingsMax {
		return s.refuse(fmt.Errorf("record scrub of volume %s at %d, begun at %d, offset %d, %d findings: %w",
			c.Volume, c.At, c.Began, c.Offset, len(c.Findings), block.ErrInvalid))
	}
	r := s.Scrub(c.Volume)
	r.keep(c.Findings)
	switch {
	case c.Began == 0, c.Began <= r.Ended:
		// Nothing to tell, or told before.
	case !c.Ended:
		r.Wanted = r.Wanted || r.Asked != 0
		r.Asked = 0
		r.Began, r.Offset, r.Covered, r.Found = c.Began, c.Offset, slices.Clone(c.Covered), c.Found
	default:
		r.Ended = max(c.At, c.Began)
		if covers(&v, c.Covered) {
			r.Verified = r.Ended
		}
		r.Asked, r.Began, r.Wanted, r.Offset, r.Covered, r.Found = 0, 0, false, 0, nil, c.Found
	}
	return s.withScrub(r), Result{}
}

// covers reports whether every replica of a volume is among those that a walk has
// verified from its beginning to its end.
func covers(v *Volume, covered []block.ReplicaID) bool {
	for i := range v.View.Replicas {
		if !slices.Contains(covered, v.View.Replicas[i].ID) {
			return false
		}
	}
	return true
}

// keep adds findings and drops the oldest. One that was kept and is found again is the
// newest from then on.
func (r *Scrub) keep(findings []Finding) {
	kept := slices.Clone(r.Findings)
	for _, f := range findings {
		kept = slices.DeleteFunc(kept, func(o Finding) bool {
			o.At = f.At
			return o == f
		})
		kept = append(kept, f)
	}
	if n := len(kept) - FindingsMax; n > 0 {
		kept = kept[n:]
	}
	r.Findings = kept
}

// checkScrubs wants the records to be of volumes that exist, and to make sense.
func (s *State) checkScrubs() error {
	for r := range s.Scrubs() {
		v, ok := s.Volume(r.Volume)
		switch {
		case !ok || v.Deleting:
			return fmt.Errorf("scrub of volume %s, which does not exist", r.Volume)
		case r.Verified > r.Ended, r.Asked < 0, r.Began < 0, r.Offset < 0, r.Began == 0 && (r.Offset != 0 || r.Wanted):
			return fmt.Errorf("scrub of volume %s: %+v", r.Volume, r)
		case len(r.Findings) > FindingsMax:
			return fmt.Errorf("scrub of volume %s: %d findings", r.Volume, len(r.Findings))
		}
	}
	return nil
}
