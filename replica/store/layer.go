package store

import (
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// A layer write gives a cut new bytes of an extent, and with it every younger state
// that has inherited the old ones from it. It is for a resync, which makes the
// layers equal to a source's, oldest first; a younger layer that differs is made
// equal in its turn. That all that inherited is changed keeps the rule that the
// states that name a place stand side by side.

// startChains begins the pieces of a task that changes kept states: it reads the
// states around.
func (s *Store) startChains(t *task) {
	for _, p := range t.pieces {
		p.chain = chainOf(t.replica.record.handle, p.extent(), p.entry())
	}
	s.jobs++
	s.options.Executor.Go(func() { s.runChains(t) })
}

func (s *Store) runChains(t *task) {
	if s.isAbandoned() {
		return
	}
	err := s.readChains(t)
	if !s.jobBack() {
		return
	}
	defer s.unlock()
	if err != nil {
		s.endWindow(t, err)
		return
	}
	s.startPieces(t)
}

func (s *Store) readChains(t *task) error {
	it, err := s.db.NewIter(undoBounds(t.replica.record.handle))
	if err != nil {
		return databaseError(err)
	}
	for _, p := range t.pieces {
		p.chain.it = it
		if t.op.Kind == prune {
			err = p.readPruned(t.pruning)
		} else {
			err = p.readLayers()
		}
		if err != nil {
			break
		}
	}
	if closeErr := it.Close(); closeErr != nil && err == nil {
		err = databaseError(closeErr)
	}
	return err
}

// readLayers finds the states around a layer that is written: the one that stands
// for it, the next older one, and younger ones as far as they share places with it.
func (p *piece) readLayers() (err error) {
	layer, e := p.task.layer, p.entry()
	if p.covers, err = p.chain.covering(layer); err != nil {
		return err
	}
	top := layer
	if p.covers != nil {
		top = p.covers.layer
	} else if e.layer != 0 && e.layer <= layer {
		top = ^uint32(0)
	}
	if p.below, err = p.chain.before(top); err != nil {
		return err
	}
	for at := top; at != ^uint32(0); {
		l, err := p.chain.from(at + 1)
		if err != nil || l == nil {
			return err
		}
		p.above = append(p.above, *l)
		if p.covers == nil || l.state.shared(p.covers.state) == 0 {
			return nil
		}
		at = l.layer
	}
	return nil
}

// layerState is what p gives its layer; nil for nothing at all.
func (p *piece) layerState() *entryState {
	n := &entryState{layer: p.task.layer}
	for _, q := range p.fresh {
		n.add(q.mask(), q.flags()&^placementOwned, q.base())
	}
	n.sums = p.sums
	if n.data == 0 && p.page.replica.origin == nil {
		return nil
	}
	return n
}

// layerWritten makes what p wrote the bytes of its layer.
func (s *Store) layerWritten(p *piece) {
	if err := p.task.findLayer(); err != nil {
		// It was dropped, or became valid, while the bytes were written.
		s.endJournaled(p, err)
		return
	}
	e, r, layer := p.entry(), p.page.replica, p.task.layer
	n := p.layerState()
	p.fresh = p.fresh[:0]
	switch {
	case p.covers != nil:
		s.replaceKept(p, n)
	case e.layer != 0 && e.layer <= layer:
		old := e.kept()
		others := []*entryState{p.below.of()}
		if older := r.newestIn(old.layer, layer-1); older != 0 {
			e.setUndo(older, old)
			others = append(others, old)
		}
		e.become(n, layer)
		s.freeUnnamed(r, old, others...)
	case len(p.above) == 0 && e.layer == 0:
		// The map has nothing of this extent.
		e.become(n, layer)
	default:
		limit := e.layer
		if len(p.above) > 0 {
			limit = p.above[0].state.layer
		}
		e.setUndo(r.newestIn(layer, limit-1), n)
	}
	s.note(p)
	s.endJournaled(p, nil)
}

// become makes n, of which only the head has the places, the state of the head.
func (e *entry) become(n *entryState, layer uint32) {
	e.entryState = entryState{layer: layer}
	if n == nil {
		return
	}
	e.entryState = *n
	e.edit(func(q placement) placement {
		if q == 0 {
			return 0
		}
		return q.withFlags(q.flags() | placementOwned)
	})
}

// of is the state of a link that there may not be.
func (l *link) of() *entryState {
	if l == nil {
		return nil
	}
	return l.state
}

// replaceKept puts n in the place of the kept state that stands for the layer.
func (s *Store) replaceKept(p *piece, n *entryState) {
	e, r, old := p.entry(), p.page.replica, p.covers
	others := []*entryState{p.below.of(), n}
	if older := r.newestIn(old.state.layer, p.task.layer-1); older != 0 {
		e.setUndo(older, old.state)
		others = append(others, old.state)
	}
	e.setUndo(old.layer, n)
	inherited := old.state.data
	for _, l := range p.above {
		if inherited &= l.state.shared(old.state); inherited == 0 {
			others = append(others, l.state)
			break
		}
		next := inherit(*l.state, n, inherited)
		if next.data == 0 && r.origin == nil {
			e.setUndo(l.layer, nil)
		} else {
			e.setUndo(l.layer, &next)
		}
		others = append(others, &next)
	}
	if inherited &= e.entryState.shared(old.state); inherited != 0 {
		e.entryState = inherit(e.entryState, n, inherited)
	}
	others = append(others, &e.entryState)
	s.freeUnnamed(r, old.state, others...)
}

// inherit is e with blocks as n has them.
func inherit(e entryState, n *entryState, mask uint16) entryState {
	e.edit(func(q placement) placement {
		if q = q.withMask(q.mask() &^ mask); q.mask() == 0 {
			return 0
		}
		return q
	})
	if n == nil {
		return e
	}
	for q := range n.placements {
		if part := q.mask() & mask; part != 0 {
			e.add(part, q.flags(), q.base())
		}
	}
	for b := range block.BlocksPerExtent {
		if mask&n.data&(1<<b) != 0 {
			e.sums[b] = n.sums[b]
		}
	}
	return e
}

// newestIn is the layer of the youngest cut from first to last that anything needs,
// 0 if there is none. Of one that is being dropped nothing is kept: the extent may
// have been looked at already.
func (r *Replica) newestIn(first, last uint32) uint32 {
	for i := range slices.Backward(r.durable.cuts) {
		c := &r.durable.cuts[i]
		if c.layer >= first && c.layer <= last && r.needs(c) {
			return c.layer
		}
	}
	return 0
}

// freeUnnamed frees what e names and none of the others does.
func (s *Store) freeUnnamed(r *Replica, e *entryState, others ...*entryState) {
	for p := range e.placements {
		if p.foreign() || p.mask() == 0 {
			continue
		}
		left := p.mask()
		for _, o := range others {
			switch {
			case o == nil:
			case !p.slot() && o.names(p.extent()):
				left = 0
			case p.slot():
				left &^= e.shared(o)
			}
		}
		if left != 0 {
			s.freePlacement(r, p.withMask(left))
		}
	}
}
