package state

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Replacement is a replica that is to take the place of another one. It is no replica
// of the view before it was made, and then an absent one with everything dirty.
type Replacement struct {
	Old block.ReplicaID
	New Placement
}

// ReplaceReplica begins a replacement. Refused with block.ErrInUse while Old is being
// replaced by another one or a volume is being made from this one, which needs the
// replica where it is, and with block.ErrUnavailable while this one is being made.
type ReplaceReplica struct {
	Volume block.VolumeID
	Old    block.ReplicaID
	New    Placement
	// DecidedAt is the index of the state that the ID and the placement were decided
	// on. If a record of a replica was dropped since, the answer is block.ErrConflict:
	// decide again.
	DecidedAt uint64
}

// AbandonReplacement gives up the replica that was to take the place of another one,
// and makes it a tombstone. Refused with block.ErrInUse once it is in sync. One that
// is over, or was never begun, changes nothing.
type AbandonReplacement struct {
	Volume  block.VolumeID
	Replica block.ReplicaID
}

// Kind implements Command.
func (ReplaceReplica) Kind() string { return "replace-replica" }

// Kind implements Command.
func (AbandonReplacement) Kind() string { return "abandon-replacement" }

// ReplacementOf finds what is to take the place of a replica, nil if nothing is.
func (v *Volume) ReplacementOf(old block.ReplicaID) *Replacement {
	return v.replacement(func(r *Replacement) bool { return r.Old == old })
}

func (v *Volume) replacement(is func(*Replacement) bool) *Replacement {
	for i := range v.Replacing {
		if is(&v.Replacing[i]) {
			return &v.Replacing[i]
		}
	}
	return nil
}

// Retiring is the first replica that is to leave the in-sync set because what takes its
// place is in sync; its engine proposes that (rule 3).
func (v *Volume) Retiring() (Replacement, bool) {
	r := v.replacement(func(r *Replacement) bool {
		old, next := v.View.Member(r.Old), v.View.Member(r.New.Replica)
		return old != nil && old.InSync && next != nil && next.InSync
	})
	if r == nil {
		return Replacement{}, false
	}
	return *r, true
}

// IsRetired reports whether a replica was replaced, or was to replace one and does
// not: a tombstone of a volume that lives.
func (v *Volume) IsRetired(id block.ReplicaID) bool {
	return slices.ContainsFunc(v.Retired, func(p Placement) bool { return p.Replica == id })
}

// Unmade are the replicas that are not in the view yet because their node has not made
// them.
func (v *Volume) Unmade() (list []Placement) {
	for _, r := range v.Replacing {
		if v.View.Member(r.New.Replica) == nil {
			list = append(list, r.New)
		}
	}
	return list
}

// Elsewhere are the replicas on disks that the view does not have: unmade ones and
// tombstones.
func (v *Volume) Elsewhere() []Placement { return append(v.Unmade(), v.Retired...) }

// Lends reports whether a copy may be made of a replica where it is: it is in sync and
// does not leave.
func (v *Volume) Lends(m *block.Member) bool { return m.InSync && v.ReplacementOf(m.ID) == nil }

// pair reports whether one of two replicas takes the place of the other: only such may
// be on one node.
func (v *Volume) pair(a, b block.ReplicaID) bool {
	return v.replacement(func(r *Replacement) bool {
		return r.Old == a && r.New.Replica == b || r.Old == b && r.New.Replica == a
	}) != nil
}

// replicasHeld are where the replicas of a volume are, or are to be, tombstones apart.
func (v *Volume) replicasHeld() (list []Placement) {
	for i := range v.View.Replicas {
		m := &v.View.Replicas[i]
		list = append(list, Placement{Replica: m.ID, Node: m.Node, Disk: m.Disk})
	}
	return append(list, v.Unmade()...)
}

// Lending is a volume that is being made from this one: it shares the bytes of replicas
// where they are.
func (s *State) Lending(id block.VolumeID) (maker block.VolumeID, lends bool) {
	return s.maker(func(p *Source) bool { return p.Volume == id })
}

