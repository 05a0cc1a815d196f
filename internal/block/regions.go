package block

import "math/bits"

// Regions is a set of regions: bit r%64 of word r/64 stands for region r. The
// zero value is the empty set; it grows as regions are added.
type Regions []uint64

// AllRegions is the set of every region of a volume of size bytes.
func AllRegions(size int64) Regions {
	n := RegionCount(size)
	s := make(Regions, (n+63)/64)
	for r := range n {
		s[r/64] |= 1 << (r % 64)
	}
	return s
}

// Has reports whether r is in the set.
func (s Regions) Has(r Region) bool {
	return int(r/64) < len(s) && s[r/64]&(1<<(r%64)) != 0
}

// Add puts r into the set.
func (s *Regions) Add(r Region) {
	for int(r/64) >= len(*s) {
		*s = append(*s, 0)
	}
	(*s)[r/64] |= 1 << (r % 64)
}

// Remove takes r out of the set.
func (s Regions) Remove(r Region) {
	if int(r/64) < len(s) {
		s[r/64] &^= 1 << (r % 64)
	}
}

// Union adds every region of t.
func (s *Regions) Union(t Regions) {
	for len(*s) < len(t) {
		*s = append(*s, 0)
	}
	for i, w := range t {
		(*s)[i] |= w
	}
}

// Subtract takes every region of t out of the set.
func (s Regions) Subtract(t Regions) {
	for i := range min(len(s), len(t)) {
		s[i] &^= t[i]
	}
}

// Contains reports whether every region of t is in the set.
func (s Regions) Contains(t Regions) bool {
	for i, w := range t {
		if w == 0 {
			continue
		}
		if i >= len(s) || w&^s[i] != 0 {
			return false
		}
	}
	return true
}

// Empty reports whether the set has no region.
func (s Regions) Empty() bool {
	for _, w := range s {
		if w != 0 {
			return false
		}
	}
	return true
}

// Count is the number of regions in the set.
func (s Regions) Count() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// Clone is an independent copy.
func (s Regions) Clone() Regions { return append(Regions(nil), s...) }

// All yields the regions in rising order.
func (s Regions) All() func(yield func(Region) bool) {
	return func(yield func(Region) bool) {
		for i, w := range s {
			for ; w != 0; w &= w - 1 {
				if !yield(Region(i*64 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}
