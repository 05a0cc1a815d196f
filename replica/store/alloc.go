package store

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/holdfast-io/holdfast/internal/block"
)

// bitset is a set of extents by number; it grows as needed.
type bitset []uint64

func (s bitset) has(n uint32) bool {
	return int(n/64) < len(s) && s[n/64]&(1<<(n%64)) != 0
}

func (s *bitset) add(n uint32) {
	for int(n/64) >= len(*s) {
		*s = append(*s, 0)
	}
	(*s)[n/64] |= 1 << (n % 64)
}

func (s bitset) remove(n uint32) {
	if int(n/64) < len(s) {
		s[n/64] &^= 1 << (n % 64)
	}
}

func (s bitset) word(i int) uint64 {
	if i < len(s) {
		return s[i]
	}
	return 0
}

// allocator knows which extents of the data file are taken, and which blocks of
// those that are split. An extent or block is free only when neither the map in
// memory uses it nor the durable one, including a commit in flight.
type allocator struct {
	// used are the extents that entries in memory name or writes in flight fill. A
	// split one is used, and durable, when any of its blocks is.
	used bitset
	// durable are the extents that the database names, or will if the round and
	// the commit in flight succeed.
	durable bitset
	// split are the used blocks of split extents, by page, of which there are
	// splitPages; unsettled are the durable
	// ones of those of which the two differ, which a flush round makes equal. partial
	// are the extents of which blocks are free.
	split      []*splitPage
	splitPages int64
	unsettled  map[uint32]uint16
	partial    bitset
	// end is the first extent past the data file.
	end uint32
	// free counts the free extents below end, slots the free blocks of split ones;
	// freeing the blocks that are durable but no longer used.
	free    int64
	slots   int64
	freeing int64
	// next is where the search for an extent begins, nextSlot that for blocks.
	next     uint32
	nextSlot uint32
}

// grow makes the extents below end usable.
func (a *allocator) grow(end uint32) {
	if end > a.end {
		a.free += int64(end) - int64(max(a.end, firstExtent))
		a.end = end
	}
}

// alloc takes a free extent; there must be one.
func (a *allocator) alloc() uint32 {
	n := a.find()
	if n != 0 {
		a.use(n)
	}
	return n
}

// find is the next free extent.
func (a *allocator) find() uint32 {
	n := a.search(max(a.next, firstExtent), a.end)
	if n == 0 {
		n = a.search(firstExtent, a.end)
	}
	if n != 0 {
		a.next = n + 1
	}
	return n
}

// search finds a free extent in [from, to), 0 if there is none.
func (a *allocator) search(from, to uint32) uint32 {
	for n := from; n < to; {
		taken := (a.used.word(int(n/64)) | a.durable.word(int(n/64))) >> (n % 64)
		skip := uint32(bits.TrailingZeros64(^taken))
		if skip == 0 {
			return n
		}
		if n%64+skip < 64 {
			n += skip
			if n < to {
				return n
			}
			return 0
		}
		n += 64 - n%64
	}
	return 0
}

// use marks an extent as named by memory.
func (a *allocator) use(n uint32) {
	if a.used.has(n) {
		return
	}
	if a.durable.has(n) {
		a.freeing -= block.BlocksPerExtent
	} else {
		a.free--
	}
	a.used.add(n)
}

// unuse marks an extent as no longer named by memory.
func (a *allocator) unuse(n uint32) {
	if !a.used.has(n) {
		return
	}
	a.used.remove(n)
	if a.durable.has(n) {
		a.freeing += block.BlocksPerExtent
	} else {
		a.free++
	}
}

// persist marks an extent as named by the database.
func (a *allocator) persist(n uint32) {
	if a.durable.has(n) {
		return
	}
	if !a.used.has(n) {
		a.free--
		a.freeing += block.BlocksPerExtent
	}
	a.durable.add(n)
}

// forget marks an extent as no longer named by the database.
func (a *allocator) forget(n uint32) {
	if !a.durable.has(n) {
		return
	}
	a.durable.remove(n)
	if !a.used.has(n) {
		a.freeing -= block.BlocksPerExtent
		a.free++
	}
}

// allocationPageWords is the number of words of the allocation map under one
// key.
const allocationPageWords = 64

func allocationKey(b []byte, page uint32) []byte {
	return binary.BigEndian.AppendUint32(append(b, keyAllocation), page)
}

func allocationPage(extent uint32) uint32 { return extent / (64 * allocationPageWords) }

// appendAllocationPage encodes a page of the durable set.
func (a *allocator) appendAllocationPage(b []byte, page uint32) []byte {
	for i := range allocationPageWords {
		b = binary.LittleEndian.AppendUint64(b, a.durable.word(int(page)*allocationPageWords+i))
	}
	return b
}

// loadAllocationPage adds a stored page to both sets of a.
func (a *allocator) loadAllocationPage(page uint32, b []byte) error {
	if len(b) != 8*allocationPageWords || page > allocationPage(maxExtents-1) {
		return fmt.Errorf("decode allocation page %d of %d bytes: %w", page, len(b), block.ErrCorrupt)
	}
	for i := range allocationPageWords {
		for w := binary.LittleEndian.Uint64(b[8*i:]); w != 0; w &= w - 1 {
			n := (page*allocationPageWords+uint32(i))*64 + uint32(bits.TrailingZeros64(w))
			if n < firstExtent || n >= a.end {
				return fmt.Errorf("decode allocation page %d at byte %d: extent %d lies outside the data file: %w", page, 8*i, n, block.ErrCorrupt)
			}
			a.use(n)
			a.persist(n)
		}
	}
	return nil
}
