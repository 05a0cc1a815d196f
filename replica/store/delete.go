package store

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/internal/block"
)

// deletion frees the extents of a deleted replica in steps of bounded size. Each
// step is one commit that removes map entries and the extents they name.
type deletion struct {
	replica *Replica
	// flushed: the replica's changes have reached the database, so that the
	// database names everything it owns.
	flushed bool
	// running: a job or a commit works on the deletion.
	running bool
	// next is where the next step begins.
	next uint32
	// keys and areas are those of the step.
	keys  [][]byte
	areas []area
	last  bool
}

// deletionStep bounds the entries that one commit removes.
const deletionStep = 1024

// Delete removes a replica. When it returns, the replica is durably gone; its
// extents are freed in the background. Deleting what is not there is
// block.ErrNotFound. It blocks on the disk.
func (s *Store) Delete(id block.ReplicaID) error {
	s.mu.Lock()
	r := s.byID[id]
	switch {
	case s.closing:
		s.mu.Unlock()
		return fmt.Errorf("delete replica %s: %w", id, block.ErrClosed)
	case r == nil || r.creating || r.record.deleting:
		s.mu.Unlock()
		return fmt.Errorf("delete replica %s: %w", id, block.ErrNotFound)
	case s.failed != nil:
		defer s.mu.Unlock()
		return fmt.Errorf("delete replica %s: %w", id, s.failed)
	}
	r.record.deleting = true
	record := r.record
	s.jobs++
	s.mu.Unlock()

	err := s.storeTombstone(id, &record)

	s.mu.Lock()
	defer s.unlock()
	s.jobDone()
	if err != nil {
		s.fail(err)
		return fmt.Errorf("delete replica %s: %w", id, err)
	}
	s.retire(r)
	return nil
}

func (s *Store) storeTombstone(id block.ReplicaID, record *replicaRecord) error {
	b := s.db.NewBatch()
	defer b.Close()
	if err := b.Set(replicaKey(id), record.encode(), nil); err != nil {
		return databaseError(err)
	}
	return s.commitBatch(b)
}

// startDeletions goes on with the oldest deletion whose replica has no request
// under way.
func (s *Store) startDeletions() {
	if len(s.deletions) == 0 || s.failed != nil || s.closing {
		return
	}
	d := s.deletions[0]
	if d.running || d.replica.inFlight > 0 || s.pruning != nil && s.pruning.replica == d.replica {
		return
	}
	if !d.flushed {
		// Its changed entries would come back with a later round, so they go first.
		if d.replica.hasChanges(s) {
			if s.round == nil {
				s.startRound()
			}
			return
		}
		d.flushed = true
		s.dropPages(d.replica)
	}
	d.running = true
	s.jobs++
	s.options.Executor.Go(func() { s.stepDeletion(d) })
}

// hasChanges reports whether the database lacks changes of r.
func (r *Replica) hasChanges(s *Store) bool {
	return slices.ContainsFunc(s.changed, func(ref entryRef) bool { return ref.page.replica == r }) ||
		s.round != nil && slices.ContainsFunc(s.round.refs, func(ref entryRef) bool { return ref.page.replica == r })
}

// dropPages forgets the map of a deleted replica.
func (s *Store) dropPages(r *Replica) {
	for _, p := range r.pages {
		if p.pins == 0 && p.loaded {
			s.dropPage(p)
		}
	}
}

// stepDeletion is a job that reads what the next commit removes.
func (s *Store) stepDeletion(d *deletion) {
	if s.isAbandoned() {
		return
	}
	err := s.readDeletion(d)
	if !s.jobBack() {
		return
	}
	defer s.unlock()
	if err != nil {
		d.running = false
		s.fail(err)
		return
	}
	s.deletionReady = d
	s.startCommit()
}

// readDeletion takes extent by extent, each with all its states: they may name the
// same places, of which nothing may be left when those are given to others.
func (s *Store) readDeletion(d *deletion) error {
	d.keys, d.areas, d.last = nil, nil, false
	h := d.replica.record.handle
	heads, err := s.db.NewIter(&pebble.IterOptions{LowerBound: mapKey(nil, h, d.next), UpperBound: handleKey(nil, keyMap, h+1)})
	if err != nil {
		return databaseError(err)
	}
	kept, err := s.db.NewIter(&pebble.IterOptions{LowerBound: undoKey(nil, h, d.next, 0), UpperBound: handleKey(nil, keyUndo, h+1)})
	if err != nil {
		_ = heads.Close() // nothing was read
		return databaseError(err)
	}
	heads.First()
	kept.First()
	for err == nil && len(d.keys) < deletionStep {
		extent := min(extentAt(heads, 9), extentAt(kept, 5))
		if extent == ^uint32(0) {
			d.last = true
			break
		}
		for ; err == nil && extentAt(heads, 9) == extent; heads.Next() {
			err = d.take(heads)
		}
		for ; err == nil && extentAt(kept, 5) == extent; kept.Next() {
			err = d.take(kept)
		}
		d.next = extent + 1
	}
	for _, it := range []*pebble.Iterator{heads, kept} {
		if closeErr := it.Close(); closeErr != nil && err == nil {
			err = databaseError(closeErr)
		}
	}
	if err != nil {
		return fmt.Errorf("delete replica %s: %w", d.replica.id, err)
	}
	return nil
}

// extentAt is the extent in the key where it stands, the highest number at the end.
func extentAt(it *pebble.Iterator, at int) uint32 {
	if !it.Valid() || len(it.Key()) != 13 {
		return ^uint32(0)
	}
	return binary.BigEndian.Uint32(it.Key()[at:])
}

func (d *deletion) take(it *pebble.Iterator) error {
	var e entryState
	if err := decodeEntry(it.Value(), &e); err != nil {
		return fmt.Errorf("map key %x: %w", it.Key(), err)
	}
	d.keys = append(d.keys, slices.Clone(it.Key()))
	for p := range e.placements {
		if !p.foreign() {
			for a := range p.areas {
				d.areas = append(d.areas, a)
			}
		}
	}
	return nil
}

// buildDeletion adds a step to a commit; the last one removes the replica's
// other keys.
func (s *Store) buildDeletion(c *commit, pages *touched) {
	d := c.deletion
	for _, key := range d.keys {
		s.put(c.batch.Delete(key, nil))
	}
	pages.add(d.areas)
	if !d.last {
		return
	}
	h := d.replica.record.handle
	for _, kind := range []byte{keyFence, keyView, keyUsed, keyLine} {
		s.put(c.batch.Delete(handleKey(nil, kind, h), nil))
	}
	for _, kind := range []byte{keyLog, keyDirtySet, keyDirtyPage, keyCut, keyChange} {
		s.put(c.batch.DeleteRange(handleKey(nil, kind, h), handleKey(nil, kind, h+1), nil))
	}
	s.put(c.batch.Delete(replicaKey(d.replica.id), nil))
}

// deletionCommitted frees the extents of a step and goes on.
func (s *Store) deletionCommitted(d *deletion) {
	d.running = false
	if s.failed != nil {
		return
	}
	for _, a := range d.areas {
		s.space.unuseArea(a)
		s.space.forgetArea(a)
	}
	if d.last {
		r := d.replica
		delete(s.byID, r.id)
		s.replicas = slices.DeleteFunc(s.replicas, func(q *Replica) bool { return q == r })
		s.slots.remove(r.record.slot)
		s.deletions = s.deletions[1:]
		s.releaseOrigin(r)
	}
	s.wakeSpace()
	s.startDeletions()
}
