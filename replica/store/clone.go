package store

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// CloneSpec describes a new replica that begins as a cut of another one.
type CloneSpec struct {
	ReplicaSpec
	// Source is a replica of the same store, Snapshot one of its valid cuts.
	Source   block.ReplicaID
	Snapshot block.SnapshotID
}

// Clone adds a replica that reads as a cut of another one does, and as zeros past
// its end, durably and without copying anything. The cut and what it needs stay in
// the store while a clone shows it, invisible once they are dropped or deleted. It
// blocks on the disk. A source or cut that is not there, or not valid, is
// block.ErrNotFound; cloning what exists with the same properties succeeds.
func (s *Store) Clone(spec CloneSpec) error {
	if spec.Source.IsZero() || spec.Snapshot.IsZero() {
		return fmt.Errorf("clone replica %s: no source: %w", spec.Replica, block.ErrInvalid)
	}
	return s.create(spec)
}

// findOrigin finds what a new replica shows; nil for an empty one. The mutex is
// held.
func (s *Store) findOrigin(spec CloneSpec) (*Replica, lineRecord, error) {
	line := lineRecord{head: firstLayer}
	if spec.Source.IsZero() {
		return nil, line, nil
	}
	o := s.byID[spec.Source]
	if o == nil || o.creating || o.record.deleting {
		return nil, line, fmt.Errorf("source replica %s: %w", spec.Source, block.ErrNotFound)
	}
	c := findCut(o.durable.cuts, spec.Snapshot)
	if c == nil || !c.Valid {
		return nil, line, fmt.Errorf("snapshot %s of replica %s, valid: %w", spec.Snapshot, spec.Source, block.ErrNotFound)
	}
	if spec.Size < c.Size {
		return nil, line, fmt.Errorf("clone of %d bytes of a snapshot of %d: %w", spec.Size, c.Size, block.ErrInvalid)
	}
	line.origin, line.originLayer = o.record.handle, c.layer
	return o, line, nil
}

// clones reports whether r has the origin that spec wants.
func (r *Replica) clones(spec CloneSpec) bool {
	if r.origin == nil || spec.Source.IsZero() {
		return r.origin == nil && spec.Source.IsZero()
	}
	for i := range r.origin.durable.cuts {
		if c := &r.origin.durable.cuts[i]; c.layer == r.durable.line.originLayer {
			return r.origin.id == spec.Source && c.Snapshot == spec.Snapshot
		}
	}
	return false
}
