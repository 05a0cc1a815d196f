package store

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/holdfast-io/holdfast/internal/block"
)

// splitPageExtents is the number of extents whose blocks are kept together.
const splitPageExtents = 4096

// splitPage has the used blocks of the split extents among its own. Their durable
// blocks are the same, but for the few extents that the allocator lists.
type splitPage [splitPageExtents]uint16

// splitExtent is an extent whose blocks are taken one by one; one without any is
// not split.
type splitExtent struct{ used, durable uint16 }

func (s splitExtent) taken() uint16 { return s.used | s.durable }

// free is the number of blocks that can be taken without splitting another.
func (s splitExtent) free() int64 {
	if s.taken() == 0 {
		return 0
	}
	return int64(block.BlocksPerExtent - bits.OnesCount16(s.taken()))
}

// blocks are those of extent n; none if it is not split.
func (a *allocator) blocks(n uint32) splitExtent {
	if i := int(n / splitPageExtents); i < len(a.split) && a.split[i] != nil {
		used := a.split[i][n%splitPageExtents]
		if durable, ok := a.unsettled[n]; ok {
			return splitExtent{used: used, durable: durable}
		}
		return splitExtent{used: used, durable: used}
	}
	return splitExtent{}
}

// settle notes the durable blocks of extent n.
func (a *allocator) settle(n uint32, s splitExtent) {
	if s.used == s.durable {
		delete(a.unsettled, n)
		return
	}
	if a.unsettled == nil {
		a.unsettled = map[uint32]uint16{}
	}
	a.unsettled[n] = s.durable
}

// setBlocks makes next the blocks of extent n, which is split or free.
func (a *allocator) setBlocks(n uint32, next splitExtent) {
	i := int(n / splitPageExtents)
	for i >= len(a.split) {
		a.split = append(a.split, nil)
	}
	if a.split[i] == nil {
		a.split[i] = new(splitPage)
		a.splitPages++
	}
	old := a.blocks(n)
	a.split[i][n%splitPageExtents] = next.used
	a.settle(n, next)
	a.slots += next.free() - old.free()
	a.freeing += int64(bits.OnesCount16(next.durable&^next.used)) - int64(bits.OnesCount16(old.durable&^old.used))
	switch {
	case old.taken() == 0 && next.taken() != 0:
		a.free--
	case old.taken() != 0 && next.taken() == 0:
		a.free++
	}
	a.used.put(n, next.used != 0)
	a.durable.put(n, next.durable != 0)
	a.partial.put(n, next.free() > 0)
}

func (s *bitset) put(n uint32, in bool) {
	if in {
		s.add(n)
	} else {
		s.remove(n)
	}
}

// available is the number of blocks that slots can be made of, beside as many
// whole extents.
func (a *allocator) available(extents int64) int64 {
	return a.slots + (a.free-extents)*block.BlocksPerExtent
}

// slotSearch bounds the split extents that are looked at for a run of blocks.
const slotSearch = 32

// allocSlots takes a run of at most n blocks, and returns the first and how many
// they are. Fewer than n come only when no extent is free. There must be room.
func (a *allocator) allocSlots(n int) (first int64, count int) {
	at, found := a.nextSlot, 0
	for range slotSearch {
		e, ok := a.nextPartial(at)
		if !ok {
			break
		}
		if b := freeRun(a.blocks(e).taken(), n); b >= 0 {
			return a.takeSlots(e, b, n), n
		}
		at, found = e+1, found+1
	}
	if a.free > 0 {
		return a.takeSlots(a.find(), 0, n), n
	}
	// What is left is in pieces.
	for e, ok := a.nextPartial(a.nextSlot); ok; e, ok = a.nextPartial(e + 1) {
		for count = n; count > 0; count-- {
			if b := freeRun(a.blocks(e).taken(), count); b >= 0 {
				return a.takeSlots(e, b, count), count
			}
		}
	}
	return 0, 0
}

func (a *allocator) takeSlots(n uint32, b, count int) int64 {
	s := a.blocks(n)
	s.used |= uint16(1<<count-1) << b
	a.setBlocks(n, s)
	a.nextSlot = n
	return int64(n)*block.BlocksPerExtent + int64(b)
}

