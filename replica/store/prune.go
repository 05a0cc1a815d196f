package store

import (
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// prune is the kind of the store's own operation that frees what a cut held.
const prune Kind = 255

// pruning removes a cut that is being dropped, or the head of a deleted replica of
// which clones need cuts. Each extent that changed since the cut is looked at in
// the queue of its extent: what only the cut has is freed.
type pruning struct {
	replica *Replica
	// layer is that of the cut, or the head's number. below and above are the cuts
	// around, or 0 and the head.
	layer, below, above uint32
	head                bool
	phase               pruningPhase
	// running: a job, a task or a commit works on it.
	running bool
	// wait is the flush round that must have ended, 0 for none.
	wait uint64
	// nextLayer and nextExtent are where the next step begins.
	nextLayer, nextExtent uint32
	op                    Op
	// keys are those of the index that the next commit moves; last: it ends all.
	keys [][]byte
	last bool
}

type pruningPhase uint8

const (
	// pruningBegins: changes from before the cut was dropped go to the database.
	pruningBegins pruningPhase = iota
	// pruningScans: extent by extent is looked at.
	pruningScans
	// pruningSettles: what that changed goes to the database.
	pruningSettles
	// pruningMoves: the index of changes is joined with that of the next cut, and
	// then the cut is gone.
	pruningMoves
)

const (
	// pruningStep bounds the extents that are looked at together, and movingStep
	// the keys that one commit moves.
	pruningStep = 64
	movingStep  = 1024
)

// startPruning goes on with what has to be pruned.
func (s *Store) startPruning() {
	if s.failed != nil || s.closing {
		return
	}
	if s.pruning == nil {
		if s.pruning = s.nextPruning(); s.pruning == nil {
			return
		}
	}
	p := s.pruning
	if p.running || !s.settled(p) {
		return
	}
	p.running = true
	s.jobs++
	switch p.phase {
	case pruningScans:
		s.options.Executor.Go(func() { s.scanPruning(p) })
	case pruningMoves:
		s.options.Executor.Go(func() { s.readMoves(p) })
	}
}

// settled waits for the database to have what was changed before, where the phase
// wants that.
func (s *Store) settled(p *pruning) bool {
	if p.phase != pruningBegins && p.phase != pruningSettles {
		return true
	}
	if p.wait == 0 && p.replica.hasChanges(s) {
		p.wait = s.collected + 1
		s.startRound()
		return false
	}
	if s.ended < p.wait {
		return false
	}
	p.wait = 0
	p.phase++
	return true
}

// wantPruning notes that a replica may have something to prune.
func (s *Store) wantPruning(r *Replica) {
	if !r.wantsPruning {
		r.wantsPruning = true
		s.prunes = append(s.prunes, r)
	}
}

// nextPruning finds something to prune; nil if there is nothing.
func (s *Store) nextPruning() *pruning {
	for len(s.prunes) > 0 {
		r := s.prunes[0]
		if p := r.nextPruning(); p != nil {
			return p
		}
		s.prunes[0] = nil
		s.prunes = s.prunes[1:]
		r.wantsPruning = false
	}
	return nil
}

// nextPruning finds something of r to prune. What is still asked of a deleted replica
// goes first: it may read what is to be freed, or add to it.
func (r *Replica) nextPruning() *pruning {
	if r.retired || r.record.deleting && r.inFlight > 0 {
		return nil
	}
	for i := range r.durable.cuts {
		c := &r.durable.cuts[i]
		if (c.dropping || r.record.deleting) && r.pins[c.layer] == 0 {
			below, above := r.durable.neighbours(c.layer)
			return &pruning{replica: r, layer: c.layer, below: below, above: above, nextLayer: below + 1}
		}
	}
	if r.record.deleting && len(r.durable.cuts) > 0 {
		newest := r.durable.cuts[len(r.durable.cuts)-1].layer
		if r.headGone != newest {
			return &pruning{replica: r, head: true, layer: r.durable.line.head, below: newest, above: r.durable.line.head, nextLayer: newest + 1}
		}
	}
	return nil
}

// scanPruning is a job that finds the next extents to look at: those that changed
// after the cut and up to the next one.
func (s *Store) scanPruning(p *pruning) {
	if s.isAbandoned() {
		return
	}
	first := p.layer + 1
	if p.head {
		first = p.below + 1
	}
	extents, err := s.readChanges(p, first)
	if !s.jobBack() {
		return
	}
	defer s.unlock()
	switch {
	case err != nil:
		p.running = false
		s.fail(err)
	case s.closing || s.failed != nil:
		p.running = false
	case len(extents) == 0:
		p.running = false
		p.phase = pruningSettles
		s.startPruning()
	default:
		s.submitPruning(p, extents)
	}
}

// readChanges lists the next extents of the index.
func (s *Store) readChanges(p *pruning, first uint32) (extents []uint32, err error) {
	h := p.replica.record.handle
	lower := changeKey(nil, h, max(first, p.nextLayer), p.nextExtent)
	if p.nextLayer < first {
		lower = changeKey(nil, h, first, 0)
	}
	err = s.changes(lower, changeKey(nil, h, p.above+1, 0), pruningStep, func(layer, extent uint32, _ []byte) {
		extents = append(extents, extent)
		p.nextLayer, p.nextExtent = layer, extent+1
	})
	slices.Sort(extents)
	return slices.Compact(extents), err
}

// changes calls f for at most limit keys of the index.
func (s *Store) changes(lower, upper []byte, limit int, f func(layer, extent uint32, key []byte)) error {
	enough := errors.New("enough")
	err := scan(s.db, lower, upper, func(key, _ []byte) error {
		layer, extent, err := splitChangeKey(key)
		if err != nil {
			return err
		}
		f(layer, extent, key)
		if limit--; limit == 0 {
			return enough
		}
		return nil
	})
	if errors.Is(err, enough) {
		return nil
	}
	return err
}

// submitPruning queues a piece for each extent.
func (s *Store) submitPruning(p *pruning, extents []uint32) {
	p.op = Op{Kind: prune, Done: func(*Op) { s.pruned(p) }}
	t := s.newTask(p.replica, &p.op)
	t.pruning = p
	t.waiting = 1
	for _, x := range extents {
		s.enqueueWhole(t, x)
	}
	if t.waiting--; t.waiting == 0 {
		s.makeReady(t)
	}
}

// pruned goes on when a step has ended.
func (s *Store) pruned(p *pruning) {
	if !s.enter() {
		return
	}
	defer s.unlock()
	p.running = false
	if p.op.Err != nil {
		s.fail(p.op.Err)
	}
	s.startPruning()
}

// readPruned finds the state that stands for the cut and for no other, and those
// beside it.
func (p *piece) readPruned(w *pruning) (err error) {
	if w.head {
		p.below, err = p.chain.before(^uint32(0))
		return err
	}
	l, err := p.chain.covering(w.layer)
	if err != nil || l == nil || l.layer >= w.above || l.state.layer <= w.below {
		return err
	}
	p.covers = l
	if p.below, err = p.chain.before(l.layer); err != nil {
		return err
	}
	next, err := p.chain.from(l.layer + 1)
	if next != nil {
		p.above = append(p.above, *next)
	}
	return err
}

// startPrune removes the state that only the cut needs, and frees what it alone
// names. What only the head names is the head's own again.
func (s *Store) startPrune(p *piece) {
	e, r := p.entry(), p.page.replica
	switch {
	case p.task.pruning.head:
		if old := r.stored(&e.entryState); old != nil && old.layer > p.task.pruning.below {
			kept := *old
			e.entryState = entryState{}
			s.freeUnnamed(r, &kept, p.below.of())
			s.note(p)
		}
	case p.covers != nil:
		e.setUndo(p.covers.layer, nil)
		above := &e.entryState
		if len(p.above) > 0 {
			above = p.above[0].state
		}
		s.freeUnnamed(r, p.covers.state, p.below.of(), above)
		if len(p.above) == 0 {
			e.own(p.below.of())
		}
		s.note(p)
	}
	s.endJournaled(p, nil)
}

// own marks as owned by a head what the youngest kept state does not name.
func (e *entryState) own(below *entryState) {
	var list []placement
	for p := range e.placements {
		shared := uint16(0)
		if below != nil && p.slot() {
			shared = p.mask() & e.shared(below)
		} else if below != nil && below.names(p.extent()) {
			shared = p.mask()
		}
		if p.owned() || p.foreign() || shared == p.mask() {
			list = append(list, p)
			continue
		}
		list = append(list, p.withMask(p.mask()&^shared).withFlags(p.flags()|placementOwned))
		if shared != 0 {
			list = append(list, p.withMask(shared))
		}
	}
	e.set(list)
}

// readMoves is a job that reads what the next commit moves in the index.
func (s *Store) readMoves(p *pruning) {
	if s.isAbandoned() {
		return
	}
	p.keys, p.last = nil, true
	var err error
	if p.below != 0 && !p.head {
		h := p.replica.record.handle
		err = s.changes(changeKey(nil, h, p.below+1, 0), changeKey(nil, h, p.layer+1, 0), movingStep, func(_, _ uint32, key []byte) {
			p.keys = append(p.keys, slices.Clone(key))
		})
		p.last = len(p.keys) < movingStep
	}
	if !s.jobBack() {
		return
	}
	defer s.unlock()
	if err != nil {
		p.running = false
		s.fail(fmt.Errorf("drop a cut of replica %s: %w", p.replica.id, err))
		return
	}
	s.pruningReady = p
	s.startCommit()
}

// buildPruning adds a step to a commit.
func (s *Store) buildPruning(c *commit) {
	p := c.pruning
	r, b := p.replica, c.batch
	h := r.record.handle
	for _, key := range p.keys {
		_, extent, err := splitChangeKey(key)
		s.put(err)
		s.put(b.Delete(key, nil))
		s.put(b.Set(changeKey(nil, h, p.above, extent), nil, nil))
	}
	if !p.last || p.head {
		return
	}
	if p.below == 0 {
		// There is nothing older to compare with.
		s.put(b.DeleteRange(handleKey(nil, keyChange, h), changeKey(nil, h, p.above+1, 0), nil))
	}
	s.put(b.Delete(cutKey(h, p.layer), nil))
	next := r.next
	next.cuts = slices.DeleteFunc(slices.Clone(next.cuts), func(q cut) bool { return q.layer == p.layer })
	r.next = next
	c.published = append(c.published, publication{replica: r, meta: next})
}

// pruningCommitted goes on after a commit.
func (s *Store) pruningCommitted(p *pruning) {
	p.running = false
	if s.failed != nil || !p.last {
		return
	}
	if p.head {
		p.replica.headGone = p.below
	}
	s.pruning = nil
	s.wakeSpace()
	s.startDeletions()
}

// retire begins to free what a deleted replica has: all of it, or what no clone shows.
func (s *Store) retire(r *Replica) {
	s.queueRetired(r)
	s.startDeletions()
	s.startPruning()
}

func (s *Store) queueRetired(r *Replica) {
	if r.pinned() {
		s.wantPruning(r)
		return
	}
	r.retired = true
	s.deletions = append(s.deletions, &deletion{replica: r})
}

// pinned reports whether a clone shows a cut of r.
func (r *Replica) pinned() bool {
	return slices.ContainsFunc(r.durable.cuts, func(c cut) bool { return r.pins[c.layer] > 0 })
}

// pinOrigin makes the cut that r shows stay.
func (r *Replica) pinOrigin() {
	if r.origin != nil {
		r.origin.pins[r.next.line.originLayer]++
		r.origin.countCuts()
	}
}

// releaseOrigin takes that back when r is gone.
func (s *Store) releaseOrigin(r *Replica) {
	o := r.origin
	if o == nil {
		return
	}
	o.pins[r.next.line.originLayer]--
	o.countCuts()
	if o.record.deleting {
		s.retire(o)
	}
}

// enqueueWhole queues a piece of t that has an extent to itself.
func (s *Store) enqueueWhole(t *task, extent uint32) {
	p := s.newPiece()
	p.task = t
	p.page = s.page(t.replica, extent/pageExtents)
	p.index = int(extent % pageExtents)
	p.from, p.to = 0, block.ExtentSize
	p.mask = 1<<block.BlocksPerExtent - 1
	p.exclusive = true
	t.pieces = append(t.pieces, p)
	s.enqueue(p)
}