func (s *State) replaceReplica(c ReplaceReplica) (*State, Result) {
	v, ok := s.Volume(c.Volume)
	if !ok || v.Deleting {
		return s.refuse(fmt.Errorf("replace replica %s of volume %s: %w", c.Old, c.Volume, block.ErrNotFound))
	}
	if r := v.ReplacementOf(c.Old); r != nil && r.New == c.New {
		return s, volumeResult(v)
	}
	if err := s.checkReplacement(&v, c); err != nil {
		return s.refuse(fmt.Errorf("replace replica %s of volume %s: %w", c.Old, c.Volume, err))
	}
	v = v.clone()
	v.Replacing = append(v.Replacing, Replacement{Old: c.Old, New: c.New})
	return s.commit(&v), volumeResult(v)
}

func (s *State) checkReplacement(v *Volume, c ReplaceReplica) error {
	old, next := v.View.Member(c.Old), c.New
	switch {
	case !v.Ready():
		return fmt.Errorf("%d replicas are still being made: %w", len(v.Pending), block.ErrUnavailable)
	case old == nil || v.replacement(func(r *Replacement) bool { return r.New.Replica == c.Old }) != nil:
		return fmt.Errorf("it is none that can be: %w", block.ErrNotFound)
	case v.ReplacementOf(c.Old) != nil:
		return fmt.Errorf("replica %s takes its place: %w", v.ReplacementOf(c.Old).New.Replica, block.ErrInUse)
	case next.Replica.IsZero() || next.Absent || s.replicas.has(next.Replica.ID):
		return fmt.Errorf("replica %s: %w", next.Replica, block.ErrExists)
	case c.DecidedAt < s.collected:
		return fmt.Errorf("decided at index %d, a replica was dropped at %d: %w", c.DecidedAt, s.collected, block.ErrConflict)
	}
	if d, ok := s.Disk(next.Disk); !ok || d.Node != next.Node || d.ID == old.Disk {
		return fmt.Errorf("disk %s on node %s: %w", next.Disk, next.Node, block.ErrNotFound)
	}
	for _, o := range v.replicasHeld() {
		if o.Node == next.Node && o.Replica != c.Old {
			return fmt.Errorf("node %s has replica %s of it: %w", next.Node, o.Replica, block.ErrConflict)
		}
	}
	if o, ok := s.Lending(v.ID); ok {
		return fmt.Errorf("volume %s is being made from it: %w", o, block.ErrInUse)
	}
	return nil
}

// joined is the view with a replica that was made: an absent one that has everything
// dirty, because no dirty set bears the name of this revision (rule 22).
func (s *State) joined(v Volume, p Placement, incarnation block.Incarnation) (*State, Result) {
	v = v.clone()
	v.View.Replicas = append(v.View.Replicas, block.Member{
		ID: p.Replica, Node: p.Node, Disk: p.Disk, Removed: v.View.Revision + 1, Incarnation: incarnation,
	})
	return s.commit(&v), volumeResult(v)
}

// retire takes replicas out of the view whose place is taken: the new one is in sync,
// and the old one is not or has just left. From this commit on they are tombstones.
//
// No engine misses them: an acknowledgement needs the members alone, and who leaves the
// in-sync set leaves it by the proposal of its engine, or has failed before (rule 3).
func (v *Volume) retire() {
	v.Replacing = slices.DeleteFunc(v.Replacing, func(r Replacement) bool {
		old, next := v.View.Member(r.Old), v.View.Member(r.New.Replica)
		if next == nil || !next.InSync || old.InSync {
			return false
		}
		v.entomb(r.Old)
		return true
	})
	if len(v.Replacing) == 0 {
		v.Replacing = nil
	}
}

// entomb makes a replica of the view a tombstone.
func (v *Volume) entomb(id block.ReplicaID) {
	m := v.View.Member(id)
	v.Retired = append(v.Retired, Placement{Replica: m.ID, Node: m.Node, Disk: m.Disk})
	v.View.Replicas = slices.DeleteFunc(v.View.Replicas, func(o block.Member) bool { return o.ID == id })
}

