package store

import (
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
	// keys and extents are those of the step.
	keys    [][]byte
	extents []uint32
	last    bool
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
	s.deletions = append(s.deletions, &deletion{replica: r})
	s.startDeletions()
	return nil
}

func (s *Store) storeTombstone(id block.ReplicaID, record *replicaRecord) error {
	b := s.db.NewBatch()
	defer b.Close()
	if err := b.Set(replicaKey(nil, id), record.encode(), nil); err != nil {
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
	if d.running || d.replica.inFlight > 0 {
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
	s.mu.Lock()
	if s.abandoned {
		s.mu.Unlock()
		return
	}
	defer s.unlock()
	s.jobDone()
	if err != nil {
		d.running = false
		s.fail(err)
		return
	}
	s.deletionReady = d
	s.startCommit()
}

func (s *Store) readDeletion(d *deletion) error {
	d.keys, d.extents, d.last = nil, nil, true
	h := d.replica.record.handle
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: mapKey(nil, h, d.next), UpperBound: handleKey(nil, keyMap, h+1)})
	if err != nil {
		return databaseError(err)
	}
	var e entryState
	for ok := it.First(); ok; ok = it.Next() {
		if len(d.keys) == deletionStep {
			d.last = false
			break
		}
		_, extent, err := splitMapKey(it.Key())
		if err == nil {
			err = decodeEntry(it.Value(), &e)
		}
		if err != nil {
			_ = it.Close() // the damaged entry is the error that counts
			return fmt.Errorf("delete replica %s: %w", d.replica.id, err)
		}
		d.keys = append(d.keys, slices.Clone(it.Key()))
		d.extents = append(d.extents, e.extent)
		d.next = extent + 1
	}
	if err := it.Close(); err != nil {
		return databaseError(err)
	}
	return nil
}

// buildDeletion adds a step to a commit; the last one removes the replica's
// other keys.
func (s *Store) buildDeletion(c *commit, pages *bitset) {
	d := c.deletion
	for _, key := range d.keys {
		s.put(c.batch.Delete(key, nil))
	}
	for _, n := range d.extents {
		pages.add(allocationPage(n))
	}
	if !d.last {
		return
	}
	h := d.replica.record.handle
	for _, kind := range []byte{keyFence, keyView, keyUsed} {
		s.put(c.batch.Delete(handleKey(nil, kind, h), nil))
	}
	for _, kind := range []byte{keyLog, keyDirtySet, keyDirtyPage} {
		s.put(c.batch.DeleteRange(handleKey(nil, kind, h), handleKey(nil, kind, h+1), nil))
	}
	s.put(c.batch.Delete(replicaKey(nil, d.replica.id), nil))
}

// deletionCommitted frees the extents of a step and goes on.
func (s *Store) deletionCommitted(d *deletion) {
	d.running = false
	if s.failed != nil {
		return
	}
	for _, n := range d.extents {
		s.space.unuse(n)
		s.space.forget(n)
	}
	if d.last {
		r := d.replica
		delete(s.byID, r.id)
		s.replicas = slices.DeleteFunc(s.replicas, func(q *Replica) bool { return q == r })
		s.slots.remove(r.record.slot)
		s.deletions = s.deletions[1:]
	}
	s.wakeSpace()
	s.startDeletions()
}
