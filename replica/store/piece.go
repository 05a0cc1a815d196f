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

	// state is the entry as it was when the piece began.
	state entryState
	// stage is what io does now.
	stage  stage
	io     vfs.IO
	bounce *block.Buffer
	// sums are the checksums of what was read or written, by block.
	sums [block.BlocksPerExtent]uint32
	// accepted are suspect blocks whose checksum is taken as found.
	accepted uint16
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
	p.task, p.page, p.bounce = nil, nil, nil
	p.granted, p.accepted, p.stage = false, 0, stageNone
	p.state.extent, p.state.data = 0, 0
	p.io.Data, p.io.Err = nil, nil
	p.next = s.freePieces
	s.freePieces = p
}

// enqueue puts p at the end of its extent's queue.
func (s *Store) enqueue(p *piece) {
	e := p.entry()
	if e.last != nil {
		e.last.next = p
	} else {
		e.first = p
	}
	e.last = p
	p.task.waiting++
	s.grant(e)
}

// grant lets every piece of e's queue go that overlaps none before it, unless
// both read.
func (s *Store) grant(e *entry) {
	var read, written uint16
	for p := e.first; p != nil; p = p.next {
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

// release takes p out of its extent's queue. An extent without data that no
// other writer is about to fill is given back.
func (s *Store) release(p *piece) {
	e := p.entry()
	for link := &e.first; *link != nil; link = &(*link).next {
		if *link == p {
			*link = p.next
			break
		}
	}
	e.last = nil
	writers := false
	for q := e.first; q != nil; q = q.next {
		e.last = q
		writers = writers || q.exclusive && q.granted
	}
	p.next = nil
	if e.extent != 0 && e.data == 0 && !writers {
		s.space.unuse(e.extent)
		e.extent = 0
	}
	s.grant(e)
	s.unpin(p.page)
}
