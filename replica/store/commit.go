package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/internal/block"
)

// commit is one synced batch. Everything that changes the database while the
// store is open goes through commits, one after the other, so that each builds
// on the state that the one before left.
type commit struct {
	batch *pebble.Batch
	tasks []*task
	errs  []error
	// logs are the regions that enter intent logs, logWaiting what waits for them.
	logs       []logChange
	logWaiting []*task
	round      bool
	pages      []*page
	deletion   *deletion
	pruning    *pruning
	// published are the replicas whose metadata this commit changes.
	published []publication
}

type logChange struct {
	replica *Replica
	regions block.Regions
}

type publication struct {
	replica *Replica
	meta    metadata
}

// metadata is what Updates and Fences change. The values that it points to are
// never changed in place.
type metadata struct {
	fence block.Fence
	view  *block.View
	dirty []block.DirtySet
	// size is in bytes.
	size int64
	line lineRecord
	// cuts are in the order of their layers.
	cuts []cut
}

// queueUpdate queues an Update for a commit. If it takes regions out of the log
// whose data no sync covers, or makes cuts valid, a flush round comes first.
func (s *Store) queueUpdate(t *task) {
	if t.replica.needsSync(t.op.Meta.ClearLog) || len(t.op.Meta.ValidCuts) > 0 {
		s.flushWaiting = append(s.flushWaiting, t)
		s.startRound()
		return
	}
	s.commitWaiting = append(s.commitWaiting, t)
	s.startCommit()
}

func (r *Replica) needsSync(regions block.Regions) bool {
	return r.unsynced.Intersects(regions) || r.syncing.Intersects(regions)
}

// awaitLog reports whether t must wait for the intent log.
//
// Rule 14 (logged first): before a write or zeroing, of a client or of a copy,
// changes a region, that region is durably in the intent log of this replica.
func (s *Store) awaitLog(t *task) bool {
	r, missing := t.replica, false
	for g := block.RegionOf(t.at); g <= block.RegionOf(t.windowEnd-1); g++ {
		if !r.log.Has(g) {
			r.logWanted.Add(g)
			missing = true
		}
	}
	if !missing {
		return false
	}
	if !r.wantsLog {
		r.wantsLog = true
		s.logWanting = append(s.logWanting, r)
	}
	s.logWaiting = append(s.logWaiting, t)
	s.startCommit()
	return true
}

// startCommit begins a commit if there is something for one and none is running.
func (s *Store) startCommit() {
	work := len(s.commitWaiting) > 0 || len(s.logWaiting) > 0 || s.roundSynced ||
		len(s.writeback) > 0 || s.deletionReady != nil || s.pruningReady != nil
	if work && !s.committing {
		s.committing = true
		s.jobs++
		s.options.Executor.Go(s.commitJob)
	}
}

// runCommit is the job that builds and commits a batch.
func (s *Store) runCommit() {
	if !s.enter() {
		return
	}
	c := &s.commit
	if s.failed == nil {
		s.build(c)
	}
	failed := s.failed
	s.mu.Unlock()

	if failed == nil {
		failed = s.commitBatch(c.batch)
	}

	if !s.jobBack() {
		return
	}
	defer s.unlock()
	s.committing = false
	if failed != nil {
		s.fail(failed)
	}
	s.committed(c)
	s.startCommit()
	s.quiet.Broadcast()
}

// simulatedMemTable is below the size at which the database begins to write
// tables in the background.
const simulatedMemTable = 128 << 10

// commitBatch makes a batch durable. The database may believe in vain that it is, so
// that the guard has the last word.
func (s *Store) commitBatch(b *pebble.Batch) error {
	if err := s.guard.failed(); err != nil {
		return fmt.Errorf("commit metadata: %w", databaseError(err))
	}
	err := b.Commit(pebble.Sync)
	if err = cmp.Or(s.guard.failed(), err); err != nil {
		return fmt.Errorf("commit metadata: %w", databaseError(err))
	}
	if !s.options.Simulated {
		return nil
	}
	// A simulation writes tables at moments of its own.
	if s.simulatedBytes.Add(int64(b.Len())) < simulatedMemTable {
		return nil
	}
	s.simulatedBytes.Store(0)
	flushed, err := s.db.AsyncFlush()
	if err != nil {
		return fmt.Errorf("flush metadata: %w", databaseError(err))
	}
	select {
	case <-flushed:
	case <-s.guard.tripped:
	}
	if err := s.guard.failed(); err != nil {
		return fmt.Errorf("flush metadata: %w", databaseError(err))
	}
	return nil
}