func (s *State) abandonReplacement(c AbandonReplacement) (*State, Result) {
	v, ok := s.Volume(c.Volume)
	if !ok {
		return s.refuse(fmt.Errorf("abandon replica %s of volume %s: %w", c.Replica, c.Volume, block.ErrNotFound))
	}
	is := func(r *Replacement) bool { return r.New.Replica == c.Replica }
	r := v.replacement(is)
	if r == nil {
		return s, volumeResult(v)
	}
	m := v.View.Member(c.Replica)
	if m != nil && m.InSync {
		return s.refuse(fmt.Errorf("abandon replica %s of volume %s: it is in sync: %w", c.Replica, c.Volume, block.ErrInUse))
	}
	next := r.New
	v = v.clone()
	v.Replacing = slices.DeleteFunc(v.Replacing, func(r Replacement) bool { return is(&r) })
	if len(v.Replacing) == 0 {
		v.Replacing = nil
	}
	if m != nil {
		v.entomb(c.Replica)
	} else {
		v.Retired = append(v.Retired, next)
	}
	return s.commit(&v), volumeResult(v)
}

// abandonAll makes tombstones of the replicas that a deleted volume was to get.
func (v *Volume) abandonAll() {
	v.Retired = append(v.Retired, v.Unmade()...)
	v.Replacing = nil
}

// bury forgets a tombstone; it reports whether there was one. Its ID must not come
// back with a command that was decided on before.
func (s *State) bury(index uint64, v Volume, id block.ReplicaID) (*State, Result) {
	v = v.clone()
	v.View.Replicas = slices.DeleteFunc(v.View.Replicas, func(m block.Member) bool { return m.ID == id })
	v.Retired = slices.DeleteFunc(v.Retired, func(p Placement) bool { return p.Replica == id })
	if len(v.Retired) == 0 {
		v.Retired = nil
	}
	next := s.commit(&v)
	next.replicas = next.replicas.without(id.ID)
	if gone := v.Deleting && len(v.View.Replicas)+len(v.Retired) == 0; gone {
		next.volumes, next.unsettled = next.volumes.without(v.ID.ID), next.unsettled.without(v.ID.ID)
		next.collected = index
	} else if !v.Deleting {
		next.collected = index
	}
	return next, volumeResult(v)
}

// checkReplacing wants replacements and tombstones to be what they say.
func (s *State) checkReplacing(v *Volume) error {
	if v.Deleting && len(v.Replacing) > 0 || len(v.Replacing) > 0 && !v.Ready() {
		return fmt.Errorf("%d replicas are being replaced", len(v.Replacing))
	}
	for i, r := range v.Replacing {
		if v.View.Member(r.Old) == nil || r.New.Absent {
			return fmt.Errorf("replica %s is being replaced by %s", r.Old, r.New.Replica)
		}
		for _, o := range v.Replacing[:i] {
			if o.Old == r.Old || o.New.Replica == r.New.Replica || o.Old == r.New.Replica || o.New.Replica == r.Old {
				return fmt.Errorf("replicas %s and %s are being replaced by %s and %s", o.Old, r.Old, o.New.Replica, r.New.Replica)
			}
		}
	}
	for _, p := range v.Elsewhere() {
		if volume, ok := s.replicas.get(p.Replica.ID); !ok || volume != v.ID || v.View.Member(p.Replica) != nil {
			return fmt.Errorf("replica %s is indexed for volume %s", p.Replica, volume)
		}
		if d, ok := s.Disk(p.Disk); !ok || d.Node != p.Node {
			return fmt.Errorf("replica %s: disk %s is not on node %s", p.Replica, p.Disk, p.Node)
		}
	}
	return v.checkSpread()
}

// checkSpread wants the replicas to be on different nodes.
func (v *Volume) checkSpread() error {
	if v.Deleting {
		return nil
	}
	held := v.replicasHeld()
	for i, p := range held {
		for _, o := range held[:i] {
			if o.Replica == p.Replica || o.Node == p.Node && !v.pair(o.Replica, p.Replica) {
				return fmt.Errorf("replicas %s and %s are on one node or the same", o.Replica, p.Replica)
			}
		}
	}
	return nil
}
