package store

import (
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// piece is the part of a request that lies in one extent. From submission to
// the end of its request it stands in the queue of its extent, where it excludes
// overlapping pieces: readers share blocks, writers do not.
type piece struct {
	task *task
	page *page
	// index is the extent's place in its page.
	index int
	// from and to bound the piece, in bytes from the start of the extent.
	from, to  int
	mask      uint16
	exclusive bool
	granted   bool
	next      *piece

	// state is the entry as it was when the piece began, or as a cut has it; kept:
	// not from the head.
	state entryState
	kept  bool
	// before is the state at the other cut of a Hash. damaged are the blocks that a
	// Repair has found to be.
	before  *entryState
	damaged uint16
	// stage is what io does now, from block first on; left are the blocks that it
	// has yet to come to.
	stage  stage
	first  int
	left   uint16
	io     vfs.IO
	bounce *block.Buffer
	// buffer is what is read or written, from byte bufferFrom of the extent on.
	buffer     []byte
	bufferFrom int
	// target are the blocks of the data file that the piece writes to, by block;
	// fresh are those taken for it that no entry has yet.
	target [block.BlocksPerExtent]int64
	fresh  []placement
	// changed: the places of the extent are others now, and the journal is to know.
	changed bool
	err     error
	// chain are the kept states of the extent, for a piece that changes them: the
	// one that stands for the layer concerned, and those below and above it.
	chain  chain
	covers *link
	below  *link
	above  []link
	// sums are the checksums of what was read or written, by block.
	sums [block.BlocksPerExtent]uint32
}

func (p *piece) entry() *entry { return &p.page.entries[p.index] }

// extent is the number of the piece's extent in its volume.
func (p *piece) extent() uint32 { return p.page.number*pageExtents + uint32(p.index) }

// start is the offset of the piece's extent in its volume.
func (p *piece) start() int64 { return int64(p.extent()) * block.ExtentSize }

func (p *piece) region() block.Region { return block.RegionOf(p.start()) }

// blockMask has the bits of the blocks that [from, to) touches.
func blockMask(from, to int) uint16 {
	first, end := from/block.BlockSize, (to+block.BlockSize-1)/block.BlockSize
	return uint16(1<<end - 1<<first)
}

// insideMask has the bits of the blocks that lie in [from, to) as a whole.
func insideMask(from, to int) uint16 {
	first, end := (from+block.BlockSize-1)/block.BlockSize, to/block.BlockSize
	if end <= first {
		return 0
	}
	return uint16(1<<end - 1<<first)
}

// newPiece takes a piece from the free list.
func (s *Store) newPiece() *piece {
	p := s.freePieces
	if p == nil {
		p = &piece{}
		p.io.Done = func(*vfs.IO) { s.ioDone(p) }
		return p
	}
	s.freePieces = p.next
	p.next = nil
	return p
}

// recycle forgets all of a piece but its callback.
func (s *Store) recycle(p *piece) {
	p.bounce.Release()
	p.task, p.page, p.bounce, p.buffer = nil, nil, nil, nil
	p.granted, p.stage, p.kept, p.changed, p.err = false, stageNone, false, false, nil
	p.state.first, p.state.more, p.state.data, p.state.layer = 0, nil, 0, 0
	p.io.Data, p.io.Err = nil, nil
	p.before, p.damaged = nil, 0
	p.fresh, p.chain, p.covers, p.below, p.above = p.fresh[:0], chain{}, nil, nil, p.above[:0]
	p.next = s.freePieces
	s.freePieces = p
}

// enqueue puts p at the end of its extent's queue.
func (s *Store) enqueue(p *piece) {
	e := p.entry()
	link := &e.queue
	for *link != nil {
		link = &(*link).next
	}
	*link = p
	p.task.waiting++
	s.grant(e)
}

// grant lets every piece of e's queue go that overlaps none before it, unless
// both read.
func (s *Store) grant(e *entry) {
	var read, written uint16
	for p := e.queue; p != nil; p = p.next {
		if !p.page.loaded {
			return
		}
		blocked := written
		if p.exclusive {
			blocked |= read
		}
		if !p.granted && p.mask&blocked == 0 {
			p.granted = true
			if p.task.waiting--; p.task.waiting == 0 {
				s.makeReady(p.task)
			}
		}
		if p.exclusive {
			written |= p.mask
		} else {
			read |= p.mask
		}
	}
}

// release takes p out of its extent's queue. What was taken for it and not used is
// given back, and so is an extent without data that no other writer is about to
// fill.
func (s *Store) release(p *piece) {
	e, r := p.entry(), p.page.replica
	for link := &e.queue; *link != nil; link = &(*link).next {
		if *link == p {
			*link = p.next
			break
		}
	}
	p.next = nil
	for _, q := range p.fresh {
		// No record has named it.
		if q.mask() != 0 {
			s.freeAfter(r, q, 0)
		}
	}
	if w := e.whole(); w != 0 && w.mask() == 0 && !p.otherWriters() {
		e.edit(func(q placement) placement {
			if q.mask() != 0 {
				return q
			}
			s.freeAfter(r, q, s.journal.seq)
			return 0
		})
	}
	s.grant(e)
	s.unpin(p.page)
}