// build collects what waits into c.
func (s *Store) build(c *commit) {
	c.batch = s.db.NewBatch()
	s.buildLogs(c)
	for i, t := range s.commitWaiting {
		s.commitWaiting[i] = nil
		c.tasks = append(c.tasks, t)
		c.errs = append(c.errs, s.buildTask(c, t))
	}
	s.commitWaiting = s.commitWaiting[:0]
	for i, p := range s.writeback {
		s.writeback[i] = nil
		s.putStale(c.batch, p)
		c.pages = append(c.pages, p)
	}
	s.writeback = s.writeback[:0]
	var pages touched
	if c.round = s.roundSynced; c.round {
		s.roundSynced = false
		s.buildRound(c, &pages)
	}
	if c.deletion = s.deletionReady; c.deletion != nil {
		s.deletionReady = nil
		s.buildDeletion(c, &pages)
	}
	if c.pruning = s.pruningReady; c.pruning != nil {
		s.pruningReady = nil
		s.buildPruning(c)
	}
	s.putAllocation(c, pages)
}

// buildLogs adds the regions that writes wait for to the intent logs.
func (s *Store) buildLogs(c *commit) {
	c.logWaiting, s.logWaiting = s.logWaiting, c.logWaiting[:0]
	for i, r := range s.logWanting {
		s.logWanting[i] = nil
		r.wantsLog = false
		before := r.logNext.Clone()
		r.logNext.Union(r.logWanted)
		c.logs = append(c.logs, logChange{replica: r, regions: r.logWanted})
		r.logWanted = nil
		s.putRegions(c.batch, before, r.logNext, func(b []byte, page uint32) []byte {
			return logPageKey(b, r.record.handle, page)
		})
	}
	s.logWanting = s.logWanting[:0]
}

// putRegions stores the pages in which after differs from before.
func (s *Store) putRegions(b *pebble.Batch, before, after block.Regions, key func([]byte, uint32) []byte) {
	for len(before)+len(after) > 0 {
		switch {
		case len(after) == 0 || len(before) > 0 && before[0].Number < after[0].Number:
			s.keyBuffer = key(s.keyBuffer[:0], before[0].Number)
			s.put(b.Delete(s.keyBuffer, nil))
			before = before[1:]
			continue
		case len(before) > 0 && before[0] == after[0]:
		default:
			s.keyBuffer = key(s.keyBuffer[:0], after[0].Number)
			s.valueBuffer = appendRegionPage(s.valueBuffer[:0], &after[0])
			s.put(b.Set(s.keyBuffer, s.valueBuffer, nil))
		}
		if len(before) > 0 && before[0].Number == after[0].Number {
			before = before[1:]
		}
		after = after[1:]
	}
}

// buildRound adds the entries of a flush round whose sync has ended.
func (s *Store) buildRound(c *commit, pages *touched) {
	r := s.round
	s.put(c.batch.Apply(r.batch, nil))
	s.put(c.batch.Set([]byte{keyJournal}, binary.LittleEndian.AppendUint64(nil, r.seq), nil))
	pages.add(r.set)
	pages.add(r.clear)
	s.buildValid(c, r)
}

// putStale stores the entries of p whose checksums changed. Whatever becomes of
// their data, their regions are in the intent log.
func (s *Store) putStale(b *pebble.Batch, p *page) {
	for i := range p.entries {
		// A changed entry belongs to its flush round: it may name an extent whose
		// data is not durable.
		e := &p.entries[i]
		if e.stale && !e.changed && !e.inRound {
			s.putHead(b, p.replica.record.handle, entryRef{page: p, index: i}.extent(), p.replica.stored(&e.entryState))
			clearStale(p, e)
		}
	}
}

// buildTask adds an Update or a Fence.
func (s *Store) buildTask(c *commit, t *task) error {
	r := t.replica
	next := r.next
	if t.op.Kind == Fence {
		if t.op.NewFence.Less(next.fence) {
			return fmt.Errorf("fence %v is below %v: %w", t.op.NewFence, next.fence, block.ErrStaleEpoch)
		}
		next.fence = t.op.NewFence
		s.put(c.batch.Set(handleKey(nil, keyFence, r.record.handle), encodeFence(next.fence), nil))
	} else {
		if err := s.buildUpdate(c, r, &next, t.op.Meta); err != nil {
			return err
		}
	}
	r.next = next
	c.published = append(c.published, publication{replica: r, meta: next})
	return nil
}

