package store

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/internal/block"
)

// resolve finds in memory the state that p's extent has at the cut of its task. It
// reports whether that was enough.
func (p *piece) resolve() bool {
	e, layer := p.entry(), p.task.layer
	if e.layer != 0 && e.layer <= layer {
		p.state, p.kept = e.entryState, false
		return true
	}
	for u := e.undo; u != nil; u = u.next {
		if u.state != nil && u.state.layer <= layer && layer <= u.layer {
			p.state, p.kept = *u.state, true
			return true
		}
	}
	return false
}

// lookUp finds the states that the pieces of a Read or Hash of a cut are about. It
// reports whether they are known; else t goes on when they are. Until its end the
// piece stands in the queue of its extent, so that nothing it found is freed.
func (s *Store) lookUp(t *task) bool {
	var extents []uint32
	inMemory := t.since == 0
	for _, p := range t.pieces {
		if t.layer != 0 && !p.resolve() {
			extents = append(extents, p.extent())
		}
		inMemory = inMemory && !(t.op.Kind == Hash && p.kept)
	}
	if len(extents) == 0 && inMemory {
		return true
	}
	s.jobs++
	s.options.Executor.Go(func() { s.runLookUp(t, extents) })
	return false
}

func (s *Store) runLookUp(t *task, extents []uint32) {
	if s.isAbandoned() {
		return
	}
	states, err := s.statesAt(t.replica, t.layer, extents)
	if err == nil && t.op.Kind == Hash {
		err = s.lookAround(t)
	}
	if !s.jobBack() {
		return
	}
	defer s.unlock()
	if err != nil {
		s.endWindow(t, fmt.Errorf("look up snapshot: %w", err))
		return
	}
	for _, p := range t.pieces {
		if len(extents) == 0 || p.extent() != extents[0] {
			continue
		}
		p.state, p.kept = entryState{}, true
		if states[0] != nil {
			p.state = *states[0]
		}
		extents, states = extents[1:], states[1:]
	}
	s.startPieces(t)
}

// known is what memory has of an extent.
type known struct {
	loaded bool
	head   entryState
	chain  chain
}

// statesAt finds the states of extents at a cut that does not change meanwhile;
// nil where there is no data. It reads the database, without the mutex.
//
// Memory comes first: what a commit brings from memory into the database between
// the two looks is then seen twice, and never missed.
func (s *Store) statesAt(r *Replica, layer uint32, extents []uint32) ([]*entryState, error) {
	states := make([]*entryState, len(extents))
	memory := s.knownOf(r, extents)
	snapshot := s.db.NewSnapshot()
	defer func() { _ = snapshot.Close() }() // it holds memory only
	it, err := snapshot.NewIter(undoBounds(r.record.handle))
	if err != nil {
		return nil, databaseError(err)
	}
	defer func() { _ = it.Close() }() // it was asked for its errors
	var missing []int
	for i := range extents {
		k := &memory[i]
		k.chain.it = it
		states[i], err = s.stateAt(snapshot, k, layer)
		if err != nil {
			return nil, err
		}
		if states[i] == nil {
			missing = append(missing, i)
		}
	}
	if r.origin == nil || len(missing) == 0 {
		return states, nil
	}
	below := make([]uint32, len(missing))
	for j, i := range missing {
		below[j] = extents[i]
	}
	shown, err := s.statesAt(r.origin, r.next.line.originLayer, below)
	if err != nil {
		return nil, err
	}
	for j, i := range missing {
		states[i] = foreign(shown[j])
	}
	return states, nil
}

func undoBounds(h handle) *pebble.IterOptions {
	return &pebble.IterOptions{LowerBound: handleKey(nil, keyUndo, h), UpperBound: handleKey(nil, keyUndo, h+1)}
}

func (s *Store) knownOf(r *Replica, extents []uint32) []known {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]known, len(extents))
	for i, x := range extents {
		k := &list[i]
		k.chain = chain{handle: r.record.handle, extent: x}
		if p := r.pages[x/pageExtents]; p != nil && p.loaded && p.err == nil {
			e := &p.entries[x%pageExtents]
			k.loaded, k.head, k.chain = true, e.entryState, chainOf(r.record.handle, x, e)
		}
	}
	return list
}

// stateAt is the state of one extent at a cut, without what shows through; nil if
// the line has none. One without data, which hides what shows through, is not nil.
func (s *Store) stateAt(from pebble.Reader, k *known, layer uint32) (*entryState, error) {
	if err := s.loadHead(from, k); err != nil {
		return nil, err
	}
	if k.head.layer != 0 && k.head.layer <= layer {
		return &k.head, nil
	}
	l, err := k.chain.covering(layer)
	if err != nil || l == nil {
		return nil, err
	}
	return l.state, nil
}

// loadHead reads the entry of the head unless it is known.
func (s *Store) loadHead(from pebble.Reader, k *known) error {
	if k.loaded {
		return nil
	}
	k.loaded = true
	key := mapKey(nil, k.chain.handle, k.chain.extent)
	value, closer, err := from.Get(key)
	switch {
	case err == nil:
		err = decodeEntry(value, &k.head)
		if closeErr := closer.Close(); err == nil && closeErr != nil {
			err = databaseError(closeErr)
		}
		if err != nil {
			return fmt.Errorf("map key %x: %w", key, err)
		}
	case !errors.Is(err, pebble.ErrNotFound):
		return databaseError(err)
	}
	return nil
}

// foreign is a state of an origin as its clone shows it.
func foreign(e *entryState) *entryState {
	if e == nil || e.data == 0 {
		return nil
	}
	f := *e
	f.layer = 0
	f.edit(func(p placement) placement {
		if p.mask() == 0 {
			return 0
		}
		return p.withFlags(p.flags()&placementSlot | placementForeign)
	})
	return &f
}

// showOrigin fills in what a clone's page shows of its origin.
func (s *Store) showOrigin(p *page) error {
	var extents []uint32
	for i := range p.entries {
		if p.entries[i].layer == 0 {
			extents = append(extents, p.number*pageExtents+uint32(i))
		}
	}
	if len(extents) == 0 {
		return nil
	}
	r := p.replica
	shown, err := s.statesAt(r.origin, r.next.line.originLayer, extents)
	if err != nil {
		return fmt.Errorf("read map page %d of the origin: %w", p.number, err)
	}
	for i, x := range extents {
		if f := foreign(shown[i]); f != nil {
			p.entries[x%pageExtents].entryState = *f
		}
	}
	return nil
}

// cutOf finds the cut of a snapshot. The mutex is held.
func (r *Replica) cutOf(id block.SnapshotID) (*cut, error) {
	c := findCut(r.durable.cuts, id)
	if c == nil {
		return nil, fmt.Errorf("snapshot %s: %w", id, block.ErrNotFound)
	}
	return c, nil
}
