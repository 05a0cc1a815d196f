package store

import (
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// startWrite begins with reading the blocks of which the piece writes only a
// part, then writes.
func (s *Store) startWrite(p *piece) {
	p.left = p.writes()
	if p.from%block.BlockSize == 0 && p.to%block.BlockSize == 0 && p.task.op.Offset%block.BlockSize == 0 {
		p.buffer, p.bufferFrom = p.payload(), p.from
		s.writeRun(p)
		return
	}
	from := p.from &^ (block.BlockSize - 1)
	to := (p.to + block.BlockSize - 1) &^ (block.BlockSize - 1)
	p.bounce = block.NewBuffer(to - from)
	p.buffer, p.bufferFrom = p.bounce.Data, from
	s.writeEdges(p, stageHead)
}

// writeEdges goes on with the edge blocks of a Write from the given stage.
func (s *Store) writeEdges(p *piece, from stage) {
	base := p.bufferFrom
	if from == stageHead && p.from%block.BlockSize != 0 {
		if s.readEdge(p, stageHead, base, p.buffer[:block.BlockSize]) {
			return
		}
	}
	last := p.to &^ (block.BlockSize - 1)
	if p.to%block.BlockSize != 0 && (last != base || p.from%block.BlockSize == 0) && from <= stageTail {
		if s.readEdge(p, stageTail, last, p.buffer[last-base:]) {
			return
		}
	}
	copy(p.buffer[p.from-base:], p.payload())
	s.writeRun(p)
}

// writeRun writes the next blocks that go to places in a row.
func (s *Store) writeRun(p *piece) {
	first, end := run(p.left, p.goal)
	from, to := first*block.BlockSize, end*block.BlockSize
	p.left &^= blockMask(from, to)
	s.submit(p, stageWrite, vfs.Write, first, p.target[first], p.buffer[from-p.bufferFrom:to-p.bufferFrom])
}

func (p *piece) goal(b int) int64 { return p.target[b] }

// readEdge reads the block at byte at of the extent into data; a block without
// data is zeros, and then it reports false.
func (s *Store) readEdge(p *piece, stage stage, at int, data []byte) bool {
	b := at / block.BlockSize
	if p.state.data&(1<<b) == 0 {
		clear(data)
		return false
	}
	s.submit(p, stage, vfs.Read, b, p.state.at(b), data)
	return true
}

// edgeRead goes on after a partially changed block was read. A block that does
// not match its checksum must not be hidden under a new one.
func (s *Store) edgeRead(p *piece) {
	err := p.io.Err
	if b := p.first; err == nil && p.sums[b] != p.state.sums[b] {
		s.badBlocks(p, 1<<b)
		err = fmt.Errorf("block at %d: %w", p.task.bad, block.ErrChecksum)
	}
	switch {
	case err != nil:
		s.endJournaled(p, err)
	case p.task.op.Kind == Zero:
		s.writeZeroEdge(p)
	case p.stage == stageHead:
		s.writeEdges(p, stageTail)
	default:
		s.writeEdges(p, stageWrite)
	}
}

func (s *Store) writeDone(p *piece) {
	switch {
	case p.io.Err != nil:
		s.writeFailed(p)
	case p.left != 0:
		s.writeRun(p)
	case p.task.layer != 0:
		s.layerWritten(p)
	default:
		s.placed(p, p.mask)
		s.endJournaled(p, nil)
	}
}

// placed makes the blocks of mask lie where p wrote them, with the checksums of
// what it wrote.
func (s *Store) placed(p *piece, mask uint16) {
	e := p.entry()
	moved := uint16(0)
	for b := range block.BlocksPerExtent {
		if mask&(1<<b) != 0 && e.at(b) != p.target[b] {
			moved |= 1 << b
		}
	}
	if moved != 0 {
		s.advance(p)
		s.drop(p, moved)
		p.attach(&e.entryState, moved)
	}
	for b := range block.BlocksPerExtent {
		if mask&(1<<b) != 0 {
			e.sums[b] = p.sums[b]
		}
	}
	markStale(p.page, e)
	s.touched(p)
	if moved != 0 {
		s.note(p)
	}
}

// attach adds to e the places that p wrote the blocks of mask to.
func (p *piece) attach(e *entryState, mask uint16) {
	for i, q := range p.fresh {
		if part := q.mask() & mask; part != 0 {
			e.add(part, q.flags(), q.base())
			p.fresh[i] = q.withMask(q.mask() &^ part)
			mask &^= part
		}
	}
	for b := range block.BlocksPerExtent {
		if mask&(1<<b) != 0 {
			e.add(1<<b, placementOwned, p.target[b]-int64(b))
		}
	}
}

// advance lets the entry of p differ from what the cuts have: the newest keeps it
// as it is, unless it has changed since.
func (s *Store) advance(p *piece) {
	e, r := p.entry(), p.page.replica
	if p.current() {
		return
	}
	if r.newest != 0 && r.stored(&e.entryState) != nil {
		e.setUndo(r.newest, e.kept())
	}
	e.layer = r.durable.line.head
	if e.data == 0 {
		return
	}
	e.edit(func(q placement) placement {
		if q.mask() == 0 {
			return q
		}
		return q.withFlags(q.flags() &^ placementOwned)
	})
}

// current reports whether the entry has changed since the newest cut, so that
// what it owns is nobody else's.
func (p *piece) current() bool { return p.entry().layer > p.page.replica.newest }

// stored is what the database has of the state of a head; nil for none.
func (r *Replica) stored(e *entryState) *entryState {
	if e.layer == 0 || e.data == 0 && r.origin == nil {
		return nil
	}
	return e
}

// drop takes blocks out of p's entry, and frees what it owned of them. An extent
// that another write is about to fill stays.
func (s *Store) drop(p *piece, mask uint16) {
	e := p.entry()
	if e.data&mask == 0 {
		return
	}
	wanted := p.otherWriters()
	e.edit(func(q placement) placement {
		gone, rest := q.withMask(q.mask()&mask), q.withMask(q.mask()&^mask)
		switch {
		case gone.mask() == 0:
			return q
		case q.owned() && q.slot():
			s.freePlacement(p.page.replica, gone)
		case q.owned() && rest.mask() == 0 && wanted:
			return rest
		case q.owned() && rest.mask() == 0:
			s.freePlacement(p.page.replica, rest)
		}
		if rest.mask() == 0 {
			return 0
		}
		return rest
	})
}

// otherWriters reports whether another piece on the extent may be writing.
func (p *piece) otherWriters() bool {
	for q := p.entry().queue; q != nil; q = q.next {
		if q != p && q.exclusive && q.granted {
			return true
		}
	}
	return false
}

// touched notes that p's region has data that no sync covers.
func (s *Store) touched(p *piece) {
	r := p.page.replica
	if !r.hasUnsynced {
		r.hasUnsynced = true
		s.unsynced = append(s.unsynced, r)
	}
	r.unsynced.Add(p.region())
}

// note takes down that p changed the places of its extent. The journal gets the
// record at once, so that it comes before those of whoever is given what was freed.
func (s *Store) note(p *piece) {
	p.changed = true
	s.touched(p)
	s.change(p.page, p.index)
	s.record(p)
}

// endJournaled ends a piece that may have changed the places of its extent.
//
// Rule 8 (having a write): the data is with the operating system already; the
// metadata that names it goes to the journal by write(2), and only then is the write
// answered. So killing the process undoes nothing that was answered.
func (s *Store) endJournaled(p *piece, err error) {
	if !p.changed {
		s.pieceDone(p, err)
		return
	}
	p.err = err
	s.journal.waiting = append(s.journal.waiting, p)
	s.startJournal()
	if len(s.changed) >= s.options.MaxChanged || s.mapsHeld() {
		s.startRound()
	}
}

// writeFailed ends a piece whose write failed. Blocks written in place may now be
// old, new or mixed by sector.
func (s *Store) writeFailed(p *piece) {
	e := p.entry()
	for b := range block.BlocksPerExtent {
		if p.task.layer == 0 && p.target[b] != 0 && e.at(b) == p.target[b] {
			p.page.replica.suspect.Add(p.region())
		}
	}
	if !errors.Is(p.io.Err, block.ErrNoSpace) {
		s.fail(p.io.Err)
	}
	s.endJournaled(p, p.io.Err)
}
