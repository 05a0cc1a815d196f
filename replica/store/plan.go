package store

import (
	"math/bits"

	"github.com/holdfast-io/holdfast/internal/block"
)

// ownSlots is the number of small places of its own at which an entry gets a whole
// extent for what it writes next.
const ownSlots = 4

// writes are the blocks that p writes: for a zeroing those at its edges, if they
// have data.
func (p *piece) writes() uint16 {
	if p.task.op.Kind == Zero {
		if p.task.layer != 0 {
			return 0
		}
		return p.zeroEdgeMask() & p.entry().data
	}
	return blockMask(p.from, p.to)
}

// need tells which blocks p writes to places that its entry does not have, and
// whether it takes a whole extent for them. What the head alone has is written in
// place; the extent that it owns as a whole has room for each other block.
func (p *piece) need() (fresh uint16, whole bool) {
	e := p.entry()
	if p.task.layer != 0 {
		fresh = p.writes()
		return fresh, fresh != 0
	}
	if w := e.whole(); w != 0 && (w.mask() == 0 || p.current()) {
		return 0, false
	}
	fresh = p.writes()
	if p.current() {
		fresh &^= e.flagged(placementOwned)
	}
	if fresh == 0 {
		return 0, false
	}
	return fresh, e.data == 0 || fresh == 1<<block.BlocksPerExtent-1 || p.current() && e.owned() >= ownSlots
}

// owned counts the places of its own.
func (e *entryState) owned() (n int) {
	for p := range e.placements {
		if p.owned() {
			n++
		}
	}
	return n
}

// takeExtent gives p a whole extent. In the head it is there for the writes of
// other pieces, too.
func (p *piece) takeExtent(n uint32) {
	if p.task.layer != 0 {
		p.fresh = append(p.fresh, wholePlacement(p.writes(), n))
		return
	}
	p.entry().add(0, placementOwned, int64(n)*block.BlocksPerExtent)
}

// plan decides where each block goes that p writes, and takes slots for those that
// have no place to go to.
func (p *piece) plan(s *Store) {
	p.target = [block.BlocksPerExtent]int64{}
	e, fresh := p.entry(), uint16(0)
	if p.task.layer == 0 {
		fresh, _ = p.need()
	}
	for fresh != 0 {
		b := bits.TrailingZeros16(fresh)
		at, n := s.space.allocSlots(bits.TrailingZeros16(^(fresh >> b)))
		mask := uint16(1<<n-1) << b
		p.fresh = append(p.fresh, makePlacement(mask, placementOwned|placementSlot, at-int64(b)))
		fresh &^= mask
	}
	left := p.writes()
	for _, q := range p.fresh {
		left &^= q.mask()
		for b := range block.BlocksPerExtent {
			if q.mask()&(1<<b) != 0 {
				p.target[b] = q.base() + int64(b)
			}
		}
	}
	if left == 0 {
		return
	}
	w := e.whole()
	owned := uint16(0)
	if p.current() {
		owned = e.flagged(placementOwned)
	}
	for b := range block.BlocksPerExtent {
		switch bit := uint16(1 << b); {
		case left&bit == 0:
		case owned&bit != 0:
			p.target[b] = e.at(b)
		default:
			p.target[b] = w.base() + int64(b)
		}
	}
}
