package core

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// chunkSet is a set of chunks of a volume. What it takes, and what its operations cost,
// follows from what is in it: a volume of the largest size has 64 Mi chunks, and clients
// wait while sets are made.
type chunkSet struct {
	// whole are the regions of which all chunks are in the set, parts those of which
	// some are, in rising order.
	whole block.Regions
	parts []chunkPart
	count int
}

// chunkPart has a bit for each chunk of a region that is in the set: not none, and not
// all of them.
type chunkPart struct {
	region block.Region
	chunks uint16
}

const allChunks = ^uint16(0)

// chunksOf has a bit for each chunk of a region that lies in a volume of size bytes.
func chunksOf(r block.Region, size int64) uint16 {
	left := size - r.Span().Offset
	n := (left + block.ChunkSize - 1) / block.ChunkSize
	if n >= block.ChunksPerRegion {
		return allChunks
	}
	return uint16(1)<<uint(max(n, 0)) - 1
}

// chunkPlace is where a chunk has its bit.
func chunkPlace(chunk int64) (r block.Region, mask uint16) {
	return block.Region(chunk / block.ChunksPerRegion), 1 << uint(chunk%block.ChunksPerRegion)
}

func (s *chunkSet) find(r block.Region) (int, bool) {
	return slices.BinarySearchFunc(s.parts, r, func(p chunkPart, r block.Region) int { return cmp.Compare(p.region, r) })
}

// in has a bit for each chunk of a region that is in the set.
func (s *chunkSet) in(r block.Region) uint16 {
	if s.count == 0 {
		return 0
	}
	if i, ok := s.find(r); ok {
		return s.parts[i].chunks
	}
	if s.whole.Has(r) {
		return allChunks
	}
	return 0
}

// set makes those of a region the given ones.
func (s *chunkSet) set(r block.Region, chunks uint16) {
	had := s.in(r)
	if had == chunks {
		return
	}
	s.count += bits.OnesCount16(chunks) - bits.OnesCount16(had)
	i, ok := s.find(r)
	switch part := (chunkPart{region: r, chunks: chunks}); {
	case ok && chunks != 0 && chunks != allChunks:
		s.parts[i] = part
	case ok:
		s.parts = slices.Delete(s.parts, i, i+1)
	case chunks != 0 && chunks != allChunks:
		s.parts = slices.Insert(s.parts, i, part)
	}
	switch allChunks {
	case had:
		s.whole.Remove(r)
	case chunks:
		s.whole.Add(r)
	}
}

// has reports whether a chunk, by its index in the volume, is in the set.
func (s *chunkSet) has(chunk int64) bool {
	r, mask := chunkPlace(chunk)
	return s.in(r)&mask != 0
}

func (s *chunkSet) add(chunk int64) {
	r, mask := chunkPlace(chunk)
	s.set(r, s.in(r)|mask)
}

func (s *chunkSet) remove(chunk int64) {
	r, mask := chunkPlace(chunk)
	s.set(r, s.in(r)&^mask)
}

// addRegions puts whole regions of a volume of size bytes in.
func (s *chunkSet) addRegions(size int64, regions block.Regions) {
	end := block.Region(size / block.RegionSize)
	whole := regions.Before(end)
	s.parts = slices.DeleteFunc(s.parts, func(p chunkPart) bool {
		covered := whole.Has(p.region)
		if covered {
			s.count -= bits.OnesCount16(p.chunks)
		}
		return covered
	})
	had := s.whole.Count()
	if had == 0 {
		s.whole = whole
	} else {
		s.whole.Union(whole)
	}
	s.count += block.ChunksPerRegion * (s.whole.Count() - had)
	if regions.Has(end) {
		s.set(end, s.in(end)|chunksOf(end, size))
	}
}

// after is the first region not before r of which anything is in the set.
func (s *chunkSet) after(r block.Region) (found block.Region, chunks uint16, ok bool) {
	found, ok = s.whole.Next(r)
	chunks = allChunks
	if i, _ := s.find(r); i < len(s.parts) && (!ok || s.parts[i].region < found) {
		return s.parts[i].region, s.parts[i].chunks, true
	}
	return found, chunks, ok
}

// next is the first chunk for which skip is false, from a region on and then from the
// beginning, or -1.
func (s *chunkSet) next(from block.Region, skip func(chunk int64) bool) int64 {
	if s.count == 0 {
		return -1
	}
	for _, turn := range [...]struct{ from, to block.Region }{{from, ^block.Region(0)}, {0, from}} {
		for r, chunks, ok := s.after(turn.from); ok && r < turn.to; r, chunks, ok = s.after(r + 1) {
			for ; chunks != 0; chunks &= chunks - 1 {
				if k := int64(r)*block.ChunksPerRegion + int64(bits.TrailingZeros16(chunks)); !skip(k) {
					return k
				}
			}
		}
	}
	return -1
}

// firstIn is the first chunk in the set that a span reaches into, or -1.
func (s *chunkSet) firstIn(span block.Span) int64 {
	if s.count == 0 {
		return -1
	}
	for k := span.Offset / block.ChunkSize; k <= (span.End()-1)/block.ChunkSize; k++ {
		if s.has(k) {
			return k
		}
	}
	return -1
}

// touches reports whether a span reaches into a chunk in the set.
func (s *chunkSet) touches(span block.Span) bool { return s.firstIn(span) >= 0 }
