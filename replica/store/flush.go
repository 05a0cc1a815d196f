package store

import (
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// round makes what was done before it durable, for every Flush and durable Write that
// waits and for all replicas of the store at once: flush numbers are written to their
// slots, then the data file is synced, then the changed entries of the maps are
// committed. There is one round at a time.
type round struct {
	tasks []*task
	// slots are the replicas whose flush records this round writes.
	slots   []*Replica
	writing int
	io      vfs.IO
	// refs are the entries that batch carries. set and clear are the areas
	// that the database names after, and no longer names after the commit.
	refs  []entryRef
	set   []area
	clear []area
	// emptied are those of clear that memory still uses.
	emptied []area
	batch   *pebble.Batch
	// pages have stale checksums that batch carries, and valid are the cuts that
	// become valid with it.
	pages []*page
	valid []validated
	// seq is the newest journal record that batch covers.
	seq uint64
	// number is that of the round, in the order of collection.
	number uint64
	// syncing are the replicas with data that the sync covers.
	syncing []*Replica
	err     error
}

// awaitRound has a task end with the next round to begin, which makes durable what was
// done before.
func (s *Store) awaitRound(t *task) {
	s.flushWaiting = append(s.flushWaiting, t)
	s.startRound()
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
	r.slots, r.set, r.clear, r.emptied = r.slots[:0], r.set[:0], r.clear[:0], r.emptied[:0]
	r.pages, r.valid = r.pages[:0], r.valid[:0]
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
	if !s.enter() {
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
	s.syncs.Add(1)
	s.collect(r)
	r.io = vfs.IO{Kind: vfs.Sync, Done: s.syncJob}
	s.options.Device.Submit(&r.io)
}

// collect takes into the round the state of every changed entry. Their data was
// written before, and so is covered by the sync that follows. From here on the
// areas that they name are taken, whatever becomes of the entries: the commit
// will name them.
func (s *Store) collect(r *round) {
	s.collected++
	r.number = s.collected
	r.seq = s.journal.seq
	r.refs, s.changed = s.changed, r.refs[:0]
	if len(r.refs)+len(s.freed) > 0 {
		r.batch = s.db.NewBatch()
	}
	for i, c := range s.freed {
		r.clear = append(r.clear, c.area)
		s.countBlocks(c.replica, -c.area.size())
		s.freed[i] = claim{}
	}
	s.freed = s.freed[:0]
	for _, ref := range r.refs {
		e := ref.entry()
		e.changed, e.inRound = false, true
		clearStale(ref.page, e)
		s.collectEntry(r, ref)
	}
	s.collectCuts(r)
	if r.batch != nil {
		s.putCounts(r.batch)
	}
	r.syncing, s.unsynced = s.unsynced, r.syncing[:0]
	for _, replica := range r.syncing {
		replica.hasUnsynced = false
		replica.syncing, replica.unsynced = replica.unsynced, replica.syncing
	}
}

// collectEntry takes the head and the kept states of one extent into the round.
func (s *Store) collectEntry(r *round, ref entryRef) {
	e, replica := ref.entry(), ref.page.replica
	h, extent := replica.record.handle, ref.extent()
	for w := range e.placements {
		if n := (area{extent: w.extent()}); w.mask() == 0 && s.space.durable.has(n.extent) {
			r.clear = append(r.clear, n)
			r.emptied = append(r.emptied, n)
			s.countBlocks(replica, -n.size())
		}
	}
	head := replica.stored(&e.entryState)
	s.persistState(r, replica, head)
	s.putHead(r.batch, h, extent, head)
	s.putChanges(r.batch, replica, extent, headLayer, head)
	for u := e.undo; u != nil; u = u.next {
		if u.collected {
			continue
		}
		u.collected = true
		s.persistState(r, replica, u.state)
		s.putUndo(r.batch, h, extent, u.layer, u.state)
		s.putChanges(r.batch, replica, extent, u.layer, u.state)
	}
}

// persistState marks what a state names as durable.
func (s *Store) persistState(r *round, replica *Replica, e *entryState) {
	if e == nil {
		return
	}
	for p := range e.placements {
		if p.foreign() || p.mask() == 0 {
			continue
		}
		for a := range p.areas {
			if rest, some := s.space.undurable(a); some {
				s.space.persistArea(rest)
				r.set = append(r.set, rest)
				s.countBlocks(replica, rest.size())
			}
		}
	}
}

// countBlocks keeps the number of blocks that the database names for a replica.
func (s *Store) countBlocks(r *Replica, n int64) {
	r.blocks += n
	if !r.countChanged {
		r.countChanged = true
		s.counted = append(s.counted, r)
	}
}

// putCounts stores the numbers that changed.
func (s *Store) putCounts(b *pebble.Batch) {
	for i, r := range s.counted {
		s.counted[i] = nil
		r.countChanged = false
		s.put(b.Set(handleKey(nil, keyUsed, r.record.handle), binary.LittleEndian.AppendUint64(nil, uint64(r.blocks)), nil))
	}
	s.counted = s.counted[:0]
}

// putHead stores the entry of a head, or removes it if there is none.
func (s *Store) putHead(b *pebble.Batch, h handle, extent uint32, e *entryState) {
	s.keyBuffer = mapKey(s.keyBuffer[:0], h, extent)
	s.putState(b, e)
}

// putUndo stores a kept state, or removes it if there is none.
func (s *Store) putUndo(b *pebble.Batch, h handle, extent, layer uint32, e *entryState) {
	s.keyBuffer = undoKey(s.keyBuffer[:0], h, extent, layer)
	s.putState(b, e)
}

func (s *Store) putState(b *pebble.Batch, e *entryState) {
	if e == nil {
		s.put(b.Delete(s.keyBuffer, nil))
		return
	}
	s.valueBuffer = appendEntry(s.valueBuffer[:0], e)
	s.put(b.Set(s.keyBuffer, s.valueBuffer, nil))
}

// putChanges notes in the index what follows from a state: that the extent changed
// in its layer, if there is an older cut to compare with, and, for one that a cut
// keeps, after that cut. So a cut whose extent has nothing any more is noted, too.
func (s *Store) putChanges(b *pebble.Batch, r *Replica, extent, key uint32, e *entryState) {
	if e == nil {
		return
	}
	if e.layer > r.durable.oldest() {
		s.putChange(b, r.record.handle, e.layer, extent)
	}
	if key != headLayer {
		_, above := r.durable.neighbours(key)
		s.putChange(b, r.record.handle, above, extent)
	}
}

func (s *Store) putChange(b *pebble.Batch, h handle, layer, extent uint32) {
	s.keyBuffer = changeKey(s.keyBuffer[:0], h, layer, extent)
	s.put(b.Set(s.keyBuffer, nil, nil))
}

// put takes the result of adding to a batch, which fails only if the batch is
// misused.
func (s *Store) put(err error) {
	if err != nil {
		s.fail(err)
	}
}

// Syncs is how often the data file was synced since the store was opened, each time for all
// flushes that waited.
func (s *Store) Syncs() int64 { return s.syncs.Load() }

func (s *Store) syncDone(io *vfs.IO) {
	if !s.enter() {
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
		s.ended = r.number
		for _, a := range r.clear {
			s.space.forgetArea(a)
		}
	}
	for i, p := range r.pages {
		r.pages[i] = nil
		s.unpin(p)
	}
	for i, ref := range r.refs {
		ref.entry().inRound = false
		if s.failed == nil {
			ref.entry().endUndo()
		}
		s.unpin(ref.page)
		r.refs[i] = entryRef{}
	}
	r.refs = r.refs[:0]
	for i, replica := range r.syncing {
		replica.syncing = replica.syncing[:0]
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
	s.startPruning()
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
