package store

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// startRead reads the blocks of the piece that have data. It reads into the
// caller's buffer where the piece is made of whole blocks.
func (s *Store) startRead(p *piece) {
	out := p.payload()
	present := p.state.data & p.mask
	if present == 0 {
		clear(out)
		s.pieceDone(p, nil)
		return
	}
	from, to := dataRange(present)
	p.buffer, p.bufferFrom = nil, from
	if from < p.from || to > p.to || p.task.op.Offset%block.BlockSize != 0 {
		p.bounce = block.NewBuffer(to - from)
		p.buffer = p.bounce.Data
	} else {
		clear(out[:from-p.from])
		clear(out[to-p.from:])
		p.buffer = out[from-p.from : to-p.from]
	}
	p.left = present
	s.readRun(p)
}

// startHash reads a whole extent.
func (s *Store) startHash(p *piece) {
	if p.task.since != 0 && p.state.same(p.before) {
		s.pieceDone(p, nil)
		return
	}
	if p.state.data == 0 {
		p.result().Sum = s.zeroSum
		s.pieceDone(p, nil)
		return
	}
	p.bounce = block.NewBuffer(block.ExtentSize)
	from, to := dataRange(p.state.data)
	clear(p.bounce.Data[:from])
	clear(p.bounce.Data[to:])
	p.buffer, p.bufferFrom = p.bounce.Data[from:to], from
	p.left = p.state.data
	s.readRun(p)
}

// readRun reads the next blocks that lie in a row, and blanks those without data
// before them.
func (s *Store) readRun(p *piece) {
	first, end := run(p.left, p.state.at)
	clean := p.bufferFrom
	if p.stage == stageRead {
		clean = p.first*block.BlockSize + len(p.io.Data)
	}
	from, to := first*block.BlockSize, end*block.BlockSize
	clear(p.buffer[clean-p.bufferFrom : from-p.bufferFrom])
	p.left &^= blockMask(from, to)
	s.submit(p, stageRead, vfs.Read, first, p.state.at(first), p.buffer[from-p.bufferFrom:to-p.bufferFrom])
}

// run finds the first blocks of left that lie at the same distance in the data
// file as in the extent, with those between them.
func run(left uint16, at func(b int) int64) (first, end int) {
	first = -1
	base := int64(0)
	for b := range block.BlocksPerExtent {
		if left&(1<<b) == 0 {
			continue
		}
		switch place := at(b) - int64(b); {
		case first < 0:
			first, end, base = b, b+1, place
		case place == base:
			end = b + 1
		default:
			return first, end
		}
	}
	return first, end
}

func (s *Store) readDone(p *piece) {
	if p.io.Err == nil && p.left != 0 {
		s.readRun(p)
		return
	}
	t := p.task
	if t.op.Kind == Hash {
		s.hashDone(p)
		return
	}
	if p.io.Err != nil {
		clear(p.payload())
		s.pieceDone(p, p.io.Err)
		return
	}
	bad := p.mismatches(p.state.data & p.mask)
	if bad != 0 {
		p.acceptSuspect(&bad)
	}
	if bad != 0 {
		s.badBlocks(p, bad)
		clear(p.payload())
		s.pieceDone(p, fmt.Errorf("block at %d: %w", t.bad, block.ErrChecksum))
		return
	}
	if p.bounce != nil {
		p.copyOut()
	}
	s.pieceDone(p, nil)
}

// copyOut moves what was read to the caller's buffer.
func (p *piece) copyOut() {
	out := p.payload()
	clear(out)
	if p.bufferFrom >= p.from {
		copy(out[p.bufferFrom-p.from:], p.bounce.Data)
	} else {
		copy(out, p.bounce.Data[p.from-p.bufferFrom:])
	}
}

// mismatches are the blocks of mask, which p has read, whose checksums are not
// those of the map. Another reader may have taken one as found since p began, and the
// region may have left the log by that.
func (p *piece) mismatches(mask uint16) (bad uint16) {
	e := p.entry()
	for b := range block.BlocksPerExtent {
		if mask&(1<<b) == 0 || p.sums[b] == p.state.sums[b] {
			continue
		}
		if e.at(b) != p.state.at(b) || p.sums[b] != e.sums[b] {
			bad |= 1 << b
		}
	}
	return bad
}

// suspect reports whether checksums of what p has read may be stale after a crash.
// They never are for what a valid cut has, or a clone shows.
func (p *piece) suspect() bool {
	r := p.page.replica
	return !p.kept && p.state.layer > r.newestValid && r.suspect.Has(p.region())
}

// acceptSuspect takes the checksums of the bad blocks as found, if the Op allows
// it and they lie in the unflushed set of a reopened store.
func (p *piece) acceptSuspect(bad *uint16) {
	if p.task.op.Flags&block.FlagAcceptSuspect == 0 || !p.suspect() {
		return
	}
	e := p.entry()
	for b := range block.BlocksPerExtent {
		if *bad&(1<<b) != 0 && e.at(b) == p.state.at(b) {
			e.sums[b] = p.sums[b]
		}
	}
	markStale(p.page, e)
	*bad = 0
}

// result is the place of p's extent in the results of a Hash.
func (p *piece) result() *block.ExtentHash {
	return &p.task.op.Hashes[(p.start()-p.task.op.Offset)/block.ExtentSize]
}

func (s *Store) hashDone(p *piece) {
	if p.io.Err != nil {
		s.pieceDone(p, p.io.Err)
		return
	}
	bad := p.mismatches(p.state.data)
	if p.suspect() {
		p.result().Suspect = bad
	} else {
		p.result().Bad = bad
	}
	s.pieceDone(p, nil)
}
