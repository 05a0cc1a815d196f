package block_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// naive is a set of regions that is right at sight.
type naive map[block.Region]bool

func (n naive) sorted() []block.Region {
	var list []block.Region
	for r := range n {
		list = append(list, r)
	}
	slices.Sort(list)
	return list
}

// compare holds a set against a naive one, and looks whether it is as Regions promises:
// no page is empty, and they rise.
func compare(t *testing.T, s block.Regions, n naive) {
	t.Helper()
	want := n.sorted()
	if got := slices.Collect(s.All()); !slices.Equal(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	if s.Count() != len(want) || s.Empty() != (len(want) == 0) {
		t.Fatalf("%d regions, empty: %v, want %d", s.Count(), s.Empty(), len(want))
	}
	for i := range s {
		if s[i].Words == [block.RegionPageWords]uint64{} || i > 0 && s[i].Number <= s[i-1].Number {
			t.Fatalf("page %d of %+v is empty or out of order", i, s)
		}
	}
	end := 0
	if len(want) > 0 {
		end = int(want[len(want)-1]) + 1
	}
	if !s.Within(end) || end > 0 && s.Within(end-1) {
		t.Fatalf("%v is not seen to end at %d", want, end)
	}
}

// few is a random set of a few regions, most of them close together.
func few(random *rand.Rand) (s block.Regions, n naive) {
	n = naive{}
	for range random.IntN(6) {
		r := block.Region(random.IntN(5)*block.RegionsPerPage + random.IntN(3)*63)
		s.Add(r)
		n[r] = true
	}
	return s, n
}

func TestRegionsAgainstNaiveReference(t *testing.T) {
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 1))
		s, n := few(random)
		for range 12 {
			other, others := few(random)
			r := block.Region(random.IntN(5*block.RegionsPerPage + 1))
			before := other.Clone()
			switch random.IntN(4) {
			case 0:
				s.Union(other)
				for r := range others {
					n[r] = true
				}
			case 1:
				s.Subtract(other)
				for r := range others {
					delete(n, r)
				}
			case 2:
				s.Add(r)
				n[r] = true
			default:
				s.Remove(r)
				delete(n, r)
			}
			compare(t, s, n)
			if !slices.Equal(other, before) {
				t.Fatalf("the other set became %v", other)
			}
			after, ok := s.Next(r)
			list := n.sorted()
			if i, _ := slices.BinarySearch(list, r); ok != (i < len(list)) || ok && after != list[i] {
				t.Fatalf("%v: after %d comes %d, %v", list, r, after, ok)
			}
			i, _ := slices.BinarySearch(list, r)
			if got := slices.Collect(s.Before(r).All()); !slices.Equal(got, list[:i]) {
				t.Fatalf("%v: before %d are %v", list, r, got)
			}
			compare(t, s, n)
			contains, intersects := true, false
			for r := range others {
				contains, intersects = contains && n[r], intersects || n[r]
			}
			if s.Contains(other) != contains || s.Intersects(other) != intersects || s.Has(r) != n[r] {
				t.Fatalf("%v and %v: contains %v, intersects %v; %d: %v", n.sorted(), others.sorted(),
					s.Contains(other), s.Intersects(other), r, s.Has(r))
			}
		}
	}
}

func TestAllRegions(t *testing.T) {
	for _, regions := range []int64{0, 1, 63, 64, 65, 511, 512, 513, 5000} {
		n := naive{}
		for r := range regions {
			n[block.Region(r)] = true
		}
		compare(t, block.AllRegions(regions*block.RegionSize), n)
		if regions > 0 {
			compare(t, block.AllRegions(regions*block.RegionSize-block.SectorSize), n)
		}
	}
	if all := block.AllRegions(block.MaxVolumeSize); len(all) != block.MaxRegionPages || all.Count() != block.MaxVolumeSize/block.RegionSize {
		t.Errorf("%d pages, %d regions", len(all), all.Count())
	}
}

// TestRegionsOfALargeVolume: a set takes memory for what is in it, and a copy of it does
// not change with it.
func TestRegionsOfALargeVolume(t *testing.T) {
	const last = block.Region(block.MaxVolumeSize/block.RegionSize - 1)
	s := block.RegionsOf(last)
	if len(s) != 1 {
		t.Fatalf("%d pages", len(s))
	}
	c := s.Clone()
	s.Add(0)
	s.Remove(last)
	compare(t, s, naive{0: true})
	compare(t, c, naive{last: true})
}

// What a set costs where it is asked and changed the most.
func BenchmarkRegions(b *testing.B) {
	sizes := []struct {
		name  string
		bytes int64
	}{{"1GiB", 1 << 30}, {"1TiB", 1 << 40}, {"64TiB", block.MaxVolumeSize}}
	for _, size := range sizes {
		last := block.Region(block.RegionCount(size.bytes) - 1)
		b.Run("far/"+size.name, func(b *testing.B) {
			b.ReportAllocs()
			s := block.RegionsOf(0, last)
			for b.Loop() {
				if !s.Has(last) {
					b.Fatal("it is not there")
				}
				c := s.Clone()
				c.Remove(last)
				c.Union(s)
			}
		})
		b.Run("scattered/"+size.name, func(b *testing.B) {
			b.ReportAllocs()
			var s block.Regions
			random := rand.New(rand.NewPCG(1, 2))
			for range 4096 {
				s.Add(block.Region(random.Uint32N(uint32(last) + 1)))
			}
			for b.Loop() {
				r := block.Region(random.Uint32N(uint32(last) + 1))
				if !s.Has(r) {
					s.Add(r)
					s.Remove(r)
				}
			}
		})
	}
}