// buildUpdate applies u in the order of its fields. What can fail comes first, so
// that nothing of a refused one is stored.
func (s *Store) buildUpdate(c *commit, r *Replica, next *metadata, u *block.Update) error {
	dirty, err := applyDirty(next.dirty, u)
	if err == nil {
		err = next.checkCuts(u)
	}
	if err != nil {
		return err
	}
	if u.View != nil && !viewNewer(next.view, u.View) {
		v := u.View.Clone()
		next.view = &v
		s.put(c.batch.Set(handleKey(nil, keyView, r.record.handle), encodeView(&v), nil))
	}
	s.putDirty(c.batch, r, next.dirty, dirty)
	next.dirty = dirty
	s.clearLog(c, r, u.ClearLog)
	s.buildCuts(c, r, next, u)
	if u.Grow > next.size {
		next.size = u.Grow
		record := r.record
		record.size = u.Grow
		s.put(c.batch.Set(replicaKey(r.id), record.encode(), nil))
	}
	return nil
}

// viewNewer reports whether a, the stored view, is newer than b.
func viewNewer(a, b *block.View) bool {
	if a == nil {
		return false
	}
	if a.Epoch != b.Epoch {
		return a.Epoch > b.Epoch
	}
	return a.Revision > b.Revision
}

// clearLog takes regions out of the intent log, after their checksums. A region
// that is being written, or was written since the last sync, stays.
func (s *Store) clearLog(c *commit, r *Replica, regions block.Regions) {
	if regions.Empty() {
		return
	}
	before := r.logNext.Clone()
	for g := range regions.All() {
		if !r.logNext.Has(g) || r.unsynced.Has(g) || r.syncing.Has(g) || r.writing(g) {
			continue
		}
		first, end := regionPageRange(g)
		for number := first; number < end; number++ {
			if p := r.pages[number]; p != nil && p.stale > 0 {
				s.putStale(c.batch, p)
				p.pins++
				c.pages = append(c.pages, p)
			}
		}
		r.logNext.Remove(g)
		r.log.Remove(g)
		r.suspect.Remove(g)
	}
	s.putRegions(c.batch, before, r.logNext, func(b []byte, page uint32) []byte {
		return logPageKey(b, r.record.handle, page)
	})
}

// writing reports whether a request that writes is under way in region g.
func (r *Replica) writing(g block.Region) bool {
	first, end := regionPageRange(g)
	for number := first; number < end; number++ {
		p := r.pages[number]
		if p == nil || p.pins == 0 {
			continue
		}
		for i := range p.entries {
			for q := p.entries[i].queue; q != nil; q = q.next {
				if q.exclusive {
					return true
				}
			}
		}
	}
	return false
}

// committed ends a commit, successful unless the store has failed.
func (s *Store) committed(c *commit) {
	if c.batch != nil {
		_ = c.batch.Close() // it holds memory only
		c.batch = nil
	}
	if s.failed == nil {
		for _, change := range c.logs {
			change.replica.enterLog(change.regions)
		}
		for _, p := range c.published {
			p.replica.publish(p.meta)
		}
	} else {
		s.failCommits(c)
	}
	for i, t := range c.logWaiting {
		c.logWaiting[i] = nil
		s.makeReady(t)
	}
	for i, t := range c.tasks {
		c.tasks[i] = nil
		s.finish(t, errors.Join(c.errs[i], s.failed))
	}
	for i, p := range c.pages {
		c.pages[i] = nil
		s.unpin(p)
	}
	clear(c.logs)
	clear(c.published)
	clear(c.errs)
	c.tasks, c.errs, c.pages, c.logs = c.tasks[:0], c.errs[:0], c.pages[:0], c.logs[:0]
	c.logWaiting, c.published = c.logWaiting[:0], c.published[:0]
	s.evict()
	if c.round {
		c.round = false
		s.endRound()
	}
	if d := c.deletion; d != nil {
		c.deletion = nil
		s.deletionCommitted(d)
	}
	if p := c.pruning; p != nil {
		c.pruning = nil
		s.pruningCommitted(p)
	}
	s.startPruning()
}

// failCommits collects everything that waits for a commit into c, to be failed.
func (s *Store) failCommits(c *commit) {
	for _, t := range s.commitWaiting {
		c.tasks = append(c.tasks, t)
		c.errs = append(c.errs, nil)
	}
	s.commitWaiting = nil
	c.logWaiting = append(c.logWaiting, s.logWaiting...)
	s.logWaiting = nil
	c.pages = append(c.pages, s.writeback...)
	s.writeback = nil
	c.round = c.round || s.roundSynced
	s.roundSynced = false
	if s.deletionReady != nil {
		c.deletion = s.deletionReady
		s.deletionReady = nil
	}
	if s.pruningReady != nil {
		c.pruning = s.pruningReady
		s.pruningReady = nil
	}
}

// enterLog adds regions to the log that writes rely on, unless an Update took
// them out again after that.
func (r *Replica) enterLog(regions block.Regions) {
	for g := range regions.All() {
		if r.logNext.Has(g) {
			r.log.Add(g)
		}
	}
}
