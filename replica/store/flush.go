package store

import (
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// round makes what was done before it durable, for every Flush that waits and
// for all replicas of the store at once: flush numbers are written to their
// slots, then the data file is synced, then the changed entries of the maps are
// committed. There is one round at a time.
type round struct {
	tasks []*task
	// slots are the replicas whose flush records this round writes.
	slots   []*Replica
	writing int
	io      vfs.IO
	// refs are the entries that batch carries. set and clear are the extents
	// that the database names after, and no longer names after the commit.
	refs  []entryRef
	set   []uint32
	clear []uint32
	batch *pebble.Batch
	// seq is the newest journal record that batch covers.
	seq uint64
	// syncing are the replicas with data that the sync covers.
	syncing []*Replica
	err     error
}

// startRound begins a round unless one is running; then another follows it if
// there is need for one.
func (s *Store) startRound() {
	if s.round != nil {
		s.roundWanted = true
		return
	}
	if s.failed != nil {
		s.failFlushes()
		return
	}
	s.roundWanted = false
	r := &s.rounds
	s.round = r
	r.err = nil
	r.tasks, s.flushWaiting = s.flushWaiting, r.tasks[:0]
	r.slots, r.set, r.clear = r.slots[:0], r.set[:0], r.clear[:0]
	for _, t := range r.tasks {
		if t.op.Kind == Flush && t.replica.noteFlush(t.op) {
			r.slots = append(r.slots, t.replica)
		}
	}
	r.writing = 1
	for _, replica := range r.slots {
		s.writeSlot(r, replica)
	}
	s.slotWritten(r)
}

// noteFlush takes over the numbers of a Flush and reports whether they make the
// first change of this round.
func (r *Replica) noteFlush(op *Op) bool {
	f, changed := &r.flush, false
	if f.number.Less(op.FlushNumber) {
		f.number = op.FlushNumber
		changed = true
	}
	for _, c := range op.Confirmed {
		changed = f.confirm(c) || changed
	}
	r.pruneConfirmed()
	first := changed && !r.slotDirty
	r.slotDirty = r.slotDirty || changed
	return first
}

// pruneConfirmed forgets replicas that are no longer part of the volume, and
// keeps the list within its block.
func (r *Replica) pruneConfirmed() {
	f := &r.flush
	if v := r.next.view; v != nil {
		kept := f.confirmed[:0]
		for _, c := range f.confirmed {
			if v.Member(c.Replica) != nil {
				kept = append(kept, c)
			}
		}
		f.confirmed = kept
	}
	if n := len(f.confirmed); n > maxConfirmed {
		f.confirmed = append(f.confirmed[:0], f.confirmed[n-maxConfirmed:]...)
	}
}

// writeSlot writes the replica's flush record over the older block of its slot.
func (s *Store) writeSlot(r *round, replica *Replica) {
	replica.slotDirty = false
	replica.flush.counter++
	if replica.slotBuffer == nil {
		replica.slotBuffer = block.NewBuffer(block.BlockSize)
		replica.slotIO.Done = func(io *vfs.IO) { s.slotDone(io) }
	}
	replica.flush.encode(replica.slotBuffer.Data)
	io := &replica.slotIO
	io.Kind, io.Offset, io.Length = vfs.Write, flushOffset(replica.record.slot, replica.flush.counter), block.BlockSize
	io.Data, io.Err = replica.slotBuffer.Data, nil
	r.writing++
	s.options.Device.Submit(io)
}

func (s *Store) slotDone(io *vfs.IO) {
	s.mu.Lock()
	if s.abandoned {
		s.mu.Unlock()
		return
	}
	defer s.unlock()
	if io.Err != nil && s.round.err == nil {
		s.round.err = io.Err
	}
	s.slotWritten(s.round)
}

// slotWritten goes on when the last flush record is written.
func (s *Store) slotWritten(r *round) {
	if r.writing--; r.writing > 0 {
		return
	}
	if r.err != nil {
		s.fail(r.err)
		s.endRound()
		return
	}
	s.collect(r)
	r.io = vfs.IO{Kind: vfs.Sync, Done: s.syncJob}
	s.options.Device.Submit(&r.io)
}

// collect takes into the round the state of every changed entry. Their data was
// written before, and so is covered by the sync that follows. From here on the
// extents that they name are taken, whatever becomes of the entries: the commit
// will name them.
func (s *Store) collect(r *round) {
	r.seq = s.journal.seq
	r.refs, s.changed = s.changed, r.refs[:0]
	if len(r.refs) > 0 {
		r.batch = s.db.NewBatch()
	}
	for _, ref := range r.refs {
		e := ref.entry()
		e.changed, e.inRound = false, true
		clearStale(ref.page, e)
		named := e.extent
		if e.data == 0 {
			named = 0
		}
		if named != e.stored {
			if e.stored != 0 {
				r.clear = append(r.clear, e.stored)
			}
			if named != 0 {
				r.set = append(r.set, named)
				s.space.persist(named)
			}
			s.countExtents(r.batch, ref.page.replica, e.stored, named)
			e.stored = named
		}
		s.putEntry(r.batch, ref.page.replica.record.handle, ref.extent(), &e.entryState)
	}
	r.syncing, s.unsynced = s.unsynced, r.syncing[:0]
	for _, replica := range r.syncing {
		replica.hasUnsynced = false
		replica.syncing, replica.unsynced = replica.unsynced, replica.syncing
	}
}

// countExtents keeps the number of extents that the database names for a
// replica, as an entry goes from one extent to another or none.
func (s *Store) countExtents(b *pebble.Batch, r *Replica, from, to uint32) {
	before := r.extents
	if from != 0 {
		r.extents--
	}
	if to != 0 {
		r.extents++
	}
	if r.extents != before {
		s.put(b.Set(handleKey(nil, keyUsed, r.record.handle), binary.LittleEndian.AppendUint64(nil, r.extents), nil))
	}
}

// putEntry stores an entry, or removes it if it has no data.
func (s *Store) putEntry(b *pebble.Batch, h handle, extent uint32, e *entryState) {
	s.keyBuffer = mapKey(s.keyBuffer[:0], h, extent)
	if e.data == 0 {
		s.put(b.Delete(s.keyBuffer, nil))
		return
	}
	s.valueBuffer = appendEntry(s.valueBuffer[:0], e)
	s.put(b.Set(s.keyBuffer, s.valueBuffer, nil))
}

// put takes the result of adding to a batch, which fails only if the batch is
// misused.
func (s *Store) put(err error) {
	if err != nil {
		s.fail(err)
	}
}

func (s *Store) syncDone(io *vfs.IO) {
	s.mu.Lock()
	if s.abandoned {
		s.mu.Unlock()
		return
	}
	defer s.unlock()
	r := s.round
	if io.Err != nil {
		s.fail(io.Err)
	}
	if s.failed != nil || r.batch == nil {
		s.endRound()
		return
	}
	s.roundSynced = true
	s.startCommit()
}

// endRound ends the round: its tasks go on or fail.
func (s *Store) endRound() {
	r := s.round
	s.round = nil
	if r.batch != nil {
		_ = r.batch.Close() // it holds memory only
		r.batch = nil
	}
	if s.failed == nil {
		s.journal.applied = max(s.journal.applied, r.seq)
		for _, n := range r.clear {
			s.space.forget(n)
		}
	}
	for i, ref := range r.refs {
		ref.entry().inRound = false
		s.unpin(ref.page)
		r.refs[i] = entryRef{}
	}
	r.refs = r.refs[:0]
	for i, replica := range r.syncing {
		clear(replica.syncing)
		r.syncing[i] = nil
	}
	r.syncing = r.syncing[:0]
	if s.failed == nil {
		for _, replica := range r.slots {
			replica.durableFlush = replica.flush.clone()
		}
	}
	s.endRoundTasks(r)
	s.wakeSpace()
	s.evict()
	s.startDeletions()
	if s.roundWanted || len(s.flushWaiting) > 0 {
		s.startRound()
	}
	s.quiet.Broadcast()
}

func (s *Store) endRoundTasks(r *round) {
	for i, t := range r.tasks {
		r.tasks[i] = nil
		switch {
		case s.failed != nil:
			s.finish(t, s.failed)
		case t.op.Kind == Update:
			t.synced = true
			s.commitWaiting = append(s.commitWaiting, t)
			s.startCommit()
		default:
			s.finish(t, nil)
		}
	}
	r.tasks = r.tasks[:0]
}

func (s *Store) failFlushes() {
	waiting := s.flushWaiting
	s.flushWaiting = nil
	for _, t := range waiting {
		s.finish(t, s.failed)
	}
}
