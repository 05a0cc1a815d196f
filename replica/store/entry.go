package store

import (
	"math/bits"

	"github.com/holdfast-io/holdfast/internal/block"
)

// placement says where blocks of an extent lie, packed as it is stored: a mask of
// blocks in bits 0 to 15, flags in bits 16 to 23, a base above. Block b of the mask
// is block base+b of the data file.
type placement uint64

// Flags of a placement.
const (
	// placementOwned, in a head: no cut names the place, so that it may be
	// overwritten while the entry is younger than every cut.
	placementOwned = 1 << iota
	// placementForeign: the place belongs to the line that this one is a clone of.
	placementForeign
	// placementSlot: blocks of a split extent; else an extent as a whole.
	placementSlot

	placementFlags = placementOwned | placementForeign | placementSlot
)

func makePlacement(mask uint16, flags uint8, base int64) placement {
	return placement(mask) | placement(flags)<<16 | placement(base)<<24
}

// wholePlacement is an extent of the data file that the head owns.
func wholePlacement(mask uint16, extent uint32) placement {
	return makePlacement(mask, placementOwned, int64(extent)*block.BlocksPerExtent)
}

func (p placement) mask() uint16  { return uint16(p) }
func (p placement) flags() uint8  { return uint8(p >> 16) }
func (p placement) base() int64   { return int64(p >> 24) }
func (p placement) owned() bool   { return p.flags()&placementOwned != 0 }
func (p placement) foreign() bool { return p.flags()&placementForeign != 0 }
func (p placement) slot() bool    { return p.flags()&placementSlot != 0 }

// extent is that of a placement of a whole one.
func (p placement) extent() uint32 { return uint32(p.base() / block.BlocksPerExtent) }

func (p placement) withMask(mask uint16) placement { return p&^0xffff | placement(mask) }

func (p placement) withFlags(flags uint8) placement {
	return p&^(0xff<<16) | placement(flags)<<16
}

// area is a part of the data file that is taken and freed: blocks of a split
// extent, or, with no block named, an extent as a whole.
type area struct {
	extent uint32
	blocks uint16
}

// size is in blocks.
func (a area) size() int64 {
	if a.blocks == 0 {
		return block.BlocksPerExtent
	}
	return int64(bits.OnesCount16(a.blocks))
}

// areas yields the one or two areas that p names.
func (p placement) areas(yield func(area) bool) {
	if !p.slot() {
		yield(area{extent: p.extent()})
		return
	}
	first := uint32(p.base() / block.BlocksPerExtent)
	wide := uint32(p.mask()) << (p.base() % block.BlocksPerExtent)
	if low := uint16(wide); low != 0 && !yield(area{extent: first, blocks: low}) {
		return
	}
	if high := uint16(wide >> block.BlocksPerExtent); high != 0 {
		yield(area{extent: first + 1, blocks: high})
	}
}

// entryState is one extent of a map, as in memory and on disk: all that a head or
// a cut has of it.
type entryState struct {
	// layer is the number that the head had when the extent last changed. 0: the
	// map has no entry; what is here then shows through from the line's origin.
	layer uint32
	// data has bit b set when block b has been written.
	data uint16
	// first and more are where they lie, each block in one of them. The list of
	// more is never changed in place, for copies of the state share it. A whole
	// extent without blocks is one that a write in flight is about to fill.
	first placement
	more  *[]placement
	// sums are the checksums of the blocks in data.
	sums [block.BlocksPerExtent]uint32
}

// placements yields every placement.
func (e *entryState) placements(yield func(placement) bool) {
	if e.first == 0 || !yield(e.first) || e.more == nil {
		return
	}
	for _, p := range *e.more {
		if !yield(p) {
			return
		}
	}
}

// at is the block of the data file where block b lies, 0 for nowhere.
func (e *entryState) at(b int) int64 {
	if e.data&(1<<b) == 0 {
		return 0
	}
	if e.first.mask()&(1<<b) != 0 {
		return e.first.base() + int64(b)
	}
	for _, p := range *e.more {
		if p.mask()&(1<<b) != 0 {
			return p.base() + int64(b)
		}
	}
	return 0
}

// flagged has the blocks of the placements with a flag.
func (e *entryState) flagged(flag uint8) (mask uint16) {
	for p := range e.placements {
		if p.flags()&flag != 0 {
			mask |= p.mask()
		}
	}
	return mask
}

// whole finds the extent that the head owns as a whole, 0 if there is none. One that
// was just taken, and is empty, comes before what a cut may hold, too. There may be
// more, for a cut that is dropped leaves the head what it had.
func (e *entryState) whole() (found placement) {
	for p := range e.placements {
		if p.flags()&(placementOwned|placementSlot) == placementOwned && (found == 0 || p.mask() == 0) {
			found = p
		}
	}
	return found
}

// names reports whether a placement of e is of the whole extent n.
func (e *entryState) names(n uint32) bool {
	for p := range e.placements {
		if !p.slot() && !p.foreign() && p.mask() != 0 && p.extent() == n {
			return true
		}
	}
	return false
}

// edit replaces each placement by what f makes of it; 0 removes it.
func (e *entryState) edit(f func(placement) placement) {
	if e.more == nil {
		e.first = f(e.first)
		e.data = e.first.mask()
		return
	}
	list := make([]placement, 0, 1+len(*e.more))
	for p := range e.placements {
		if p = f(p); p != 0 {
			list = append(list, p)
		}
	}
	e.set(list)
}

// set makes list the placements of e, which keeps it.
func (e *entryState) set(list []placement) {
	e.first, e.more, e.data = 0, nil, 0
	for _, p := range list {
		e.data |= p.mask()
	}
	if len(list) > 0 {
		e.first = list[0]
	}
	if len(list) > 1 {
		more := list[1:]
		e.more = &more
	}
}

// add puts blocks that e does not have at a base.
func (e *entryState) add(mask uint16, flags uint8, base int64) {
	like := makePlacement(0, flags, base)
	e.data |= mask
	if e.first == 0 || e.first.withMask(0) == like {
		e.first = like | e.first&0xffff | placement(mask)
		return
	}
	var list []placement
	if e.more != nil {
		list = append(list, *e.more...)
	}
	for i, p := range list {
		if p.withMask(0) == like {
			list[i] |= placement(mask)
			e.more = &list
			return
		}
	}
	list = append(list, like|placement(mask))
	e.more = &list
}

// kept is e as a cut keeps it: nothing is owned or about to be filled.
func (e *entryState) kept() *entryState {
	k := *e
	k.edit(func(p placement) placement {
		if p.mask() == 0 {
			return 0
		}
		return p.withFlags(p.flags() &^ placementOwned)
	})
	return &k
}

// shared has the blocks that lie at the same place in both.
func (e *entryState) shared(o *entryState) (mask uint16) {
	both := e.data & o.data
	for b := range block.BlocksPerExtent {
		if both&(1<<b) != 0 && e.at(b) == o.at(b) {
			mask |= 1 << b
		}
	}
	return mask
}