// nextPartial finds a split extent with free blocks, from one on, then from the
// beginning.
func (a *allocator) nextPartial(from uint32) (uint32, bool) {
	if a.slots == 0 {
		return 0, false
	}
	if n, ok := a.partial.next(from); ok {
		return n, true
	}
	return a.partial.next(0)
}

// next is the first member that is not below n.
func (s bitset) next(n uint32) (uint32, bool) {
	for i := int(n / 64); i < len(s); i++ {
		w := s[i]
		if i == int(n/64) {
			w &= ^uint64(0) << (n % 64)
		}
		if w != 0 {
			return uint32(i*64 + bits.TrailingZeros64(w)), true
		}
	}
	return 0, false
}

// freeRun is the first of n blocks side by side that are not taken, -1 if there
// are none.
func freeRun(taken uint16, n int) int {
	want := uint16(1<<n - 1)
	for b := 0; b+n <= block.BlocksPerExtent; b++ {
		if taken>>b&want == 0 {
			return b
		}
	}
	return -1
}

// The same for areas of either kind.

func (a *allocator) useArea(r area) {
	if r.blocks == 0 {
		a.use(r.extent)
		return
	}
	s := a.blocks(r.extent)
	s.used |= r.blocks
	a.setBlocks(r.extent, s)
}

func (a *allocator) unuseArea(r area) {
	if r.blocks == 0 {
		a.unuse(r.extent)
		return
	}
	s := a.blocks(r.extent)
	s.used &^= r.blocks
	a.setBlocks(r.extent, s)
}

func (a *allocator) persistArea(r area) {
	if r.blocks == 0 {
		a.persist(r.extent)
		return
	}
	s := a.blocks(r.extent)
	s.durable |= r.blocks
	a.setBlocks(r.extent, s)
}

func (a *allocator) forgetArea(r area) {
	if r.blocks == 0 {
		a.forget(r.extent)
		return
	}
	s := a.blocks(r.extent)
	s.durable &^= r.blocks
	a.setBlocks(r.extent, s)
}

// durablePart and undurable are the parts of r that are durable and that are not;
// the second result is false if there is none.

func (a *allocator) durablePart(r area) (area, bool) {
	if r.blocks == 0 {
		return r, a.durable.has(r.extent)
	}
	r.blocks &= a.blocks(r.extent).durable
	return r, r.blocks != 0
}

func (a *allocator) undurable(r area) (area, bool) {
	if r.blocks == 0 {
		return r, !a.durable.has(r.extent)
	}
	r.blocks &^= a.blocks(r.extent).durable
	return r, r.blocks != 0
}

// hide takes areas out of the durable set, and show puts them back, without
// counting: for the bytes of a commit that is not the one to change them.

func (a *allocator) hide(r area) {
	if r.blocks != 0 {
		s := a.blocks(r.extent)
		s.durable &^= r.blocks
		a.settle(r.extent, s)
		if s.durable != 0 {
			return
		}
	}
	a.durable.remove(r.extent)
}

func (a *allocator) show(r area) {
	if r.blocks != 0 {
		s := a.blocks(r.extent)
		s.durable |= r.blocks
		a.settle(r.extent, s)
	}
	a.durable.add(r.extent)
}

// isFree reports whether nothing of r is used or durable.
func (a *allocator) isFree(r area) bool {
	taken := a.blocks(r.extent).taken()
	if r.blocks == 0 || taken == 0 {
		return !a.used.has(r.extent) && !a.durable.has(r.extent)
	}
	return taken&r.blocks == 0
}

// takenBlocks is the number of blocks that are used or durable.
func (a *allocator) takenBlocks() int64 {
	return (int64(a.end)-firstExtent-a.free)*block.BlocksPerExtent - a.slots
}

func splitKey(b []byte, extent uint32) []byte {
	return binary.BigEndian.AppendUint32(append(b, keySplit), extent)
}

// loadSplit splits an extent that an allocation page marked as taken.
func (a *allocator) loadSplit(extent uint32, value []byte) error {
	d := decoder{rest: value}
	mask := d.u16()
	if err := d.end("split extent"); err != nil {
		return err
	}
	if mask == 0 || !a.durable.has(extent) || a.blocks(extent).taken() != 0 {
		return fmt.Errorf("decode split extent %d, blocks %#x: %w", extent, mask, block.ErrCorrupt)
	}
	a.unuse(extent)
	a.forget(extent)
	a.setBlocks(extent, splitExtent{used: mask, durable: mask})
	return nil
}
