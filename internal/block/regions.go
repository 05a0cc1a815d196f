package block

import (
	"cmp"
	"math/bits"
	"slices"
)

const (
	// RegionPageWords is the number of words of a page of a set of regions.
	RegionPageWords = 8
	// RegionsPerPage is how many regions a page stands for: 8 GiB of a volume.
	RegionsPerPage = 64 * RegionPageWords
	// MaxRegionPages is how many pages a set of a volume of the largest size has.
	MaxRegionPages = MaxVolumeSize / RegionSize / RegionsPerPage
)

// RegionPage is a part of a set of regions: bit r%64 of word r/64%RegionPageWords of
// page r/RegionsPerPage stands for region r.
type RegionPage struct {
	Number uint32
	Words  [RegionPageWords]uint64
}

// Regions is a set of regions: those of its pages that are not empty, in rising order.
// So it takes memory for what is in it, whatever the size of the volume. The zero value
// is the empty set. Like a slice, a copy shares its pages until one of the two changes;
// Clone makes an independent one.
type Regions []RegionPage

// RegionsOf is the set of the given regions.
func RegionsOf(regions ...Region) Regions {
	var s Regions
	for _, r := range regions {
		s.Add(r)
	}
	return s
}

// AllRegions is the set of every region of a volume of size bytes.
func AllRegions(size int64) Regions {
	n := RegionCount(size)
	s := make(Regions, (n+RegionsPerPage-1)/RegionsPerPage)
	for i := range s {
		s[i].Number = uint32(i)
		for k := range s[i].Words {
			if left := n - i*RegionsPerPage - k*64; left >= 64 {
				s[i].Words[k] = ^uint64(0)
			} else if left > 0 {
				s[i].Words[k] = 1<<left - 1
			}
		}
	}
	return s
}

// place is where a region has its bit.
func place(r Region) (page uint32, word int, bit uint64) {
	return uint32(r / RegionsPerPage), int(r / 64 % RegionPageWords), 1 << (r % 64)
}

// find is the position of a page, or the one at which it would be.
func (s Regions) find(number uint32) (int, bool) {
	if n := len(s); n > 0 && s[n-1].Number == number {
		return n - 1, true
	}
	return slices.BinarySearchFunc(s, number, func(p RegionPage, number uint32) int { return cmp.Compare(p.Number, number) })
}

// empty reports whether no region of the page is in the set.
func (p *RegionPage) empty() bool { return p.Words == [RegionPageWords]uint64{} }

// Page is a page of the set, all zeros if nothing of it is there.
func (s Regions) Page(number uint32) RegionPage {
	if i, ok := s.find(number); ok {
		return s[i]
	}
	return RegionPage{Number: number}
}

// Has reports whether r is in the set.
func (s Regions) Has(r Region) bool {
	page, word, bit := place(r)
	i, ok := s.find(page)
	return ok && s[i].Words[word]&bit != 0
}

// Add puts r into the set.
func (s *Regions) Add(r Region) {
	page, word, bit := place(r)
	i, ok := s.find(page)
	if !ok {
		*s = slices.Insert(*s, i, RegionPage{Number: page})
	}
	(*s)[i].Words[word] |= bit
}

// Remove takes r out of the set.
func (s *Regions) Remove(r Region) {
	page, word, bit := place(r)
	i, ok := s.find(page)
	if !ok {
		return
	}
	p := &(*s)[i]
	if p.Words[word] &^= bit; p.empty() {
		*s = slices.Delete(*s, i, i+1)
	}
}

// Union adds every region of t.
func (s *Regions) Union(t Regions) {
	from, to := len(*s)-1, len(*s)-1+t.pagesWithout(*s)
	*s = slices.Grow(*s, to-from)[:to+1]
	// Pages move to their places from the end, so that none is overwritten.
	for k := len(t) - 1; k >= 0; {
		switch {
		case from < 0 || (*s)[from].Number < t[k].Number:
			(*s)[to] = t[k]
			k--
		case (*s)[from].Number > t[k].Number:
			(*s)[to] = (*s)[from]
			from--
		default:
			(*s)[to] = (*s)[from]
			for i, w := range t[k].Words {
				(*s)[to].Words[i] |= w
			}
			from--
			k--
		}
		to--
	}
}

