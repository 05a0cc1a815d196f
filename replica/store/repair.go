package store

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// A repair of a cut writes in place: what is there does not verify, and what is written
// does, so that a crash between the two leaves nothing worse, and every head, cut and
// clone that shows the block has it back. Neither map nor journal changes, and no
// region need be in the intent log: what can be read of it reads as before. Blocks
// that verify are not written, so that an engine that is wrong about them cannot tear
// them. The piece stands in the queue of its extent, or the clone's origin is pinned:
// the place is nobody else's before it has ended.

// startRepair compares what is offered with the map, then with what the disk has.
func (s *Store) startRepair(p *piece) {
	mask := blockMask(p.from, p.to)
	size := (p.to - p.from + block.BlockSize - 1) &^ (block.BlockSize - 1)
	// What is offered, and after it what is on the disk.
	p.bounce = block.NewBuffer(2 * size)
	offered := p.bounce.Data[:size]
	clear(offered[copy(offered, p.payload()):])
	p.buffer, p.bufferFrom = p.bounce.Data[size:], p.from
	for b := range block.BlocksPerExtent {
		if mask&(1<<b) == 0 {
			continue
		}
		at := b*block.BlockSize - p.from
		switch offset := p.start() + int64(b)*block.BlockSize; {
		case p.state.data&(1<<b) == 0:
			s.pieceDone(p, fmt.Errorf("block at %d has no data: %w", offset, block.ErrInvalid))
			return
		case block.Checksum(offered[at:at+block.BlockSize]) != p.state.sums[b]:
			s.pieceDone(p, fmt.Errorf("bytes for the block at %d are not the snapshot's: %w", offset, block.ErrChecksum))
			return
		}
	}
	p.left = mask
	s.doubtRun(p)
}

// doubtRun reads the next blocks that lie in a row.
func (s *Store) doubtRun(p *piece) {
	first, end := run(p.left, p.state.at)
	from, to := first*block.BlockSize, end*block.BlockSize
	p.left &^= blockMask(from, to)
	s.submit(p, stageDoubt, vfs.Read, first, p.state.at(first), p.buffer[from-p.bufferFrom:to-p.bufferFrom])
}

// doubted looks at what was read. What cannot be read is damaged, too.
func (s *Store) doubted(p *piece) {
	for at := 0; at < len(p.io.Data); at += block.BlockSize {
		b := p.first + at/block.BlockSize
		if p.io.Err != nil || block.Checksum(p.io.Data[at:at+block.BlockSize]) != p.state.sums[b] {
			p.damaged |= 1 << b
		}
	}
	switch {
	case p.left != 0:
		s.doubtRun(p)
	case p.damaged == 0:
		s.pieceDone(p, nil)
	default:
		p.left = p.damaged
		s.mendRun(p)
	}
}

// mendRun writes the next damaged blocks that lie in a row.
func (s *Store) mendRun(p *piece) {
	first, end := run(p.left, p.state.at)
	for b := first + 1; b < end; b++ {
		if p.left&(1<<b) == 0 {
			end = b // one that verifies
		}
	}
	from, to := first*block.BlockSize, end*block.BlockSize
	p.left &^= blockMask(from, to)
	s.submit(p, stageMend, vfs.Write, first, p.state.at(first), p.bounce.Data[from-p.from:to-p.from])
}

func (s *Store) mended(p *piece) {
	switch {
	case p.io.Err != nil:
		s.fail(p.io.Err)
		s.pieceDone(p, p.io.Err)
	case p.left != 0:
		s.mendRun(p)
	default:
		s.submit(p, stageMendSync, vfs.Sync, 0, 0, nil)
	}
}

func (s *Store) mendSynced(p *piece) {
	if p.io.Err != nil {
		s.fail(p.io.Err)
	}
	s.pieceDone(p, p.io.Err)
}

// wholeBlocks reports whether a span is made of blocks of a cut of that size.
func wholeBlocks(span block.Span, size int64) bool {
	return span.Offset%block.BlockSize == 0 && (span.Length%block.BlockSize == 0 || span.End() == size)
}

// same reports whether both are held but once: each block at one place.
func (e *entryState) same(o *entryState) bool {
	if o == nil {
		return e.data == 0
	}
	if e.data != o.data || e.shared(o) != e.data {
		return false
	}
	for b := range block.BlocksPerExtent {
		if e.data&(1<<b) != 0 && e.sums[b] != o.sums[b] {
			return false
		}
	}
	return true
}

// lookAround finds, for a Hash, the states of its extents at the other cut, and the
// first layer above its own that may have other bytes in one of them.
func (s *Store) lookAround(t *task) error {
	extents := make([]uint32, len(t.pieces))
	for i, p := range t.pieces {
		extents[i] = p.extent()
	}
	if t.since != 0 {
		states, err := s.statesAt(t.replica, t.since, extents)
		if err != nil {
			return err
		}
		for i, p := range t.pieces {
			p.before = states[i]
		}
	}
	if t.layer == 0 {
		return nil
	}
	first, err := s.changedAfter(t.replica, t.layer, extents)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if first != 0 && (t.later == 0 || first < t.later) {
		t.later = first
		t.op.Next = t.replica.validFrom(first)
	}
	return nil
}

// validFrom is the oldest valid cut whose layer is not below one, zero if there is none.
func (r *Replica) validFrom(layer uint32) block.SnapshotID {
	for i := range r.durable.cuts {
		if c := &r.durable.cuts[i]; c.layer >= layer && c.Valid && !c.dropping {
			return c.Snapshot
		}
	}
	return block.SnapshotID{}
}

// changedAfter is the lowest number of a layer from which on one of the extents may be
// another than at a cut; 0 if none is.
func (s *Store) changedAfter(r *Replica, layer uint32, extents []uint32) (first uint32, err error) {
	memory := s.knownOf(r, extents)
	snapshot := s.db.NewSnapshot()
	defer func() { _ = snapshot.Close() }() // it holds memory only
	it, err := snapshot.NewIter(undoBounds(r.record.handle))
	if err != nil {
		return 0, databaseError(err)
	}
	defer func() { _ = it.Close() }() // it was asked for its errors
	for i := range extents {
		k := &memory[i]
		k.chain.it = it
		if err := s.loadHead(snapshot, k); err != nil {
			return 0, err
		}
		at, err := k.changedAfter(layer)
		if err != nil {
			return 0, err
		}
		if at != 0 && (first == 0 || at < first) {
			first = at
		}
	}
	return first, nil
}

func (k *known) changedAfter(layer uint32) (uint32, error) {
	if k.head.layer != 0 && k.head.layer <= layer {
		return 0, nil
	}
	l, err := k.chain.from(layer)
	switch {
	case err != nil:
		return 0, err
	case l == nil:
		return k.head.layer, nil
	case l.state.layer <= layer:
		return l.layer + 1, nil
	default:
		return l.state.layer, nil
	}
}
