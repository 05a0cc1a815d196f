package store

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// SnapshotSpace is how much the snapshots of the replica hold that its head does not
// have any more, in bytes of whole blocks: exact, each block counted once however many
// snapshots have it, and also where a clone has it too. Kept heads do not count. The time
// it takes follows what was changed since the oldest one. It may block on the database.
// block.ErrConflict if a snapshot is dropped meanwhile.
func (r *Replica) SnapshotSpace() (int64, error) {
	n, err := r.snapshotSpace()
	if err != nil {
		return 0, fmt.Errorf("space of the snapshots of replica %s: %w", r.id, err)
	}
	return n, nil
}

// snapshotSpace goes through the snapshots, oldest first. The states that name a place
// stand side by side: so a block is counted at the youngest snapshot that has it, which
// is the one whose next does not, and not at all if the head has it.
func (r *Replica) snapshotSpace() (held int64, err error) {
	s := r.store
	layers, changed, err := r.beginSnapshotSpace()
	if err != nil {
		return 0, err
	}
	defer s.jobEnded()
	for i, layer := range layers[:len(layers)-1] {
		extents, err := s.changedExtents(r, layer, layers[i+1], 0, wholeHead, changed)
		if err != nil {
			return 0, err
		}
		const batch = 16 * pageExtents
		for part := range slices.Chunk(extents, batch) {
			n, err := s.gone(r, layer, layers[i+1], part)
			if err != nil {
				return 0, err
			}
			held += n
		}
	}
	return held, r.keeps(layers[:len(layers)-1])
}

// keeps reports that a snapshot is gone: it may have taken along what was to be counted.
func (r *Replica) keeps(layers []uint32) error {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	for _, layer := range layers {
		if !slices.ContainsFunc(r.durable.cuts, func(c cut) bool { return c.layer == layer && !c.dropping }) {
			return fmt.Errorf("a snapshot was deleted meanwhile: %w", block.ErrConflict)
		}
	}
	return nil
}

// beginSnapshotSpace lists the layers of the snapshots and wholeHead, and the extents of
// which memory knows changes that the index lacks. The call counts as a job until
// jobEnded.
func (r *Replica) beginSnapshotSpace() (layers, changed []uint32, err error) {
	s := r.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.abandoned {
		return nil, nil, block.ErrClosed
	}
	for i := range r.durable.cuts {
		if c := &r.durable.cuts[i]; !c.dropping && !c.Kept {
			layers = append(layers, c.layer)
		}
	}
	slices.Sort(layers)
	s.jobs++
	return append(layers, wholeHead), r.changedInMemory(0, wholeHead), nil
}

// gone is how much some extents had at a layer that they do not have at a younger one,
// in bytes. What a clone shows belongs to its source.
func (s *Store) gone(r *Replica, layer, younger uint32, extents []uint32) (bytes int64, err error) {
	before, err := s.statesAt(r, layer, extents)
	if err != nil {
		return 0, err
	}
	after, err := s.statesAt(r, younger, extents)
	if err != nil {
		return 0, err
	}
	for i, e := range before {
		if e == nil {
			continue
		}
		for p := range e.placements {
			lost := p.mask()
			if p.foreign() {
				continue
			}
			if after[i] != nil {
				lost &^= e.shared(after[i])
			}
			bytes += int64(bits.OnesCount16(lost)) * block.BlockSize
		}
	}
	return bytes, nil
}
