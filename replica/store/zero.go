package store

import (
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// startZero begins a zeroing.
//
// Rule 12 (zeroes): the range reads as zeros, partial blocks at its edges included,
// which are zeroed by writing them; whole blocks leave the map, and what is in no
// map reads as zeros (sumRead), whatever their extent holds. Trims and zeroings are
// the same request, mirrored like writes.
func (s *Store) startZero(p *piece) {
	s.zeroEdges(p, stageHead)
}

// zeroEdgeMask has the blocks at the edges that p zeroes in part.
func (p *piece) zeroEdgeMask() uint16 { return p.mask &^ insideMask(p.from, p.to) }

func (s *Store) zeroEdges(p *piece, from stage) {
	head := p.from &^ (block.BlockSize - 1)
	if from == stageHead && p.from%block.BlockSize != 0 && s.readZeroEdge(p, stageHead, head) {
		return
	}
	tail := p.to &^ (block.BlockSize - 1)
	if p.to%block.BlockSize != 0 && (tail != head || p.from%block.BlockSize == 0) && from <= stageTail {
		if s.readZeroEdge(p, stageTail, tail) {
			return
		}
	}
	if cleared := p.entry().data & insideMask(p.from, p.to); cleared != 0 {
		s.advance(p)
		s.drop(p, cleared)
		s.note(p)
	}
	s.endJournaled(p, nil)
}

func (s *Store) readZeroEdge(p *piece, stage stage, at int) bool {
	if p.bounce == nil {
		p.bounce = block.NewBuffer(block.BlockSize)
	}
	return s.readEdge(p, stage, at, p.bounce.Data)
}

// writeZeroEdge blanks the part of the block just read that p covers.
func (s *Store) writeZeroEdge(p *piece) {
	at := p.first * block.BlockSize
	from, to := max(p.from-at, 0), min(p.to-at, block.BlockSize)
	clear(p.bounce.Data[from:to])
	next := stageHeadZero
	if p.stage == stageTail {
		next = stageTailZero
	}
	s.submit(p, next, vfs.Write, p.first, p.target[p.first], p.bounce.Data)
}

func (s *Store) edgeWritten(p *piece) {
	if p.io.Err != nil {
		s.writeFailed(p)
		return
	}
	s.placed(p, 1<<p.first)
	if p.stage == stageHeadZero {
		s.zeroEdges(p, stageTail)
		return
	}
	s.zeroEdges(p, stageWrite)
}