// pagesWithout counts the pages of s that t has not.
func (s Regions) pagesWithout(t Regions) int {
	n, k := 0, 0
	for i := range s {
		for k < len(t) && t[k].Number < s[i].Number {
			k++
		}
		if k == len(t) || t[k].Number != s[i].Number {
			n++
		}
	}
	return n
}

// Subtract takes every region of t out of the set.
func (s *Regions) Subtract(t Regions) {
	kept := (*s)[:0]
	for i := range *s {
		p := (*s)[i]
		for len(t) > 0 && t[0].Number < p.Number {
			t = t[1:]
		}
		if len(t) > 0 && t[0].Number == p.Number {
			for k, w := range t[0].Words {
				p.Words[k] &^= w
			}
		}
		if !p.empty() {
			kept = append(kept, p)
		}
	}
	*s = kept
}

// Contains reports whether every region of t is in the set.
func (s Regions) Contains(t Regions) bool {
	for i := range t {
		p := s.Page(t[i].Number)
		for k, w := range t[i].Words {
			if w&^p.Words[k] != 0 {
				return false
			}
		}
	}
	return true
}

// Intersects reports whether a region is in both sets.
func (s Regions) Intersects(t Regions) bool {
	for i := range t {
		p := s.Page(t[i].Number)
		for k, w := range t[i].Words {
			if w&p.Words[k] != 0 {
				return true
			}
		}
	}
	return false
}

// Within reports whether every region is one of the first n of a volume.
func (s Regions) Within(n int) bool {
	if len(s) == 0 {
		return true
	}
	last := &s[len(s)-1]
	for k := RegionPageWords - 1; ; k-- {
		if w := last.Words[k]; w != 0 {
			return int(last.Number)*RegionsPerPage+k*64+bits.Len64(w) <= n
		}
	}
}

// Empty reports whether the set has no region.
func (s Regions) Empty() bool { return len(s) == 0 }

// Count is the number of regions in the set.
func (s Regions) Count() int {
	n := 0
	for i := range s {
		for _, w := range s[i].Words {
			n += bits.OnesCount64(w)
		}
	}
	return n
}

// Clone is an independent copy.
func (s Regions) Clone() Regions { return append(Regions(nil), s...) }

// Before are the regions of the set that are before r, as an independent set.
func (s Regions) Before(r Region) Regions {
	page, word, bit := place(r)
	i, ok := s.find(page)
	if !ok {
		return s[:i].Clone()
	}
	t := s[:i+1].Clone()
	p := &t[i]
	p.Words[word] &= bit - 1
	clear(p.Words[word+1:])
	if p.empty() {
		t = t[:i]
	}
	return t
}

// Next is the first region of the set that is not before r.
func (s Regions) Next(r Region) (Region, bool) {
	page, word, bit := place(r)
	i, ok := s.find(page)
	if ok {
		if w := s[i].Words[word] &^ (bit - 1); w != 0 {
			return s[i].region(word, w), true
		}
		for k := word + 1; k < RegionPageWords; k++ {
			if w := s[i].Words[k]; w != 0 {
				return s[i].region(k, w), true
			}
		}
		i++
	}
	if i == len(s) {
		return 0, false
	}
	for k := 0; ; k++ {
		if w := s[i].Words[k]; w != 0 {
			return s[i].region(k, w), true
		}
	}
}

// region is that of the lowest bit of w, which are bits of a word of the page.
func (p *RegionPage) region(word int, w uint64) Region {
	return Region(int(p.Number)*RegionsPerPage + word*64 + bits.TrailingZeros64(w))
}

// All yields the regions in rising order.
func (s Regions) All() func(yield func(Region) bool) {
	return func(yield func(Region) bool) {
		for i := range s {
			for k, w := range s[i].Words {
				for ; w != 0; w &= w - 1 {
					if !yield(s[i].region(k, w)) {
						return
					}
				}
			}
		}
	}
}

// AppendPage puts a page at the end of the set, as a decoder does. It reports false for
// one that is empty, or not behind all others.
func (s *Regions) AppendPage(p RegionPage) bool {
	if p.empty() || len(*s) > 0 && p.Number <= (*s)[len(*s)-1].Number {
		return false
	}
	*s = append(*s, p)
	return true
}
